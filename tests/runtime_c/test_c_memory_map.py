"""Does the reader of IGVM's memory map take what loaders write, refuse all else, and never read outside?"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from ccore import CORE, LIB, CoreError, check
from hypothesis import given
from hypothesis import strategies as st

MEMORY, RESERVED, PERSISTENT, PROTECTABLE = range(4)
END = (0, 0, 0, 0, 0)
RAM, KEPT = 7, 5  # resource types: unaccepted memory, reserved
LIMIT = 128


def packed(*entries: tuple[int, ...]) -> bytes:
    """Entries: first page, pages, and what may be left out: type, flags, reserved."""
    return b"".join(struct.pack("<QQHHI", *(*entry, 0, 0, 0)[:5]) for entry in entries)


def guarded(data: bytes) -> Any:
    """The bytes in front of a page that nobody may touch."""
    memory = CORE.guarded(len(data) or 1)
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), memory.size)[: len(data)] = data
    return memory


def extent(data: bytes) -> bytes:
    memory, out = guarded(data), CORE.new("span")
    check(LIB.memory_map_extent(CORE.span(memory.address, len(data)), out))
    assert CORE.address(out.data) == memory.address
    return bytes(CORE.content(out))


def parse(data: bytes) -> Any:
    memory, vmm = guarded(data), CORE.new("vmm")
    CORE.ffi.buffer(vmm)[:] = b"\xa5" * CORE.ffi.sizeof("struct vmm")
    check(LIB.parse_memory_map(CORE.span(memory.address, len(data)), vmm))
    return vmm


def resources(data: bytes) -> list[tuple[int, int, int, int]]:
    vmm = parse(data)
    return [(r.kind, r.attributes, r.start, r.size) for r in vmm.resources.items[0 : vmm.resources.count]]


def test_a_map_reaches_to_its_end() -> None:
    data = packed((0, 0xC0000), (1 << 20, 0x40000), END)
    assert extent(data) == data
    assert extent(data + packed((5, 5), END)) == data
    assert extent(packed((7, 0, 3, 9, 9))) == packed((7, 0, 3, 9, 9))


def test_ram_and_what_is_reserved() -> None:
    map_ = packed(
        (0, 0xC0000), (0xC0000, 1, RESERVED), (0xC0010, 2, PERSISTENT), (1 << 20, 3, PROTECTABLE), END
    )
    assert resources(map_) == [
        (RAM, 0, 0, 0xC000_0000),
        (KEPT, 0, 0xC000_0000, 0x1000),
        (KEPT, 0, 0xC001_0000, 0x2000),
        (KEPT, 0, 1 << 32, 0x3000),
    ]


def test_nothing_else_is_told() -> None:
    vmm = parse(packed(END))
    assert (vmm.resources.count, vmm.tables.count, vmm.has_payload_info) == (0, 0, 0)
    assert (vmm.serial, vmm.reset, vmm.off_type, vmm.reduced, vmm.payload_entry) == (0, 0, 0, 0, 0)


def test_as_many_entries_as_there_is_room_for() -> None:
    entries = [(2 * i, 1) for i in range(LIMIT + 1)]
    assert len(resources(packed(*entries[:LIMIT], END))) == LIMIT
    with pytest.raises(CoreError, match="memory_map_malformed"):
        parse(packed(*entries, END))


def test_the_last_page_of_all() -> None:
    last = (1 << 52) - 1
    assert resources(packed((last - 1, 1), END)) == [(RAM, 0, (last - 1) << 12, 0x1000)]
    for start, pages in ((last, 1), (last - 1, 2), (last + 1, 1), (1, (1 << 64) - 1), ((1 << 64) - 1, 1)):
        with pytest.raises(CoreError, match="memory_map_malformed"):
            parse(packed((start, pages), END))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packed(END)[:-1],
        packed((0, 1)),
        packed((0, 1), END)[:-1],
        packed((0, 1, 4), END),
        packed((0, 1, 0xFFFF), END),
        packed((0, 1, 0, 1), END),
        packed((0, 1, 0, 0, 1), END),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(CoreError, match="memory_map_malformed"):
        parse(data)


def test_what_was_not_measured_is_not_read() -> None:
    """A map is as long as its extent: bytes behind the end would be in no event."""
    for data in (packed((0, 1), END) + b"\0", packed(END, END)):
        assert len(extent(data)) < len(data)
        with pytest.raises(CoreError, match="memory_map_malformed"):
            parse(data)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 52), st.integers(0, 1 << 52), st.integers(0, 4)), max_size=6),
    st.binary(max_size=30),
)
def test_any_bytes_give_a_map_or_a_refusal(entries: list[tuple[int, int, int]], rest: bytes) -> None:
    """Compared with a reading in Python."""
    data = packed(*entries) + rest
    rows = [struct.unpack_from("<QQHHI", data, at) for at in range(0, len(data) - 23, 24)]
    end = next((i for i, row in enumerate(rows) if row[1] == 0), None)
    wrong = end is None or len(data) != 24 * (end + 1)
    for start, pages, kind, flags, reserved in rows[:end]:
        wrong |= (start + pages) << 12 >= 1 << 64 or kind > 3 or bool(flags or reserved)
    if wrong:
        with pytest.raises(CoreError, match="memory_map_malformed"):
            parse(data)
    else:
        assert [(r[2], r[3]) for r in resources(data)] == [(r[0] << 12, r[1] << 12) for r in rows[:end]]
