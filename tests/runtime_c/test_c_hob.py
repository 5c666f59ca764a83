"""Does the HOB parser read what every VMM writes, and refuse everything else without ever reading outside?"""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest
from ccore import CORE, LIB, MIB, CoreError, check
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import acpi, guids, hob

DSDT = acpi.table(b"DSDT", 2, bytes(19))
MADT = acpi.madt([acpi.madt_entry(acpi.MadtType.LAPIC, flags=1)])
UNKNOWN = hob.GuidExtension(UUID(int=5), b"something")

QEMU = [
    hob.Resource(7, 0, 0x800000),
    hob.Resource(0, 0x800000, 0x10000),
    hob.Resource(7, 0x810000, 0x7F7F0000),
]
CLOUD_HYPERVISOR = [
    hob.Resource(7, 0, 0x40000000),
    hob.Resource(1, 0xC0000000, 0x3EE00000, 0x403),
    hob.Resource(1, 1 << 32, 0x3FFEFFEEFFFF, 0x403),
    hob.acpi_table(DSDT),
    hob.acpi_table(MADT),
]
FORMS = {
    "qemu": QEMU,
    "cloud hypervisor to v43": [*CLOUD_HYPERVISOR, hob.payload_info(1, 0x901000)],
    "cloud hypervisor from v44": [*CLOUD_HYPERVISOR, hob.payload_info_packed(1, 0x901000)],
    "dragonball": [
        hob.Resource(7, 0, 64 * MIB),
        hob.Resource(0, 0xFFFF0000, 0x10000),
        hob.payload_info(2, 0x1000000),
        hob.acpi_table(MADT),
    ],
    "libkrun": [hob.Resource(0, 0, 64 * MIB), hob.payload_info(2, 0x1000000)],
    "unknown GUID": [UNKNOWN, *QEMU],
    "empty": [],
}


class Region:
    """A TD HOB section that ends at a page nobody may touch."""

    def __init__(self, hobs: Any, size: int = 0x2000) -> None:
        self.memory = CORE.guarded(size)
        self.base = self.memory.address
        self.list = hob.write(self.base, hobs)
        self.put(0, self.list)
        self.span = CORE.span(self.base, size)

    def put(self, offset: int, data: bytes) -> None:
        CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", self.base), self.memory.size)[
            offset : offset + len(data)
        ] = data

    def extent(self) -> bytes:
        out = CORE.new("span")
        check(LIB.hob_extent(self.span, out))
        assert CORE.address(out.data) == self.base
        return CORE.content(out)

    def parse(self, size: int | None = None) -> Any:
        vmm = CORE.new("vmm")
        check(LIB.parse_hob(CORE.span(self.base, len(self.list) if size is None else size), vmm))
        return vmm


@pytest.mark.parametrize("form", FORMS)
def test_reads_every_form(form):
    region = Region(FORMS[form])
    assert region.extent() == region.list
    vmm = region.parse()
    assert [
        (r.kind, r.start, r.size, r.attributes) for r in vmm.resources.items[0 : vmm.resources.count]
    ] == [
        (h.resource_type, h.start, h.length, h.attributes) for h in FORMS[form] if isinstance(h, hob.Resource)
    ]
    tables = [CORE.content(t) for t in vmm.tables.items[0 : vmm.tables.count]]
    given_tables = [
        h.data for h in FORMS[form] if isinstance(h, hob.GuidExtension) and h.data in (DSDT, MADT)
    ]
    assert [t.rstrip(b"\0") for t in tables] == [t.rstrip(b"\0") for t in given_tables]
    assert all(len(t) % 8 == 0 for t in tables)


def test_payload_info_in_both_lengths():
    for form in ("cloud hypervisor to v43", "cloud hypervisor from v44"):
        vmm = Region(FORMS[form]).parse()
        assert (vmm.has_payload_info, vmm.payload_kind, vmm.payload_entry) == (1, 1, 0x901000)
    assert Region(QEMU).parse().has_payload_info == 0


def test_fills_its_region_exactly():
    full = len(hob.write(0, QEMU))
    region = Region(QEMU, full)
    assert region.extent() == region.list
    region.parse()


# Offsets into a list that begins with PHIT (56 bytes) and a resource (48 bytes).
END = len(hob.write(0, QEMU)) - 8


@pytest.mark.parametrize(
    ("offset", "data", "error"),
    [
        (0, b"\x03", "hob_malformed"),  # no PHIT
        (2, b"\x40", "hob_malformed"),  # its length
        (4, b"\x01", "hob_malformed"),  # its reserved
        (16, b"\x01", "hob_malformed"),  # memory top
        (56, b"\x02\0", "hob_unknown_type"),
        (56, b"\x01\0", "hob_malformed"),  # a second PHIT
        (56, b"\x02\0\x04", "hob_malformed"),  # shorter than a header, whatever it is
        (56, b"\x04\0\x10", "hob_malformed"),  # an extension without room for its GUID
        (58, b"\x28", "hob_malformed"),  # length of a resource
        (58, b"\x07\0", "hob_malformed"),
        (58, b"\xff\xff", "hob_truncated"),
        (60, b"\x01", "hob_malformed"),  # reserved
        (56 + 24, b"\x08", "hob_malformed"),  # resource type
        (56 + 28, struct.pack("<I", 0x8000007), "hob_malformed"),  # attributes
        (56 + 32, b"\xff" * 8 + b"\x01", "hob_malformed"),  # start + length wraps
        (END, b"\xff\xff\x04", "hob_malformed"),  # length of END
        (END, b"\xff\xff\x10", "hob_truncated"),
    ],
)
def test_refuses(offset, data, error):
    region = Region(QEMU)
    region.put(offset, data)
    with pytest.raises(CoreError, match=error):
        region.parse()


def test_a_longer_end_is_refused():
    region = Region(QEMU)
    region.put(48, struct.pack("<Q", region.base + END + 16))
    region.put(END, b"\xff\xff\x10")
    with pytest.raises(CoreError, match="hob_malformed"):
        region.parse(END + 16)


@pytest.mark.parametrize("size", [0, 8])
def test_a_payload_info_of_a_length_that_nobody_writes(size):
    with pytest.raises(CoreError, match="hob_malformed"):
        Region([hob.GuidExtension(guids.HOB_PAYLOAD_INFO, bytes(size))]).parse()


def test_a_longer_resource_is_refused():
    """The GUID of what follows it begins like a HOB, so that nothing else is wrong with the list."""
    within = hob.GuidExtension(UUID(bytes_le=struct.pack("<HHI", 4, 40, 0) + bytes(8)), bytes(24))
    region = Region([hob.Resource(7, 0, 4096), within])
    region.parse()
    region.put(58, b"\x38")
    with pytest.raises(CoreError, match="hob_malformed"):
        region.parse()


def test_an_extension_too_short_for_its_guid_is_refused():
    """The second half of the GUID is a HOB, too, so that nothing else is wrong with the list."""
    within = hob.GuidExtension(UUID(bytes_le=bytes(8) + struct.pack("<HHI", 4, 24, 0)), bytes(16))
    region = Region([within])
    region.parse()
    region.put(58, b"\x10")
    with pytest.raises(CoreError, match="hob_malformed"):
        region.parse()


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (0, "hob_truncated"),
        (-8, "hob_truncated"),
        (0x2008, "hob_truncated"),
        (56, "hob_malformed"),
        (65, "hob_malformed"),
    ],
)
def test_extent_refuses(end, error):
    region = Region(QEMU)
    region.put(48, struct.pack("<Q", region.base + end if end else 0))
    with pytest.raises(CoreError, match=error):
        region.extent()


@pytest.mark.parametrize("end", [END, END + 16])
def test_end_of_list_must_be_exact(end):
    region = Region(QEMU)
    region.put(48, struct.pack("<Q", region.base + end))
    for size in (end, END + 8):
        with pytest.raises(CoreError, match=r"hob_malformed|hob_truncated"):
            region.parse(size)


def test_region_too_small():
    with pytest.raises(CoreError, match="hob_truncated"):
        check(LIB.hob_extent(CORE.span(bytes(63)), CORE.new("span")))


def test_limits():
    Region([hob.Resource(7, 0, 4096)] * 128).parse()
    Region([hob.acpi_table(DSDT)] * 32).parse()
    for hobs in ([hob.Resource(7, 0, 4096)] * 129, [hob.acpi_table(DSDT)] * 33):
        with pytest.raises(CoreError, match="hob_too_many"):
            Region(hobs).parse()
    with pytest.raises(CoreError, match="hob_malformed"):
        Region([hob.payload_info(1, 2)] * 2).parse()


def parse_any(data: bytes) -> str:
    """What the core makes of a list; the size is the list's own, as hob_extent would say."""
    memory = CORE.guarded(len(data))
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), len(data))[:] = data
    vmm = CORE.new("vmm")
    return CORE.error(LIB.parse_hob(CORE.span(memory.address, len(data)), vmm))


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_2000_mutated_lists_never_crash(form, data):
    raw = bytearray(hob.write(0, FORMS[form]))
    memory = CORE.guarded(len(raw))
    raw[48:56] = struct.pack("<Q", memory.address + len(raw))
    flips = data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(1, 255)), min_size=1, max_size=6)
    )
    for offset, bits in flips:
        raw[offset] ^= bits
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), len(raw))[:] = bytes(raw)
    vmm, extent = CORE.new("vmm"), CORE.new("span")
    region = CORE.span(memory.address, len(raw))
    LIB.hob_extent(region, extent)
    if LIB.parse_hob(region, vmm) == 0:
        assert vmm.resources.count <= 128
        assert vmm.tables.count <= 32
        for table in vmm.tables.items[0 : vmm.tables.count]:
            CORE.content(table)


@given(st.binary(max_size=300))
def test_any_bytes(data):
    assert parse_any(data) in ("hob_truncated", "hob_malformed")
