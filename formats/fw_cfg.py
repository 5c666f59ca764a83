"""How does firmware ask QEMU for kernel, tables and memory map? The fw_cfg interface of a PC: ports, keys,
the directory of files and the DMA descriptor.

Source: QEMU docs/specs/fw_cfg.rst; keys: include/standard-headers/linux/qemu_fw_cfg.h, hw/i386/fw_cfg.h. What
is stored more than one byte wide by the interface itself is big-endian; items hold little-endian numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag

import construct as c
from construct import Bytes, Int16ub, Int32ub, Int64ub

from formats.structs import pack, unpack

SELECTOR, DATA = 0x510, 0x511
DMA_HIGH, DMA_LOW = 0x514, 0x518  # halves of the descriptor's address, big-endian; the low one starts
SIGNATURE = b"QEMU"
DMA_SIGNATURE = b"QEMU CFG"  # what the DMA register reads as, first byte at DMA_HIGH
FILE_FIRST, FILE_SLOTS = 0x20, 0x20  # fw_cfg.c: FW_CFG_FILE_SLOTS_DFLT
WRITE_CHANNEL, ARCH_LOCAL = 0x4000, 0x8000
NAME_SIZE = 56  # with its NUL


class Key(IntEnum):
    """Items with a fixed number."""

    SIGNATURE = 0x00
    ID = 0x01
    UUID = 0x02
    RAM_SIZE = 0x03
    NOGRAPHIC = 0x04
    NB_CPUS = 0x05
    KERNEL_ADDR = 0x07
    KERNEL_SIZE = 0x08
    INITRD_ADDR = 0x0A
    INITRD_SIZE = 0x0B
    NUMA = 0x0D
    BOOT_MENU = 0x0E
    MAX_CPUS = 0x0F
    KERNEL_ENTRY = 0x10
    KERNEL_DATA = 0x11
    INITRD_DATA = 0x12
    CMDLINE_ADDR = 0x13
    CMDLINE_SIZE = 0x14
    CMDLINE_DATA = 0x15
    SETUP_ADDR = 0x16
    SETUP_SIZE = 0x17
    SETUP_DATA = 0x18
    FILE_DIR = 0x19
    ACPI_TABLES = ARCH_LOCAL | 0
    SMBIOS_ENTRIES = ARCH_LOCAL | 1
    IRQ0_OVERRIDE = ARCH_LOCAL | 2
    HPET = ARCH_LOCAL | 4


class Feature(IntFlag):
    """Item ID."""

    TRADITIONAL = 1
    DMA = 2


class Control(IntFlag):
    """Control field of a DMA descriptor; bits 31:16 are the key of SELECT."""

    ERROR = 1
    READ = 2
    SKIP = 4
    SELECT = 8
    WRITE = 16


DMA_ACCESS = (
    "fw_cfg_dma_access" / c.Struct("control" / Int32ub, "length" / Int32ub, "address" / Int64ub)
) * "DMA descriptor, big-endian"

FILE = (
    "fw_cfg_file"
    / c.Struct("size" / Int32ub, "select" / Int16ub, "reserved" / Int16ub, "name" / Bytes(NAME_SIZE))
) * "Entry of the directory, big-endian"


def directory(files: Mapping[str, tuple[int, int]]) -> bytes:
    """Item FILE_DIR: name -> (key, size in bytes), in this order."""
    entries = (pack(FILE, size=size, select=key, name=name.encode()) for name, (key, size) in files.items())
    return bytes(Int32ub.build(len(files))) + b"".join(entries)


def read_directory(data: bytes) -> dict[str, tuple[int, int]]:
    """Name -> (key, size in bytes). TruncatedError if the entries are fewer than announced."""
    count = int.from_bytes(data[:4], "big")
    found = {}
    for index in range(count):
        entry = unpack(FILE, data, 4 + index * FILE.sizeof(), place="fw_cfg directory")
        found[entry.name.split(b"\0", 1)[0].decode("ascii", "backslashreplace")] = (entry.select, entry.size)
    return found
