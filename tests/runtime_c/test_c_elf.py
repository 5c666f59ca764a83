"""Is a vmlinux that comes as an ELF file measured whole, and do its segments go where only they are?"""

from __future__ import annotations

from typing import Any

import pytest
from bzimage import guarded
from ccore import (
    CORE,
    GIB,
    LIB,
    MIB,
    NVS,
    PAGE,
    PAYLOAD,
    RESERVED,
    CoreError,
    Section,
    carved_of,
    check,
    plan,
)
from debian import vmlinux as debian_vmlinux
from hypothesis import given, settings
from hypothesis import strategies as st
from vmlinux import vmlinux

from formats import bundle, elf
from formats.structs import offset_of

BASE, ENTRY = 0x1000000, 0x1000B53
TEXT, DATA = bytes(range(1, 256)) * 48, b"data" * 700  # 0x2FD0 and 0xAF0 bytes
DATA_AT = BASE + 0x5000
SEGMENTS = [(0xFFFFFFFF81000000, BASE, TEXT), (0, DATA_AT, DATA)]
FILE = vmlinux(SEGMENTS, ENTRY, zeros=0x1800)
HEADS = elf.HEADER.sizeof()
HOME = 0x600_0000  # where the file lies
SECTIONS = [Section(PAYLOAD, HOME, HOME + 64 * MIB), Section(3, 0x80_0000, 0x81_0000, NVS)]


def extent(data: bytes) -> int:
    out, region = CORE.new("span"), guarded(data)
    check(LIB.elf_extent(region, out))
    assert out.data == region.data
    return int(out.size)


def place(
    file: bytes = FILE,
    initrd: tuple[int, int] = (0, 0),
    size: int = 256 * MIB,
    sections: list[Section] = SECTIONS,
) -> Any:
    """The placement of a file that is read where it is, and taken for one at `HOME` in this much RAM."""
    region, out = guarded(file), CORE.new("placement")
    ram = plan([(7, 0, size)], sections)
    check(LIB.place_elf(region, CORE.span(*initrd), ram, out))
    moved = HOME - CORE.address(region.data)
    copies = [
        (c.to, (getattr(c, "from") + moved) % (1 << 64), c.size, c.zeros)
        for c in out.copies.items[0 : out.copies.count]
    ]
    return out, copies


def field(index: int, name: str, value: int, file: bytes = FILE) -> bytes:
    """The file with another value in a program header; 0 is the note's."""
    at = HEADS + index * elf.PROGRAM_HEADER.sizeof() + offset_of(elf.PROGRAM_HEADER, name)
    width = 4 if name in ("type", "flags") else 8
    return file[:at] + value.to_bytes(width, "little") + file[at + width :]


def offset(index: int) -> int:
    """Of a segment in the file."""
    heads = HEADS + 3 * elf.PROGRAM_HEADER.sizeof()
    return heads if index == 0 else heads + len(TEXT)


# ---- how far the file goes


def test_debians_kernel() -> None:
    data = debian_vmlinux()
    parts = elf.executable(data).segments
    assert extent(data) == elf.true_length(data) < len(data)
    out, copies = place(data)
    assert [(to, size) for to, _, size, _ in copies] == [(p.physical, len(p.data)) for p in parts]
    assert (out.window_start, out.window_end) == (parts[0].physical, parts[-1].physical + parts[-1].size)
    assert all(
        data[at - HOME : at - HOME + size] == p.data
        for (_, at, size, _), p in zip(copies, parts, strict=True)
    )


def test_what_follows_the_file_is_not_the_files() -> None:
    assert (
        extent(FILE) == extent(FILE + b"relocations" * 1000) == len(FILE) == elf.true_length(FILE + b"more")
    )
    assert place(FILE + b"more")[1] == place()[1]


@pytest.mark.parametrize("count", [1, 45])
def test_the_table_of_sections_is_the_files(count: int) -> None:
    at, size = len(FILE) + 100, 64 * count
    header = {"section_offset": at, "section_count": count, "section_size": 64}
    file = vmlinux(SEGMENTS, ENTRY, **header).ljust(at + size, b"s")
    assert extent(file) == extent(file + b"more") == elf.true_length(file) == len(file)
    with pytest.raises(CoreError, match="kernel_truncated"):
        extent(file[:-1])


def test_a_table_of_sections_inside() -> None:
    file = vmlinux(SEGMENTS, ENTRY, section_offset=HEADS, section_count=2, section_size=64)
    assert extent(file) == elf.true_length(file) == len(file)


def test_headers_behind_the_segments() -> None:
    behind = len(FILE)
    file = FILE[:32] + behind.to_bytes(8, "little") + FILE[40:] + FILE[HEADS : HEADS + 3 * 56]
    assert extent(file + b"more") == elf.true_length(file) == len(file)
    assert place(file)[1] == place()[1]
    with pytest.raises(CoreError, match="kernel_truncated"):
        extent(file[:-1])


@pytest.mark.parametrize("size", [HEADS, HEADS + 3 * 56 - 1, len(FILE) - 1])
def test_cut_short(size: int) -> None:
    for work in (extent, place):
        with pytest.raises(CoreError, match="kernel_truncated"):
            work(FILE[:size])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        FILE[: HEADS - 1],
        b"\x7fELG" + FILE[4:],
        b"MZ" + FILE[2:],
        vmlinux(SEGMENTS, ENTRY, file_class=1),
        vmlinux(SEGMENTS, ENTRY, data=2),
        vmlinux(SEGMENTS, ENTRY, type=3),
        vmlinux(SEGMENTS, ENTRY, machine=183),
        vmlinux(SEGMENTS, ENTRY, program_size=55),
    ],
)
def test_no_executable_for_this_machine(file: bytes) -> None:
    for work in (extent, place):
        with pytest.raises(CoreError, match="kernel_not_elf"):
            work(file)


def test_numbers_that_wrap() -> None:
    top = (1 << 64) - 1
    for file in (
        vmlinux(SEGMENTS, ENTRY, program_offset=top - 10),
        vmlinux(SEGMENTS, ENTRY, program_offset=top, program_count=0xFFFF),
        field(1, "offset", top),
        field(1, "file_size", top),
        field(1, "offset", len(FILE) + 1),
    ):
        for work in (extent, place):
            with pytest.raises(CoreError, match="kernel_truncated"):
                work(file)
    with pytest.raises(CoreError, match="kernel_truncated"):
        extent(vmlinux(SEGMENTS, ENTRY, section_offset=top, section_count=1, section_size=64))


# ---- where its segments go


def test_each_segment_with_zeros_up_to_the_next() -> None:
    out, copies = place()
    end = DATA_AT + 0x3000  # of the page in which 0xAF0 bytes and 0x1800 zeros end
    assert copies == [
        (BASE, HOME + offset(0), len(TEXT), 0x5000 - len(TEXT)),
        (DATA_AT, HOME + offset(1), len(DATA), end - DATA_AT - len(DATA)),
    ]
    assert (out.load, out.window_start, out.window_end, out.entry) == (BASE, BASE, end, ENTRY)
    assert (out.kernel.header_size, out.kernel.init_size, out.kernel.protected_size) == (
        0,
        end - BASE,
        end - BASE,
    )
    assert out.kernel.image.size == len(FILE)
    assert (out.initrd_start, out.initrd_size) == (0, 0)


def test_the_pages_between_two_segments_are_zeros() -> None:
    """No segment has them in its memory size: the first one ends in the page before."""
    gap = 4 * PAGE
    out, copies = place(vmlinux([(0, BASE, TEXT), (0, DATA_AT + gap, DATA)], ENTRY, zeros=0x1800))
    assert copies[0][2:] == (len(TEXT), DATA_AT + gap - BASE - len(TEXT))
    assert sum(size + zeros for *_, size, zeros in copies) == out.window_end - out.window_start


def test_a_segment_of_zeros_alone() -> None:
    file = field(2, "offset", 1 << 63, field(2, "file_size", 0))  # nobody reads there
    _, copies = place(file)
    assert copies[1][0] == DATA_AT
    assert copies[1][2:] == (0, 0x3000)


def test_what_has_no_bytes_in_memory_is_not_there() -> None:
    file = field(2, "memory_size", 0, field(2, "file_size", 0))
    assert [copy[0] for copy in place(file)[1]] == [BASE]


def many(count: int) -> bytes:
    return vmlinux([(0, BASE + number * PAGE, b"\x90" * 100) for number in range(count)], BASE)


def test_as_many_segments_as_a_placement_has_room_for() -> None:
    assert len(place(many(8))[1]) == 8
    _, copies = place(many(8), initrd=(BASE, 100))
    assert len(copies) == 9
    with pytest.raises(CoreError, match="kernel_segments"):
        place(many(9))


@pytest.mark.parametrize(
    "file",
    [
        field(1, "physical", BASE + 1),
        field(1, "memory_size", len(TEXT) - 1),
        field(1, "physical", DATA_AT + PAGE),  # behind the other
        field(2, "physical", BASE + 0x4000),  # in the last page of zeros
        field(2, "physical", BASE),
        field(2, "physical", 4 * GIB + PAGE),
        field(2, "physical", (1 << 64) - PAGE),
        field(2, "memory_size", 4 * GIB - DATA_AT + 1),
        field(2, "memory_size", (1 << 64) - 1),
    ],
)
def test_segments_that_overlap_or_do_not_fit(file: bytes) -> None:
    with pytest.raises(CoreError, match="kernel_segments"):
        place(file)


@pytest.mark.parametrize(
    "entry", [BASE - 1, BASE + len(TEXT) - 15, BASE + len(TEXT), DATA_AT - 1, DATA_AT + len(DATA), 0, 1 << 63]
)
def test_an_entry_outside_of_a_segments_bytes(entry: int) -> None:
    with pytest.raises(CoreError, match="kernel_entry_outside"):
        place(vmlinux(SEGMENTS, entry))


@pytest.mark.parametrize("entry", [BASE, BASE + len(TEXT) - 16, DATA_AT])
def test_an_entry_in_any_segment(entry: int) -> None:
    assert place(vmlinux(SEGMENTS, entry))[0].entry == entry


def test_a_note_is_not_entered() -> None:
    with pytest.raises(CoreError, match="kernel_entry_outside"):
        place(field(1, "type", 4, vmlinux(SEGMENTS[:1], BASE)))


@pytest.mark.parametrize(
    ("base", "sections"),
    [
        (0xFF000, SECTIONS),  # below 1 MiB
        (0x80_0000, SECTIONS),  # a section of the image
        (HOME, SECTIONS),  # the file itself
        (255 * MIB, SECTIONS),  # a part beyond RAM
        (BASE, [*SECTIONS, Section(3, BASE + 0x4000, BASE + 0x5000, RESERVED)]),  # between two segments
        (BASE, [*SECTIONS, Section(3, DATA_AT + 0x2000, DATA_AT + 0x3000)]),  # in the zeros at the end
    ],
)
def test_a_window_that_is_not_free(base: int, sections: list[Section]) -> None:
    segments = (
        [(0, base, TEXT), (0, base + 0x5000, DATA)] if base < 255 * MIB else [(0, base, bytes(2 * MIB))]
    )
    with pytest.raises(CoreError, match="window_no_room"):
        place(vmlinux(segments, base, zeros=0x1800), sections=sections)


def test_an_initrd_that_is_no_part_of_the_files_section_moves_to_the_top() -> None:
    size = 12345
    out, copies = place(initrd=(HOME + 0x10000, size))
    assert out.initrd_start == 256 * MIB - 4 * PAGE
    assert copies[2][0] == out.initrd_start
    assert copies[2][2:] == (size, 0)


def test_a_bundle_of_an_elf_file() -> None:
    """As of a bzImage: the initrd begins with the page behind its header, and ends the section."""
    initrd = b"an initrd" * 1000
    region, file, out = guarded(bundle.write(FILE + b"more", initrd)), CORE.new("span"), CORE.new("span")
    check(LIB.elf_extent(region, file))
    check(LIB.initrd_extent(region, file, out))
    assert CORE.content(file) == FILE
    assert CORE.content(out) == initrd
    assert bundle.read(CORE.content(region)) == (FILE, initrd)


def test_an_initrd_without_room() -> None:
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(initrd=(HOME + 0x10000, 200 * MIB))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, HEADS + 3 * 56 - 1),
            st.one_of(st.integers(0, 255), st.sampled_from((0, 1, 0x10, 0x7F, 0x80, 0xFF))),
        ),
        max_size=6,
    ),
    st.integers(len(FILE) - 100, len(FILE) + 100),
    st.integers(2, 9),
)
def test_any_file_is_placed_whole_or_refused(changes: list[tuple[int, int]], size: int, parts: int) -> None:
    file = bytearray(FILE if parts == 2 else many(parts))
    for place_, value in changes:
        file[place_] = value
    data = bytes(file.ljust(size, b"\0")[:size])
    region, found, out = guarded(data), CORE.new("span"), CORE.new("placement")
    if LIB.elf_extent(region, found):
        return
    assert found.size <= size
    assert found.size == elf.true_length(data)
    ram = plan([(7, 0, 256 * MIB)], SECTIONS)
    if LIB.place_elf(found, CORE.span(HOME, 100), ram, out):
        return
    copies = list(out.copies.items[0 : out.copies.count])
    at = out.window_start
    for copy in copies[:-1] if out.initrd_start != HOME else copies:
        start = getattr(copy, "from") - CORE.address(region.data)
        assert copy.to == at
        assert copy.size == 0 or 0 <= start <= start + copy.size <= found.size
        at += copy.size + copy.zeros
    assert at == out.window_end
    assert out.window_start <= out.entry <= out.window_end - 16
    assert all(at <= c or c + s <= out.window_start for c, s in carved_of(ram))
