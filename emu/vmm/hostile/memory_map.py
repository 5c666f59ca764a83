"""How can the memory map of an IGVM loader lie? Changes to an honest map that know its fields."""

from __future__ import annotations

import struct
from random import Random

from emu.vmm.hostile.hob import number
from formats.igvm import MEMORY_MAP_ENTRY
from formats.units import PAGE

SIZE = MEMORY_MAP_ENTRY.sizeof()
MANY = (128, 129, 170)  # entries: all that the firmware takes, one more, a page without an end


def mutated(rng: Random, data: bytes, count: int) -> tuple[bytes, list[str]]:
    """The map after `count` changes, and what they were."""
    entries = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
    texts = [_change(rng, entries) for _ in range(count)]
    return b"".join(entries), texts


def _change(rng: Random, entries: list[bytes]) -> str:
    at = rng.randrange(len(entries))
    first, pages, kind, flags, reserved = struct.unpack("<QQHHI", entries[at])
    match rng.randrange(6):
        case 0:
            first = number(rng) // rng.choice((1, PAGE))
        case 1:
            pages = number(rng) // rng.choice((1, PAGE))
        case 2:
            kind = rng.choice((1, 2, 3, 4, 0xFFFF))
        case 3:
            flags, reserved = rng.choice(((1, 0), (0, 1)))
        case 4:
            entries.insert(at, entries[rng.randrange(len(entries))])
            return f"memory map: an entry again at {at}"
        case _:
            many = rng.choice(MANY)
            entries[:0] = [struct.pack("<QQQ", 2 * i, 1, 1) for i in range(many)]
            return f"memory map: {many} reserved pages in front"
    entries[at] = struct.pack("<QQHHI", first, pages, kind, flags, reserved)
    return f"memory map: entry {at} is {entries[at].hex()}"
