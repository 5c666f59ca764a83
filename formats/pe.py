"""What does an executable in PE32+ say of its parts? Headers, sections and base relocations.

Source: Microsoft, "PE Format"; UEFI specification 2.10, 2.1.1 for what firmware loads of it.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FormatError
from formats.structs import offset_of, size_of, spaced, unpack

DOS_MAGIC = b"MZ"
SIGNATURE = b"PE\0\0"
MACHINE_AMD64 = 0x8664
MAGIC_PE32_PLUS = 0x20B

DOS_HEADER = (
    "pe_dos_header" / spaced(0x40, {0: "magic" / Int16ul, 0x3C: "pe_offset" / Int32ul})
) * "MS-DOS header, which says where the other one lies"

HEADER = (
    "pe_header"
    / c.Struct(
        "signature" / Int32ul,
        "machine" / Int16ul,
        "section_count" / Int16ul,
        "timestamp" / Int32ul,
        "symbols" / Int32ul,
        "symbol_count" / Int32ul,
        "optional_size" / Int16ul,
        "characteristics" / Int16ul,
    )
) * "Signature and COFF header"

OPTIONAL = (
    "pe_optional_header"
    / c.Struct(
        "magic" / Int16ul,
        "linker_major" / Int8ul,
        "linker_minor" / Int8ul,
        "code_size" / Int32ul,
        "data_size" / Int32ul,
        "bss_size" / Int32ul,
        "entry" / Int32ul,
        "code_base" / Int32ul,
        "image_base" / Int64ul,
        "section_alignment" / Int32ul,
        "file_alignment" / Int32ul,
        "versions" / Bytes(12),
        "reserved" / Int32ul,
        "image_size" / Int32ul,
        "headers_size" / Int32ul,
        "checksum" / Int32ul,
        "subsystem" / Int16ul,
        "dll_characteristics" / Int16ul,
        "stack_reserve" / Int64ul,
        "stack_commit" / Int64ul,
        "heap_reserve" / Int64ul,
        "heap_commit" / Int64ul,
        "loader_flags" / Int32ul,
        "directory_count" / Int32ul,
    )
) * "Optional header of PE32+; data directories follow"

DIRECTORY = ("pe_directory" / c.Struct("address" / Int32ul, "size" / Int32ul)) * "Data directory"

SECTION = (
    "pe_section"
    / c.Struct(
        "name" / Bytes(8),
        "memory_size" / Int32ul,
        "address" / Int32ul,
        "file_size" / Int32ul,
        "offset" / Int32ul,
        "relocations" / Int32ul,
        "lines" / Int32ul,
        "relocation_count" / Int16ul,
        "line_count" / Int16ul,
        "characteristics" / Int32ul,
    )
) * "Section header"

BLOCK = (
    "pe_block" / c.Struct("page" / Int32ul, "size" / Int32ul)
) * "Head of a block of base relocations; entries of 16 bits follow"


class Directory(IntEnum):
    """Which data directory is which."""

    IMPORT = 1
    CERTIFICATE = 4
    RELOCATION = 5
    DELAY_IMPORT = 13


class SectionFlag(IntFlag):
    """Characteristics of a section."""

    EXECUTE = 0x2000_0000
    WRITE = 0x8000_0000


RELOCS_STRIPPED = 1  # of the COFF header's characteristics
FIXUP_ABSOLUTE, FIXUP_DIR64 = 0, 10  # types of a base relocation, its bits 15:12


def is_executable(file: bytes) -> bool:
    """Whether it has the marks of a PE32+ file for x86-64. A bzImage has them too."""
    if not file.startswith(DOS_MAGIC) or len(file) < DOS_HEADER.sizeof():
        return False
    at = DOS_HEADER.parse(file).pe_offset
    head = file[at : at + HEADER.sizeof() + 2]
    return head.startswith(SIGNATURE + MACHINE_AMD64.to_bytes(2, "little")) and head.endswith(
        MAGIC_PE32_PLUS.to_bytes(2, "little")
    )


def authenticode(file: bytes) -> bytes | None:
    """SHA-384 of what firmware measures of an image that it starts: the file without its checksum, its
    signatures and the directory entry that names them. None: a header is cut short. (Microsoft, "Windows
    Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash")
    """
    try:
        start = int(unpack(DOS_HEADER, file).pe_offset)
        head, at = unpack(HEADER, file, start), start + HEADER.sizeof()
        option = unpack(OPTIONAL, file, at)
        first = at + head.optional_size
        sections = [
            unpack(SECTION, file, first + number * SECTION.sizeof()) for number in range(head.section_count)
        ]
        entry = at + OPTIONAL.sizeof() + Directory.CERTIFICATE * DIRECTORY.sizeof()
        signed = option.directory_count > Directory.CERTIFICATE
        signatures = int(unpack(DIRECTORY, file, entry).size) if signed else 0
    except FormatError:
        return None
    checksum = at + offset_of(OPTIONAL, "checksum")
    left_out = [(checksum, checksum + size_of(OPTIONAL, "checksum"))]
    if signed:
        left_out.append((entry, entry + DIRECTORY.sizeof()))
    total, done = hashlib.sha384(), 0
    for begin, end in left_out:
        total.update(file[done:begin])
        done = end
    total.update(file[done : option.headers_size])
    done = int(option.headers_size)
    for section in sorted(sections, key=lambda each: int(each.offset)):
        total.update(file[section.offset : section.offset + section.file_size])
        done += int(section.file_size)
    total.update(file[done : max(done, len(file) - signatures)])
    return total.digest()
