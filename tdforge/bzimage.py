"""Is this file a Linux kernel that can be started at its 64-bit entry, and which one is it?

Offsets and rules: Linux Documentation/arch/x86/boot.rst.
"""

import struct
from dataclasses import dataclass

from tdforge.errors import UserError

MAGIC_OFFSET = 0x202  # "HdrS" (boot.rst, field `header`)
MAGIC = b"HdrS"
MIN_VERSION = 0x020C  # first protocol version with xloadflags (boot.rst)
XLF_KERNEL_64 = 1  # xloadflags bit 0: 64-bit entry at +0x200 (boot.rst)
HEADER_END = 0x268  # last field read below ends here


@dataclass(frozen=True)
class BzImage:
    """What a kernel's setup header says; sizes and addresses in bytes."""

    version: str
    protocol: int
    setup_size: int
    protected_size: int
    init_size: int
    pref_address: int


def read_bzimage(data: bytes, name: str) -> BzImage:
    """Read the setup header of `data`; `name` stands in error messages. Raises UserError."""
    if data[MAGIC_OFFSET : MAGIC_OFFSET + 4] != MAGIC:
        found = data[MAGIC_OFFSET : MAGIC_OFFSET + 4].hex(" ") or "the end of the file"
        raise UserError(f"{name} is not a Linux bzImage: no HdrS at offset {MAGIC_OFFSET:#x} but {found}")
    if len(data) < HEADER_END:
        raise UserError(f"{name} is cut short: the setup header takes {HEADER_END} bytes, it has {len(data)}")
    (protocol,) = struct.unpack_from("<H", data, 0x206)
    (xloadflags,) = struct.unpack_from("<H", data, 0x236)
    if protocol < MIN_VERSION or not xloadflags & XLF_KERNEL_64:
        raise UserError(
            f"{name} has no 64-bit entry: boot protocol {protocol >> 8}.{protocol & 0xFF:02}, "
            f"xloadflags {xloadflags:#x}; 2.12 and bit 0 are needed"
        )
    setup_size = ((data[0x1F1] or 4) + 1) * 512
    protected_size = struct.unpack_from("<I", data, 0x1F4)[0] * 16
    if setup_size + protected_size > len(data):
        raise UserError(
            f"{name} is cut short: its header says {setup_size + protected_size} bytes, it has {len(data)}"
        )
    pref_address, init_size = struct.unpack_from("<QI", data, 0x258)
    return BzImage(_version(data), protocol, setup_size, protected_size, init_size, pref_address)


def _version(data: bytes) -> str:
    (pointer,) = struct.unpack_from("<H", data, 0x20E)
    if not pointer:
        return "unknown"
    text = data[pointer + 0x200 : pointer + 0x200 + 256].split(b"\0")[0]
    return "".join(char if char.isprintable() else "?" for char in text.decode("ascii", "replace"))
