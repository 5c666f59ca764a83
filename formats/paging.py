"""What do the bits of a page-table entry mean? Source: Intel SDM volume 3A, 4.5, tables 4-15 to 4-20."""

from __future__ import annotations

from enum import IntFlag


class PageBit(IntFlag):
    """Bits of an entry of any level; SDM volume 3A, 4.5."""

    PRESENT = 1 << 0
    WRITABLE = 1 << 1
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    LARGE = 1 << 7
    NO_EXECUTE = 1 << 63


ENTRIES = 512  # of a table: 4.5.2
ADDRESS = (
    0x000F_FFFF_FFFF_F000  # bits of an entry that hold a physical address, of at most 52 bits: table 4-15
)
