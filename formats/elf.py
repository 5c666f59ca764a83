"""What does an executable in ELF say of its parts? Header and program headers, all that a loader reads.

Source: System V ABI, "Object Files" (gABI 4.2), chapters 4 and 5; AMD64 supplement for the machine's number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import unpack

MAGIC = b"\x7fELF"
CLASS_64, DATA_LITTLE, VERSION = 2, 1, 1
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_RELRO = 1, 2, 3, 0x6474E552
MACHINE_X86_64 = 62
TYPE_EXEC, TYPE_DYN = 2, 3
PF_X, PF_W = 1, 2  # of a program header's flags
# AMD64 supplement 1.0, table 4.9: the types that need no symbol
R_NONE, R_RELATIVE = 0, 8

HEADER = (
    "elf64_header"
    / c.Struct(
        "magic" / Bytes(4),
        "file_class" / Int8ul,
        "data" / Int8ul,
        "ident_version" / Int8ul,
        "ident_rest" / Bytes(9),
        "type" / Int16ul,
        "machine" / Int16ul,
        "version" / Int32ul,
        "entry" / Int64ul,
        "program_offset" / Int64ul,
        "section_offset" / Int64ul,
        "flags" / Int32ul,
        "header_size" / Int16ul,
        "program_size" / Int16ul,
        "program_count" / Int16ul,
        "section_size" / Int16ul,
        "section_count" / Int16ul,
        "section_names" / Int16ul,
    )
) * "ELF header of 64-bit objects, gABI 4"

PROGRAM_HEADER = (
    "elf64_program_header"
    / c.Struct(
        "type" / Int32ul,
        "flags" / Int32ul,
        "offset" / Int64ul,
        "virtual" / Int64ul,
        "physical" / Int64ul,
        "file_size" / Int64ul,
        "memory_size" / Int64ul,
        "alignment" / Int64ul,
    )
) * "Program header of 64-bit objects, gABI 5"

DYNAMIC = (
    "elf64_dynamic" / c.Struct("tag" / Int64ul, "value" / Int64ul)
) * "Entry of the dynamic section, gABI 5"

RELA = (
    "elf64_rela" / c.Struct("offset" / Int64ul, "info" / Int64ul, "addend" / Int64ul)
) * "Relocation with addend, gABI 4"


class DynamicTag(IntEnum):
    """gABI 5, "Dynamic Section"; 35 to 37: packed relative relocations."""

    NULL = 0
    NEEDED = 1
    PLTRELSZ = 2
    RELA = 7
    RELASZ = 8
    RELAENT = 9
    REL = 17
    RELRSZ = 35
    RELR = 36
    RELRENT = 37


@dataclass(frozen=True)
class Segment:
    """What is to be loaded: its bytes, and the addresses that the file gives them. `size` counts what follows
    the bytes in memory as zeros.
    """

    data: bytes
    virtual: int
    physical: int
    size: int


@dataclass(frozen=True)
class Executable:
    """Where it is entered, and its PT_LOAD segments in the order of the file."""

    entry: int
    segments: tuple[Segment, ...]


def executable(file: bytes, *, place: str = "ELF file") -> Executable:
    """Reads a 64-bit x86 executable. FormatError: what is wrong with it, or missing."""
    header = _header(file, place)
    segments = []
    for index, part in _loaded(file, header, place):
        if part.memory_size < part.file_size:
            raise FieldError(
                f"{place} program header {index}",
                f"memory size {part.memory_size:#x}",
                f"at least the file size {part.file_size:#x}",
            )
        data = file[part.offset : part.offset + part.file_size]
        segments.append(Segment(data, part.virtual, part.physical, part.memory_size))
    return Executable(int(header.entry), tuple(segments))


def true_length(file: bytes, *, place: str = "ELF file") -> int:
    """Bytes up to the end of its headers, its segments and its table of sections, which linkers write last.
    What was appended to the file lies behind. FormatError: it is no 64-bit x86 executable, or cut short.
    """
    header = _header(file, place)
    ends = [HEADER.sizeof()]
    for offset, size in (
        (header.program_offset, header.program_count * header.program_size),
        (header.section_offset, header.section_count * header.section_size),
        *((part.offset, part.file_size) for _, part in _loaded(file, header, place)),
    ):
        if size:
            ends.append(offset + size)
    if max(ends) > len(file):
        raise TruncatedError(place, f"{max(ends)} bytes", f"{len(file)}")
    return int(max(ends))


def _header(file: bytes, place: str) -> c.Container[int]:
    if file[:4] != MAGIC:
        raise FieldError(f"{place} offset 0x0", file[:4].hex() or "nothing", "an ELF file (7f454c46)")
    header = unpack(HEADER, file, place=place)
    expected = {"file_class": CLASS_64, "data": DATA_LITTLE, "machine": MACHINE_X86_64}
    for name, value in (expected | {"program_size": PROGRAM_HEADER.sizeof()}).items():
        if header[name] != value:
            raise FieldError(f"{place} {name}", f"{header[name]:#x}", f"{value:#x}")
    return header


def _loaded(file: bytes, header: c.Container[int], place: str) -> Iterator[tuple[int, c.Container[int]]]:
    """The PT_LOAD program headers with their numbers; their bytes lie in the file."""
    for index in range(header.program_count):
        at = header.program_offset + index * PROGRAM_HEADER.sizeof()
        part = unpack(PROGRAM_HEADER, file, at, place=f"{place} program header {index}")
        if part.type != PT_LOAD:
            continue
        end = part.offset + part.file_size
        if part.file_size and end > len(file):
            raise TruncatedError(
                f"{place} program header {index}", f"data to offset {end:#x}", f"at most {len(file):#x}"
            )
        yield index, part
