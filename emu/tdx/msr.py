"""Which MSR does a TD reach natively, which raises #VE, which #GP? (intel/tdx-module TDX_1.5.01,
msr_config_lookup.c, td_msr_access.c)
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from emu.tdx.params import PKS


class Access(enum.Enum):
    """What RDMSR or WRMSR does."""

    NATIVE = "native"
    FIXED = "fixed value"
    VE = "#VE"
    GP = "#GP"


@dataclass(frozen=True)
class Row:
    """MSRs first..last (inclusive), what a read and a write do, and the value of a FIXED read."""

    first: int
    last: int
    read: Access
    write: Access
    value: int = 0
    xfam: int = 0  # these XFAM bits must all be set, else both are #GP
    attributes: int = 0  # and these ATTRIBUTES


XSS, DEBUGCTL = 0xDA0, 0x1D9
SPEC_CTRL, PRED_CMD, FLUSH_CMD, PAT, FMASK, TSC_AUX = 0x48, 0x49, 0x10B, 0x277, 0xC0000084, 0xC0000103
# What a CPU takes natively (Intel SDM volume 4, table 2-2): addresses, words of 32 bits, control bits
CANONICAL = frozenset((0x175, 0x176, 0x600, 0xC0000082, 0xC0000100, 0xC0000101, 0xC0000102))
TAKEN = {SPEC_CTRL: 0x5FF, PRED_CMD: 1, FLUSH_CMD: 1, FMASK: 0xFFFFFFFF, TSC_AUX: 0xFFFFFFFF}
MEMORY_TYPES = frozenset((0, 1, 4, 5, 6, 7))  # UC WC WT WP WB UC-
XSS_STATES = 0x1FD00  # supervisor states that IA32_XSS may name (Intel SDM volume 1, 13.3)
DEBUGCTL_TR, DEBUGCTL_BTS, DEBUGCTL_UNCORE_PMI = 1 << 6, 1 << 7, 1 << 13
DEBUGCTL_RESERVED = 7 << 3 | ((1 << 64) - 1) & ~0xFFFF  # msr_defs.h

N, F, V, G = Access.NATIVE, Access.FIXED, Access.VE, Access.GP

# ARCH_CAPABILITIES of the emulated CPU: it has none of the known transient execution weaknesses.
ARCH_CAPABILITIES = sum(1 << bit for bit in (0, 3, 4, 5, 6, 8, 13, 14, 15, 17, 20, 24, 26, 27))


def _each(numbers: tuple[int, ...], read: Access, write: Access) -> Iterator[Row]:
    return (Row(number, number, read, write) for number in numbers)


ROWS: tuple[Row, ...] = (
    *_each((0x48, 0x174, 0x175, 0x176, 0x277, 0x600), N, N),
    *_each((PRED_CMD, FLUSH_CMD), G, N),  # native, and a CPU lets them be written only
    Row(0x808, 0x80C, N, N),
    Row(0x80E, 0x80E, N, N),
    Row(0x810, 0x827, N, N),
    *_each((0x83F, 0x1B01, 0xC0000081, 0xC0000082, 0xC0000084), N, N),
    Row(0xC0000100, 0xC0000103, N, N),
    *_each((0x10, 0xBC, 0xC80), N, V),
    Row(0xC0000080, 0xC0000080, N, N),  # the write is checked: control.write_efer
    Row(0xDA0, 0xDA0, N, N),  # the write is checked against XFAM
    Row(0xBD, 0xBD, F, G, 1),
    Row(0x10A, 0x10A, F, G, ARCH_CAPABILITIES),
    Row(0x480, 0x480, F, G),
    Row(0x481, 0x484, V, G),
    Row(0x485, 0x489, F, G),
    Row(0x48A, 0x48A, V, G),
    Row(0x48B, 0x492, F, G),
    Row(0x345, 0x345, F, G),
    Row(0x1D9, 0x1D9, N, N),
    Row(0x1A0, 0x1A0, F, V, 1 << 12 | 1),
    Row(0x6A0, 0x6A0, N, N, xfam=0x1800),
    Row(0x6A2, 0x6A2, N, N, xfam=0x1800),
    Row(0x6A4, 0x6A8, N, N, xfam=0x1800),
    Row(0x985, 0x98A, N, N, xfam=1 << 14),
    Row(0x1200, 0x12FF, N, N, xfam=1 << 15),
    Row(0x14CE, 0x14CF, N, N, xfam=1 << 15),
    Row(0x1500, 0x16FF, N, N, xfam=1 << 15),
    Row(0x560, 0x561, N, N, xfam=1 << 8),
    Row(0x570, 0x572, N, N, xfam=1 << 8),
    Row(0x580, 0x587, N, N, xfam=1 << 8),
    Row(0x6E1, 0x6E1, N, N, attributes=PKS),
    *_each((0x122, 0xE1, 0x329, 0x3F1, 0x3F2, 0x3F6, 0x3F7, 0x87), G, G),
    Row(0x1C4, 0x1C5, G, G),
    Row(0xC1, 0xC8, G, G),
    Row(0x186, 0x18D, G, G),
    Row(0x1A6, 0x1A7, G, G),
    Row(0x309, 0x310, G, G),
    Row(0x38D, 0x392, G, G),
    Row(0x4C1, 0x4C8, G, G),
    Row(0x981, 0x984, G, G),
    Row(0x1F8, 0x1FA, G, G),
    Row(0x8C, 0x8F, G, G),
    Row(0x98, 0x9B, G, G),
    *_each((0x9E, 0x195, 0x276, 0x500, 0xD90, 0xD93, 0x831), G, G),
    Row(0x800, 0x801, G, G),
    Row(0x804, 0x807, G, G),
    Row(0x829, 0x82E, G, G),
    Row(0x840, 0x8FF, G, G),
    Row(0x6E0, 0x6E0, V, V),
)

# Natively accessed MSRs that the CPU engine implements; all other native ones are kept by the module model.
ENGINE = frozenset(
    (0x174, 0x175, 0x176, 0x277, *range(0xC0000081, 0xC0000085), *range(0xC0000100, 0xC0000104))
)


def find(index: int) -> Row | None:
    """The row of an MSR; None means everything else, where both accesses raise #VE."""
    return next((row for row in ROWS if row.first <= index <= row.last), None)


def access(index: int, is_write: bool, xfam: int, attributes: int = 0) -> Access:
    """What the access does in a TD with this XFAM and these ATTRIBUTES (PERFMON, TSX and WAITPKG are off in
    this emulator).
    """
    row = find(index)
    if row is None:
        return Access.VE
    if xfam & row.xfam != row.xfam or attributes & row.attributes != row.attributes:
        return Access.GP
    return row.write if is_write else row.read


def native_takes(index: int, value: int) -> bool:
    """Whether a CPU takes this value natively, or refuses it with #GP."""
    if index in CANONICAL:
        return value >> 47 in (0, (1 << 17) - 1)
    if index == PAT:
        return MEMORY_TYPES.issuperset(value.to_bytes(8, "little"))
    return not value & ~TAKEN.get(index, value)


def written(index: int, old: int, new: int, xfam: int) -> tuple[Access, int]:
    """What becomes of a value written to an MSR that the module keeps (td_msr_access.c wrmsr_ia32_xss,
    wrmsr_ia32_debugctl).
    """
    if index == XSS and new & ~(xfam & XSS_STATES):
        return Access.GP, old
    if index == DEBUGCTL:
        if new & DEBUGCTL_RESERVED:
            return Access.GP, old
        if new & DEBUGCTL_TR and not new & DEBUGCTL_BTS:
            return Access.VE, old
        return Access.NATIVE, new & ~DEBUGCTL_UNCORE_PMI
    return Access.NATIVE, new
