"""What do the bits of a page-table entry mean, and where is the firmware's own window?

Source of the bits: Intel SDM volume 3A, 4.5, tables 4-15 to 4-20.
"""

from __future__ import annotations

from enum import IntFlag

from formats.units import FOUR_GIB, LARGE_PAGE, MIB, PAGE


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
# Where pages that are to be cleared are mapped for as long as that takes: at the start of the 64 MiB below
# 4 GiB, where no RAM is and, but for the last 16 MiB, no section; a page off from their place in 2 MiB, so
# that no large page is ever put in place of a table. It reaches over two tables, which the first map takes in
# any case: how many pages of the pool are left is not the choice of a VMM that adds pages, or takes them out.
CLEARING_WINDOW = FOUR_GIB - 64 * MIB + PAGE
CLEARING_TABLES = (CLEARING_WINDOW, CLEARING_WINDOW + LARGE_PAGE)
