"""How much of the RAM that a TD HOB claims does the emulated VMM give? A VMM backs what it promises."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from formats import hob
from formats.structs import offset_of
from formats.units import PAGE

# What can be backed: RAM that lies below this address, and so much of it. A VMM that withholds a page only
# stops the TD (docs/threat-model.md).
BACKED_END, BACKED_SIZE = 1 << 40, 8 << 30
SHARED_52 = 1 << 51  # the shared bit of GPAW 52
RAM_TYPES = (hob.ResourceType.SYSTEM_MEMORY, hob.ResourceType.MEMORY_RESERVED, hob.ResourceType.UNACCEPTED)
RESOURCE_SIZE = hob.RESOURCE.sizeof()
START, TYPE = (offset_of(hob.RESOURCE, name) for name in ("start", "resource_type"))

Range = tuple[int, int]


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sorted and disjoint, touching ones joined."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def backed(data: bytes) -> tuple[bytes, list[tuple[int, int]], list[str]]:
    """The list with claims cut to what this VMM can back, those RAM ranges, and what was cut."""
    whole, ranges, texts = bytearray(data), [], []
    left, at = BACKED_SIZE, 0
    while at + 8 <= len(whole):
        kind, length = struct.unpack_from("<HH", whole, at)
        if kind == hob.HobType.RESOURCE and at + RESOURCE_SIZE <= len(whole):
            (resource,) = struct.unpack_from("<I", whole, at + TYPE)
            start, size = struct.unpack_from("<QQ", whole, at + START)
            end = start + size
            if resource in RAM_TYPES and size and not (start | size) % PAGE and end <= SHARED_52:
                if end > BACKED_END or size > left:
                    start = start if start < BACKED_END else start % BACKED_END
                    size = min(size, left, BACKED_END - start) // PAGE * PAGE
                    struct.pack_into("<QQ", whole, at + START, start, size)
                    texts.append(f"HOB: a claim cut to {size:#x} bytes at {start:#x}, which can be backed")
                left -= size
                if size:
                    ranges.append((start, start + size))
        if length < 8:
            break
        at += -(-length // hob.ALIGNMENT) * hob.ALIGNMENT
    return bytes(whole), ranges, texts
