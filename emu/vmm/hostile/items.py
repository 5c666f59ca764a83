"""How can the items of QEMU's fw_cfg lie? Changes to an honest set that know the directory, the size keys and
the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from emu.vmm.hostile import payload
from emu.vmm.q35.kernel import KERNEL_FILE
from formats.fw_cfg import FILE, FILE_FIRST, NAME_SIZE, Key
from formats.structs import unpack

# Sizes and keys that hurt
SIZES: tuple[int, ...] = (
    0,
    1,
    3,
    0x1F1,
    0x1FF,
    0x270,
    0x1000,
    0x1FF001,
    0x200000,
    0x3FFFFFF,
    0x4000000,
    0x7FFFFFFF,
)
SIZES += (0x80000000, 0xFFFFF000, 0xFFFFFFFE, 0xFFFFFFFF)
COUNTS = (0, 1, 31, 32, 33, 62, 63, 64, 255, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
KEYS = (0, 1, 7, 0x11, 0x12, 0x15, 0x18, 0x19, 0x1F, 0x20, 0x3F, 0x40, 0x3FFF, 0x4021, 0x8000, 0x8021, 0xFFFF)
PAYLOAD_SIZES = (Key.INITRD_SIZE, Key.CMDLINE_SIZE, Key.SETUP_SIZE, Key.KERNEL_SIZE)
ADDRESSES = (Key.KERNEL_ADDR, Key.INITRD_ADDR, Key.CMDLINE_ADDR, Key.SETUP_ADDR, Key.KERNEL_ENTRY)
ROOM = 2048  # for a command line that has no end of its own

Items = dict[int, bytes]
Lie = Callable[[Random, Items], str]
Row = tuple[int, int, bytes]  # size, key, name with its padding


def _rows(items: Items) -> list[Row]:
    """What can be read of the directory."""
    data = items.get(Key.FILE_DIR, b"")
    count = min(int.from_bytes(data[:4], "big"), (len(data) - 4) // FILE.sizeof()) if len(data) >= 4 else 0
    entries = (unpack(FILE, data, 4 + at * FILE.sizeof()) for at in range(count))
    return [(int(e.size), int(e.select), bytes(e.name)) for e in entries]


def _write(items: Items, rows: list[Row], count: int | None = None) -> None:
    packed = (struct.pack(">IHH", size, key, 0) + name for size, key, name in rows)
    items[Key.FILE_DIR] = struct.pack(">I", len(rows) if count is None else count) + b"".join(packed)


def _kernel(rows: list[Row]) -> int | None:
    name = KERNEL_FILE.encode() + b"\0"
    return next((at for at, row in enumerate(rows) if row[2].startswith(name)), None)


def _size(rng: Random) -> int:
    return rng.choice((*SIZES, rng.getrandbits(32), rng.getrandbits(32) >> rng.randrange(32)))


def _key(rng: Random) -> int:
    return rng.choice((*KEYS, FILE_FIRST + rng.randrange(32)))


# ---- one lie each; the text says which


def signature_lie(rng: Random, items: Items) -> str:
    """Another signature or another word of features."""
    key = rng.choice((Key.SIGNATURE, Key.SIGNATURE, Key.ID))
    items[key] = rng.choice((b"", b"QEM", b"QEMV", b"\0QEMU", bytes(4), b"\xff" * 4, rng.randbytes(4)))
    return f"fw_cfg: item {key:#x} holds {items[key].hex()}"


def count_lie(rng: Random, items: Items) -> str:
    """The directory has another number of files than it says."""
    count = rng.choice(COUNTS)
    _write(items, _rows(items), count)
    return f"fw_cfg: a directory of {count:#x} files"


def name_lie(rng: Random, items: Items) -> str:
    """A name without its NUL, empty, of other bytes; that of the kernel among them."""
    rows = _rows(items)
    if not rows:
        return count_lie(rng, items)
    kernel, at = _kernel(rows), rng.randrange(len(rows))
    if kernel is not None and rng.random() < 0.5:
        at = kernel
    text = KERNEL_FILE.encode()
    name = rng.choice(
        (b"", b"\xff" * NAME_SIZE, text.ljust(NAME_SIZE, b"x"), text + b"\0junk", text[:-1], b"/" + text)
    )
    rows[at] = (*rows[at][:2], name.ljust(NAME_SIZE, b"\0"))
    _write(items, rows)
    return f"fw_cfg: a file is called {name[:24]!r}"


def twice_lie(rng: Random, items: Items) -> str:
    """Two files called like the kernel, with other sizes and keys."""
    rows = _rows(items)
    name = KERNEL_FILE.encode().ljust(NAME_SIZE, b"\0")
    size, key = _size(rng), _key(rng)
    rows.insert(rng.randrange(len(rows) + 1), (size, key, name))
    _write(items, rows)
    return f"fw_cfg: one more {KERNEL_FILE} of {size:#x} bytes with key {key:#x}"


def row_lie(rng: Random, items: Items) -> str:
    """Size or key of the kernel's file, or of any."""
    rows = _rows(items)
    if not rows:
        return count_lie(rng, items)
    kernel, at = _kernel(rows), rng.randrange(len(rows))
    at = kernel if kernel is not None and rng.random() < 0.8 else at
    size, key, name = rows[at]
    if rng.random() < 0.6:
        size = rng.choice((_size(rng), max(size - 1, 0), size + 1, size + 0x100000))
    else:
        key = _key(rng)
    rows[at] = (size & 0xFFFFFFFF, key, name)
    _write(items, rows)
    return f"fw_cfg: a file of {size:#x} bytes with key {key:#x}"


def many_lie(rng: Random, items: Items) -> str:
    """Files that nobody asked for, before all others."""
    rows = [(0, 0x100 + at, f"etc/{at}".encode().ljust(NAME_SIZE, b"\0")) for at in range(rng.randrange(80))]
    _write(items, rows + _rows(items))
    return f"fw_cfg: {len(rows)} more files"


def old_lie(rng: Random, items: Items) -> str:
    """A host without etc/boot/kernel: the kernel in two parts, whose setup part the host has changed."""
    rows = _rows(items)
    if (at := _kernel(rows)) is not None:
        del rows[at]
        _write(items, rows)
    setup = bytearray(items.get(Key.SETUP_DATA, b""))
    for place in (0x210, 0x218, 0x21C, 0x224, 0x228):
        if len(setup) >= place + 4 and rng.random() < 0.6:
            setup[place : place + 4] = rng.randbytes(4)
    items[Key.SETUP_DATA] = bytes(setup)
    return "fw_cfg: the kernel in two parts, one of them changed"


def size_lie(rng: Random, items: Items) -> str:
    """One of the sizes is any number, or no number of four bytes."""
    key = rng.choice(PAYLOAD_SIZES[:2] if rng.random() < 0.7 else PAYLOAD_SIZES)
    whole = int.from_bytes(items.get(key, b""), "little")
    size = rng.choice((_size(rng), max(whole - 1, 0), whole + 1, whole + 0x1000)) & 0xFFFFFFFF
    items[key] = struct.pack("<I", size)[: rng.choice((4, 4, 4, 4, 0, 1, 3))]
    return f"fw_cfg: item {key:#x} says {items[key].hex()}"


def missing_lie(rng: Random, items: Items) -> str:
    """One of the items that the firmware may ask for is not there."""
    keys = (Key.SIGNATURE, Key.FILE_DIR, *PAYLOAD_SIZES, Key.INITRD_DATA, Key.CMDLINE_DATA, Key.SETUP_DATA)
    key = rng.choice((*keys, *(key for _, key, name in _rows(items) if name.startswith(b"etc/boot"))))
    items.pop(key, None)
    return f"fw_cfg: no item {key:#x}"


def address_lie(rng: Random, items: Items) -> str:
    """Load addresses that point to the firmware."""
    key, value = rng.choice(ADDRESSES), rng.choice((0xFFFFF000, 0x800000, 0x820000, 0xFFFFFFFF, 0))
    items[key] = struct.pack("<I", value)
    return f"fw_cfg: item {key:#x} says {value:#x}"


def kernel_lie(rng: Random, items: Items) -> str:
    """The kernel's file, or its setup part, with other fields."""
    rows = _rows(items)
    at = _kernel(rows)
    key = rows[at][1] if at is not None else int(Key.SETUP_DATA)
    items[key], texts = payload.payload(rng, items.get(key, b""))
    return "; ".join(texts) or "fw_cfg: no kernel"


def line_lie(rng: Random, items: Items) -> str:
    """Another command line, with and without its NUL."""
    content, text = payload.command_line(rng, items.get(Key.CMDLINE_DATA, b"")[: ROOM - 1], ROOM)
    items[Key.CMDLINE_DATA] = content
    items[Key.CMDLINE_SIZE] = struct.pack("<I", len(content))
    return text


def initrd_lie(rng: Random, items: Items) -> str:
    """Another initrd, or one where there was none."""
    data = rng.randbytes(rng.choice((1, 511, 4096, 70_000)))
    items[Key.INITRD_DATA] = data
    items[Key.INITRD_SIZE] = struct.pack("<I", len(data))
    return f"fw_cfg: an initrd of {len(data)} random bytes"


LIES: tuple[tuple[Lie, int], ...] = (
    (signature_lie, 1), (count_lie, 2), (name_lie, 3), (twice_lie, 3), (row_lie, 4), (many_lie, 2),
    (old_lie, 4), (size_lie, 5), (missing_lie, 3), (address_lie, 1), (kernel_lie, 6), (line_lie, 3),
    (initrd_lie, 2),
)  # fmt: skip


def lied(rng: Random, honest: Items, count: int) -> tuple[Items, list[str]]:
    """The items with this number of lies, and their texts."""
    items = dict(honest)
    lies = rng.choices([one for one, _ in LIES], [weight for _, weight in LIES], k=count)
    return items, [lie(rng, items) for lie in lies]
