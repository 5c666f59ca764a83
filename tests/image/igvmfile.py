"""How does a test read an IGVM file without the product's reader, and break one?

Written from microsoft/igvm's definitions (igvm_defs/src/lib.rs); `struct` and `zlib` only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

FIXED = "<4sIIIII"
PLATFORM, POLICY, AREA, PAGE_DATA, INSERT, REQUIRED = 0x1, 0x101, 0x301, 0x302, 0x303, 0x305
MEMORY_MAP, COMMAND_LINE = 0x30C, 0x30E
FIELDS = {
    PLATFORM: ("<IBBHQ", ("mask", "vtl", "type", "version", "boundary")),
    POLICY: ("<QII", ("policy", "mask", "reserved")),
    AREA: ("<QII", ("size", "index", "file_offset")),
    PAGE_DATA: ("<QIIIHH", ("gpa", "mask", "file_offset", "flags", "data_type", "reserved")),
    INSERT: ("<QII", ("gpa", "mask", "index")),
    REQUIRED: ("<QIIII", ("gpa", "mask", "size", "flags", "reserved")),
    MEMORY_MAP: ("<II", ("index", "byte_offset")),
    COMMAND_LINE: ("<II", ("index", "byte_offset")),
}


@dataclass(frozen=True)
class Header:
    """`offset`: of its type, in the file."""

    offset: int
    type: int
    body: bytes

    def __getitem__(self, name: str) -> int:
        form, names = FIELDS[self.type]
        return int(struct.unpack(form, self.body)[names.index(name)])


def headers(file: bytes) -> list[Header]:
    """All variable headers, of a file whose fixed header is right."""
    magic, version, start, size, total, checksum = struct.unpack_from(FIXED, file)
    assert (magic, version, total) == (b"IGVM", 1, len(file))
    assert zlib.crc32(file[:20] + bytes(4) + file[start : start + size]) == checksum
    end, found = start + size, []
    while start < end:
        kind, length = struct.unpack_from("<II", file, start)
        assert start % 8 == 0
        assert start + 8 + length <= end
        found.append(Header(start, kind, file[start + 8 : start + 8 + length]))
        rest = -length % 8
        assert file[start + 8 + length : start + 8 + length + rest] == bytes(rest)
        start += 8 + length + rest
    assert start == end < len(file)
    return found


def pages(file: bytes) -> Iterator[tuple[int, bytes | None, bool]]:
    """What a TDX loader adds, in its order: GPA, content (None: not in the file), whether it is measured."""
    (platform,) = (item for item in headers(file) if item.type == PLATFORM)
    assert platform["type"] == 3
    areas: dict[int, int] = {}
    for item in headers(file):
        if item.type == AREA:
            assert item["index"] not in areas
            areas[item["index"]] = item["size"]
        elif item.type == PAGE_DATA and item["mask"] & platform["mask"]:
            assert item["data_type"] == item["reserved"] == item["flags"] & ~2 == 0
            at = item["file_offset"]
            assert at == 0 or at + 4096 <= len(file)
            yield item["gpa"], file[at : at + 4096] if at else None, not item["flags"] & 2
        elif item.type == INSERT and item["mask"] & platform["mask"]:
            for gpa in range(item["gpa"], item["gpa"] + areas.pop(item["index"]), 4096):
                yield gpa, None, False


def sealed(file: bytes) -> bytes:
    """The file with the total size and the checksum that its bytes ask for."""
    raw = bytearray(file)
    struct.pack_into("<II", raw, 16, len(raw), 0)
    start, size = struct.unpack_from("<II", raw, 8)
    struct.pack_into("<I", raw, 20, zlib.crc32(raw[:24] + raw[start : start + size]))
    return bytes(raw)


def changed(file: bytes, header: Header, **fields: int) -> bytes:
    """The file with fields of one header changed, and sealed."""
    form, names = FIELDS[header.type]
    values = dict(zip(names, struct.unpack(form, header.body), strict=True)) | fields
    raw = bytearray(file)
    struct.pack_into(form, raw, header.offset + 8, *values.values())
    return sealed(bytes(raw))


def packed(kind: int, *values: int) -> bytes:
    """A variable header."""
    body = struct.pack(FIELDS[kind][0], *values)
    return struct.pack("<II", kind, len(body)) + body


def made(*found: bytes, data: bytes = bytes(4096)) -> bytes:
    """A file of these headers; its data begins behind them."""
    joined = b"".join(found)
    return sealed(struct.pack(FIXED, b"IGVM", 1, 24, len(joined), 0, 0) + joined + data)
