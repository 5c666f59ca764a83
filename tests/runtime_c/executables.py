"""Which executables do the tests of the loader share? Makers of ELF and PE files, and what comes of one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bzimage import guarded
from ccore import CORE, LIB, MIB, PAYLOAD, Section, check, plan

from formats import elf, pe
from formats.elf import DynamicTag
from formats.structs import pack
from formats.units import PAGE, align_up

R, W, X = 0, elf.PF_W, elf.PF_X
STRTAB = 5  # gABI 5, DT_STRTAB
HOME = 0x600_0000  # where a file is said to lie
SECTIONS = (Section(PAYLOAD, HOME, HOME + 16 * MIB), Section(3, 0x80_0000, 0x81_0000))
LOAD = 1 * MIB  # the lowest free RAM
NONE, READ, READ_WRITE, READ_EXECUTE = 0, 1, 2, 3


@dataclass(frozen=True)
class Segment:
    """Of an ELF file: where it is linked to, its bytes, zeros behind them."""

    at: int
    data: bytes
    flags: int = R
    zeros: int = 0
    type: int = elf.PT_LOAD
    align: int = PAGE


def elf_file(segments: Sequence[Segment], entry: int, **header: int) -> bytes:
    """An ELF file with these program headers; `header`: fields of the ELF header that are otherwise."""
    at = elf.HEADER.sizeof() + len(segments) * elf.PROGRAM_HEADER.sizeof()
    heads, body = b"", b""
    for each in segments:
        sizes = {"file_size": len(each.data), "memory_size": len(each.data) + each.zeros}
        place = {"offset": at + len(body), "virtual": each.at, "physical": each.at, "alignment": each.align}
        heads += pack(elf.PROGRAM_HEADER, type=each.type, flags=each.flags, **place, **sizes)
        body += each.data
    fields = {
        "file_class": elf.CLASS_64,
        "data": elf.DATA_LITTLE,
        "type": elf.TYPE_DYN,
        "machine": elf.MACHINE_X86_64,
        "entry": entry,
        "program_offset": elf.HEADER.sizeof(),
        "program_size": elf.PROGRAM_HEADER.sizeof(),
        "program_count": len(segments),
    }
    return pack(elf.HEADER, magic=elf.MAGIC, **(fields | header)) + heads + body


def rela(*entries: tuple[int, int, int]) -> bytes:
    """A table of relocations: place, type, addend."""
    return b"".join(pack(elf.RELA, offset=at, info=kind, addend=addend) for at, kind, addend in entries)


def dynamic(**values: int) -> bytes:
    """A dynamic section, by the names of the tags; and where names would lie, which pyelftools asks for."""
    entries = [(DynamicTag[name], value) for name, value in values.items()]
    entries += [(STRTAB, 0x1000), (DynamicTag.NULL, 0)]
    return b"".join(pack(elf.DYNAMIC, tag=tag, value=value) for tag, value in entries)


@dataclass(frozen=True)
class PeSection:
    """Of a PE file. `size`: in memory; that of the bytes if 0."""

    at: int
    data: bytes
    flags: int = 0
    size: int = 0


CODE, DATA = int(pe.SectionFlag.EXECUTE), int(pe.SectionFlag.WRITE)
PE_OFFSET, ALIGNED = 0x80, 0x200


def pe_file(
    sections: Sequence[PeSection],
    entry: int,
    directories: dict[int, tuple[int, int]] | None = None,
    coff: dict[str, int] | None = None,
    **optional: int,
) -> bytes:
    """A PE32+ file; `coff`, `optional`: fields that are otherwise."""
    found = directories or {}
    count = 16
    heads_size = align_up(
        PE_OFFSET
        + pe.HEADER.sizeof()
        + pe.OPTIONAL.sizeof()
        + count * pe.DIRECTORY.sizeof()
        + len(sections) * pe.SECTION.sizeof(),
        ALIGNED,
    )
    end = max(align_up(s.at + (s.size or len(s.data)), PAGE) for s in sections)
    fields = {
        "magic": pe.MAGIC_PE32_PLUS,
        "entry": entry,
        "image_base": 0x1_4000_0000,
        "section_alignment": PAGE,
        "file_alignment": ALIGNED,
        "image_size": end,
        "headers_size": heads_size,
        "directory_count": count,
    }
    head = pack(pe.DOS_HEADER, magic=0x5A4D, pe_offset=PE_OFFSET).ljust(PE_OFFSET, b"\0")
    own = {
        "signature": 0x4550,
        "machine": pe.MACHINE_AMD64,
        "section_count": len(sections),
        "optional_size": pe.OPTIONAL.sizeof() + count * pe.DIRECTORY.sizeof(),
    }
    head += pack(pe.HEADER, **(own | (coff or {}))) + pack(pe.OPTIONAL, **(fields | optional))
    for index in range(count):
        address, size = found.get(index, (0, 0))
        head += pack(pe.DIRECTORY, address=address, size=size)
    body = b""
    for each in sections:
        padded = align_up(len(each.data), ALIGNED)
        head += pack(
            pe.SECTION,
            memory_size=each.size or len(each.data),
            address=each.at,
            file_size=padded,
            offset=heads_size + len(body),
            characteristics=each.flags,
        )
        body += each.data.ljust(padded, b"\0")
    return head.ljust(heads_size, b"\0") + body


def block(page: int, *fixups: int) -> bytes:
    """A block of base relocations: types and offsets as they stand there."""
    return struct.pack(f"<II{len(fixups)}H", page, 8 + 2 * len(fixups), *fixups)


DIR64 = pe.FIXUP_DIR64 << 12


def extent(data: bytes) -> int:
    """How far a file reaches; CoreError."""
    out, region = CORE.new("span"), guarded(data)
    check(LIB.executable_extent(region, out))
    assert out.data == region.data
    return int(out.size)


@dataclass
class Loaded:
    """An executable that was placed and loaded as the generated code does it; `kept`: what it points to."""

    placed: Any
    image: bytes
    access: list[int]  # of each page
    kept: Any


def place(file: bytes, size: int = 256 * MIB, sections: Sequence[Section] = SECTIONS) -> tuple[Any, Any]:
    """The record, and the memory of the file; CoreError."""
    region, out = guarded(file), CORE.new("executable")
    check(LIB.place_executable(region, plan([(7, 0, size)], sections), out))
    return out, region


def parts(placed: Any) -> list[Any]:
    return list(placed.parts.items[0 : placed.parts.count])


def load(file: bytes, size: int = 256 * MIB, sections: Sequence[Section] = SECTIONS) -> Loaded:
    """The image in memory and the access of its pages; CoreError."""
    placed, region = place(file, size, sections)
    memory = CORE.guarded(placed.size)
    image = CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), placed.size)
    start = CORE.address(region.data)
    access = [NONE] * (placed.size // PAGE)
    for part in parts(placed):
        at, source = part.to - placed.load, getattr(part, "from") - start
        assert 0 <= at <= at + part.size <= placed.size
        assert part.size == 0 or 0 <= source <= source + part.size <= len(file)
        image[at : at + part.size] = file[source : source + part.size]
    check(LIB.relocate_executable(CORE.span(memory.address, placed.size), placed))
    for part in parts(placed):
        assert part.start % PAGE == part.length % PAGE == 0
        first = (part.start - placed.load) // PAGE
        assert 0 <= first <= first + part.length // PAGE <= len(access)
        access[first : first + part.length // PAGE] = [part.access] * (part.length // PAGE)
    return Loaded(placed, bytes(image), access, (region, memory))
