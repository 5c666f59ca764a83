"""How large is a page, and what do KIB, MIB and GIB stand for? Sizes and addresses are bytes everywhere."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB  # a leaf of a page table, of a Secure EPT level 0: Intel SDM volume 3A, 4.5
LARGE_PAGE = 2 * MIB  # a leaf one level up
FOUR_GIB = 4 * GIB  # where an image ends: the CPU starts 16 bytes below (Intel SDM volume 3A, 10.1.4)


def align_down(value: int, unit: int) -> int:
    """The last multiple of `unit` that is not above `value`."""
    return value // unit * unit


def align_up(value: int, unit: int) -> int:
    """The first multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit
