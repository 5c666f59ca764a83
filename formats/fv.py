"""How does a file say that it is a UEFI firmware volume whose one file holds the reset vector?

No VMM asks for it; tools that open firmware images find the TDX metadata only inside such a file.
Source: UEFI Platform Initialization specification 1.7, volume 3, sections 3.2.1 (volume) and 3.2.3 (file).
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError
from formats.structs import pack
from formats.units import PAGE

FFS2_GUID = UUID("8c8ce578-8a3d-4f1c-9935-896185c32dd3")  # EFI_FIRMWARE_FILE_SYSTEM2_GUID, 3.2.2
VTF_GUID = UUID("1ba0062e-c779-4582-8566-336ae8f78f09")  # EFI_FFS_VOLUME_TOP_FILE_GUID, 3.2.3
SIGNATURE = b"_FVH"
REVISION = 2
# Readable, erased bits are 1, 16-byte alignment; write and lock bits stay off: 3.2.1, EFI_FVB_*.
ATTRIBUTES = 0x4_0000 | 0x800 | 0x2 | 0x4
RAW_FILE = 1  # EFI_FV_FILETYPE_RAW
PAD_FILE = 0xF0  # EFI_FV_FILETYPE_FFS_PAD
NO_CHECKSUM = 0xAA  # FFS_FIXED_CHECKSUM
FILE_VALID = 0xF8  # header construction, header valid, data valid; inverted, as erased bits are 1
MAX_FILE_SIZE = 0xFF_FFFE  # 24 bits; all ones mean an extended header

VOLUME = (
    "fv_header"
    / c.Struct(
        "zero_vector" / Bytes(16),
        "file_system" / Bytes(16),
        "length" / Int64ul,
        "signature" / Bytes(4),
        "attributes" / Int32ul,
        "header_length" / Int16ul,
        "checksum" / Int16ul,
        "extended_header" / Int16ul,
        "reserved" / Int8ul,
        "revision" / Int8ul,
        "block_count" / Int32ul,
        "block_size" / Int32ul,
        "map_end" / Bytes(8),
    )
) * "Firmware volume header with one block map entry"

FILE = (
    "ffs_file_header"
    / c.Struct(
        "name" / Bytes(16),
        "header_checksum" / Int8ul,
        "file_checksum" / Int8ul,
        "type" / Int8ul,
        "attributes" / Int8ul,
        "size" / Bytes(3),
        "state" / Int8ul,
    )
) * "Header of a file in a firmware volume"

HEAD_SIZE = VOLUME.sizeof() + FILE.sizeof()


def volume_head(size: int, block: int = PAGE) -> bytes:
    """The first HEAD_SIZE bytes of a volume of `size` bytes; its one file is the rest."""
    if size % block or not HEAD_SIZE < size <= MAX_FILE_SIZE + VOLUME.sizeof():
        raise FieldError("firmware volume", f"size {size:#x}", f"a multiple of {block:#x} below 16 MiB")
    fields = {
        "file_system": FFS2_GUID.bytes_le,
        "length": size,
        "signature": SIGNATURE,
        "attributes": ATTRIBUTES,
        "header_length": VOLUME.sizeof(),
        "revision": REVISION,
        "block_count": size // block,
        "block_size": block,
    }
    blank = pack(VOLUME, **fields)
    checksum = -sum(words(blank)) & 0xFFFF
    return pack(VOLUME, **fields, checksum=checksum) + file_header(
        VTF_GUID, size - VOLUME.sizeof(), FILE_VALID
    )


def words(data: bytes) -> Iterator[int]:
    """The 16-bit words of a header, over which its checksum goes; an odd last byte is none."""
    return (int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data) - 1, 2))


def file_header(name: UUID, size: int, state: int) -> bytes:
    """The header of a RAW file of `size` bytes, header included, at most MAX_FILE_SIZE."""
    # 3.2.3.1: the header's sum is zero while its state and file checksum count as zero.
    raw = bytearray(pack(FILE, name=name.bytes_le, type=RAW_FILE, size=size.to_bytes(3, "little")))
    raw[16] = -sum(raw) & 0xFF
    raw[17] = NO_CHECKSUM
    raw[23] = state
    return bytes(raw)
