"""Does Linux learn which RAM it is to accept by itself, and of nothing else?"""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from bzimage import bzimage, guarded
from ccore import (
    ACPI,
    ADDED,
    CORE,
    GIB,
    KIB,
    LARGE,
    LEFT_OUT,
    LIB,
    MIB,
    NVS,
    PAGE,
    RAM,
    RESERVED,
    UNACCEPTED,
    CoreError,
    Range,
    check,
    low_and_high,
    make_ram,
    plan,
    ranges_of,
)
from hypothesis import given
from hypothesis import strategies as st

from formats import efi, linux

RSDP = 0x7FFE0000
LAZY = 8  # plan.h PLAN_LAZY, in place of an E820 type
HEAD = efi.TABLES.sizeof()

# ---- what is left to the OS


def lazily(r: Range) -> Range:
    return replace(r, state=ADDED, e820=LAZY)


def left(ranges: list[Range], limit: int) -> list[Range]:
    ram = make_ram(ranges)
    LIB.leave_lazily(ram, limit)
    return ranges_of(ram)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, [(0, 2, 0), (2, 8, LAZY), (8, 9, 0), (17, 18, 0), (18, 32, LAZY)]),
        (MIB, [(0, 2, 0), (2, 8, LAZY), (8, 9, 0), (17, 18, 0), (18, 32, LAZY)]),
        (4 * MIB, [(0, 4, 0), (4, 8, LAZY), (8, 9, 0), (17, 18, 0), (18, 32, LAZY)]),
        (4 * MIB + 1, [(0, 6, 0), (6, 8, LAZY), (8, 9, 0), (17, 18, 0), (18, 32, LAZY)]),
        (30 * MIB, [(0, 9, 0), (17, 30, 0), (30, 32, LAZY)]),
        (30 * MIB + PAGE, [(0, 9, 0), (17, 32, 0)]),
        (2**64 - LARGE, [(0, 9, 0), (17, 32, 0)]),
        (2**64 - 1, [(0, 9, 0), (17, 32, 0)]),
    ],
)
def test_whole_units_from_the_limit_on(limit: int, expected: list[tuple[int, int, int]]) -> None:
    """In MiB; 0: not left."""
    found = left([Range(0, 9 * MIB, UNACCEPTED, RAM), Range(17 * MIB, 32 * MIB, UNACCEPTED, RAM)], limit)
    assert [(r.start // MIB, r.end // MIB, r.e820 if r.e820 == LAZY else 0) for r in found] == expected


def test_only_what_is_to_be_accepted_and_is_the_os_s() -> None:
    ranges = [
        Range(4 * MIB, 8 * MIB, ADDED, RAM),
        Range(8 * MIB, 12 * MIB, LEFT_OUT, RAM),
        Range(12 * MIB, 16 * MIB, UNACCEPTED, NVS),
        Range(16 * MIB, 20 * MIB, UNACCEPTED, RAM),
    ]
    ram = make_ram(ranges, [(12 * MIB, 4 * MIB)])
    LIB.leave_lazily(ram, 0)
    assert ranges_of(ram) == [*ranges[:3], lazily(ranges[3])]


PIECES = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(1, 2000), st.sampled_from([UNACCEPTED, UNACCEPTED, ADDED, LEFT_OUT])
    ),
    max_size=12,
)  # gap and size in pages, state


@given(PIECES, st.integers(0, 30 * MIB))
def test_against_a_model_by_pages(pieces: list[tuple[int, int, int]], limit: int) -> None:
    ranges, at = [], 0
    for gap, count, state in pieces:
        start = at + gap * PAGE
        at = start + count * PAGE
        ranges.append(Range(start, at, state, RAM))
    found = left(ranges, limit)

    def pages(of: list[Range]) -> dict[int, int]:
        return {
            page: r.e820 if r.e820 == LAZY else r.state
            for r in of
            for page in range(r.start // PAGE, r.end // PAGE)
        }

    expected = pages(ranges)
    for r in ranges:
        for unit in range(-(-max(r.start, limit, MIB) // LARGE), r.end // LARGE):
            if r.state == UNACCEPTED:
                expected |= dict.fromkeys(range(unit * 512, unit * 512 + 512), LAZY)
    assert pages(found) == expected
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(r.start < r.end for r in found)


@pytest.mark.parametrize("free", [0, 1, 2])
def test_with_no_entry_free_the_rest_is_accepted(free: int) -> None:
    ranges = [Range(8 * i * MIB, 8 * i * MIB + PAGE, ADDED, RAM) for i in range(255 - free)]
    last = Range(3 * GIB + MIB, 3 * GIB + 9 * MIB, UNACCEPTED, RAM)
    found = left([*ranges, last], 0)[len(ranges) :]
    edge, middle = 3 * GIB + 2 * MIB, 3 * GIB + 8 * MIB
    assert (
        found
        == {
            0: [last],
            1: [replace(last, end=edge), replace(last, start=edge)],
            2: [
                replace(last, end=edge),
                lazily(replace(last, start=edge, end=middle)),
                replace(last, start=middle),
            ],
        }[free]
    )


# ---- what it is told


class Lazily:
    def __init__(self, ram: Any, size: int = 128 * KIB, **placement: int) -> None:
        self.page, self.region = guarded(b"\xaa" * 8192), guarded(b"\xaa" * size)
        made = CORE.new("placement")
        self.image = guarded(bzimage())
        check(LIB.parse_linux(self.image, CORE.ffi.addressof(made, "kernel")))
        for name, value in placement.items():
            setattr(made, name, value)
        check(LIB.zero_page_lazily(self.page, self.region, made, ram, CORE.span(b"quiet"), RSDP))
        self.at = CORE.address(self.region.data)
        self.params = linux.BOOT_PARAMS.parse(CORE.content(self.page))
        self.raw = CORE.content(self.region)
        self.tables = efi.TABLES.parse(self.raw)

    @property
    def map(self) -> list[tuple[int, int, int]]:
        """Start, end, type."""
        count = self.params.efi_info.memmap_size // efi.MEMORY_DESCRIPTOR.sizeof()
        return [
            (d.physical_start, d.physical_start + d.number_of_pages * PAGE, d.type)
            for d in self.tables.map[:count]
        ]

    @property
    def lazy(self) -> list[int]:
        """Addresses of the units whose bit is set."""
        table, bitmap = self.tables.unaccepted, self.raw[HEAD:]
        assert len(bitmap) == table.size
        bits = int.from_bytes(bitmap, "little")
        return [table.phys_base + i * table.unit_size for i in range(bits.bit_length()) if bits >> i & 1]


def machine() -> Any:
    ram = plan([(7, start, end) for start, end in low_and_high(8 * GIB)])
    LIB.leave_lazily(ram, 128 * MIB)
    return ram


def test_the_kernel_is_led_to_the_tables() -> None:
    found = Lazily(machine())
    info, system = found.params.efi_info, found.tables.system
    assert info.loader_signature == b"EL64"
    assert info.systab | info.systab_hi << 32 == found.at
    assert info.memmap | info.memmap_hi << 32 == found.at + PAGE
    assert (info.memdesc_size, info.memdesc_version) == (48, 1)
    assert found.params.secure_boot == 2
    assert found.params.acpi_rsdp_addr == RSDP
    assert (system.signature, system.revision, system.header_size) == (0x5453_5953_2049_4249, 0x20064, 120)
    assert system.crc32 == zlib.crc32(efi.SYSTEM_TABLE.build(system | {"crc32": 0}))
    assert (system.runtime_services, system.boot_services) == (0, 0)
    assert (system.number_of_table_entries, system.configuration_table) == (2, found.at + 0x78)
    assert system.firmware_vendor == found.at + 0xA8
    assert found.raw[0xA8:0xB8].decode("utf-16-le") == "tdforge\0"
    acpi, unaccepted = found.tables.configuration
    assert (bytes(acpi.vendor_guid).hex(), acpi.vendor_table) == ("71e86888f1e4d311bc220080c73c8881", RSDP)
    assert bytes(unaccepted.vendor_guid).hex() == "3cded1d55c10f9449ea9bcef98120031"
    assert unaccepted.vendor_table == found.at + 0x4000


def test_each_unit_that_is_left_and_no_other() -> None:
    ram = machine()
    found = Lazily(ram)
    table = found.tables.unaccepted
    assert (table.version, table.unit_size, table.phys_base) == (1, LARGE, 128 * MIB)
    expected = [at for r in ranges_of(ram) if r.e820 == LAZY for at in range(r.start, r.end, LARGE)]
    assert found.lazy == expected
    assert expected[0] == 128 * MIB
    assert expected[-1] == 9 * GIB - LARGE
    assert 3 * GIB not in expected


@pytest.mark.parametrize("first", range(17))
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 24])
def test_bits_within_and_across_bytes(first: int, count: int) -> None:
    """Behind one range whose unit is the first, another one that begins at bit `first`."""
    start = 64 * MIB + first * LARGE
    ranges = [Range(start, start + count * LARGE, ADDED, LAZY)]
    if first:
        ranges = [Range(64 * MIB, 64 * MIB + LARGE, ADDED, LAZY), *ranges]
    expected = [at for r in ranges for at in range(r.start, r.end, LARGE)]
    assert Lazily(make_ram(ranges)).lazy == sorted(set(expected))


def test_with_nothing_left_no_bit_is_set() -> None:
    found = Lazily(make_ram([Range(0, GIB, UNACCEPTED, RAM)]))
    assert found.lazy == []
    assert found.map == [(0, GIB, efi.MemoryType.CONVENTIONAL)]


def test_the_map_says_what_the_e820_says() -> None:
    ranges = [
        Range(0, MIB, UNACCEPTED, RAM),
        Range(MIB, 2 * MIB, ADDED, NVS),
        Range(2 * MIB, 4 * MIB, LEFT_OUT, RAM),
        Range(4 * MIB, 6 * MIB, UNACCEPTED, ACPI),
        Range(6 * MIB, 8 * MIB, ADDED, RESERVED),
        Range(8 * MIB, 10 * MIB, ADDED, RAM),
        Range(10 * MIB, 12 * MIB, ADDED, LAZY),
        Range(12 * MIB, 14 * MIB, ADDED, 5),  # unusable
    ]
    found = Lazily(make_ram(ranges))
    kept = [r for r in ranges if r.state != LEFT_OUT]
    assert found.map == [(r.start, r.end, t) for r, t in zip(kept, (7, 10, 9, 0, 7, 15, 0), strict=True)]
    assert {d.attribute for d in found.tables.map[: len(kept)]} == {8}
    assert not any(found.raw[PAGE + 48 * len(kept) : 0x4000])
    e820 = found.params.e820_table[: found.params.e820_entries]
    assert [(e.addr, e.addr + e.size, e.type) for e in e820[-3:]] == [
        (8 * MIB, 10 * MIB, RAM),
        (10 * MIB, 12 * MIB, RAM),
        (12 * MIB, 14 * MIB, 5),
    ]


def test_a_map_of_as_many_entries_as_a_plan_has() -> None:
    """128 in the E820, each of two neighbours."""
    ranges = [
        Range(i // 2 * LARGE + i % 2 * MIB, i // 2 * LARGE + MIB + i % 2 * PAGE, ADDED, RAM)
        for i in range(256)
    ]
    found = Lazily(make_ram(ranges))
    assert len(found.map) == 256
    e820 = found.params.e820_table
    assert found.params.e820_entries == 128
    assert {e.type for e in e820} == {RAM}


# ---- refusals

LISTED = 8 * (4 * KIB - 24)  # units that a page lists


def test_ram_beyond_what_the_region_lists() -> None:
    size, start = 20 * KIB, 64 * MIB
    fits = Range(start, start + LISTED * LARGE, ADDED, LAZY)
    assert len(Lazily(make_ram([fits]), size).lazy) == LISTED
    with pytest.raises(CoreError, match="lazy_no_room"):
        Lazily(make_ram([replace(fits, end=fits.end + LARGE)]), size)
    gap = Range(fits.end, fits.end + LARGE, ADDED, LAZY)
    with pytest.raises(CoreError, match="lazy_no_room"):
        Lazily(make_ram([replace(fits, end=start + LARGE), gap]), size)


def test_a_region_that_is_too_small() -> None:
    ram = make_ram([Range(0, GIB, UNACCEPTED, RAM)])
    Lazily(ram, HEAD)
    with pytest.raises(CoreError, match="out_of_bounds"):
        Lazily(ram, HEAD - 1)


def test_what_zero_page_refuses() -> None:
    ranges = [Range(i * MIB, i * MIB + PAGE, ADDED, RAM) for i in range(129)]
    with pytest.raises(CoreError, match="e820_too_many"):
        Lazily(make_ram(ranges))


def test_ranges_out_of_order_are_refused() -> None:
    """No plan has them; any plan gives a result or a status."""
    with pytest.raises(CoreError, match="lazy_no_room"):
        Lazily(make_ram([Range(GIB, GIB + LARGE, ADDED, LAZY), Range(3 * GIB, 2 * GIB, ADDED, LAZY)]))
    with pytest.raises(CoreError, match="lazy_no_room"):
        Lazily(make_ram([Range(GIB, GIB + LARGE, ADDED, LAZY), Range(64 * MIB, 66 * MIB, ADDED, LAZY)]))
