"""Are executables loaded as their formats say, and refused where they say nothing that a payload may have?"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from bzimage import bzimage
from ccore import CORE, GIB, LIB, MIB, NVS, RAM, UNACCEPTED, CoreError, Range, Section, plan, ranges_of
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelrRelocationTable
from executables import (
    CODE,
    DATA,
    DIR64,
    HOME,
    LOAD,
    NONE,
    PE_OFFSET,
    READ,
    READ_EXECUTE,
    READ_WRITE,
    SECTIONS,
    PeSection,
    R,
    Segment,
    W,
    X,
    block,
    dynamic,
    elf_file,
    extent,
    guarded,
    load,
    parts,
    pe_file,
    place,
    rela,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import elf, pe
from formats.structs import offset_of
from formats.units import PAGE, align_up
from gen.link.sample import FORMATS, sample

# An ELF file with one of everything: text, constants, data, and tables of both kinds
TABLE = rela((0x3000, elf.R_RELATIVE, 0x1010), (0x3008, elf.R_NONE, 7), (0x3FF8, elf.R_RELATIVE, 0x2000))
RELR = struct.pack("<3Q", 0x3010, 1 | 1 << 1 | 1 << 63, 0x3800)  # 3010; the 1st and 63rd word behind; 3800
DATA_BYTES = bytes(0x10) + struct.pack("<2Q", 0x1234, 0x1111).ljust(0xFF0, b"\0")
DYNAMIC = dynamic(RELA=0x2100, RELASZ=len(TABLE), RELAENT=24, RELR=0x2200, RELRSZ=len(RELR), RELRENT=8)
CONSTANTS = b"constants".ljust(0x100, b"\0") + TABLE.ljust(0x100, b"\0") + RELR.ljust(0x100, b"\0") + DYNAMIC
TEXT = b"\x90" * 0x123
ENTRY = 0x1100


def segments(
    text: bytes = TEXT, constants: bytes = CONSTANTS, data: bytes = DATA_BYTES, *more: Segment
) -> list[Segment]:
    return [
        Segment(0x1000, text, X),
        Segment(0x2000, constants, R),
        Segment(0x3000, data, W, zeros=0x1800),
        Segment(0x2300, constants[0x300:], R, type=elf.PT_DYNAMIC),
        *more,
    ]


FILE = elf_file(segments(), ENTRY)
HEADS = elf.HEADER.sizeof()


def with_constants(table: bytes = TABLE, relr: bytes = RELR, **tags: int) -> bytes:
    values = {
        "RELA": 0x2100,
        "RELASZ": len(table),
        "RELAENT": 24,
        "RELR": 0x2200,
        "RELRSZ": len(relr),
        "RELRENT": 8,
    }
    said = dynamic(**(values | tags))
    constants = bytes(0x100) + table.ljust(0x100, b"\0") + relr.ljust(0x100, b"\0") + said
    return elf_file(segments(constants=constants), ENTRY)


def field(index: int, name: str, value: int, file: bytes = FILE) -> bytes:
    """The file with another value in a program header."""
    at = HEADS + index * elf.PROGRAM_HEADER.sizeof() + offset_of(elf.PROGRAM_HEADER, name)
    width = 4 if name in ("type", "flags") else 8
    return file[:at] + value.to_bytes(width, "little") + file[at + width :]


# ---- an independent loader: pyelftools reads the file


def by_pyelftools(file: bytes, base: int, load_at: int, size: int) -> bytes:
    """What a loader with this result makes of an ELF file."""
    image, found = bytearray(size), ELFFile(io.BytesIO(file))
    tables: dict[str, Any] = {}
    for segment in found.iter_segments():
        if segment["p_type"] == "PT_LOAD":
            at = segment["p_vaddr"] - base
            image[at : at + segment["p_filesz"]] = segment.data()
        elif isinstance(segment, DynamicSegment):
            tables = segment.get_relocation_tables()
    for name, table in tables.items():
        assert name in ("RELA", "RELR")
        for entry in table.iter_relocations():
            at = entry["r_offset"] - base
            if isinstance(table, RelrRelocationTable):
                value = int.from_bytes(image[at : at + 8], "little")
            elif entry["r_info_type"] == elf.R_RELATIVE:
                value = entry["r_addend"]
            else:
                continue
            image[at : at + 8] = ((value + load_at - base) % (1 << 64)).to_bytes(8, "little")
    return bytes(image)


def test_an_elf_file_is_relocated_to_where_it_lies() -> None:
    made = load(FILE)
    assert (made.placed.load, made.placed.size, made.placed.entry) == (LOAD, 5 * PAGE, LOAD + 0x100)
    assert made.image == by_pyelftools(FILE, 0x1000, LOAD, made.placed.size)
    delta = LOAD - 0x1000
    words = struct.unpack_from("<4Q", made.image, 0x2000)
    assert words == (0x1010 + delta, 0, 0x1234 + delta, 0x1111 + delta)
    assert struct.unpack_from("<Q", made.image, 0x2010 + 63 * 8)[0] == delta
    assert made.access == [READ_EXECUTE, READ, READ_WRITE, READ_WRITE, READ_WRITE]


def test_the_first_address_need_not_begin_a_page() -> None:
    file = elf_file([Segment(0x1234, TEXT, X), Segment(0x5678, b"data", W)], 0x1234)
    made = load(file)
    assert made.placed.entry == LOAD + 0x234
    assert made.image[:0x234] == bytes(0x234)
    assert made.image[0x234 : 0x234 + len(TEXT)] == TEXT
    assert made.image[0x4678:0x467C] == b"data"
    assert made.access == [READ_EXECUTE, NONE, NONE, NONE, READ_WRITE]


@pytest.mark.parametrize("align", [0, 1, PAGE, 2 * MIB, 1 << 30])
def test_its_alignment_is_kept(align: int) -> None:
    """The largest of all segments, whichever is the last."""
    file = elf_file([Segment(0x1000, TEXT, X, align=align), Segment(0x2000, b"data", W, align=2)], 0x1000)
    placed, _ = place(file, 3 * GIB)
    assert placed.load >= LOAD
    assert (placed.load - 0x1000) % max(align, PAGE) == 0


def test_a_segment_without_bytes_has_them_nowhere() -> None:
    file = elf_file(segments(TEXT, CONSTANTS, DATA_BYTES, Segment(0x7000, b"", W, zeros=PAGE)), ENTRY)
    made = load(field(4, "offset", 1 << 63, file))
    assert made.image == load(file).image
    assert made.access[-3:] == [READ_WRITE, NONE, READ_WRITE]


@pytest.mark.parametrize("align", [3, (1 << 30) + 1, 1 << 31, (1 << 64) - 1])
def test_an_alignment_that_is_none(align: int) -> None:
    with pytest.raises(CoreError, match="executable_malformed"):
        place(elf_file([Segment(0x1000, TEXT, X, align=align)], 0x1000))


def test_a_fixed_executable_stays_where_it_is_linked_to() -> None:
    base = 0x200_0000
    fixed = [Segment(base, TEXT, X), Segment(base + 0x1000, b"data", W)]
    made = load(elf_file(fixed, base, type=elf.TYPE_EXEC))
    assert (made.placed.load, made.placed.entry) == (base, base)
    for taken in (0, 0xF_F000, 0x80_0000, HOME, 255 * MIB):
        whole = [Segment(taken, b"\x90" * 2 * MIB, X)]
        with pytest.raises(CoreError, match="executable_no_room"):
            place(elf_file(whole, taken, type=elf.TYPE_EXEC))


def test_it_goes_to_the_lowest_free_ram() -> None:
    sections = [*SECTIONS, Section(3, MIB, MIB + PAGE, NVS), Section(3, MIB + 3 * PAGE, 2 * MIB)]
    placed, _ = place(elf_file([Segment(0, bytes(3 * PAGE), X)], 0), sections=sections)
    assert placed.load == 2 * MIB
    with pytest.raises(CoreError, match="executable_no_room"):
        place(elf_file([Segment(0, TEXT, X, zeros=160 * MIB)], 0))
    placed, _ = place(elf_file([Segment(0, TEXT, X, zeros=160 * MIB)], 0), 512 * MIB)
    assert placed.load == HOME + 16 * MIB


def test_relocated_constants_become_read_only() -> None:
    relro = Segment(0x3800, b"", R, 0x1800, type=elf.PT_GNU_RELRO)
    made = load(elf_file(segments(TEXT, CONSTANTS, DATA_BYTES, relro), ENTRY))
    assert made.access == [READ_EXECUTE, READ, READ_WRITE, READ, READ_WRITE]  # whole pages
    relro = Segment(0x3000, b"", R, 0x1FFF, type=elf.PT_GNU_RELRO)
    made = load(elf_file(segments(TEXT, CONSTANTS, DATA_BYTES, relro), ENTRY))
    assert made.access == [READ_EXECUTE, READ, READ, READ_WRITE, READ_WRITE]
    relro = Segment(0x3800, b"", R, 0x17FF, type=elf.PT_GNU_RELRO)
    assert load(elf_file(segments(TEXT, CONSTANTS, DATA_BYTES, relro), ENTRY)).access[3] == READ_WRITE
    wraps = (1 << 64) - PAGE
    for at, size in (
        (0x1000, PAGE),
        (0x2000, PAGE),
        (0x4000, 3 * PAGE),
        (1 << 63, PAGE),
        (0x3000, 1 << 63),
        (0x3000, wraps),
    ):
        relro = Segment(at, b"", R, size, type=elf.PT_GNU_RELRO)
        with pytest.raises(CoreError, match="executable_parts"):
            place(elf_file(segments(TEXT, CONSTANTS, DATA_BYTES, relro), ENTRY))


def test_as_many_parts_as_there_is_room_for() -> None:
    apart = [Segment(2 * PAGE * i, b"\x90" * 16, X) for i in range(19)]
    last = [Segment(38 * PAGE, b"data", W), Segment(39 * PAGE, b"data", W)]
    placed, _ = place(elf_file([*apart, *last], 0))
    assert placed.parts.count == len(placed.parts.items) == 40
    relro = Segment(39 * PAGE, b"", R, PAGE, type=elf.PT_GNU_RELRO)
    with pytest.raises(CoreError, match="executable_parts"):
        place(elf_file([*apart, *last, relro], 0))


# ---- PE


FIXUPS = block(0x2000, DIR64 | 8, 0, DIR64 | 0xFF0) + block(0x3000, DIR64 | 0)
BASE = 0x1_4000_0000
PE_SECTIONS = [
    PeSection(0x1000, TEXT, CODE),
    PeSection(0x2000, struct.pack("<2Q", 1, BASE + 0x1010).ljust(0x1000, b"\0")),
    PeSection(0x3000, struct.pack("<Q", BASE + 0x2000), DATA, 0x2345),
    PeSection(0x6000, FIXUPS),
]
PE = pe_file(PE_SECTIONS, 0x1010, {pe.Directory.RELOCATION: (0x6000, len(FIXUPS))})


def pe_with(fixups: bytes, **optional: int) -> bytes:
    sections = [*PE_SECTIONS[:3], PeSection(0x6000, fixups.ljust(0x100, b"\0"))]
    return pe_file(sections, 0x1010, {pe.Directory.RELOCATION: (0x6000, len(fixups))}, **optional)


def test_a_pe_file_is_relocated_to_where_it_lies() -> None:
    made = load(PE)
    assert (made.placed.load, made.placed.size, made.placed.entry) == (LOAD, 0x7000, LOAD + 0x1010)
    assert made.image[:0x200] == PE[:0x200]
    assert made.image[0x1000 : 0x1000 + len(TEXT)] == TEXT
    assert struct.unpack_from("<2Q", made.image, 0x2000) == (1, LOAD + 0x1010)
    assert struct.unpack_from("<Q", made.image, 0x2FF0)[0] == (LOAD - BASE) % (1 << 64)
    assert struct.unpack_from("<Q", made.image, 0x3000)[0] == LOAD + 0x2000
    assert made.access == [READ, READ_EXECUTE, READ, *[READ_WRITE] * 3, READ]


def test_a_directory_that_the_file_does_not_count_is_none() -> None:
    made = load(pe_file(PE_SECTIONS, 0x1010, {pe.Directory.RELOCATION: (0x6000, 8)}, directory_count=5))
    assert struct.unpack_from("<2Q", made.image, 0x2000) == (1, BASE + 0x1010)


def test_a_directory_where_the_sections_begin_is_none() -> None:
    """The table of sections lies over the sixth to the tenth directory; its name would be that directory."""
    heads = 0x200
    fields = {
        pe.Directory.RELOCATION: (0x1000, 8),
        6: (len(TEXT), 0x1000),
        7: (align_up(len(TEXT), 0x200), heads),
        9: (0, CODE),
    }
    size = pe.OPTIONAL.sizeof() + 5 * pe.DIRECTORY.sizeof()
    file = pe_file([PeSection(0x1000, TEXT, CODE)], 0x1000, fields, {"optional_size": size})
    assert file[heads : heads + len(TEXT)] == TEXT
    assert load(file).image[0x1000 : 0x1000 + len(TEXT)] == TEXT


def test_bytes_behind_a_sections_memory_are_not_loaded() -> None:
    file = pe_file([PeSection(0x1000, TEXT + b"behind", CODE, len(TEXT))], 0x1000)
    assert load(file).image[0x1000 + len(TEXT) :][:6] == bytes(6)


def test_a_section_without_a_memory_size_has_that_of_its_bytes() -> None:
    file = bytearray(pe_file([PeSection(0x1000, TEXT, CODE)], 0x1000))
    at = file.index(struct.pack("<II", len(TEXT), 0x1000))
    file[at : at + 4] = bytes(4)
    assert load(bytes(file)).image[0x1000 : 0x1000 + len(TEXT)] == TEXT


def test_a_pe_file_whose_relocations_were_stripped_stays_where_it_is_linked_to() -> None:
    sections, stripped = PE_SECTIONS[:3], {"characteristics": pe.RELOCS_STRIPPED}
    file = pe_file(sections, 0x1010, coff=stripped, image_base=0x200_0000)
    assert load(file).placed.load == 0x200_0000
    with pytest.raises(CoreError, match="executable_no_room"):
        place(pe_file(sections, 0x1010, coff=stripped))


def test_a_pe_file_that_has_no_relocations_moves_as_it_is() -> None:
    """It may need none: only RELOCS_STRIPPED says that it has to stay."""
    made = load(pe_file(PE_SECTIONS[:3], 0x1010))
    assert (made.placed.load, made.placed.entry) == (LOAD, LOAD + 0x1010)
    assert struct.unpack_from("<2Q", made.image, 0x2000) == (1, BASE + 0x1010)


# ---- real files


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("elf")])
def test_the_sample_as_pyelftools_reads_it(name: str) -> None:
    file = sample(name)
    assert extent(file + b"more") == len(file)
    made = load(file)
    assert made.image == by_pyelftools(file, made.placed.base, made.placed.load, made.placed.size)
    found = ELFFile(io.BytesIO(file))
    wanted: dict[int, int] = {}
    for segment in found.iter_segments():
        if segment["p_type"] in ("PT_LOAD", "PT_GNU_RELRO"):
            access = (
                READ_WRITE if segment["p_flags"] & W else READ_EXECUTE if segment["p_flags"] & X else READ
            )
            first, last = segment["p_vaddr"], segment["p_vaddr"] + segment["p_memsz"]
            last = align_up(last, PAGE) if segment["p_type"] == "PT_LOAD" else last // PAGE * PAGE
            for at in range(first // PAGE * PAGE, last, PAGE):
                wanted[(at - made.placed.base) // PAGE] = access
    assert {page: access for page, access in enumerate(made.access) if access} == wanted


def test_the_sample_as_pefile_relocates_it() -> None:
    pefile = pytest.importorskip("pefile")
    file = sample("pe")
    assert extent(file) == len(file)
    made, other = load(file), pefile.PE(data=file)
    other.relocate_image(made.placed.load)
    expected = bytearray(other.get_memory_mapped_image().ljust(made.placed.size, b"\0"))
    at = other.OPTIONAL_HEADER.get_field_absolute_offset("ImageBase")
    expected[at : at + 8] = file[at : at + 8]  # what the file says stays
    for part in other.sections:  # what fills up a section's bytes is not loaded
        end = part.VirtualAddress + part.Misc_VirtualSize
        expected[end : align_up(end, PAGE)] = bytes(-end % PAGE)
    assert made.image == bytes(expected)


# ---- what is refused


def refused() -> Iterator[tuple[str, bytes]]:
    """Errors, and files that have them."""
    for file in (
        *(b"", b"\x7fEL", FILE[: HEADS - 1], b"MZ", PE[:0x3F], b"XZ" + PE[2:], PE[: PE_OFFSET + 10]),
        *(elf_file(segments(), ENTRY, file_class=1), elf_file(segments(), ENTRY, data=2)),
        *(elf_file(segments(), ENTRY, type=1), elf_file(segments(), ENTRY, machine=183)),
        elf_file(segments(), ENTRY, program_size=55),
        PE[:PE_OFFSET] + b"NE" + PE[PE_OFFSET + 2 :],
        pe_file(PE_SECTIONS, 0x1010, coff={"machine": 0x14C}),
        pe_file(PE_SECTIONS, 0x1010, magic=0x10B),
        PE[: PE_OFFSET + 100],
        PE[:0x3C] + (len(PE) - 20).to_bytes(4, "little") + PE[0x40:],
        PE[:0x202] + b"HdrS" + PE[0x206:],
        bzimage(),
    ):
        yield "executable_unknown", file
    top = (1 << 64) - 1
    for file in (
        FILE[: HEADS + 10],
        FILE[:-300],
        *(elf_file(segments(), ENTRY, program_offset=top), elf_file(segments(), ENTRY, program_count=200)),
        *(field(0, "offset", top), field(0, "file_size", top), field(1, "offset", len(FILE))),
        *(PE[:-1], pe_file(PE_SECTIONS, 0x1010, headers_size=len(PE) + 1)),
    ):
        yield "executable_truncated", file
    yield "executable_truncated", pe_file(PE_SECTIONS, 0x1010, {pe.Directory.CERTIFICATE: (len(PE), 8)})[:-1]


@pytest.mark.parametrize(("error", "file"), list(refused()))
def test_what_is_no_whole_file(error: str, file: bytes) -> None:
    with pytest.raises(CoreError, match=error):
        extent(file)


@pytest.mark.parametrize(
    "file",
    [
        *(FILE[: HEADS + 10], FILE[: HEADS + 3 * 56 + 10], FILE[:-300], field(0, "offset", len(FILE))),
        pe_file(PE_SECTIONS, 0x1010, headers_size=len(PE) + 1),
        PE[:-0x201],  # in the data
    ],
)
def test_what_is_cut_short_is_not_placed_either(file: bytes) -> None:
    with pytest.raises(CoreError, match="executable_truncated"):
        place(file)


def misplaced() -> Iterator[tuple[str, bytes]]:
    """Errors, and whole files that have them."""
    for file in (
        field(1, "virtual", 0x1000),  # over the first one
        field(1, "virtual", 0x1FFF - 0x100),  # a page that it shares
        field(2, "virtual", 0x1000),  # out of order
        field(2, "memory_size", len(DATA_BYTES) - 1),
        *(field(2, "memory_size", 1 << 62), field(2, "memory_size", (1 << 64) - 1)),
        field(2, "memory_size", (1 << 64) - len(DATA_BYTES)),  # with its bytes 0, modulo 2^64
        field(2, "memory_size", 0),
        *(field(2, "virtual", (1 << 64) - PAGE), field(2, "virtual", (1 << 47) + PAGE)),
        elf_file([Segment(2 * PAGE * i, b"\x90" * 16, X) for i in range(21)], 0),  # 41 parts
        pe_file([PeSection(0x1800, TEXT, CODE)], 0x1800),
        pe_file([PeSection(0x2000, TEXT, CODE), PeSection(0x1000, TEXT)], 0x2000),
        pe_file([PeSection(0, TEXT, CODE)], 0),
        pe_file(PE_SECTIONS, 0x1010, image_size=0x6000),
        pe_file(PE_SECTIONS, 0x1010, image_base=(1 << 47) + PAGE),
        pe_file(PE_SECTIONS, 0x1010, image_base=(1 << 64) - PAGE),
    ):
        yield "executable_parts", file
    yield "executable_rights", field(0, "flags", W | X)
    yield "executable_rights", pe_file([PeSection(0x1000, TEXT, CODE | DATA)], 0x1000)
    yield "executable_not_static", field(3, "type", elf.PT_INTERP)
    yield "executable_not_static", with_constants(NEEDED=1)
    yield "executable_not_static", pe_file(PE_SECTIONS, 0x1010, {pe.Directory.IMPORT: (0x2000, 20)})
    yield "executable_not_static", pe_file(PE_SECTIONS, 0x1010, {pe.Directory.DELAY_IMPORT: (0x2000, 32)})
    for entry in (0, 0xFFF, 0x1000 + len(TEXT), 0x2000, 0x3000, (1 << 64) - 1):
        yield "executable_entry", elf_file(segments(), entry)
        yield "executable_entry", pe_file(PE_SECTIONS, entry & 0xFFFF_FFFF)
    yield "executable_entry", elf_file(segments()[1:3], 0x2000)
    for file in (
        *(with_constants(REL=0x2100), with_constants(PLTRELSZ=24)),
        *(with_constants(RELAENT=16), with_constants(RELRENT=4)),
        *(with_constants(RELA=0x2000 + 0x380), with_constants(RELA=0x4000), with_constants(RELR=0xFFF)),
        *(with_constants(RELASZ=1 << 63), with_constants(RELRSZ=(1 << 64) - 1)),
        pe_file(PE_SECTIONS, 0x1010, {pe.Directory.RELOCATION: (0x6000, 0x2000)}),
        pe_file(PE_SECTIONS, 0x1010, {pe.Directory.RELOCATION: (0x4000, 8)}),
    ):
        yield "executable_relocation", file
    for name, value in (
        ("section_alignment", 0x800),
        ("section_alignment", 0x3000),
        ("section_alignment", 1 << 31),
    ):
        yield "executable_malformed", pe_file(PE_SECTIONS, 0x1010, **{name: value})
    yield "executable_malformed", pe_file(PE_SECTIONS, 0x1010, image_base=0x1_4000_0800)
    yield "executable_malformed", pe_file(PE_SECTIONS, 0x1010, headers_size=0x100)
    yield "executable_malformed", pe_file(PE_SECTIONS, 0x1010, coff={"optional_size": 100})


@pytest.mark.parametrize(("error", "file"), list(misplaced()))
def test_what_is_not_placed(error: str, file: bytes) -> None:
    with pytest.raises(CoreError, match=error):
        place(file)


@pytest.mark.parametrize(
    "file",
    [
        with_constants(rela((0x3000, 1, 0))),  # R_X86_64_64
        with_constants(rela((0x3000, 37, 0))),  # IRELATIVE
        with_constants(rela((0x1000, elf.R_RELATIVE, 0))),  # text
        with_constants(rela((0x2000, elf.R_RELATIVE, 0))),  # constants
        with_constants(rela((0x5FF9, elf.R_RELATIVE, 0))),  # over the end
        with_constants(rela((0xFF8, elf.R_RELATIVE, 0))),
        with_constants(rela((1 << 63, elf.R_RELATIVE, 0))),
        with_constants(TABLE, RELASZ=25),
        with_constants(relr=struct.pack("<Q", 0x2000)),
        with_constants(relr=struct.pack("<2Q", 0x3000, 1 << 63 | 1), RELRSZ=9),
        with_constants(relr=struct.pack("<Q", 3)),  # a bitmap without an address
        with_constants(relr=struct.pack("<2Q", 0x5F00, 1 << 63 | 1)),
        pe_with(block(0x3000, 3 << 12)),  # HIGHLOW
        pe_with(block(0x1000, DIR64)),  # code
        pe_with(block(0x7000, DIR64)),
        pe_with(block(0x6FFF, DIR64)),
        pe_with(struct.pack("<II", 0x3000, 6)),
        pe_with(struct.pack("<III", 0x3000, 4, 8)),  # a block inside of a head
        pe_with(struct.pack("<IIB", 0x3000, 9, 0) + block(0x3000)),
        pe_with(struct.pack("<IIH", 0x3000, 9, 0)),
        pe_with(struct.pack("<II", 0x3000, 0x20)),
        pe_with(struct.pack("<I", 0x3000)),
    ],
)
def test_a_relocation_that_is_unknown_or_leads_elsewhere(file: bytes) -> None:
    with pytest.raises(CoreError, match="executable_relocation"):
        load(file)


def test_a_relocation_that_begins_in_data_and_ends_in_constants() -> None:
    table = rela((0x2FFC, elf.R_RELATIVE, 0))
    said = dynamic(RELA=0x3100, RELASZ=len(table), RELAENT=24)
    file = elf_file(
        [
            Segment(0x1000, TEXT, X),
            Segment(0x2000, b"data", W),
            Segment(0x3000, bytes(0x100) + table, R),
            Segment(0x3300, said, R, type=elf.PT_DYNAMIC),
        ],
        0x1000,
    )
    with pytest.raises(CoreError, match="executable_relocation"):
        load(file)


@pytest.mark.parametrize(
    ("name", "table"), [("rela", TABLE[:24]), ("relr", RELR[:8]), ("blocks", block(0x3000))]
)
def test_a_table_is_not_read_beyond_its_end(name: str, table: bytes) -> None:
    placed, _kept = place(FILE)
    memory, cut = CORE.guarded(placed.size), guarded(table + bytes(4))
    placed.rela.size = placed.relr.size = placed.blocks.size = 0
    getattr(placed, name).data, getattr(placed, name).size = cut.data, cut.size
    status = LIB.relocate_executable(CORE.span(memory.address, placed.size), placed)
    assert CORE.error(status) == "executable_relocation"


def test_what_lies_behind_the_given_image_is_not_written() -> None:
    placed, _kept = place(FILE)
    memory = CORE.guarded(0x2000)
    status = LIB.relocate_executable(CORE.span(memory.address, 0x2000), placed)
    assert CORE.error(status) == "executable_relocation"


def test_how_far_a_file_reaches() -> None:
    assert extent(FILE) == extent(FILE + b"more") == len(FILE)
    assert extent(PE) == extent(PE + b"more") == len(PE)
    at = len(FILE) + 100
    header = {"section_offset": at, "section_count": 3, "section_size": 64}
    file = elf_file(segments(), ENTRY, **header).ljust(at + 192, b"s")
    assert extent(file + b"more") == len(file)
    with pytest.raises(CoreError, match="executable_truncated"):
        extent(file[:-1])
    signed = pe_file(PE_SECTIONS, 0x1010, {pe.Directory.CERTIFICATE: (len(PE), 8)}) + b"signed: "
    assert extent(signed + b"more") == len(signed)
    behind = elf_file(segments(), ENTRY, program_offset=len(FILE)) + FILE[HEADS : HEADS + 4 * 56]
    assert extent(behind + b"more") == len(behind)


def test_a_part_without_memory_is_none() -> None:
    file = field(2, "memory_size", 0, field(2, "file_size", 0, with_constants(b"", b"")))
    assert [part.access for part in parts(place(file)[0])] == [READ_EXECUTE, READ]
    empty = pe_file([*PE_SECTIONS, PeSection(0x7000, b"")], 0x1010)
    assert len(parts(place(empty)[0])) == 5


# ---- any file


def room_of(ram: Any) -> list[Range]:
    """RAM that is free, of a plan without regions of its own."""
    return [each for each in ranges_of(ram) if each.state == UNACCEPTED and each.e820 == RAM]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from((FILE, PE, with_constants(RELASZ=72))),
    st.lists(
        st.tuples(
            st.integers(0, HEADS + 4 * 56 + 0x300),
            st.one_of(st.integers(0, 255), st.sampled_from((0, 1, 0x10, 0x7F, 0x80, 0xFF))),
        ),
        max_size=6,
    ),
    st.integers(-100, 100),
)
def test_any_file_is_loaded_inside_of_its_image_or_refused(
    file: bytes, changes: list[tuple[int, int]], longer: int
) -> None:
    changed = bytearray(file)
    for place_, value in changes:
        changed[place_ % len(file)] = value
    data = bytes(changed.ljust(len(file) + longer, b"\0")[: len(file) + longer])
    region, found = guarded(data), CORE.new("span")
    if LIB.executable_extent(region, found):
        return
    assert found.size <= len(data)
    free, out = plan([(7, 0, 128 * MIB)], SECTIONS), CORE.new("executable")
    if LIB.place_executable(region, free, out):
        return
    try:
        made = load(data, 128 * MIB)
    except CoreError:
        return  # a relocation
    end = made.placed.load + made.placed.size
    assert any(made.placed.load >= LOAD and r.start <= made.placed.load < end <= r.end for r in room_of(free))
    first = (made.placed.entry - made.placed.load) // PAGE
    assert made.access[first] == READ_EXECUTE


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 6), st.sampled_from((1, PAGE, 0x1_0000)))
def test_files_of_any_make(data: st.DataObject, count: int, align: int) -> None:
    """Segments of any size and place, with relocations of both kinds, as pyelftools has them."""
    made_of, at = [Segment(0x1000, TEXT, X, align=align)], 0x2000
    places: list[int] = []
    for _ in range(count):
        at += data.draw(st.integers(0, 3)) * PAGE + data.draw(st.integers(0, 511)) * 8
        size = data.draw(st.integers(1, 600)) * 8
        content = data.draw(st.integers(0, size // 8)) * 8
        made_of.append(Segment(at, bytes(range(8)) * (content // 8), W, size - content, align=align))
        places += [at + 8 * n for n in data.draw(st.sets(st.integers(0, size // 8 - 1), max_size=20))]
        at = align_up(at + size, PAGE)
    middle = data.draw(st.integers(0, len(places)))
    table = rela(*((each, elf.R_RELATIVE, each * 3) for each in places[:middle]))
    packed = packed_relr(sorted(places[middle:]))
    start = at + PAGE
    tables = {"RELA": start, "RELASZ": len(table), "RELAENT": 24}
    tables |= {"RELR": start + len(table), "RELRSZ": len(packed), "RELRENT": 8}
    said = dynamic(**tables)
    made_of.append(Segment(start, table + packed + said))
    made_of.append(Segment(start + len(table) + len(packed), said, type=elf.PT_DYNAMIC))
    file = elf_file(made_of, 0x1000)
    made = load(file)
    assert made.image == by_pyelftools(file, 0x1000, made.placed.load, made.placed.size)
    for place_ in places:
        word = struct.unpack_from("<Q", made.image, place_ - 0x1000)[0]
        assert (word - made.placed.load + 0x1000) % (1 << 64) in (place_ * 3, 0, 0x0706050403020100)


def packed_relr(places: list[int]) -> bytes:
    """The words of DT_RELR for these sorted places."""
    words: list[int] = []
    while places:
        at, places = places[0], places[1:]
        words.append(at)
        at += 8
        while True:
            bits = {(each - at) // 8 for each in places if at <= each < at + 63 * 8}
            if not bits:
                break
            places = [each for each in places if not at <= each < at + 63 * 8]
            words.append(1 | sum(2 << bit for bit in bits))
            at += 63 * 8
    return struct.pack(f"<{len(words)}Q", *words)
