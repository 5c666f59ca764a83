"""Does the RAM plan cover every byte of RAM exactly once, whatever form the VMM's HOB has?"""

from __future__ import annotations

import itertools

import pytest
from ccore import (
    ACPI,
    ADDED,
    BFV,
    CARVED,
    CFV,
    GIB,
    KIB,
    LAYOUT,
    MIB,
    NVS,
    PAYLOAD,
    RAM,
    RESERVED,
    TEMP_MEM,
    UNACCEPTED,
    CoreError,
    Section,
    carved_of,
    low_and_high,
    plan,
    ranges_of,
)
from hypothesis import given
from hypothesis import strategies as st

SIZES = [128 * MIB, 257 * MIB, 2047 * MIB, 2 * GIB, 3 * GIB, 8 * GIB, 64 * GIB]
SECTIONS = [s for s in LAYOUT if s.kind not in (BFV, CARVED)]
SYSTEM, MMIO, MEMORY_RESERVED, UNACCEPTED_HOB = 0, 1, 5, 7

Resources = list[tuple[int, int, int]]


def qemu(ram: list[tuple[int, int]]) -> Resources:
    """Type 7, cut around TD HOB and TempMem, which are type 0; nothing else; not merged."""
    out: Resources = []
    for start, end in ram:
        at = start
        for section in sorted(SECTIONS, key=lambda s: s.start):
            if not start <= section.start < end:
                continue
            if section.start > at:
                out.append((UNACCEPTED_HOB, at, section.start))
            out.append((SYSTEM, section.start, section.end))
            at = section.end
        out.append((UNACCEPTED_HOB, at, end))
    return out


def cloud_hypervisor(ram: list[tuple[int, int]]) -> Resources:
    """Type 7 over everything but TempMem; MMIO below 4 GiB and above RAM, the latter not page aligned."""
    out: Resources = []
    for start, end in ram:
        at = start
        for section in SECTIONS:
            if section.kind == TEMP_MEM and start <= section.start < end:
                if section.start > at:
                    out.append((UNACCEPTED_HOB, at, section.start))
                out.append((SYSTEM, section.start, section.end))
                at = section.end
        out.append((UNACCEPTED_HOB, at, end))
    top = max(end for _, end in ram)
    return [*out, (MMIO, 3 * GIB, 4 * GIB - 18 * MIB), (MMIO, max(top, 4 * GIB), 0x3FFF_FFEF_FFFF)]


def cloud_hypervisor_legacy(ram: list[tuple[int, int]]) -> Resources:
    kinds = {UNACCEPTED_HOB: SYSTEM, SYSTEM: MEMORY_RESERVED, MMIO: MMIO}
    return [(kinds[kind], start, end) for kind, start, end in cloud_hypervisor(ram)]


def dragonball(ram: list[tuple[int, int]]) -> Resources:
    window = [(SYSTEM, s.start, s.end) for s in LAYOUT if s.kind == BFV]
    return [*((UNACCEPTED_HOB, a, b) for a, b in ram), *window, (MMIO, 3 * GIB, 4 * GIB - 64 * KIB)]


def libkrun(ram: list[tuple[int, int]]) -> Resources:
    return [(SYSTEM, start, end) for start, end in ram]


FORMS = [qemu, cloud_hypervisor, cloud_hypervisor_legacy, dragonball, libkrun]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_covers_every_byte_once(form, size):
    ram = low_and_high(size)
    planned = plan(form(ram))
    ranges = ranges_of(planned)
    for before, after in itertools.pairwise(ranges):
        assert before.start < before.end <= after.start
    window = LAYOUT[0]
    assert ranges_of(planned).count(type(ranges[0])(window.start, window.end, ADDED, RESERVED)) == 1
    inside = [r for r in ranges if r.start != window.start]
    assert sum(r.end - r.start for r in inside) == size
    assert all(any(a <= r.start and r.end <= b for a, b in ram) for r in inside)
    for section in SECTIONS:
        (found,) = [r for r in ranges if r.start == section.start]
        assert (found.end, found.state, found.e820) == (section.end, ADDED, section.e820)


@pytest.mark.parametrize("spare", [4 * KIB, 8 * KIB, 60 * KIB, 64 * KIB, 68 * KIB, 2 * MIB - 4 * KIB])
def test_no_region_of_up_to_2_mib_lies_in_two_blocks_of_2_mib(spare):
    """RAM ends `spare` bytes behind such a block."""
    sizes = (4 * KIB, 64 * KIB, 4 * KIB)
    top = 512 * MIB + spare
    end, expected = top, []
    for size in sizes:
        if end - size < 512 * MIB < end:
            end = 512 * MIB
        end -= size
        expected.append((end, size))
    assert carved_of(plan([(UNACCEPTED_HOB, 0, top)])) == expected


@pytest.mark.parametrize(
    ("size", "start"),
    [
        (2 * MIB, 510 * MIB),
        (2 * MIB + 4 * KIB, 510 * MIB),
        (4 * MIB, 508 * MIB + 4 * KIB),
    ],
)
def test_larger_regions_lie_as_high_as_they_can(size, start):
    layout = (*LAYOUT[:1], *SECTIONS, Section(CARVED, 0, size, NVS))
    (found,) = carved_of(plan([(UNACCEPTED_HOB, 0, 512 * MIB + 4 * KIB)], layout))
    assert found == (start, size)


@pytest.mark.parametrize("size", SIZES)
def test_carves_top_down_in_order(size):
    planned = plan(dragonball(low_and_high(size)))
    top = min(size, 3 * GIB)
    assert carved_of(planned) == [
        (top - 4 * KIB, 4 * KIB),
        (top - 68 * KIB, 64 * KIB),
        (top - 72 * KIB, 4 * KIB),
    ]
    last = [r for r in ranges_of(planned) if r.end <= top][-3:]
    assert [(r.end - r.start, r.e820, r.state) for r in last] == [
        (4 * KIB, RAM, UNACCEPTED),
        (64 * KIB, ACPI, UNACCEPTED),
        (4 * KIB, NVS, UNACCEPTED),
    ]


def test_type_5_is_not_ram_beside_type_7_and_is_without():
    sections = [Section(TEMP_MEM, 0x10000, 0x11000)]
    with_type_7 = plan([(7, 0, MIB), (5, 2 * MIB, 3 * MIB)], sections)
    assert [(r.start, r.end) for r in ranges_of(with_type_7)] == [
        (0, 0x10000),
        (0x10000, 0x11000),
        (0x11000, MIB),
    ]
    legacy = plan([(0, 0, MIB), (5, 2 * MIB, 3 * MIB)], sections)
    last = ranges_of(legacy)[-1]
    assert (last.start, last.end, last.state) == (2 * MIB, 3 * MIB, UNACCEPTED)


def test_carved_regions_avoid_sections_and_skip_small_holes():
    layout = [
        Section(TEMP_MEM, 10 * MIB - 8 * KIB, 10 * MIB - 4 * KIB),
        Section(CARVED, 0, 8 * KIB, NVS),
        Section(CARVED, 0, 4 * KIB, NVS),
    ]
    planned = plan([(7, 0, 10 * MIB)], layout)
    assert carved_of(planned) == [(10 * MIB - 16 * KIB, 8 * KIB), (10 * MIB - 20 * KIB, 4 * KIB)]


def test_a_region_as_large_as_its_range_leaves_nothing_of_it():
    ranges = ranges_of(plan([(7, 0, 16 * MIB), (7, 32 * MIB, 33 * MIB)], [Section(CARVED, 0, MIB, NVS)]))
    assert [(r.start, r.end, r.e820) for r in ranges] == [(0, 16 * MIB, RAM), (32 * MIB, 33 * MIB, NVS)]


def test_the_parts_of_the_image_below_4_gib_are_listed_by_address():
    parts = [(BFV, 4 * GIB - 64 * KIB, 4 * GIB), (CFV, 4 * GIB - 128 * KIB, 4 * GIB - 64 * KIB)]
    ranges = ranges_of(plan([(7, 0, 16 * MIB)], [Section(*part, RESERVED) for part in parts]))
    assert [(r.start, r.end, r.e820, r.state) for r in ranges[1:]] == [
        (start, end, RESERVED, ADDED) for _, start, end in reversed(parts)
    ]


@pytest.mark.parametrize("end", [GIB, GIB + 8 * KIB])  # of a block of 2 MiB; in one that has room for it
@pytest.mark.parametrize("more", [0, 1, 4095])
def test_regions_lie_in_whole_pages_below_the_limit(end, more):
    layout = [Section(CARVED, 0, 5000, NVS)]
    assert carved_of(plan([(7, 0, 3 * GIB)], layout, limit=end + more)) == [(end - 8 * KIB, 8 * KIB)]


def test_ram_may_be_listed_in_any_order():
    ram = [(7, 64 * MIB, 512 * MIB), (7, GIB, 2 * GIB), (7, 0, 64 * MIB)]
    assert ranges_of(plan(ram)) == ranges_of(plan(sorted(ram)))


def test_sections_may_be_declared_in_any_order():
    sections = [Section(TEMP_MEM, 32 * MIB, 33 * MIB), Section(PAYLOAD, 16 * MIB, 17 * MIB)]
    ram = [(7, 0, 64 * MIB)]
    assert ranges_of(plan(ram, sections)) == ranges_of(plan(ram, sections[::-1]))


def test_section_over_two_touching_resources_is_one_range():
    layout = [Section(PAYLOAD, MIB, 3 * MIB)]
    ranges = ranges_of(plan([(7, 0, 2 * MIB), (7, 2 * MIB, 4 * MIB)], layout))
    assert [(r.start, r.end, r.state) for r in ranges] == [
        (0, MIB, UNACCEPTED),
        (MIB, 3 * MIB, ADDED),
        (3 * MIB, 4 * MIB, UNACCEPTED),
    ]


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        ([(7, 0, 64 * MIB), (7, 32 * MIB, 96 * MIB)], "ram_range_overlap"),
        ([(7, 0, 64 * MIB), (1, 60 * MIB, 61 * MIB)], "ram_range_overlap"),
        ([(7, 0, 64 * MIB), (5, 60 * MIB, 61 * MIB)], "ram_range_overlap"),
        ([(7, 0, 4 * GIB)], "ram_range_overlap"),
        ([(7, 0, 64 * MIB + 1)], "ram_range_invalid"),
        ([(7, 1, 64 * MIB)], "ram_range_invalid"),
        ([(7, 0, 64 * MIB), (7, 1 << 51, (1 << 51) + MIB)], "ram_range_invalid"),
        ([(7, 0, 16 * MIB)], "ram_section_outside"),
        ([(7, 9 * MIB, 64 * MIB)], "ram_section_outside"),
        ([(7, 0, 0x846000), (7, 0x847000, 64 * MIB)], "ram_section_outside"),
        ([], "ram_section_outside"),
        ([(7, 0, 64 * MIB), *((7, GIB + i * MIB, GIB + i * MIB + 4 * KIB) for i in range(127))], None),
    ],
)
def test_refuses(resources, error):
    if error is None:
        plan(resources)
        return
    with pytest.raises(CoreError, match=error):
        plan(resources)


# Pages of the window: its first, the I/O APIC's, the local APIC's, another, the one before the image.
WINDOW = [0xFC00_0000, 0xFEC0_0000, 0xFEE0_0000, 0xFF04_0000, 4 * GIB - 68 * KIB]


@pytest.mark.parametrize("ram", [UNACCEPTED_HOB, SYSTEM], ids=["listed as type 7", "legacy"])
@pytest.mark.parametrize("kind", [SYSTEM, MEMORY_RESERVED, UNACCEPTED_HOB])
@pytest.mark.parametrize("start", WINDOW)
def test_nothing_in_the_firmware_window_is_ram(start, kind, ram):
    plain = [(ram, 0, 64 * MIB), (MEMORY_RESERVED, 128 * MIB, 256 * MIB)]  # RAM in the legacy form alone
    assert ranges_of(plan([*plain, (kind, start, start + 4 * KIB)])) == ranges_of(plan(plain))
    whole = (kind, 0xFC00_0000, 4 * GIB)
    assert ranges_of(plan([*plain, whole])) == ranges_of(plan(plain))


@pytest.mark.parametrize("kind", [SYSTEM, UNACCEPTED_HOB])
@pytest.mark.parametrize(
    ("start", "end"),
    [(0xFBFF_F000, 0xFC00_1000), (0x8000_0000, 4 * GIB), (4 * GIB - 4 * KIB, 5 * GIB), (3 * GIB, 5 * GIB)],
)
def test_ram_that_reaches_into_the_firmware_window_is_refused(kind, start, end):
    with pytest.raises(CoreError, match="ram_range_overlap"):
        plan([(kind, 0, 64 * MIB), (kind, start, end)])


def test_ram_ends_where_the_firmware_window_begins():
    listed = [(0, 64 * MIB), (0xFBFF_F000, 0xFC00_0000), (4 * GIB, 5 * GIB)]
    ranges = ranges_of(plan([(7, start, end) for start, end in listed], LAYOUT[:1]))
    assert [(r.start, r.end) for r in ranges if r.e820 == RAM] == listed


def test_refuses_a_gpa_width_that_no_td_has():
    from ccore import LIB, check, make_layout, make_td, make_vmm

    for gpaw in (0, 31, 53, 1 << 40):
        with pytest.raises(CoreError, match="ram_range_invalid"):
            check(LIB.plan_memory(make_vmm([]), make_td(gpaw=gpaw), make_layout(), plan([], [])))


def test_too_small_for_the_regions():
    with pytest.raises(CoreError, match="ram_too_small"):
        plan([(7, 0, 64 * KIB)], [Section(CARVED, 0, 4 * KIB)])
    with pytest.raises(CoreError, match="ram_too_small"):
        plan([(7, 0, 2 * MIB)], [Section(CARVED, 0, 3 * MIB)])


PAGES = st.integers(0, 6000).map(lambda page: page * 4096)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 5, 7]), PAGES, PAGES), max_size=12),
    st.lists(st.tuples(PAGES, st.integers(1, 8)), max_size=4),
)
def test_any_plan_is_sorted_disjoint_and_inside_what_was_listed(resources, places):
    resources = [(kind, min(a, b), max(a, b)) for kind, a, b in resources]
    layout = [Section(TEMP_MEM, start, start + pages * 4096, NVS) for start, pages in places]
    try:
        ranges = ranges_of(plan(resources, [*layout, Section(CARVED, 0, 4096, ACPI)]))
    except CoreError:
        return
    for before, after in itertools.pairwise(ranges):
        assert before.end <= after.start
    legacy = all(kind != 7 or start == end for kind, start, end in resources)
    kinds = (0, 5) if legacy else (0, 7)
    listed = sum(end - start for kind, start, end in resources if kind in kinds)
    assert sum(r.end - r.start for r in ranges) == listed
    assert sum(r.e820 == ACPI for r in ranges) == 1


def test_ram_that_is_only_said_to_be_added_is_accepted_like_the_rest():
    """Whether it was, the TDX module says: then it is cleared, else it would stop the TD."""
    layout = [Section(TEMP_MEM, 72 * MIB, 73 * MIB), Section(CARVED, 0, 8 * KIB, NVS)]
    planned = plan([(7, 0, 64 * MIB), (0, 64 * MIB, 128 * MIB)], layout)
    assert carved_of(planned) == [(128 * MIB - 8 * KIB, 8 * KIB)]
    assert [(r.start, r.end) for r in ranges_of(planned) if r.state == ADDED] == [(72 * MIB, 73 * MIB)]


def test_a_row_without_bytes_says_nothing():
    """Not even that the list is of the newer form, whose type 5 is no RAM."""
    legacy = [(SYSTEM, 0, 256 * MIB), (MEMORY_RESERVED, 256 * MIB, 512 * MIB)]
    ram = plan([*legacy, (UNACCEPTED_HOB, 16 * MIB, 16 * MIB)])
    assert ranges_of(ram) == ranges_of(plan(legacy))
    plain = [(UNACCEPTED_HOB, 0, 512 * MIB)]
    for kind in (MMIO, MEMORY_RESERVED):
        assert ranges_of(plan([*plain, (kind, 16 * MIB, 16 * MIB)])) == ranges_of(plan(plain))


def test_more_pieces_than_a_plan_holds():
    sections = [
        Section(TEMP_MEM, 64 * MIB + 2 * i * 4 * KIB, 64 * MIB + (2 * i + 1) * 4 * KIB) for i in range(130)
    ]
    with pytest.raises(CoreError, match="ram_too_fragmented"):
        plan([(UNACCEPTED_HOB, 0, 512 * MIB)], sections)


@pytest.mark.parametrize("sizes", [[0], [(1 << 64) - 1], [5 * GIB], [4 * KIB] * 10])
def test_regions_that_cannot_be_carved(sizes):
    plan([(UNACCEPTED_HOB, 0, 512 * MIB)], [Section(CARVED, 0, 4 * KIB)] * 9)
    with pytest.raises(CoreError, match="ram_too_small"):
        plan([(UNACCEPTED_HOB, 0, 512 * MIB)], [Section(CARVED, 0, size) for size in sizes])


def test_ram_over_ram_that_was_listed_before():
    with pytest.raises(CoreError, match="ram_range_overlap"):
        plan([(UNACCEPTED_HOB, 16 * MIB, 512 * MIB), (UNACCEPTED_HOB, 0, 16 * MIB + 4 * KIB)])
