"""How does a construct declaration become bytes and back, with an error that says where?

The declarations of this package are plain fixed-size construct structs of little-endian integers, byte
arrays and other such structs, so that the C side can have the very same layout (see `cstructs`).
"""

from __future__ import annotations

from typing import Any

import construct as c

from formats.errors import TruncatedError


def spaced(size: int, fields: dict[int, Any]) -> Any:
    """A struct of `size` bytes from fields by their offset; the gaps are named `reserved_<offset>`."""
    members: list[Any] = []
    position = 0
    for offset, field in sorted(fields.items()):
        if offset < position:
            raise ValueError(
                f"field {field.name} at {offset:#x} overlaps its predecessor, which ends at {position:#x}"
            )
        members += [*_gap(position, offset), field]
        position = offset + field.sizeof()
    if position > size:
        raise ValueError(f"fields end at {position:#x}, beyond the structure's size {size:#x}")
    return c.Struct(*members, *_gap(position, size))


def _gap(start: int, end: int) -> list[Any]:
    return [f"reserved_{start:03x}" / c.Bytes(end - start)] if end > start else []


def unpack(struct: Any, data: bytes, offset: int = 0, *, place: str = "") -> Any:
    """The structure at `offset` of `data`; TruncatedError when it does not fit. `place` names the data."""
    size = struct.sizeof()
    if offset < 0:
        name = place or struct.name
        raise TruncatedError(
            name, f"an offset {-offset:#x} before the start", f"{size} bytes of {struct.name}"
        )
    if offset + size > len(data):
        raise TruncatedError(
            f"{place or struct.name} offset {offset:#x}",
            f"{max(0, len(data) - offset)} bytes",
            f"{size} bytes of {struct.name}",
        )
    return struct.parse(data[offset : offset + size])


def pack(struct: Any, **values: Any) -> bytes:
    """The bytes of a structure; fields that are not given are zero. Nested structs take dictionaries."""
    return bytes(struct.build(_filled(struct, values)))


def offset_of(struct: Any, name: str) -> int:
    """Where a field of a structure begins, in bytes."""
    members = plain(struct).subcons
    before = next(i for i, field in enumerate(members) if field.name == name)
    return sum(field.sizeof() for field in members[:before])


def size_of(struct: Any, name: str) -> int:
    """How many bytes a field of a structure has."""
    return int(next(field.sizeof() for field in plain(struct).subcons if field.name == name))


def plain(struct: Any) -> Any:
    """The construct below names and documentation."""
    while isinstance(struct, c.Renamed):
        struct = struct.subcon
    return struct


def _filled(struct: Any, value: Any) -> Any:
    core = plain(struct)
    if isinstance(core, c.Struct):
        given = dict(value or {})
        filled = {field.name: _filled(field, given.pop(field.name, None)) for field in core.subcons}
        if given:
            raise TypeError(f"{struct.name} has no field {', '.join(sorted(map(str, given)))}")
        return filled
    if isinstance(core, c.Array):
        items = list(value or [])
        return [_filled(core.subcon, item) for item in items + [None] * (core.count - len(items))]
    if isinstance(core, c.Bytes):
        return bytes(value or b"").ljust(core.length, b"\0")
    return value or 0
