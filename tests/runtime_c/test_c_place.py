"""Does a kernel get the memory that it will use, and nobody else's?"""

from __future__ import annotations

from typing import Any

import pytest
from bzimage import FIELDS, bzimage, parse
from ccore import (
    ADDED,
    CARVED,
    CORE,
    GIB,
    KIB,
    LAYOUT,
    LEFT_OUT,
    LIB,
    MIB,
    NVS,
    PAGE,
    PAYLOAD,
    RAM,
    UNACCEPTED,
    CoreError,
    Range,
    Section,
    carved_of,
    check,
    low_and_high,
    make_ram,
    plan,
    ranges_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SECTION = next(s for s in LAYOUT if s.kind == PAYLOAD)


def place(ram: Any, initrd: tuple[int, int] = (0, 0), at: int = SECTION.start, **changes: int) -> Any:
    """Places a kernel that lies at GPA `at`; `initrd`: its GPA and size."""
    kernel, out = parse(bzimage(**changes)), CORE.new("placement")
    kernel.image.data = CORE.ffi.cast("uint8_t *", at)
    check(LIB.place_linux(kernel, CORE.span(*initrd), ram, out))
    return out


def copies(out: Any) -> list[tuple[int, int, int]]:
    # `from` is a word of Python's own.
    return [(c.to, getattr(c, "from"), c.size) for c in out.copies.items[0 : out.copies.count]]


def free(ram: Any, start: int, end: int, home: int = SECTION.start) -> bool:
    """Page by page: accepted type-1 RAM, not carved, no section but the one that `home` lies in."""
    at = start - start % PAGE
    for piece in ranges_of(ram):
        if piece.start <= at < piece.end:
            usable = piece.state == UNACCEPTED or (piece.state == ADDED and piece.start <= home < piece.end)
            if piece.e820 != RAM or not usable:
                return False
            at = piece.end
        if at >= end:
            break
    return at >= end and all(end <= c or c + size <= start for c, size in carved_of(ram))


@pytest.mark.parametrize("size", [128 * MIB, 257 * MIB, 2047 * MIB, 2 * GIB, 3 * GIB, 8 * GIB, 64 * GIB])
def test_runs_in_place(size):
    ram = plan([(7, a, b) for a, b in low_and_high(size)])
    out = place(ram)
    load = SECTION.start + 1024
    assert (out.load, out.entry, copies(out)) == (load, load + 0x200, [])
    assert (out.window_start, out.window_end) == (0x1000000, 0x1000000 + 0x3000000)
    assert free(ram, out.window_start, out.window_end)


def test_window_is_above_a_kernel_that_lies_high():
    ram = plan([(7, 0, 512 * MIB)], [Section(PAYLOAD, 64 * MIB, 80 * MIB)])
    out = place(ram, at=64 * MIB)
    assert (out.load, out.window_start, out.window_end) == (64 * MIB + 1024, 66 * MIB, 66 * MIB + 0x3000000)


def test_initrd_in_the_window_moves_to_the_top_of_low_ram():
    ram = plan([(7, a, b) for a, b in low_and_high(8 * GIB)])
    start, size = 0x1100000, 0x123456
    out = place(ram, (start, size))
    to = 2 * GIB - 0x124000
    assert (out.initrd_start, out.initrd_size, copies(out)) == (to, size, [(to, start, size)])


def test_initrd_avoids_the_carved_regions():
    ram = plan([(7, 0, 256 * MIB)])
    out = place(ram, (0x1100000, MIB))
    assert out.initrd_start == 256 * MIB - 72 * KIB - MIB
    assert free(ram, out.initrd_start, out.initrd_start + MIB, home=-1)


def test_initrd_outside_of_the_window_stays():
    ram = plan([(7, 0, 256 * MIB)])
    out = place(ram, (0xE00000, 0x10001))
    assert (out.initrd_start, out.initrd_size, copies(out)) == (0xE00000, 0x10001, [])


def test_an_initrd_that_is_the_kernel_moves():
    """The kernel unpacks its initrd while it runs where it was loaded."""
    ram = plan([(7, 0, 256 * MIB)])
    whole = place(ram, (SECTION.start, 0x3000))
    assert copies(whole) == [(whole.initrd_start, SECTION.start, 0x3000)]
    assert whole.initrd_start >= whole.window_end


def test_nothing_goes_where_an_os_looks_for_tables_of_a_bios():
    """Neither an initrd that has room only there nor the window of a kernel that wants to run there."""
    ram = plan([(7, 0, 256 * MIB)], [Section(PAYLOAD, MIB, 80 * MIB)])
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(ram, (0x1100000, 2 * PAGE), at=MIB, initrd_addr_max=MIB + PAGE - 1, xloadflags=1)
    with pytest.raises(CoreError, match="kernel_not_relocatable"):
        place(ram, at=MIB, relocatable_kernel=0, pref_address=0x90000, init_size=0x8000)
    home = MIB + 2 * PAGE
    ram = plan([(7, 0, 256 * MIB)], [Section(PAYLOAD, home, 80 * MIB)])
    out = place(ram, (0x1100000, 2 * PAGE), at=home, initrd_addr_max=home)
    assert out.initrd_start == MIB


def test_initrd_without_room():
    ram = plan([(7, 0, 72 * MIB)])
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(ram, (0x1100000, 10 * MIB))
    above = plan([(7, 0, 72 * MIB), (7, 4 * GIB, 5 * GIB)])
    assert place(above, (0x1100000, 10 * MIB)).initrd_start == 5 * GIB - 10 * MIB
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(above, (0x1100000, 10 * MIB), xloadflags=1)


def test_an_initrd_does_not_reach_below_the_ram_that_it_moves_to():
    ram = plan([(7, 0, 256 * MIB), (7, 512 * MIB, 513 * MIB)])
    out = place(ram, (0x1100000, 2 * MIB))
    assert out.initrd_start == 254 * MIB
    assert free(ram, out.initrd_start, out.initrd_start + 2 * MIB, home=-1)


@pytest.mark.parametrize("alignment", [MIB, 2 * MIB, 16 * MIB])
def test_a_kernel_that_moves_is_aligned_as_it_wants_and_to_2_mib(alignment):
    wall = Section(3, 0x2000000, 0x2001000, NVS)
    ram = plan([(7, 0, 512 * MIB)], [*LAYOUT, wall])
    assert place(ram, kernel_alignment=alignment).load == (0x3000000 if alignment == 16 * MIB else 0x2200000)


def test_a_kernel_that_moves_stays_above_its_preferred_address():
    """Below it the kernel would unpack itself to the preferred address, which is not free."""
    wall = Section(3, 0x5000000, 0x5001000, NVS)
    ram = plan([(7, 0, 512 * MIB)], [*LAYOUT, wall])
    out = place(ram, pref_address=0x4000000)
    assert (out.load, out.window_start) == (0x5200000, 0x5200000)


@pytest.mark.parametrize("start", [0xE00010, 300 * MIB])
def test_an_initrd_in_mid_page_or_outside_of_ram_moves(start):
    ram = plan([(7, 0, 256 * MIB)])
    out = place(ram, (start, 0x10001))
    assert copies(out) == [(out.initrd_start, start, 0x10001)]
    assert free(ram, out.initrd_start, out.initrd_start + 0x11000, home=-1)


def test_a_kernel_that_moves_behind_a_carved_region_is_aligned():
    payload = [Range(0xA00000, 0x1000000, ADDED, RAM), Range(0x1000000, 0x10000000, UNACCEPTED, RAM)]
    out = place(make_ram(payload, [(0x2000000, PAGE)]))
    assert (out.load, out.window_start) == (0x2200000, 0x2200000)


def test_an_initrd_in_a_section_that_is_no_ram_to_the_os_moves():
    sections = [Section(PAYLOAD, 0xA00000, 0x1000000, NVS)]
    ram = plan([(7, 0, 256 * MIB)], sections)
    out = place(ram, (0xE00000, PAGE), at=0xA00000)
    assert copies(out) == [(256 * MIB - PAGE, 0xE00000, PAGE)]


def test_a_taken_window_moves_the_kernel():
    wall = Section(3, 0x2000000, 0x2001000, NVS)
    ram = plan([(7, 0, 512 * MIB)], [*LAYOUT, wall])
    out = place(ram, (0xE00000, PAGE))
    load = 0x2200000
    assert (out.load, out.entry, out.window_start, out.window_end) == (
        load,
        load + 0x200,
        load,
        load + 0x3000000,
    )
    assert copies(out) == [(load, SECTION.start + 1024, 4096)]
    assert out.initrd_start == 0xE00000
    assert free(ram, out.window_start, out.window_end, home=-1)


def test_a_window_may_not_reach_into_a_carved_region():
    sections = [*(s for s in LAYOUT if s.kind != CARVED), Section(CARVED, 0, 4 * KIB, RAM)]
    ends = 0x1000000 + FIELDS["init_size"]
    fits = plan([(7, 0, ends + 4 * KIB)], sections)
    assert place(fits).window_end == carved_of(fits)[0][0] == ends
    with pytest.raises(CoreError, match="window_no_room"):
        place(plan([(7, 0, ends)], sections))


def test_a_kernel_that_cannot_move():
    ram = plan([(7, 0, 512 * MIB)])
    out = place(ram, relocatable_kernel=0, pref_address=0x4000000)
    assert (out.load, out.window_end) == (SECTION.start + 1024, 0x4000000 + 0x3000000)
    high = plan([(7, 0, 512 * MIB)], [Section(PAYLOAD, 128 * MIB, 144 * MIB)])
    assert place(high, at=128 * MIB, relocatable_kernel=0).window_start == FIELDS["pref_address"]
    wall = plan([(7, 0, 512 * MIB)], [*LAYOUT, Section(3, 0x5000000, 0x5001000)])
    with pytest.raises(CoreError, match="kernel_not_relocatable"):
        place(wall, relocatable_kernel=0, pref_address=0x4000000)


def test_no_room_for_the_window():
    with pytest.raises(CoreError, match="window_no_room"):
        place(plan([(7, 0, 48 * MIB)]))


def test_above_4_gib_only_a_kernel_that_may():
    ram = plan([(7, 0, 48 * MIB), (7, 4 * GIB, 5 * GIB)])
    assert place(ram).load == 4 * GIB
    with pytest.raises(CoreError, match="window_no_room"):
        place(ram, xloadflags=1)


def test_a_window_may_not_reach_into_ram_that_was_left_out():
    ram = make_ram(
        [
            Range(0, 0xA00000, UNACCEPTED, RAM),
            Range(0xA00000, 0x1A00000, ADDED, RAM),
            Range(0x1A00000, 0x2000000, UNACCEPTED, RAM),
            Range(0x2000000, 0x10000000, LEFT_OUT, RAM),
        ]
    )
    with pytest.raises(CoreError, match="window_no_room"):
        place(ram)


def test_a_window_may_not_reach_beyond_ram():
    ram = make_ram(
        [
            Range(0, 0xA00000, UNACCEPTED, RAM),
            Range(0xA00000, 0x1A00000, ADDED, RAM),
            Range(0x1A00000, 0x2000000, UNACCEPTED, RAM),
        ]
    )
    with pytest.raises(CoreError, match="window_no_room"):
        place(ram)


def test_a_window_may_begin_where_memory_of_another_kind_ends():
    ram = make_ram(
        [
            Range(0, 0xA00000, UNACCEPTED, RAM),
            Range(0xA00000, 0xF00000, ADDED, RAM),
            Range(0xF00000, 0x1000000, ADDED, NVS),
            Range(0x1000000, 0x10000000, UNACCEPTED, RAM),
        ]
    )
    assert place(ram).window_start == 0x1000000
    assert copies(place(ram)) == []


def test_an_initrd_ends_where_the_kernel_says_or_moves():
    ram, start, size = plan([(7, 0, GIB)]), 256 * MIB, 5 * PAGE
    assert place(ram, (start, size), initrd_addr_max=start + size - 1).initrd_start == start
    assert place(ram, (start, size), initrd_addr_max=start + size - 2).initrd_start < start


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(27, 1000), st.integers(1, 64)), max_size=4),
    st.integers(1, 200),
    st.one_of(st.none(), st.tuples(st.integers(0x1001, 0x19FF), st.integers(1, 0x200000))),
    st.integers(64, 400),
)
def test_nothing_ever_overlaps(walls, window_mib, initrd, ram_mib):
    sections = [Section(3, MIB * at, MIB * at + PAGE * pages, NVS) for at, pages in walls]
    initrd = (initrd[0] * PAGE, min(initrd[1], SECTION.end - initrd[0] * PAGE)) if initrd else (0, 0)
    try:
        ram = plan([(7, 0, ram_mib * MIB)], [*LAYOUT, *sections])
        out = place(ram, initrd, init_size=window_mib * MIB)
    except CoreError:
        return
    assert free(ram, out.window_start, out.window_end)
    assert free(ram, out.load, out.load + 4096)
    assert out.window_start == max(-(-out.load // 0x200000) * 0x200000, 0x1000000)
    assert out.window_end == out.window_start + window_mib * MIB
    if initrd[1]:
        end = out.initrd_start + out.initrd_size
        assert free(ram, out.initrd_start, end)
        assert end <= out.window_start or out.window_end <= out.initrd_start
        assert out.initrd_start % PAGE == 0
    for to, _, size in copies(out):
        assert free(ram, to, to + size, home=-1)
