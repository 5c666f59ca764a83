"""Does a payload get the HOB list of the specification, byte for byte, and no table from elsewhere?"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from acpitables import VMM_TABLES, Tables
from ccore import (
    ACPI,
    ADDED,
    CORE,
    GIB,
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
    make_ram,
)

from formats import acpi, guids, hob, linux
from gen.core.hostlib import Guarded

TOP = 0x7DDD_E000
MAP = [
    Range(0, TOP, UNACCEPTED, RAM),
    Range(TOP, 0x7DEE_0000, UNACCEPTED, NVS),
    Range(0x7DEE_0000, 0x7FF0_0000, ADDED, RESERVED),
    Range(0x7FF0_0000, 0x8000_0000, UNACCEPTED, ACPI),
]
MADT, CCEL = acpi.madt([acpi.madt_entry(acpi.MadtType.LAPIC)] * 3), acpi.table(b"CCEL", 1, bytes(20))
NOWHERE = 0xFFFF_0000  # of image, file and page tables where they are nothing


def hobs(
    tables: Any = b"",
    rsdp: int = 0,
    ranges: list[Range] = MAP,
    size: int = MIB,
    image: tuple[int, int] = (NOWHERE, 0),
    file: tuple[int, int] = (NOWHERE, 0),
    paging: tuple[int, int] = (NOWHERE, 0),
) -> tuple[bytes, int]:
    """The list, and where it lies; behind it lies a page that nobody may touch."""
    memory, executable, pool = CORE.guarded(size), CORE.new("executable"), CORE.new("paging")
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), size)[:] = b"\xaa" * size
    executable.load, executable.size = image
    executable.file = CORE.span(*file)[0]
    pool.tables = CORE.span(*paging)[0]
    area = CORE.span(tables.address, tables.size) if isinstance(tables, Guarded) else CORE.span(tables)
    check(LIB.payload_hobs(CORE.span(memory.address, size), executable, make_ram(ranges), area, rsdp, pool))
    phit = hob.PHIT.parse(CORE.bytes_at(memory.address, 56))
    length = phit.end_of_hob_list - memory.address
    rest = CORE.bytes_at(memory.address + length, size - length)
    assert rest == b"\xaa" * len(rest)
    return CORE.bytes_at(memory.address, length), memory.address


def read(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each HOB, to the END."""
    found, at = [], 0
    while at < len(data):
        kind, length, reserved = struct.unpack_from("<HHI", data, at)
        assert length % 8 == 0
        assert not reserved
        found.append((kind, data[at + 8 : at + length]))
        at += length
    assert found[-1] == (hob.HobType.END, b"")
    return found


def extensions(data: bytes, guid: Any) -> list[bytes]:
    bodies = [body for kind, body in read(data) if kind == hob.HobType.GUID_EXT]
    return [body[16:] for body in bodies if body[:16] == guid.bytes_le]


def e820(data: bytes) -> list[tuple[int, int, int]]:
    (table,) = extensions(data, guids.HOB_E820_TABLE)
    entries = struct.iter_unpack("<QQI", table[: len(table) // 20 * 20])
    return [(start, start + size, kind) for start, size, kind in entries]


def made(tables: list[bytes], root: list[int] | None = None) -> tuple[Guarded, int]:
    """Memory with an XSDT of these tables, and where its RSDP lies."""
    memory = CORE.guarded(0x40000)
    places, at = [], memory.address + 0x1000
    for table in tables:
        CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", at), len(table))[:] = table
        places.append(at)
        at += -(-len(table) // 16) * 16
    for where, data in (
        (memory.address, acpi.rsdp(memory.address + 0x100)),
        (memory.address + 0x100, acpi.xsdt(places if root is None else root)),
    ):
        CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", where), len(data))[:] = data
    return memory, memory.address


def test_the_list_of_the_specifications_own_code() -> None:
    """td-shim at 125eeab with one vCPU in 2 GiB and no tables of the VMM: offsets, lengths and order."""
    data, base = hobs(
        *made([CCEL, MADT]),
        file=(0xFF08_1094, 100),
        ranges=[*MAP, Range(0xFF08_1000, 0xFFCA_E000, ADDED, RESERVED)][:4],
    )
    assert len(data) == 0x180
    low, high = struct.pack("<Q", 0), struct.pack("<Q", 0x8000_0000)
    phit = struct.pack("<HHIII", 1, 56, 0, 9, 0) + high + low + high + low + struct.pack("<Q", base + 0x180)
    assert data[:0x38] == phit
    assert data[0x38:0x48] == struct.pack("<HHIBB6x", 6, 16, 0, 52, 16)
    assert data[0x48:0x60] == struct.pack("<HHIQQ", 5, 24, 0, 0xFF08_1094, 100)
    assert data[0x60:0xC0] == struct.pack("<HHI", 4, 0x60, 0) + guids.HOB_ACPI_TABLE.bytes_le + MADT + bytes(
        4
    )
    assert data[0xC0:0x110] == struct.pack("<HHI", 4, 0x50, 0) + guids.HOB_ACPI_TABLE.bytes_le + CCEL
    entries = b"".join(struct.pack("<QQI", r.start, r.end - r.start, r.e820) for r in MAP)
    assert data[0x110:0x178] == struct.pack("<HHI", 4, 0x68, 0) + guids.HOB_E820_TABLE.bytes_le + entries
    assert data[0x178:] == struct.pack("<HHI", 0xFFFF, 8, 0)


def test_the_volume_is_the_section_that_holds_the_file() -> None:
    ranges = [
        Range(0, MIB, UNACCEPTED, RAM),
        Range(MIB, 3 * MIB, ADDED, RAM),
        Range(3 * MIB, GIB, UNACCEPTED, RAM),
    ]
    for start in (MIB, MIB + 0x94, 3 * MIB - 1):
        volume = read(hobs(ranges=ranges, file=(start, 100))[0])[2]
        assert volume == (hob.HobType.FIRMWARE_VOLUME, struct.pack("<QQ", MIB, 2 * MIB))
    for start in (MIB - 1, 3 * MIB):
        volume = read(hobs(ranges=ranges, file=(start, 100))[0])[2]
        assert volume == (hob.HobType.FIRMWARE_VOLUME, struct.pack("<QQ", start, 100))


def test_tables_of_ours_and_the_vmms_with_the_dsdt() -> None:
    found = Tables(VMM_TABLES, 2, build="acpi_tables_of_vmm")
    data, _ = hobs(found.memory, found.memory.address)
    given = extensions(data, guids.HOB_ACPI_TABLE)
    names = [table[:4] for table in given]
    assert names == [b"FACP", b"DSDT", b"SSDT", b"SSDT", b"MCFG", b"SRAT", b"SLIT", b"APIC", b"CCEL"]
    assert sorted(t.ljust(-(-len(t) // 8) * 8, b"\0") for t in found.tables[1:]) == sorted(given)


def test_a_short_fadt_names_its_dsdt_in_32_bits_or_none() -> None:
    dsdt = acpi.table(b"DSDT", 2, b"")
    memory = CORE.guarded(0x1000)
    short = acpi.table(b"FACP", 1, bytes(80))
    memory, rsdp = made([short, dsdt], [])
    place = memory.address + 0x1000
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address + 0x100), 44)[:] = acpi.xsdt([place])
    assert [t[:4] for t in extensions(hobs(memory, rsdp)[0], guids.HOB_ACPI_TABLE)] == [b"FACP"]
    CORE.ffi.cast("uint32_t *", place + 40)[0] = 0x1234  # no address of the area
    with pytest.raises(CoreError, match="out_of_bounds"):
        hobs(memory, rsdp)


def test_no_tables() -> None:
    assert extensions(hobs()[0], guids.HOB_ACPI_TABLE) == []


@pytest.mark.parametrize(
    "place", ["rsdp below", "rsdp above", "root", "table below", "table above", "short", "long"]
)
def test_tables_that_do_not_lie_in_their_region(place: str) -> None:
    memory, rsdp = made([CCEL])
    table, end = memory.address + 0x1000, memory.address + memory.size
    root = {"table below": [memory.address - 8], "table above": [end - 35]}.get(place, [table])
    if place.startswith("rsdp"):
        rsdp = memory.address - 8 if place.endswith("below") else end - 35
    if place == "root":
        CORE.ffi.cast("uint64_t *", memory.address + 24)[0] = end
    if place in ("short", "long"):
        CORE.ffi.cast("uint32_t *", table + 4)[0] = 35 if place == "short" else end - table + 1
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address + 0x100), 44)[:] = acpi.xsdt(root)
    with pytest.raises(CoreError, match="out_of_bounds"):
        hobs(memory, rsdp)


def test_a_table_that_a_hob_cannot_hold() -> None:
    largest = acpi.table(b"SSDT", 2, bytes(65_504 - 36))
    (given,) = extensions(hobs(*made([largest]))[0], guids.HOB_ACPI_TABLE)
    assert given == largest
    with pytest.raises(CoreError, match="hobs_table_too_large"):
        hobs(*made([acpi.table(b"SSDT", 2, bytes(65_505 - 36))]))


def test_the_payload_and_its_page_tables_are_not_ram() -> None:
    ranges = [
        Range(0, 8 * MIB, UNACCEPTED, RAM),
        Range(8 * MIB, 9 * MIB, ADDED, RAM),
        Range(9 * MIB, GIB, UNACCEPTED, RAM),
    ]
    whole = (0, GIB, RAM)
    assert e820(hobs(ranges=ranges)[0]) == [whole]
    data, _ = hobs(ranges=ranges, image=(2 * MIB, 3 * MIB), paging=(8 * MIB + PAGE, 4 * PAGE))
    assert e820(data) == [
        (0, 2 * MIB, RAM),
        (2 * MIB, 5 * MIB, RESERVED),
        (5 * MIB, 8 * MIB + PAGE, RAM),
        (8 * MIB + PAGE, 8 * MIB + 5 * PAGE, RESERVED),
        (8 * MIB + 5 * PAGE, GIB, RAM),
    ]
    data, _ = hobs(ranges=ranges, image=(7 * MIB, 2 * MIB + PAGE))
    assert e820(data) == [(0, 7 * MIB, RAM), (7 * MIB, 9 * MIB + PAGE, RESERVED), (9 * MIB + PAGE, GIB, RAM)]


def test_ram_that_is_left_out_is_not_listed() -> None:
    ranges = [
        Range(0, MIB, UNACCEPTED, RAM),
        Range(MIB, 2 * MIB, LEFT_OUT, RAM),
        Range(2 * MIB, GIB, UNACCEPTED, RAM),
    ]
    data, _ = hobs(ranges=ranges)
    assert e820(data) == [(0, MIB, RAM), (2 * MIB, GIB, RAM)]


def test_as_many_pieces_as_the_list_takes() -> None:
    def pieces(count: int) -> list[Range]:
        return [Range(i * PAGE, (i + 1) * PAGE, UNACCEPTED, (RAM, ACPI)[i % 2]) for i in range(count)]

    count = linux.E820_MAX_ENTRIES
    assert len(e820(hobs(ranges=pieces(count))[0])) == count
    with pytest.raises(CoreError, match="hobs_too_many"):
        hobs(ranges=pieces(count + 1))


def test_a_region_without_room() -> None:
    tables = made([CCEL, MADT])
    whole = len(hobs(*tables)[0])
    assert len(hobs(*tables, size=whole)[0]) == whole
    for size in range(0, whole, 8):
        with pytest.raises(CoreError, match="hobs_no_room"):
            hobs(*tables, size=size)


def test_a_table_without_room_where_the_rest_has_some() -> None:
    tables = made([acpi.table(b"SSDT", 2, bytes(8192))])
    with pytest.raises(CoreError, match="hobs_no_room"):
        hobs(*tables, size=4096)


def test_without_memory_there_is_no_top() -> None:
    data, _ = hobs(ranges=[])
    assert data[16:48] == bytes(32)
