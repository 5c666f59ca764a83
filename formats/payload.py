"""Which kind of payload is a file, as the td-shim specification counts them?"""

from __future__ import annotations

from formats import elf, linux, pe, signed
from formats.hob import PayloadImage


def kind(file: bytes, *, place: str = "payload") -> PayloadImage:
    """FormatError: it is none, or what its headers name is missing. Signed: that of what is signed.

    An ELF file whose entry lies in a segment by its virtual address is an executable. That of a vmlinux is a
    physical one.
    """
    if file.startswith(signed.SIGNED_PAYLOAD.bytes_le):
        return kind(signed.read(file, place=place).payload, place=place)
    if file.startswith(elf.MAGIC):
        found = elf.executable(file, place=place)
        inside = any(part.virtual <= found.entry < part.virtual + part.size for part in found.segments)
        return PayloadImage.EXECUTABLE if inside else PayloadImage.VMLINUX
    if pe.is_executable(file) and not linux.is_marked(file):
        return PayloadImage.EXECUTABLE
    linux.kernel(file, place=place)
    return PayloadImage.BZIMAGE
