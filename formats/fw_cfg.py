"""How does QEMU give its guest files? The fw_cfg device: ports, keys, DMA descriptor, file directory.

Source: QEMU docs/specs/fw_cfg.rst, hw/nvram/fw_cfg.c. Numbers of the DMA descriptor and of the directory are
big-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import construct as c
from construct import Bytes, Int16ub, Int32ub, Int64ub

SELECTOR_PORT, DATA_PORT, DMA_PORT_HIGH, DMA_PORT_LOW = 0x510, 0x511, 0x514, 0x518
SIGNATURE = b"QEMU"
DMA_FEATURE = 1 << 1  # of the number at key ID
NAME_SIZE = 56  # with its NUL


class Key(IntEnum):
    """Items with fixed keys."""

    SIGNATURE = 0
    ID = 1
    CPU_COUNT = 5
    KERNEL_SIZE = 8  # of the protected-mode part
    INITRD_SIZE = 0xB
    KERNEL_DATA = 0x11
    INITRD_DATA = 0x12
    CMDLINE_SIZE = 0x14  # with its NUL
    CMDLINE_DATA = 0x15
    SETUP_SIZE = 0x17
    SETUP_DATA = 0x18
    FILE_DIR = 0x19


class DmaControl(IntFlag):
    """Control word of the DMA descriptor; the device leaves 0 or ERROR."""

    ERROR = 1
    READ = 2
    SKIP = 4
    SELECT = 8
    WRITE = 16


DMA = (
    "fw_cfg_dma" / c.Struct("control" / Int32ub, "length" / Int32ub, "address" / Int64ub)
) * "DMA descriptor"

FILE = (
    "fw_cfg_file"
    / c.Struct("size" / Int32ub, "select" / Int16ub, "reserved" / Int16ub, "name" / Bytes(NAME_SIZE))
) * "Entry of the file directory, which begins with their number"
