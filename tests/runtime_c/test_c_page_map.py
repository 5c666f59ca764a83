"""Do the page tables say what was asked for, by a walker of the test's own?"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from ccore import CORE, GIB, KIB, LIB, MIB, PAGE, CoreError, check
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl import api
from formats.paging import CLEARING_TABLES
from gen.boot.paging import plan
from gen.build import mapped_regions

LINUX = Path(__file__).parents[2] / "dsl" / "flows" / "linux.tdf"
NONE, R, RW, RX, RWX = 0, 1, 2, 3, 7
MEANING = {R: "r", RW: "rw", RX: "rx", RWX: "rwx"}
SHARED = 1 << 51


class Tables:
    def __init__(self, pages: int = 64) -> None:
        self.memory = CORE.guarded(pages * PAGE)
        self.paging = CORE.new("paging")
        self.paging.tables.data = CORE.ffi.cast("uint8_t *", self.memory.address)
        self.paging.tables.size = pages * PAGE
        self.paging.used = 1

    def entry(self, table: int, index: int) -> int:
        return int.from_bytes(CORE.bytes_at(table + 8 * index, 8), "little")

    def put(self, table: int, index: int, value: int) -> None:
        CORE.ffi.cast("uint64_t *", table)[index] = value

    def map(self, start, size, access, physical=None) -> None:
        check(LIB.page_map(self.paging, start, start if physical is None else physical, size, access))

    def walk(self, address: int) -> tuple[int, str] | None:
        """Physical address and rights, by SDM volume 3, table 4-15 and following."""
        table, writable, executable = self.memory.address, True, True
        for shift in (39, 30, 21, 12):
            entry = self.entry(table, (address >> shift) & 511)
            if not entry & 1:
                return None
            writable &= bool(entry & 2)
            executable &= not entry >> 63
            base = entry & 0x000F_FFFF_FFFF_F000
            if shift == 12 or entry & 0x80:
                assert base % (1 << shift) == 0
                assert shift != 12 or not entry & 0x80  # PAT in a 4 KiB entry
                rights = "r" + "w" * writable + "x" * executable
                return base + address % (1 << shift), rights
            table = base
        raise AssertionError

    def large(self, address: int) -> bool:
        table = self.memory.address
        for shift in (39, 30, 21):
            entry = self.entry(table, (address >> shift) & 511)
            if entry & 0x80:
                return True
            table = entry & 0x000F_FFFF_FFFF_F000
        return False


@pytest.mark.parametrize("access", MEANING)
def test_rights(access):
    tables = Tables()
    tables.map(0x1000, 0x2000, access)
    assert tables.walk(0x1FFF) == (0x1FFF, MEANING[access])
    assert tables.walk(0x2000) == (0x2000, MEANING[access])
    assert tables.walk(0) is None
    assert tables.walk(0x3000) is None


def test_large_pages_where_they_fit():
    tables = Tables()
    tables.map(2 * MIB - PAGE, 4 * MIB + 2 * PAGE, RW)
    assert [tables.large(a) for a in (2 * MIB - PAGE, 2 * MIB, 4 * MIB, 6 * MIB)] == [
        False,
        True,
        True,
        False,
    ]
    assert tables.walk(6 * MIB + PAGE) is None
    assert tables.paging.used == 5


def test_shared_alias_and_other_physical():
    tables = Tables()
    tables.map(GIB, 2 * MIB, RW, physical=GIB | SHARED)
    assert tables.walk(GIB + 5) == (GIB + 5 | SHARED, "rw")
    tables.map(4 * MIB, 2 * MIB, R, physical=PAGE)  # physical does not allow a large page
    assert tables.walk(5 * MIB) == (MIB + PAGE, "r")


@pytest.mark.parametrize("shift", [21, 30])
def test_splits_a_large_page(shift):
    tables = Tables()
    base, size = (1 << shift) * 3, 1 << shift
    tables.map(base, PAGE, RW)  # makes the tables above
    table = tables.memory.address
    for level in range(39, shift, -9):
        table = tables.entry(table, (base >> level) & 511) & 0x000F_FFFF_FFFF_F000
    tables.put(table, (base >> shift) & 511, base | 0x80 | 3 | 1 << 63)
    tables.map(base + 0x5000, PAGE, RX)
    assert tables.walk(base + 0x5000) == (base + 0x5000, "rx")
    for at in (0, 0x4FFF, 0x6000, size - 1):
        assert tables.walk(base + at) == (base + at, "rw")
    used = tables.paging.used
    tables.map(base, size, RW)
    tables.map(base + 3 * PAGE, PAGE, RW)  # says what is there already
    assert tables.paging.used == used


@pytest.mark.parametrize("after", [R, RW, RX, RWX])
@pytest.mark.parametrize("before", [R, RW, RX, RWX])
def test_a_page_of_a_large_page_takes_the_rights_asked_for(before, after):
    """Only a large page that has exactly these rights stays whole."""
    tables = Tables()
    tables.map(2 * MIB, 2 * MIB, before)
    tables.map(2 * MIB + 5 * PAGE, PAGE, after)
    assert tables.large(2 * MIB) == (before == after)
    found = [tables.walk(2 * MIB + at)[1] for at in (4 * PAGE, 5 * PAGE, 6 * PAGE)]
    assert found == [MEANING[before], MEANING[after], MEANING[before]]


def test_a_page_inside_of_a_large_page_can_lie_elsewhere():
    tables = Tables()
    tables.map(2 * MIB, 2 * MIB, RW)
    tables.map(2 * MIB + 5 * PAGE, PAGE, RW, physical=6 * MIB + 5 * PAGE)
    found = [tables.walk(2 * MIB + at)[0] for at in (4 * PAGE, 5 * PAGE, 6 * PAGE)]
    assert found == [2 * MIB + 4 * PAGE, 6 * MIB + 5 * PAGE, 2 * MIB + 6 * PAGE]


def test_what_the_pool_held_before_maps_nothing():
    tables = Tables(5)
    pool = CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", tables.memory.address), 5 * PAGE)
    pool[PAGE:] = b"\xff" * (4 * PAGE)
    tables.map(PAGE, PAGE, RW)
    assert [tables.walk(at) for at in (0, PAGE, 2 * PAGE, 2 * MIB, GIB)] == [
        None,
        (PAGE, "rw"),
        None,
        None,
        None,
    ]


def test_removing_needs_no_tables_and_keeps_neighbours():
    tables = Tables(5)
    tables.map(0, 512 * GIB, NONE)
    assert tables.paging.used == 1
    tables.map(0, 4 * MIB, RW)
    tables.map(2 * MIB, 2 * MIB, NONE)
    assert tables.walk(2 * MIB) is None
    assert tables.walk(2 * MIB - 1) == (2 * MIB - 1, "rw")
    tables.map(0, PAGE, NONE)
    assert tables.walk(0) is None
    assert tables.walk(PAGE) == (PAGE, "rw")


def test_exhausted():
    tables = Tables(3)
    with pytest.raises(CoreError, match="paging_exhausted"):
        tables.map(0, PAGE, RW)
    tables.paging.used = 3
    with pytest.raises(CoreError, match="paging_exhausted"):
        tables.map(1 << 40, PAGE, RW)


@pytest.mark.parametrize(
    ("start", "physical", "size"),
    [
        (1, 0, PAGE),
        (0, 1, PAGE),
        (0, 0, 1),
        (1 << 47, 0, PAGE),
        (0, 0, (1 << 47) + PAGE),
        ((1 << 64) - PAGE, 0, PAGE),
        (0, 1 << 52, PAGE),
        (0, (1 << 52) + PAGE, PAGE),
        (0, (1 << 52) - PAGE, 2 * PAGE),
    ],
)
def test_bad_ranges(start, physical, size):
    with pytest.raises(CoreError, match="paging_range"):
        Tables().map(start, size, RW, physical)


@pytest.mark.parametrize("used", [0, 65, 1 << 63])
def test_bad_pool(used):
    tables = Tables()
    tables.paging.used = used
    with pytest.raises(CoreError, match="paging_range"):
        tables.map(0, PAGE, RW)


STEPS = st.tuples(st.integers(0, 1600), st.integers(1, 1200), st.sampled_from([NONE, R, RW, RX, RWX]))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=6))
def test_any_sequence_against_a_page_by_page_model(steps):
    tables = Tables(32)
    model: dict[int, str] = {}
    for first, count, access in steps:
        tables.map(first * PAGE, count * PAGE, access)
        for page in range(first, first + count):
            if access:
                model[page] = MEANING[access]
            else:
                model.pop(page, None)
    for page in range(0, 2900, 7):
        expected = (page * PAGE, model[page]) if page in model else None
        assert tables.walk(page * PAGE) == expected


def round_up(value: int) -> int:
    return -(-value // PAGE) * PAGE


@pytest.mark.parametrize("initrd_above", [False, True], ids=["low", "above 4 GiB"])
@pytest.mark.parametrize("top", [256 * MIB, GIB, 2 * GIB, 3 * GIB])
def test_the_shipped_flows_pool_holds_every_boot(top: int, initrd_above: bool) -> None:
    """RAM that ends anywhere, kernels and initrds of any size: what `accept`, `load` and `handoff` map."""
    firmware = api.check_file(LINUX).require()
    regions = {region.name: region for region in mapped_regions(firmware)}
    first = plan(list(regions.values())).pages_used
    ends = (0, -PAGE, PAGE, 16 * KIB, 100 * KIB + PAGE, MIB, 2 * MIB + 8 * KIB)
    kernels = ((0x37DC000, 0xB13200), (0x3378000, 0x400000), (0x4201000, 0xD79200), (0x3F001000, 0x300000))
    for end, initrd, (window, protected) in itertools.product(ends, (0, 0x345000, 0xF00000), kernels):
        tables = Tables()
        for region in regions.values():
            tables.map(region.start, region.size, RW)
        tables.map(4 * GIB - 64 * KIB, 64 * KIB, RX)
        for at in CLEARING_TABLES:
            tables.map(at, PAGE, RW)
        assert tables.paging.used == first - 1, "the reset code and page_map differ"
        tables.paging.used = first  # the vCPUs' APIC ids
        at = top + end
        for carved in firmware.memory:
            at -= carved.size
            tables.map(at, carved.size, RW)
        if initrd:
            at = 5 * GIB + end if initrd_above else at
            tables.map(at - initrd, initrd, RW)
        payload = regions["payload"].start + 0x5000
        tables.map(0, 2 * MIB, RWX)
        tables.map(0x1000000, round_up(window), RWX)
        tables.map(payload, round_up(protected), RWX)
        assert tables.paging.used * PAGE <= regions["paging"].size, f"{tables.paging.used} pages"
