"""Which small images do the tests of image share, and how is one broken byte by byte.

Only `struct` touches the finished image here, so that a mistake in our own parser cannot hide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Any

from dsl.model import Firmware, ImageSection, Span
from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from image.write import Placed, write_image

FIELDS = ("data_offset", "raw_size", "address", "memory_size", "type", "attributes")
FORMATS = {
    "data_offset": "I",
    "raw_size": "I",
    "address": "Q",
    "memory_size": "Q",
    "type": "I",
    "attributes": "I",
}
TDX_GUID = bytes.fromhex("35657ae44a989847865e4685a7bf8ec2")


def code(size: int = 0x3000) -> bytes:
    """A BFV that is not all alike, with the hole for the metadata left zero."""
    data = bytearray((i * 31 + (i >> 8)) & 0xFF for i in range(size))
    data[-0x400:-0x10] = bytes(0x3F0)
    data[-0x10:] = bytes.fromhex("0f20c0a80174f0ebfe90909090909090")
    return bytes(data)


def regions(direct: bool, bfv: bytes | None = None) -> tuple[Placed, ...]:
    """A layout for QEMU, or with the two payload sections for direct boot."""
    bfv = code() if bfv is None else bfv
    found = [
        Placed("code", SectionType.BFV, FOUR_GIB - len(bfv), len(bfv), 1, bfv),
        Placed("config", SectionType.CFV, FOUR_GIB - len(bfv) - 0x2000, 0x2000, 0, bytes([7]) * 0x2000),
        Placed("hob", SectionType.TD_HOB, 0x80_0000, 0x1_0000),
        Placed("stack", SectionType.TEMP_MEM, 0x81_0000, 0x8000),
    ]
    if direct:
        found.append(Placed("parameters", SectionType.PAYLOAD_PARAM, 0x82_0000, 0x1000))
        found.append(Placed("payload", SectionType.PAYLOAD, 0xA0_0000, 0x2_0000))
    return tuple(found)


def firmware(*sections: ImageSection) -> Firmware:
    """As much of a checked flow as the image room reads."""
    facts: dict[str, Any] = {field.name: () for field in fields(Firmware)}
    return Firmware(**facts | {"name": "linux", "version": (1, 0, 2), "svn": 3, "image": sections})


def section(
    name: str, kind: str, address: int | None, size: int | None, measured: bool = False
) -> ImageSection:
    return ImageSection(name, kind, address, size, False, measured, "ram", Span("test.tdf", 1, 1, 1, 2))


def image_for_qemu() -> bytes:
    return write_image(regions(direct=False), "qemu")


def image_for_direct_boot() -> bytes:
    return write_image(regions(direct=True), "direct-boot")


@dataclass(frozen=True)
class Record:
    data_offset: int
    raw_size: int
    address: int
    memory_size: int
    type: int
    attributes: int


def descriptor_offset(image: bytes) -> int:
    """Through the GUID table, as QEMU goes."""
    at = image.rindex(TDX_GUID)
    (distance,) = struct.unpack_from("<I", image, at - 6)
    return len(image) - int(distance)


def records(image: bytes) -> list[Record]:
    start = descriptor_offset(image)
    (count,) = struct.unpack_from("<I", image, start + 12)
    return [Record(*struct.unpack_from("<IIQQII", image, start + 16 + 32 * i)) for i in range(count)]


def patched(image: bytes, section: int, **fields: int) -> bytes:
    """The image with fields of one section's record changed."""
    raw = bytearray(image)
    position = descriptor_offset(image) + 16 + 32 * section
    for name in FIELDS:
        if name in fields:
            struct.pack_into(f"<{FORMATS[name]}", raw, position, fields[name])
        position += struct.calcsize(f"<{FORMATS[name]}")
    return bytes(raw)


def without_last_section(image: bytes, count: int = 1) -> bytes:
    raw = bytearray(image)
    start = descriptor_offset(image)
    (sections,) = struct.unpack_from("<I", image, start + 12)
    struct.pack_into("<I", raw, start + 4, 16 + 32 * (sections - count))
    struct.pack_into("<I", raw, start + 12, sections - count)
    return bytes(raw)


def overwritten(image: bytes, distance: int, data: bytes) -> bytes:
    """The image with `data` at `distance` bytes from its end."""
    start = len(image) - distance
    return image[:start] + data + image[start + len(data) :]
