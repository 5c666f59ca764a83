"""How can QEMU's table-loader script and its files lie? Changes that know the commands and the tables."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from random import Random

from formats import acpi
from formats.fw_cfg import NAME_SIZE
from formats.structs import offset_of, plain
from formats.table_loader import COMMANDS, ENTRY_SIZE, Command

# Numbers of a command that hurt
NUMBERS = (0, 1, 2, 3, 4, 8, 16, 255, 0x1000, 0x1FFFC, 0x1FFFD, 0x20000, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFF)
KINDS = (0, 1, 2, 3, 4, 5, 6, 0x7FFFFFFF, 0x80000000, 0x80000004, 0xFFFFFFFF)
NAMES = (b"", b"etc/nobody", b"etc/table-loader", b"etc/boot/kernel", b"x" * NAME_SIZE, b"\xff" * 8)
SIGNATURES = (b"FACP", b"APIC", b"DSDT", b"FACS", b"RSDT", b"XSDT", b"MCFG", b"WAET", b"SSDT", b"CCEL")

Rows = list[bytearray]
Script = Callable[[Random, Rows], str]


def rows(script: bytes) -> Rows:
    """The commands without the padding at the end."""
    found = [bytearray(script[at : at + ENTRY_SIZE]) for at in range(0, len(script), ENTRY_SIZE)]
    while found and not any(found[-1]):
        found.pop()
    return found


def _struct(row: bytearray) -> tuple[int, object] | None:
    kind = int.from_bytes(row[:4], "little")
    return (kind, COMMANDS[Command(kind)]) if kind in list(Command) else None


# ---- one lie about the script each; the text says which


def field_lie(rng: Random, script: Rows) -> str:
    """A number of a command: alignment, zone, offset, size, start, length."""
    row = rng.choice(script)
    known = _struct(row)
    if known is None:
        return kind_lie(rng, script)
    fields = [each for each in plain(known[1]).subcons if each.name not in ("command", "padding")]
    numbers = [each for each in fields if each.sizeof() <= 4]
    field = rng.choice(numbers)
    at, size = offset_of(known[1], field.name), field.sizeof()
    old = int.from_bytes(row[at : at + size], "little")
    value = rng.choice((*NUMBERS, old + 1, max(old - 1, 0), old ^ 1 << rng.randrange(8 * size)))
    row[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return f"loader script: {field.name} of command {known[0]} is {value:#x}"


def name_lie(rng: Random, script: Rows) -> str:
    """A file's name: nobody's, without its NUL, another file's, its own: pointers in a circle."""
    row, other = rng.choice(script), rng.choice(script)
    at = 4 + NAME_SIZE * (_struct(row) is not None and row[0] in (2, 4) and rng.random() < 0.5)
    name = rng.choice((*NAMES, bytes(other[4 : 4 + NAME_SIZE])))
    row[at : at + NAME_SIZE] = name.ljust(NAME_SIZE, b"\0")
    return f"loader script: a command is about {name[:20]!r}"


def kind_lie(rng: Random, script: Rows) -> str:
    """Another command, or one that there is not."""
    kind = rng.choice(KINDS)
    struct.pack_into("<I", rng.choice(script), 0, kind)
    return f"loader script: command {kind:#x}"


def order_lie(rng: Random, script: Rows) -> str:
    """The commands in another order, or one of them again or not at all."""
    what = rng.choice(("shuffled", "one again", "one left out"))
    if what == "shuffled":
        rng.shuffle(script)
    elif what == "one again":
        script.insert(rng.randrange(len(script) + 1), bytearray(rng.choice(script)))
    elif len(script) > 1:
        del script[rng.randrange(len(script))]
    return f"loader script: {what}"


def length_lie(rng: Random, script: Rows) -> str:
    """Far too many commands, or half of one."""
    many = rng.random() < 0.5
    script.extend(
        [bytearray(rng.choice(script)) for _ in range(600)] if many else [bytearray(rng.randrange(4, 128))]
    )
    return f"loader script: {'600 more commands' if many else 'a part of a command'}"


SCRIPT_LIES: tuple[tuple[Script, int], ...] = (
    (field_lie, 6), (name_lie, 3), (kind_lie, 2), (order_lie, 3), (length_lie, 1),
)  # fmt: skip


def tables_lie(rng: Random, tables: bytearray) -> str:
    """Length, signature or content of a table; its pointers are commands' business."""
    places = [at for name in SIGNATURES for at in [tables.find(name)] if at >= 0]
    if not places:
        return "ACPI tables: none"
    at = rng.choice(places)
    name = bytes(tables[at : at + 4]).decode("ascii", "backslashreplace")
    what = rng.randrange(3)
    if what == 0:
        value = rng.choice((*NUMBERS, 35, 36, 37, 44, 63, 64))
        struct.pack_into("<I", tables, at + offset_of(acpi.HEADER, "length"), value)
        return f"ACPI tables: the length of {name} is {value:#x}"
    if what == 1:
        other = rng.choice(SIGNATURES)
        tables[at : at + 4] = other
        return f"ACPI tables: {name} is called {other.decode()}"
    for _ in range(rng.randrange(1, 6)):
        place = at + rng.randrange(36, 200)
        if place < len(tables):
            tables[place] = rng.choice((0, 1, 2, 8, 0x7F, 0xFF, rng.randrange(256)))
    return f"ACPI tables: other bytes in {name}"


def lied(rng: Random, honest: Mapping[int, bytes]) -> tuple[dict[int, bytes], list[str]]:
    """The files by key with up to three lies, and their texts; in a quarter of the cases none. Contents tell
    which file is which.
    """
    made, texts = dict(honest), list[str]()
    if rng.random() < 0.25:
        return made, texts
    script = next(
        key for key, data in honest.items() if len(data) >= ENTRY_SIZE and data[0] == Command.ALLOCATE
    )
    tables = next(key for key, data in honest.items() if key != script and len(data) > ENTRY_SIZE)
    commands, content, size = rows(honest[script]), bytearray(honest[tables]), len(honest[script])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.6:
            lie = rng.choices([one for one, _ in SCRIPT_LIES], [weight for _, weight in SCRIPT_LIES])[0]
            texts.append(lie(rng, commands))
        else:
            texts.append(tables_lie(rng, content))
    # The directory gives the size, whatever is in it.
    made[script] = b"".join(map(bytes, commands)).ljust(size, b"\0")
    made[tables] = bytes(content)
    return made, texts
