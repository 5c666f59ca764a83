"""What do volumes, trust anchors and signed payloads look like? Packed by hand from td-shim's code (125eeab),
so that nothing of formats is trusted here."""

from __future__ import annotations

import struct
from hashlib import sha384
from uuid import UUID

ANCHOR_FILE = UUID("77a2742e-9340-4ac9-8f85-b7b978580021").bytes_le
KEY_HASH = UUID("be8f65a3-a83b-415c-a1fb-f78e105e824e").bytes_le
SIGNED_PAYLOAD = UUID("fcf2d558-9df5-4f4d-b0d7-3e4b798ab066").bytes_le
FFS3 = UUID("5473c07a-3dcb-4dca-bd6f-1e9689e7349a").bytes_le
ECDSA, RSA = 1, 2


def volume_head(size: int) -> bytearray:
    """120 bytes: volume header, pad file, extended header, pad."""
    head = bytearray(16) + FFS3 + struct.pack("<Q4sIHHHBB", size, b"_FVH", 0x4F6FF, 0x78, 0, 0x60, 0, 2)
    struct.pack_into("<H", head, 0x32, -sum(struct.unpack("<28H", head)) & 0xFFFF)
    head += struct.pack("<IIQ", size // 0x1000, 0x1000, 0)
    head += bytes(16) + bytes((0, 0, 0xF0, 0, 0x2C, 0, 0, 7)) + bytes(16) + struct.pack("<II", 0x14, 0)
    assert len(head) == 0x78
    return head


def file(name: bytes, data: bytes, kind: int = 1, large: bool = False, size: int | None = None) -> bytes:
    """Header and data; `size` as the header says it."""
    total = (28 if large else 24) + len(data) if size is None else size
    head = bytearray(
        name + bytes((0, 0xAA, kind, large)) + (0 if large else total).to_bytes(3, "little") + b"\7"
    )
    head += total.to_bytes(4, "little") if large else b""
    head[16] = (0xB1 - sum(head)) & 0xFF
    return bytes(head) + data


def volume(*files: bytes, size: int = 0x1000) -> bytearray:
    """A volume with these files, each at a multiple of 8."""
    made = volume_head(size)
    for each in files:
        made += bytes(-len(made) % 8) + each
    return made + bytes(size - len(made))


def anchor(key: bytes) -> bytes:
    """The data of the anchor file for a public key."""
    return KEY_HASH + struct.pack("<IIQII", 1, 0x58, 1, 0, 0) + sha384(key).digest()


def head(payload: bytes, svn: int, algorithm: int) -> bytes:
    return SIGNED_PAYLOAD + struct.pack("<IIQQII", 1, 48 + len(payload), 7, svn, algorithm, 0)
