"""A kernel made of its header's fields, and spans of it that end where nobody may read."""

from __future__ import annotations

from typing import Any

from ccore import (
    CORE,
    LIB,
    check,
)

from formats import linux
from formats.structs import pack

FIELDS = {
    "setup_sects": 1,
    "syssize": 0x100,
    "boot_flag": 0xAA55,
    "jump": 0xEB,
    "jump_offset": 0x6A,
    "header": 0x53726448,
    "version": 0x20F,
    "loadflags": 0x83,
    "vid_mode": 7,
    "initrd_addr_max": 0x7FFFFFFF,
    "kernel_alignment": 0x200000,
    "relocatable_kernel": 1,
    "xloadflags": 0x7F,
    "cmdline_size": 2047,
    "pref_address": 0x1000000,
    "init_size": 0x3000000,
}


def bzimage(**changes: int) -> bytes:
    fields = FIELDS | changes
    setup = bytearray(((fields["setup_sects"] or 4) + 1) * 512)
    header = pack(linux.SETUP_HEADER, **fields)
    setup[linux.SETUP_HEADER_OFFSET : linux.SETUP_HEADER_OFFSET + len(header)] = header
    setup[0x1EF] = 0xFF  # the sentinel that a loader must not copy
    protected = bytes(i * 31 & 255 for i in range(4096))
    return bytes(setup) + (protected * (fields["syssize"] // 256 + 1))[: fields["syssize"] * 16]


def guarded(data: bytes) -> Any:
    """A span over a copy that ends at a page nobody may touch."""
    memory = CORE.guarded(max(len(data), 1))
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), len(data))[:] = data
    _KEPT.append(memory)
    return CORE.span(memory.address, len(data))


_KEPT: list[Any] = []


def parse(data: bytes) -> Any:
    out = CORE.new("linux")
    check(LIB.parse_linux(guarded(data), out))
    return out


def extent(data: bytes) -> int:
    out = CORE.new("span")
    check(LIB.linux_extent(guarded(data), out))
    return int(out.size)
