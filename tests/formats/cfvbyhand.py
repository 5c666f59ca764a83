"""How is a CFV packed and read without this project's formats? With struct alone, as td-shim's tools do."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

ANCHOR_FILE = UUID("77a2742e-9340-4ac9-8f85-b7b978580021")
HEADER = 0x78


def file(name: UUID, data: bytes, kind: int = 1, state: int = 7) -> bytes:
    """A file with its header, padded to 8 bytes."""
    size = (24 + len(data)).to_bytes(3, "little")
    head = bytearray(name.bytes_le + bytes([0, 0xAA, kind, 0]) + size + bytes([state]))
    head[16] = (0xB1 - sum(head)) & 0xFF
    whole = bytes(head) + data
    return whole + bytes(-len(whole) % 8)


def large_file(name: UUID, data: bytes) -> bytes:
    """The same with td-shim's large header: 28 bytes, a size of four bytes."""
    size = struct.pack("<I", 28 + len(data))
    head = bytearray(name.bytes_le + bytes([0, 0xAA, 1, 1]) + bytes(3) + bytes([7]) + size)
    head[16] = (0xB1 - sum(head)) & 0xFF
    whole = bytes(head) + data
    return whole + bytes(-len(whole) % 8)


def volume(size: int, *files: bytes) -> bytes:
    """A volume of `size` bytes with these files."""
    guid = UUID("5473c07a-3dcb-4dca-bd6f-1e9689e7349a").bytes_le
    head = bytes(16) + guid + struct.pack("<Q4sIHHHBB", size, b"_FVH", 0x4F6FF, HEADER, 0, 0x60, 0, 2)
    checksum = -sum(struct.unpack("<28H", head)) & 0xFFFF
    head = head[:0x32] + struct.pack("<H", checksum) + head[0x34:]
    head += struct.pack("<IIQ", size // 4096, 4096, 0)
    head += bytes(16) + bytes([0, 0, 0xF0, 0, 0x2C, 0, 0, 7]) + bytes(16) + struct.pack("<I", 0x14) + bytes(4)
    assert len(head) == HEADER
    return (head + b"".join(files)).ljust(size, b"\0")


def anchor(key_hash: bytes) -> bytes:
    """A trust anchor's content."""
    guid = UUID("be8f65a3-a83b-415c-a1fb-f78e105e824e").bytes_le
    return guid + struct.pack("<IIQII", 1, 40 + len(key_hash), 1, 0, 0) + key_hash


def files(data: bytes) -> Sequence[tuple[UUID, int, bytes]]:
    """Name, type and data of each file, by strict rules; AssertionError where a rule is broken."""
    length, signature, _, header, _, extended, _, revision = struct.unpack_from("<Q4sIHHHBB", data, 32)
    assert (data[:16], length, signature, revision) == (bytes(16), len(data), b"_FVH", 2)
    assert sum(struct.unpack_from("<28H", data)) & 0xFFFF == 0
    blocks, block, end = struct.unpack_from("<IIQ", data, 56)
    assert (blocks * block, end, header, extended) == (length, 0, HEADER, 0x60)
    found, at = [], header
    while any(data[at:]):
        assert at % 8 == 0
        size = int.from_bytes(data[at + 20 : at + 23], "little")
        assert 24 <= size <= len(data) - at
        assert (sum(data[at : at + 24]) - data[at + 17] - data[at + 23]) & 0xFF == 0, "PI 3.2.3.1"
        assert data[at + 17] == 0xAA
        found.append((UUID(bytes_le=data[at : at + 16]), data[at + 18], data[at + 24 : at + size]))
        at += (size + 7) & ~7
    return found
