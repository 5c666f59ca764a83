"""How do a kernel and an initrd travel together in one Payload section?

The format is this project's own: the kernel cut to its true length, zeros to the next 4 KiB boundary, a 4 KiB
header page, the initrd. A plain kernel is a bundle without an initrd. The kernel is a bzImage or an ELF file.
"""

from __future__ import annotations

from uuid import UUID

import construct as c
from construct import Bytes, Int64ul

from formats import elf
from formats.errors import TruncatedError
from formats.linux import kernel
from formats.structs import pack, unpack
from formats.units import PAGE

GUID = UUID("7d1b3c52-86a4-4e0f-9d3a-5c1fe2b0a764")  # docs/decisions/0007-payload-bundle.md

HEADER = (
    "payload_bundle" / c.Struct("guid" / Bytes(16), "initrd_size" / Int64ul, "reserved" / Bytes(4072))
) * "Header page between kernel and initrd of a payload bundle, docs/decisions/0007"


def kernel_length(file: bytes, *, place: str = "kernel") -> int:
    """Of a kernel without what follows it. FormatError: it is none."""
    if file.startswith(elf.MAGIC):
        return elf.true_length(file, place=place)
    return kernel(file, place=place).true_length


def write(kernel_file: bytes, initrd: bytes = b"", *, place: str = "kernel") -> bytes:
    """What goes into the Payload section, without an initrd the kernel alone. FormatError: not a kernel."""
    image = kernel_file[: kernel_length(kernel_file, place=place)]
    if not initrd:
        return image
    head = pack(HEADER, guid=GUID.bytes_le, initrd_size=len(initrd))
    return image + bytes(-len(image) % PAGE) + head + initrd


def read(section: bytes, *, place: str = "payload") -> tuple[bytes, bytes]:
    """Kernel and initrd (empty if there is none) of a Payload section's bytes."""
    length = kernel_length(section, place=place)
    start = length + -length % PAGE
    if section[start : start + 16] != GUID.bytes_le:
        return section[:length], b""
    head = unpack(HEADER, section, start, place=place)
    first = start + HEADER.sizeof()
    if first + head.initrd_size > len(section):
        raise TruncatedError(
            f"{place} offset {start:#x}",
            f"an initrd of {head.initrd_size} bytes",
            f"at most {len(section) - first}",
        )
    return section[:length], section[first : first + head.initrd_size]
