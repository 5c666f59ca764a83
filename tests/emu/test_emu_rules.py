"""Do the control-register, EFER, MSR and CPUID tables say what the module does?"""

from __future__ import annotations

import itertools

import pytest

from emu.tdx import control, cpuid, msr
from emu.tdx.control import Outcome

NATIVE, GP, VE = Outcome.NATIVE, Outcome.GP, Outcome.VE
START_CR0, START_CR4, START_EFER = 0x31, 0x40, 0x901


@pytest.mark.parametrize(
    ("new", "outcome"),
    [
        (0x23, NATIVE),
        (0x80010033, NATIVE),
        (0x11, GP),  # NE cleared
        (0x80000020, GP),  # PG without PE
        (0x30, VE),  # PE cleared
        (0x60000031, VE),  # CD and NW set
        (0x40000031, VE),
        (0x20000031, VE),  # NW: the exit comes before the CPU's own check
        (1 << 32 | 0x31, GP),
    ],
)
def test_cr0(new: int, outcome: Outcome) -> None:
    assert control.write_cr0(START_CR0, new, START_CR4 | 0x20, code64=False) is outcome


def test_cr0_paging_of_long_mode() -> None:
    """EFER.LME is always set: no paging without PAE, none switched on or off by 64-bit code."""
    assert control.write_cr0(START_CR0, 0x80010033, START_CR4, code64=False) is GP
    assert control.write_cr0(0x80010033, 0x10033, 0x660, code64=True) is GP
    assert control.write_cr0(0x80010033, 0x10033, 0x660, code64=False) is NATIVE
    assert control.write_cr0(0x80010033, 0x10033, 0x20660, code64=False) is GP  # PCIDE


def test_cr0_wp_under_cet() -> None:
    assert control.write_cr0(0x80010033, 0x80000033, 1 << 23 | 0x660, code64=True) is GP
    caches_off = 0x80000033 | 1 << 30  # which alone is #VE
    assert control.write_cr0(0x80010033, caches_off, 1 << 23 | 0x660, code64=True) is GP
    assert control.write_cr0(0x80010033, caches_off, 0x660, code64=True) is VE


@pytest.mark.parametrize(
    ("new", "xfam", "attributes", "outcome"),
    [
        (0x660, 3, 0, NATIVE),
        (0x620, 3, 0, VE),  # MCE cleared
        (0x2660, 3, 0, VE),  # VMXE set
        (0x4660, 3, 0, VE),  # SMXE
        (1 << 22 | 0x660, 3, 0, GP),
        (1 << 22 | 0x660, 0x203, 0, NATIVE),
        (1 << 23 | 0x660, 0x1803, 0, NATIVE),
        (1 << 23 | 0x660, 3, 0, GP),
        (1 << 24 | 0x660, 3, 0, GP),
        (1 << 24 | 0x660, 3, 1 << 30, NATIVE),
        (1 << 25 | 0x660, 3, 0, GP),
        (1 << 19 | 0x660, 3, 0, GP),
        (1 << 12 | 0x660, 3, 0, GP),  # LA57: this CPU has none
        (1 << 40 | 0x660, 3, 0, GP),
    ],
)
def test_cr4(new: int, xfam: int, attributes: int, outcome: Outcome) -> None:
    assert control.write_cr4(START_CR4, new, 0x80010033, 0, xfam, attributes) is outcome


@pytest.mark.parametrize(
    ("new", "outcome"),
    [(0x901, NATIVE), (0xD01, NATIVE), (0x900, NATIVE), (0x801, VE), (0x101, VE), (0x1901, VE)],
)
def test_efer(new: int, outcome: Outcome) -> None:
    assert control.write_efer(START_EFER, new) is outcome


@pytest.mark.parametrize(
    ("index", "value", "xfam", "outcome"),
    [(0, 3, 3, NATIVE), (0, 7, 3, GP), (0, 7, 7, NATIVE), (0, 5, 7, GP), (0, 2, 3, GP), (1, 1, 3, GP)],
)
def test_xcr0(index: int, value: int, xfam: int, outcome: Outcome) -> None:
    assert control.write_xcr0(index, value, xfam) is outcome


@pytest.mark.parametrize(
    ("index", "read", "write"),
    [
        (0x10, "native", "#VE"),
        (0x1B, "#VE", "#VE"),
        (0x48, "native", "native"),
        (0x8B, "#VE", "#VE"),
        (0xBD, "fixed value", "#GP"),
        (0x10A, "fixed value", "#GP"),
        (0x1A0, "fixed value", "#VE"),
        (0x200, "#VE", "#VE"),
        (0x276, "#GP", "#GP"),
        (0x277, "native", "native"),
        (0x481, "#VE", "#GP"),
        (0x6A0, "#GP", "#GP"),  # no CET in XFAM
        (0x6E0, "#VE", "#VE"),
        (0x802, "#VE", "#VE"),
        (0x808, "native", "native"),
        (0x80F, "#VE", "#VE"),
        (0x831, "#GP", "#GP"),
        (0x83F, "native", "native"),
        (0x850, "#GP", "#GP"),
        (0xC0000081, "native", "native"),
        (0xC0000083, "#VE", "#VE"),
        (0xC0000102, "native", "native"),
        (0x4B564D00, "#VE", "#VE"),
    ],
)
def test_msr(index: int, read: str, write: str) -> None:
    assert msr.access(index, False, 3).value == read
    assert msr.access(index, True, 3).value == write


def test_msr_rows_do_not_overlap() -> None:
    rows = sorted(msr.ROWS, key=lambda row: row.first)
    for before, after in itertools.pairwise(rows):
        assert before.first <= before.last < after.first, hex(after.first)


CALLER = cpuid.Caller(index=3, cr4=0x660, long_mode_code=True)


@pytest.mark.parametrize(
    "leaf", [2, 6, 9, 0xB, 0xC, 0xF, 0x10, 0x16, 0x18, 0x1A, 0x1F, 0x80000002, 0x80000006]
)
def test_cpuid_leaves_that_raise_ve(leaf: int) -> None:
    assert cpuid.lookup(leaf, 0, CALLER) is None


@pytest.mark.parametrize("leaf", [0x40000000, 0x40000100, 0x4FFFFFFF])
def test_cpuid_hypervisor_leaves_raise_ve(leaf: int) -> None:
    assert cpuid.lookup(leaf, 0, CALLER) is None


def test_cpuid_values() -> None:
    assert cpuid.lookup(0, 0, CALLER) == (0x23, 0x756E6547, 0x6C65746E, 0x49656E69)
    assert cpuid.lookup(0x21, 0, CALLER) == (0, 0x65746E49, 0x20202020, 0x5844546C)
    assert cpuid.lookup(0x21, 1, CALLER) is None
    assert cpuid.lookup(0x15, 0, CALLER) == (1, 40, 25_000_000, 0)
    leaf1 = cpuid.lookup(1, 0, CALLER)
    assert leaf1 is not None
    assert leaf1[1] >> 24 == 3
    assert leaf1[2] >> 31 == 1
    assert not leaf1[2] >> 28 & 1  # AVX: the engine would execute it wrongly
    leaf7 = cpuid.lookup(7, 0, CALLER)
    assert leaf7 is not None
    assert not leaf7[2] >> 16 & 1  # LA57
    assert cpuid.lookup(0x80000001, 0, CALLER)[3] >> 11 & 1 == 1  # type: ignore[index]
    assert cpuid.lookup(0x80000001, 0, cpuid.Caller(0, 0, False))[3] >> 11 & 1 == 0  # type: ignore[index]


def test_cpuid_beyond_the_last_leaf_is_leaf_0x23() -> None:
    assert cpuid.lookup(0x24, 0, CALLER) == cpuid.lookup(0x23, 0, CALLER)
    assert cpuid.lookup(0x90000000, 4, CALLER) is None
