"""What lies in a CFV that td-shim-enroll has filled: a firmware volume, its files, the trust anchor?

Source: td-shim at 125eeab, td-shim-tools/src/enroller.rs (writer) and td-shim-interface/src/fv.rs (reader).
They differ from the PI specification, 1.7 volume 3, in two places: the volume's checksum covers its first 56
bytes only, and its header length is that of everything before the first file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import construct as c
from construct import Bytes, Int32ul, Int64ul

from formats import fv
from formats.errors import FieldError, TruncatedError
from formats.structs import offset_of, pack, unpack
from formats.units import PAGE, align_up

FFS3_GUID = UUID("5473c07a-3dcb-4dca-bd6f-1e9689e7349a")  # EFI_FIRMWARE_FILE_SYSTEM3_GUID, PI 3.2.2
ANCHOR_FILE = UUID("77a2742e-9340-4ac9-8f85-b7b978580021")  # name of the file with the trust anchor
KEY_HASH = UUID("be8f65a3-a83b-415c-a1fb-f78e105e824e")  # type of that file's content
ATTRIBUTES = 0x4_F6FF
FILE_STATE = 0x07  # header construction, header valid, data valid
# Of all bytes of a file header: its file checksum and its state, which count as zero in a true sum (3.2.3.1).
HEADER_SUM = (fv.NO_CHECKSUM + FILE_STATE) & 0xFF
LARGE_FILE = 1  # FFS_ATTRIB_LARGE_FILE; td-shim has 32 bits for the size then, the PI specification 64
FILE_ALIGNMENT = 8
STRUCTURE_VERSION = 1
HASH_SHA384 = 1
HASH_SIZE = 48
SUMMED = offset_of(fv.VOLUME, "block_count")  # the volume's checksum covers what lies before its block map

EXTENDED = (
    "fv_extended_header" / c.Struct("name" / Bytes(16), "size" / Int32ul)
) * "Extended header of a firmware volume"

HEAD = (
    "cfv_head" / c.Struct("volume" / fv.VOLUME, "pad" / fv.FILE, "extended" / EXTENDED, "reserved" / Bytes(4))
) * "What precedes the files of a CFV; its size stands in the volume's header as the header's length"

LARGE_SIZE = Int32ul  # follows the header of a large file

ANCHOR = (
    "trust_anchor"
    / c.Struct(
        "type" / Bytes(16),
        "version" / Int32ul,
        "length" / Int32ul,
        "hash_algorithm" / Int64ul,
        "reserved" / Int32ul,
        "pad" / Int32ul,
    )
) * "Trust anchor: what precedes the hash of the public key"


@dataclass(frozen=True)
class File:
    """A file of a volume; `offset` is that of its header, `size` counts header and data."""

    name: UUID
    type: int
    offset: int
    data: bytes
    size: int


@dataclass(frozen=True)
class Volume:
    """The files up to `end`, which no reader goes beyond; `because` says why."""

    files: tuple[File, ...]
    end: int
    because: str

    def find(self, name: UUID) -> bytes | None:
        """The data of the first RAW file of that name, as td-shim takes it."""
        wanted = (file.data for file in self.files if (file.type, file.name) == (fv.RAW_FILE, name))
        return next(wanted, None)


def write(size: int, files: Sequence[tuple[UUID, bytes]], *, place: str = "CFV") -> bytes:
    """A volume of `size` bytes: these RAW files in their order, then zeros. FieldError: they do not fit."""
    if size % PAGE or size < PAGE:
        raise FieldError(place, f"a size of {size:#x} bytes", "whole pages of 4 KiB")
    volume = _head(size)
    for name, data in files:
        volume += bytes(align_up(len(volume), FILE_ALIGNMENT) - len(volume))
        needed = fv.FILE.sizeof() + len(data)
        if needed > min(size - len(volume), fv.MAX_FILE_SIZE):
            room = max(0, min(size - len(volume), fv.MAX_FILE_SIZE) - fv.FILE.sizeof())
            raise FieldError(
                f"{place} file {name}",
                f"{len(data):,} bytes",
                f"at most {room:,}, the rest of a volume of {size:,}",
            )
        volume += fv.file_header(name, needed, FILE_STATE) + data
    return volume.ljust(size, b"\0")


def _head(size: int) -> bytes:
    volume = {
        "file_system": FFS3_GUID.bytes_le,
        "length": size,
        "signature": fv.SIGNATURE,
        "attributes": ATTRIBUTES,
        "header_length": HEAD.sizeof(),
        "extended_header": offset_of(HEAD, "extended"),
        "revision": fv.REVISION,
    }
    blocks = {"block_count": size // PAGE, "block_size": PAGE}
    checksum = -sum(fv.words(pack(fv.VOLUME, **volume))) & 0xFFFF
    pad_size = fv.FILE.sizeof() + EXTENDED.sizeof()
    pad = {"type": fv.PAD_FILE, "size": pad_size.to_bytes(3, "little"), "state": FILE_STATE}
    return pack(
        HEAD, volume={**volume, **blocks, "checksum": checksum}, pad=pad, extended={"size": EXTENDED.sizeof()}
    )


def read(data: bytes, *, place: str = "CFV") -> Volume:
    """The volume that fills `data`, as td-shim reads it. FormatError: the header is none, or another's."""
    head = unpack(fv.VOLUME, data, place=place)
    if any(head.zero_vector):
        raise FieldError(place, f"a zero vector {head.zero_vector.hex()}", "16 zero bytes")
    if head.signature != fv.SIGNATURE:
        raise FieldError(f"{place} offset 0x28", f"signature {head.signature!r}", f"{fv.SIGNATURE!r}")
    if head.length != len(data):
        found, expected = f"a volume of {head.length:#x} bytes", f"{len(data):#x}, the size of the section"
        raise FieldError(f"{place} offset 0x20", found, expected)
    if head.header_length > len(data):
        found = f"a header of {head.header_length:#x} bytes"
        raise FieldError(f"{place} offset 0x30", found, f"at most {len(data):#x}")
    if total := sum(fv.words(data[:SUMMED])) & 0xFFFF:
        found = f"16-bit words that add up to {total:#06x} up to offset {SUMMED:#x}"
        raise FieldError(f"{place} offset 0x32", found, "a checksum that makes it 0")
    if head.revision != fv.REVISION:
        raise FieldError(f"{place} offset 0x37", f"revision {head.revision}", f"{fv.REVISION}")
    return _walk(data, head.header_length)


def _walk(data: bytes, position: int) -> Volume:
    files: list[File] = []
    while True:
        rest = len(data) - position
        if rest < fv.FILE.sizeof():
            return Volume(tuple(files), position, "no room for another file")
        head = unpack(fv.FILE, data, position)
        header, size = fv.FILE.sizeof(), int.from_bytes(head.size, "little")
        if head.attributes & LARGE_FILE:
            header += LARGE_SIZE.sizeof()
            if rest < header:
                return Volume(tuple(files), position, "no room for another file")
            size = int(LARGE_SIZE.parse(data[position + fv.FILE.sizeof() :]))
        if not header <= size <= rest:
            return Volume(tuple(files), position, f"a file of {size:#x} bytes, where {rest:#x} are left")
        if (total := sum(data[position : position + header]) & 0xFF) != HEADER_SUM:
            why = f"a file header whose bytes add up to {total:#04x}, not {HEADER_SUM:#04x}"
            return Volume(tuple(files), position, why)
        content = data[position + header : position + size]
        files.append(File(UUID(bytes_le=head.name), head.type, position, content, size))
        position += align_up(size, FILE_ALIGNMENT)


def anchor(key_hash: bytes) -> bytes:
    """The content of the file ANCHOR_FILE: `key_hash` is SHA-384 over the key as signed payloads carry it."""
    return (
        pack(
            ANCHOR,
            type=KEY_HASH.bytes_le,
            version=STRUCTURE_VERSION,
            length=ANCHOR.sizeof() + len(key_hash),
            hash_algorithm=HASH_SHA384,
        )
        + key_hash
    )


def read_anchor(data: bytes, *, place: str = "trust anchor") -> bytes:
    """The hash of the public key, 48 bytes. FormatError: a firmware would trust no key. td-shim looks neither
    at the algorithm nor at what lies behind the hash.
    """
    head = unpack(ANCHOR, data, place=place)
    if head.type != KEY_HASH.bytes_le:
        raise FieldError(place, f"type {UUID(bytes_le=head.type)}", f"{KEY_HASH}")
    if head.length > len(data):
        raise TruncatedError(f"{place} offset 0x14", f"a length of {head.length}", f"at most {len(data)}")
    if head.length != ANCHOR.sizeof() + HASH_SIZE:
        expected = f"{ANCHOR.sizeof() + HASH_SIZE}, with a SHA-384"
        raise FieldError(f"{place} offset 0x14", f"a length of {head.length}", expected)
    if head.hash_algorithm != HASH_SHA384:
        found, expected = f"hash algorithm {head.hash_algorithm:#x}", f"{HASH_SHA384}, SHA-384"
        raise FieldError(f"{place} offset 0x18", found, expected)
    if len(data) > (most := head.length + FILE_ALIGNMENT):  # tools of 2022 pad it
        raise FieldError(place, f"a file of {len(data)} bytes", f"at most {most}")
    return data[ANCHOR.sizeof() : head.length]
