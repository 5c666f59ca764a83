"""In which state is a page of a TD? The byte that the native core keeps for each 4 KiB.

The numbers are this emulator's own; C gets them as compiler options.
"""

from __future__ import annotations

UNMAPPED = 0  # no SEPT entry: nothing that the VMM will ever back
PENDING = 1  # RAM that waits for TDG.MEM.PAGE.ACCEPT (the VMM augments it on demand)
MAPPED = 2  # private and accessible
SHARED = 3  # converted: reachable through the shared bit only
STATE = 3  # mask of the four states above
LARGE = 4  # the SEPT leaf is a 2 MiB one
MEASURED = 8  # MR.EXTENDed at launch
ADDED = 16  # PAGE.ADDed at launch

IN_C = {
    "TD_PAGE_UNMAPPED": UNMAPPED,
    "TD_PAGE_PENDING": PENDING,
    "TD_PAGE_MAPPED": MAPPED,
    "TD_PAGE_SHARED": SHARED,
    "TD_PAGE_STATE": STATE,
    "TD_PAGE_2M": LARGE,
    "TD_PAGE_MEASURED": MEASURED,
    "TD_PAGE_ADDED": ADDED,
}
