"""How can a TD HOB lie? Changes to an honest list that know its fields, and what RAM the result claims."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from random import Random

from emu.vmm.backing import RAM_TYPES, RESOURCE_SIZE, SHARED_52, START, TYPE
from formats import guids, hob
from formats.structs import offset_of
from formats.units import GIB, PAGE

SHARED_48 = 1 << 47  # the shared bit of GPAW 48
GUID_HEAD = hob.GUID_EXT.sizeof()
LENGTH, ATTRIBUTES = (offset_of(hob.RESOURCE, name) for name in ("length", "attributes"))
END_OF_LIST = offset_of(hob.PHIT, "end_of_hob_list")

ODD = (
    0, 1, 7, 8, 0xFF, 0xFFF, PAGE, PAGE + 1, 0x9FC00, 1 << 20, 2 << 20, 8 << 20, 10 << 20, 26 << 20, 1 << 31,
    3 * GIB, (1 << 32) - 0x9000, (1 << 32) - PAGE, 1 << 32, 1 << 40, SHARED_48 - PAGE, SHARED_48, 1 << 48,
    SHARED_52, 1 << 52, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1,
)  # fmt: skip

Parts = list[bytearray]
Lie = Callable[[Random, Parts], str]


def number(rng: Random) -> int:
    """A 64-bit number that is likelier to hurt than any other."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(ODD)
    if kind == 1:
        return rng.randrange(1 << 22) * PAGE
    return (
        rng.getrandbits(64) >> rng.randrange(64)
        if kind == 2
        else (rng.choice(ODD) + rng.choice((-1, 1))) % (1 << 64)
    )


def split(data: bytes) -> Parts:
    """The single HOBs of a list, PHIT and END among them; where a length is wrong, the rest in one piece."""
    parts, at = [], 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        size = -(-length // hob.ALIGNMENT) * hob.ALIGNMENT or len(data) - at
        parts.append(bytearray(data[at : at + size]))
        at += size
        if kind == hob.HobType.END:
            break
    return parts


def joined(parts: Parts, base: int) -> bytearray:
    """A list whose EfiEndOfHobList is right, if it has one."""
    whole = bytearray(b"".join(parts))
    if len(whole) >= hob.PHIT.sizeof():
        struct.pack_into("<Q", whole, END_OF_LIST, base + len(whole))
    return whole


def _resource(kind: int, start: int, length: int, attributes: int = int(hob.MEMORY_ATTRIBUTES)) -> bytearray:
    head = struct.pack("<HHI16xII", hob.HobType.RESOURCE, RESOURCE_SIZE, 0, kind, attributes)
    return bytearray(head + struct.pack("<QQ", start % (1 << 64), length % (1 << 64)))


def _extension(guid: bytes, data: bytes) -> bytearray:
    padded = data + bytes(-len(data) % hob.ALIGNMENT)
    head = struct.pack("<HHI", hob.HobType.GUID_EXT, GUID_HEAD + len(padded), 0)
    return bytearray(head + guid + padded)


def _pick(rng: Random, parts: Parts, kind: int) -> bytearray | None:
    found = [part for part in parts if int.from_bytes(part[:2], "little") == kind and len(part) > GUID_HEAD]
    return rng.choice(found) if found else None


def _ram(rng: Random, parts: Parts) -> bytearray | None:
    found = [part for part in parts if len(part) == RESOURCE_SIZE and part[0] == hob.HobType.RESOURCE]
    found = [part for part in found if part[TYPE] in RAM_TYPES]
    return rng.choice(found) if found else None


def _range(part: bytearray) -> tuple[int, int]:
    start, length = struct.unpack_from("<QQ", part, START)
    return start, length


def _tables(parts: Parts, signature: bytes = b"") -> list[bytearray]:
    acpi = [part for part in parts if bytes(part[8:GUID_HEAD]) == guids.HOB_ACPI_TABLE.bytes_le]
    return [part for part in acpi if part[GUID_HEAD : GUID_HEAD + 4].startswith(signature)]


# ---- one lie each; the text says which


def field_lie(rng: Random, parts: Parts) -> str:
    """Start or length of a resource is any number."""
    part = _pick(rng, parts, hob.HobType.RESOURCE)
    if part is None:
        return bits_lie(rng, parts)
    at, name = rng.choice(((START, "start"), (LENGTH, "length")))
    value = number(rng)
    struct.pack_into("<Q", part, at, value)
    return f"HOB: {name} of a resource is {value:#x}"


def type_lie(rng: Random, parts: Parts) -> str:
    """Type or attributes of a resource are others, known or not."""
    part = _pick(rng, parts, hob.HobType.RESOURCE)
    if part is None:
        return bits_lie(rng, parts)
    at, name = rng.choice(((TYPE, "type"), (ATTRIBUTES, "attributes")))
    value = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 0x07FFFFFF, 0x08000000, 0xFFFFFFFF))
    struct.pack_into("<I", part, at, value)
    return f"HOB: {name} of a resource is {value:#x}"


def wrap_lie(rng: Random, parts: Parts) -> str:
    """A resource whose end wraps around 2**64, or nearly."""
    start = (1 << 64) - rng.randrange(1, 1 << 20) * PAGE
    length = rng.randrange(1, 1 << 21) * PAGE
    parts.insert(rng.randrange(1, len(parts) + 1), _resource(rng.choice(RAM_TYPES), start, length))
    return f"HOB: a resource of {length:#x} bytes at {start:#x}"


def overlap_lie(rng: Random, parts: Parts) -> str:
    """A resource over a part of RAM."""
    part = _ram(rng, parts)
    if part is None:
        return wrap_lie(rng, parts)
    start, length = _range(part)
    shift = rng.randrange(max(1, length // PAGE)) * PAGE
    kind = rng.choice((0, 1, 5, 7))
    parts.insert(
        rng.randrange(1, len(parts)), _resource(kind, start + shift, rng.choice((PAGE, length, 2 << 20)))
    )
    return f"HOB: type {kind} again at {start + shift:#x}, in RAM"


def shared_lie(rng: Random, parts: Parts) -> str:
    """RAM at an address with the shared bit."""
    part = _ram(rng, parts)
    if part is None:
        return wrap_lie(rng, parts)
    bit = rng.choice((SHARED_48, SHARED_52))
    struct.pack_into("<Q", part, START, _range(part)[0] | bit)
    return f"HOB: RAM at a shared address, bit {bit:#x}"


def claim_lie(rng: Random, parts: Parts) -> str:
    """RAM that nobody asked for, above 4 GiB."""
    kind = rng.choice((0, 7, 7))
    start = rng.choice((1 << 32, 5 * GIB, 1 << 36, 1 << 39)) + rng.randrange(1 << 12) * PAGE
    length = rng.randrange(1, 1 << 14) * PAGE
    parts.insert(rng.randrange(1, len(parts)), _resource(kind, start, length))
    return f"HOB: more RAM than requested, type {kind}, {length:#x} bytes at {start:#x}"


def firmware_lie(rng: Random, parts: Parts) -> str:
    """A resource over the image, or more of the window below 4 GiB."""
    start = (1 << 32) - rng.choice((0x4000000, 0x100000, 0x9000, PAGE))
    kind = rng.choice((0, 1, 5, 7))
    parts.insert(rng.randrange(1, len(parts)), _resource(kind, start, (1 << 32) - start))
    return f"HOB: type {kind} over the firmware, from {start:#x}"


def fragment_lie(rng: Random, parts: Parts) -> str:
    """RAM in pieces, some of another type."""
    part = _ram(rng, parts)
    if part is None or _range(part)[1] > 8 * GIB:
        return wrap_lie(rng, parts)
    start, length = _range(part)
    count = rng.choice((2, 3, 7, 30, 60, 100, 128, 200, 500))
    cuts = sorted(
        {start, start + length, *(start + rng.randrange(length // PAGE + 1) * PAGE for _ in range(count))}
    )
    kinds = rng.choice(((part[TYPE],), (part[TYPE],), (0, 7), (1, 7)))
    pieces = [_resource(rng.choice(kinds), low, high - low) for low, high in pairwise(cuts)]
    at = next(index for index, one in enumerate(parts) if one is part)
    parts[at : at + 1] = pieces
    return f"HOB: RAM in {len(pieces)} pieces of types {sorted(set(kinds))}"


def hole_lie(rng: Random, parts: Parts) -> str:
    """RAM that ends early."""
    part = _ram(rng, parts)
    if part is None:
        return wrap_lie(rng, parts)
    start, length = _range(part)
    value = rng.randrange(max(1, length // PAGE)) * PAGE
    struct.pack_into("<Q", part, LENGTH, value)
    return f"HOB: RAM at {start:#x} ends {length - value:#x} bytes early"


def count_lie(rng: Random, parts: Parts) -> str:
    """More resources than a parser may hold."""
    count = rng.choice((16, 31, 32, 33, 64, 128, 129, 256, 600))
    kind = rng.choice((0, 1, 7))
    base = 6 * GIB + rng.randrange(1 << 10) * (2 << 20)
    step = rng.choice((PAGE, 2 * PAGE, 2 << 20))
    parts[1:1] = [_resource(kind, base + index * step, PAGE) for index in range(count)]
    return f"HOB: {count} more resources of type {kind}"


def head_lie(rng: Random, parts: Parts) -> str:
    """A field of the head of any HOB is another number."""
    part = rng.choice(parts)
    at, layout, name = rng.choice(((0, "<H", "type"), (2, "<H", "length"), (4, "<I", "reserved field")))
    value = rng.choice((0, 1, 3, 4, 7, 8, 23, 24, 47, 49, 0xFFF8, 0xFFFF, rng.randrange(1 << 16)))
    struct.pack_into(layout, part, at, value)
    return f"HOB: {name} of a HOB is {value:#x}"


def order_lie(rng: Random, parts: Parts) -> str:
    """The HOBs between PHIT and END in another order."""
    inner = parts[1:-1]
    rng.shuffle(inner)
    parts[1:-1] = inner
    return "HOB: a different order"


def drop_lie(rng: Random, parts: Parts) -> str:
    """One HOB less, perhaps PHIT or END."""
    at = rng.randrange(len(parts))
    kind = int.from_bytes(parts[at][:2], "little")
    if len(parts) > 1:
        del parts[at]
    return f"HOB: one of type {kind:#x} left out"


def phit_lie(rng: Random, parts: Parts) -> str:
    """A field of the PHIT is another number."""
    at = rng.choice((8, 12, 16, 24, 32, 40))
    value = number(rng) & 0xFFFFFFFF
    struct.pack_into("<I", parts[0], min(at, len(parts[0]) - 4), value)
    return f"HOB: PHIT holds {value:#x} at {at}"


def payload_lie(rng: Random, parts: Parts) -> str:
    """Payload information of any length, kind and entry point."""
    body = struct.pack("<IIQ", rng.choice((0, 1, 2, 3, 0xFFFFFFFF)), 0, number(rng))
    size = rng.choice((0, 4, 8, 12, 12, 16, 16, 24, 64))
    guid = guids.HOB_PAYLOAD_INFO.bytes_le
    mine = [at for at, part in enumerate(parts) if bytes(part[8:GUID_HEAD]) == guid]
    lie = _extension(guid, body[:size].ljust(size, b"\xa5"))
    if mine and rng.random() < 0.6:
        parts[mine[0]] = lie
    else:
        parts.insert(rng.randrange(1, len(parts) + 1), lie)
    return f"HOB: payload info of {size} bytes, kind {int.from_bytes(body[:4], 'little'):#x}"


def table_lie(rng: Random, parts: Parts) -> str:
    """An ACPI table that is none, or with other bytes."""
    tables = _tables(parts)
    if not tables:
        parts.insert(
            1, _extension(guids.HOB_ACPI_TABLE.bytes_le, rng.randbytes(rng.choice((0, 4, 8, 35, 36, 64))))
        )
        return "HOB: an ACPI table of random bytes"
    table = rng.choice(tables)
    value = rng.choice((0, 4, 8, 35, 36, 37, 43, 44, len(table), 0xFFFF, 0xFFFFFFFF, rng.randrange(256)))
    if len(table) >= GUID_HEAD + 8:
        struct.pack_into("<I", table, GUID_HEAD + 4, value)
    name = bytes(table[GUID_HEAD : GUID_HEAD + 4])
    return f"HOB: the length in {name!r} is {value:#x}"


def madt_lie(rng: Random, parts: Parts) -> str:
    """Entries: too many, too few, of wrong length, twice, with a broadcast id, with a mailbox elsewhere."""
    entries: list[bytes] = []
    few = rng.random() < 0.5
    if few:  # as many CPUs as the old one had, so that the wrong entry behind them is reached
        old_size = max((len(one) - GUID_HEAD - 44 for one in _tables(parts, b"APIC")), default=8)
        entries = [bytes((0, 8, cpu, cpu, 1, 0, 0, 0)) for cpu in range(min(max(1, old_size // 8), 255))]
    for _ in range(1 if few else rng.choice((0, 1, 1, 2, 3, 16, 255, 300))):
        kind = rng.choice((0, 0, 0, 1, 2, 4, 9, 9, 0xA, 0x10, 0x80, 0x80))
        size = {0: 8, 1: 12, 2: 10, 4: 6, 9: 16, 0xA: 12, 0x10: 16}.get(kind, 8)
        length = rng.choice((size, size, size, size, 0, 0, 1, 2, size - 1, 255))
        body = bytearray(rng.randbytes(size - 2) if rng.random() < 0.3 else bytes(size - 2))
        if kind == 0:
            body[:6] = struct.pack(
                "<BBI", rng.randrange(4), rng.choice((0, 1, 2, 255)), rng.choice((1, 1, 0, 3))
            )
        if kind == 9:
            body[:14] = struct.pack("<HIII", 0, rng.choice((0, 1, 300, 0xFFFFFFFF)), rng.choice((1, 1, 0)), 7)
        entries.append(bytes((kind, length)) + bytes(body))
    content = struct.pack("<II", 0xFEE00000, rng.randrange(2)) + b"".join(entries)
    head = struct.pack("<4sIBB", b"APIC", 36 + len(content), 5, 0).ljust(36, b"T")
    old = _tables(parts, b"APIC")
    lie = _extension(guids.HOB_ACPI_TABLE.bytes_le, head + content)
    if old and rng.random() < 0.7:
        parts[next(index for index, one in enumerate(parts) if one is old[0])] = lie
    else:
        parts.insert(rng.randrange(1, len(parts) + 1), lie)
    return f"HOB: a MADT of {len(entries)} entries"


def bits_lie(rng: Random, parts: Parts) -> str:
    """One to four flipped bits."""
    count = rng.randrange(1, 5)
    for _ in range(count):
        part = rng.choice(parts)
        if part:
            part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
    return f"HOB: {count} bits flipped"


# The first ones leave a list that can be right; each end of the boot shall be reached.
LIES: tuple[tuple[Lie, int], ...] = (
    (order_lie, 4), (claim_lie, 6), (fragment_lie, 5), (payload_lie, 3), (count_lie, 2), (hole_lie, 4),
    (field_lie, 4), (type_lie, 3), (wrap_lie, 2), (overlap_lie, 3), (shared_lie, 2), (firmware_lie, 3),
    (head_lie, 2), (drop_lie, 2), (phit_lie, 2), (table_lie, 2), (madt_lie, 3), (bits_lie, 2),
)  # fmt: skip
TABLE_LIES: tuple[tuple[Lie, int], ...] = ((table_lie, 3), (madt_lie, 5), (payload_lie, 1))


def end_lie(rng: Random, data: bytearray) -> str:
    """The end that the PHIT names is off, or the list stops in the middle."""
    shift = rng.choice((-8, 8, -16, 56, 1, -len(data), rng.randrange(-64, 64), 0x10000, 1 << 40))
    (end,) = struct.unpack_from("<Q", data, END_OF_LIST)
    struct.pack_into("<Q", data, END_OF_LIST, (end + shift) % (1 << 64))
    return f"HOB: the list ends {shift:#x} bytes from where it does"


def mutated(
    rng: Random, data: bytes, base: int, lies: tuple[tuple[Lie, int], ...], count: int
) -> tuple[bytes, list[str]]:
    """So many of these lies about a list at GPA `base`, and their texts."""
    parts, texts = split(data), []
    for _ in range(count):
        lie = rng.choices([one for one, _ in lies], [weight for _, weight in lies])[0]
        texts.append(lie(rng, parts))
    whole = joined(parts, base)
    if len(whole) >= hob.PHIT.sizeof() and rng.random() < 0.1:
        texts.append(end_lie(rng, whole))
    return bytes(whole), texts
