"""How does QEMU tell firmware where its ACPI tables point to each other? The commands of `etc/table-loader`.

Source: QEMU hw/acpi/bios-linker-loader.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

import construct as c
from construct import Bytes, Int8ul, Int32ul, Int64ul

from formats.fw_cfg import NAME_SIZE
from formats.structs import pack, unpack

ENTRY_SIZE = 128
LOADER_FILE = "etc/table-loader"
FILE_ALIGNMENT = 8  # of the files that the firmware keeps


class Command(IntEnum):
    """First field of an entry; 0 is padding."""

    ALLOCATE = 1
    ADD_POINTER = 2
    ADD_CHECKSUM = 3
    WRITE_POINTER = 4


class Zone(IntEnum):
    """Where an allocated file goes."""

    HIGH = 1
    FSEG = 2


def _entry(*fields: Any) -> Any:
    body = c.Struct("command" / Int32ul, *fields)
    return c.Struct(*body.subcons, "padding" / Bytes(ENTRY_SIZE - body.sizeof()))


ALLOCATE = (
    "loader_allocate" / _entry("file" / Bytes(NAME_SIZE), "align" / Int32ul, "zone" / Int8ul)
) * "Allocate memory for a whole file and load it"

ADD_POINTER = (
    "loader_add_pointer"
    / _entry("dest" / Bytes(NAME_SIZE), "src" / Bytes(NAME_SIZE), "offset" / Int32ul, "size" / Int8ul)
) * "Add the address of `src` to the number of `size` bytes at an offset of `dest`"

ADD_CHECKSUM = (
    "loader_add_checksum"
    / _entry("file" / Bytes(NAME_SIZE), "offset" / Int32ul, "start" / Int32ul, "length" / Int32ul)
) * "Subtract the sum over a range from the byte at an offset"

WRITE_POINTER = (
    "loader_write_pointer"
    / _entry(
        "dest" / Bytes(NAME_SIZE),
        "src" / Bytes(NAME_SIZE),
        "dst_offset" / Int32ul,
        "src_offset" / Int32ul,
        "size" / Int8ul,
    )
) * "Write the address of a place in `src` back into a file of the host"

FILE_HEAD = (
    "loader_file" / c.Struct("name" / Bytes(NAME_SIZE), "size" / Int64ul)
) * "What precedes a file of the host's where the firmware keeps and measures it"

COMMANDS = {
    Command.ALLOCATE: ALLOCATE,
    Command.ADD_POINTER: ADD_POINTER,
    Command.ADD_CHECKSUM: ADD_CHECKSUM,
    Command.WRITE_POINTER: WRITE_POINTER,
}


def command(kind: Command, **fields: Any) -> bytes:
    """One entry; names of files as text."""
    values = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
    return pack(COMMANDS[kind], command=kind, **values)


def stored(files: Mapping[str, bytes]) -> bytes:
    """The files in their order as the firmware keeps and measures them: name, size, content, zeros."""
    parts = (pack(FILE_HEAD, name=name.encode(), size=len(data)) + data for name, data in files.items())
    return b"".join(part + bytes(-len(part) % FILE_ALIGNMENT) for part in parts)


def read(script: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Command and fields of each entry but padding, names as text. TruncatedError; unknown commands come
    without fields.
    """
    for at in range(0, len(script), ENTRY_SIZE):
        kind = int.from_bytes(script[at : at + 4], "little")
        if not kind:
            continue
        struct = COMMANDS.get(kind)  # type: ignore[call-overload]
        fields = unpack(struct, script, at, place="loader script") if struct else {}
        yield (
            kind,
            {
                name: value.split(b"\0", 1)[0].decode("ascii", "backslashreplace")
                if isinstance(value, bytes)
                else value
                for name, value in fields.items()
                if name not in ("_io", "command", "padding")
            },
        )
