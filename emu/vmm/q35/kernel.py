"""What does `-kernel` put into fw_cfg? (QEMU hw/i386/x86-common.c x86_load_linux, 10.2 and later: of a
confidential guest the setup header stays as it is in the file.)
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.signals import EmuError
from formats.fw_cfg import Key
from formats.linux import (
    DEFAULT_SETUP_SECTS,
    HEADER_MAGIC,
    SECTOR_SIZE,
    SETUP_HEADER,
    SETUP_HEADER_OFFSET,
    LoadFlags,
    XLoadFlags,
)
from formats.structs import offset_of, size_of
from formats.units import PAGE

KERNEL_FILE = "etc/boot/kernel"
ACPI_DATA_SIZE = 0x20000 + 0x8000  # kept free for firmware at the end of low RAM
INITRD_MAX_OLD = 0x37FFFFFF
HAS_LOADFLAGS, HAS_CMDLINE, HAS_INITRD_MAX, HAS_XLOADFLAGS = 0x0200, 0x0202, 0x0203, 0x020C
ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True)
class Addresses:
    """Where QEMU would have the parts of a kernel loaded. Firmware is free to do otherwise."""

    setup: int
    cmdline: int
    kernel: int


def _field(kernel: bytes, name: str) -> int:
    at = SETUP_HEADER_OFFSET + offset_of(SETUP_HEADER, name)
    return int.from_bytes(kernel[at : at + size_of(SETUP_HEADER, name)], "little")


def _addresses(kernel: bytes, protocol: int, cmdline_room: int) -> Addresses:
    low = Addresses(0x90000, 0x9A000 - cmdline_room, 0x10000)
    if protocol < HAS_LOADFLAGS or not _field(kernel, "loadflags") & LoadFlags.LOADED_HIGH:
        return low
    if protocol < HAS_CMDLINE:
        return Addresses(low.setup, low.cmdline, 0x100000)
    return Addresses(0x10000, 0x20000, 0x100000)


def _initrd_limit(kernel: bytes, protocol: int, low_ram: int) -> int:
    limit = INITRD_MAX_OLD
    if protocol >= HAS_XLOADFLAGS and _field(kernel, "xloadflags") & XLoadFlags.CAN_BE_LOADED_ABOVE_4G:
        limit = 0xFFFFFFFF
    elif protocol >= HAS_INITRD_MAX:
        limit = _field(kernel, "initrd_addr_max")
    return min(limit, low_ram - ACPI_DATA_SIZE - 1)


def items(kernel: bytes, initrd: bytes | None, cmdline: bytes, low_ram: int) -> dict[int, bytes]:
    """By key; `low_ram` is its end below 4 GiB. EmuError: QEMU refuses."""
    if kernel.startswith(ELF_MAGIC):
        raise EmuError("kernel: an ELF file; the emulated QEMU takes a bzImage")
    sectors = kernel[SETUP_HEADER_OFFSET] if len(kernel) > SETUP_HEADER_OFFSET else 0
    setup = ((sectors or DEFAULT_SETUP_SECTS) + 1) * SECTOR_SIZE
    if setup > len(kernel):
        raise EmuError("qemu: invalid kernel header")
    protocol = _field(kernel, "version") if _field(kernel, "header") == HEADER_MAGIC else 0
    line = cmdline + b"\0"
    at = _addresses(kernel, protocol, len(line) + 15 & ~15)
    numbers: dict[int, int] = {
        Key.CMDLINE_ADDR: at.cmdline,
        Key.CMDLINE_SIZE: len(line),
        Key.KERNEL_ADDR: at.kernel,
        Key.KERNEL_SIZE: len(kernel) - setup,
        Key.SETUP_ADDR: at.setup,
        Key.SETUP_SIZE: setup,
    }
    found: dict[int, bytes] = {
        Key.CMDLINE_DATA: line,
        Key.KERNEL_DATA: kernel[setup:],
        Key.SETUP_DATA: kernel[:setup],
    }
    if initrd is not None:
        limit = _initrd_limit(kernel, protocol, low_ram)
        if len(initrd) >= limit:
            raise EmuError(f"qemu: initrd is too large, cannot support. (max: {limit}, need {len(initrd)})")
        numbers |= {Key.INITRD_ADDR: limit - len(initrd) & -PAGE, Key.INITRD_SIZE: len(initrd)}
        found[Key.INITRD_DATA] = initrd
    return {key: value.to_bytes(4, "little") for key, value in numbers.items()} | found
