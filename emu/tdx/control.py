"""What happens when a TD writes CR0, CR4, EFER or XCR0? (intel/tdx-module TDX_1.5.01, helpers.c
write_guest_cr0/cr4, td_msr_access.c, td_xsetbv.c)
"""

from __future__ import annotations

import enum


class Outcome(enum.Enum):
    """How the module treats the write."""

    NATIVE = "native"
    GP = "#GP"
    VE = "#VE"


PE, ET, NE, WP, NW, CD, PG = 1 << 0, 1 << 4, 1 << 5, 1 << 16, 1 << 29, 1 << 30, 1 << 31
CR0_RESERVED = 0x1FFAFFC0  # bits 28:19, 17, 15:6: writes are ignored
MCE, VMXE, SMXE, PKE, CET, PKS, UINTR, KL = (
    1 << 6,
    1 << 13,
    1 << 14,
    1 << 22,
    1 << 23,
    1 << 24,
    1 << 25,
    1 << 19,
)
CR4_UNAVAILABLE = 1 << 15 | ~((1 << 26) - 1) & (1 << 64) - 1
CR4_PAE, CR4_UMIP, CR4_LA57, CR4_PCIDE, CR4_OSXSAVE = 1 << 5, 1 << 11, 1 << 12, 1 << 17, 1 << 18
SCE, LME, LMA, NXE = 1 << 0, 1 << 8, 1 << 10, 1 << 11
EFER_VE_REASON, CR_VE_REASON = 32, 28


def write_cr0(old: int, new: int, cr4: int, code64: bool) -> Outcome:
    """MOV to CR0. Order of the checks as in the module: fixed bits, PG without PE, WP under CET, then #VE
    causes; last what a CPU refuses to a TD, whose EFER.LME is always set (Intel SDM volume 2, MOV to CR).
    """
    if new >> 32 or not new & NE:
        return Outcome.GP
    if new & PG and not new & PE:
        return Outcome.GP
    if not new & WP and cr4 & CET:
        return Outcome.GP
    if (old & PE and not new & PE) or (new & CD and not old & CD) or (new & NW and not old & NW):
        return Outcome.VE
    if (old ^ new) & PG and (code64 or (cr4 & CR4_PCIDE if old & PG else not cr4 & CR4_PAE)):
        return Outcome.GP
    return Outcome.NATIVE


def write_cr4(old: int, new: int, cr0: int, cr3: int, xfam: int, attributes: int) -> Outcome:
    """MOV to CR4. Of the bits that 1.5.01 leaves to the CPU this emulator's has SMX, and no other, LA57
    included. Paging in a TD is that of 64-bit mode, so PAE stays (Intel SDM volume 2, MOV to CR).
    """
    if new & (CR4_UNAVAILABLE | KL | CR4_LA57):
        return Outcome.GP
    if new & PKE and not xfam >> 9 & 1:
        return Outcome.GP
    if new & CET and ((xfam >> 11 & 3) != 3 or not cr0 & WP):
        return Outcome.GP
    if new & UINTR and not xfam >> 14 & 1:
        return Outcome.GP
    if new & PKS and not attributes >> 30 & 1:
        return Outcome.GP
    if cr4_exits(old, new):
        return Outcome.VE
    if cr0 & PG and not new & CR4_PAE:
        return Outcome.GP
    if new & ~old & CR4_PCIDE and (not cr0 & PG or cr3 & 0xFFF):
        return Outcome.GP
    return Outcome.NATIVE


def cr4_exits(old: int, new: int) -> bool:
    """Whether a value that a CPU takes changes a bit of CR4 that is the module's."""
    return bool(new & (VMXE | SMXE) or (old ^ new) & MCE)


def write_cr4_reduced(old: int, new: int, has_mce: bool) -> tuple[Outcome, int]:
    """The outcome and CR4 of such a value under REDUCE_VE: only MCE changes, which the guest sees and no CPU
    (intel/tdx-module commit db57c638520a, helpers.c write_guest_cr4). `has_mce`: CPUID shows it.
    """
    if not has_mce and new & ~old & MCE:
        return Outcome.GP, old
    return Outcome.NATIVE, old & ~MCE | new & MCE


def write_efer(old: int, new: int) -> Outcome:
    """WRMSR EFER: LMA of the input is ignored, only SCE may change."""
    return Outcome.VE if (old ^ new) & ~(LMA | SCE) else Outcome.NATIVE


def write_xcr0(index: int, value: int, xfam: int) -> Outcome:
    """XSETBV: only XCR0, only states of XFAM, x87 always on, AVX needs SSE."""
    legal = index == 0 and value & 1 and not value & ~(xfam & 0x602E7)
    if not legal or (value & 4 and not value & 2):
        return Outcome.GP
    if value & 0xE0 and (value & 0xE0 != 0xE0 or not value & 4):
        return Outcome.GP
    if value & 0x60000 and value & 0x60000 != 0x60000:
        return Outcome.GP
    return Outcome.NATIVE
