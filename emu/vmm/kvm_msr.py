"""Which MSRs does KVM answer when a TD asks by TDVMCALL, and with what? (Linux arch/x86/kvm/vmx/tdx.c
tdx_has_emulated_msr, tdx_get_msr, tdx_set_msr; x86.c kvm_get_msr_common, kvm_set_msr_common, get_msr_mce,
set_msr_mce; mtrr.c). The local APIC's registers are in emu.cpu.apic.
"""

from __future__ import annotations

from collections.abc import MutableMapping

ALL_ONES = (1 << 64) - 1
APIC_BASE, APIC_BASE_X2APIC, APIC_BASE_BSP = 0x1B, 0xFEE00C00, 1 << 8
FEAT_CTL, FEAT_CTL_LOCKED, EFER, EFER_VALUE = 0x3A, 1, 0xC0000080, 0xD01  # EFER: SCE, LME, LMA, NX
UCODE_REV, MTRR_CAP, MTRR_DEFAULT, MISC_ENABLE, PAT = 0x8B, 0xFE, 0x2FF, 0x1A0, 0x277
PLATFORM_INFO, MISC_FEATURES, ARCH_CAPABILITIES, POWER_CTL = 0xCE, 0x140, 0x10A, 0x1FC
MCG_CAP, MCG_STATUS, MCG_CTL, POLL_CONTROL = 0x179, 0x17A, 0x17B, 0x4B564D05

# MCG_CAP as it is before a VMM calls KVM_X86_SETUP_MCE: KVM_MAX_MCE_BANKS banks, neither MCG_CTL_P nor CMCI
# nor LMCE; and as QEMU sets it: 10 banks, MCG_CTL_P, MCG_SER_P (target/i386/cpu.h MCE_CAP_DEF, MCE_BANKS_DEF)
MCG_CAP_KVM, MCG_CAP_QEMU = 32, 1 << 24 | 1 << 8 | 10
MCG_CTL_P, MC0_CTL = 1 << 8, 0x400

VARIABLE = range(0x200, 0x210)  # KVM_NR_VAR_MTRR is 8
FIXED = frozenset((0x250, 0x258, 0x259, *range(0x268, 0x270)))
MTRR_TYPES, PAT_TYPES = frozenset((0, 1, 4, 5, 6)), frozenset((0, 1, 4, 5, 6, 7))
RESERVED_GPA = ALL_ONES & ~((1 << 52) - 1)
MISC_ENABLE_READ_ONLY = 1 << 12 | 1 << 11  # PEBS and BTS are unavailable
MISC_ENABLE_KEPT = 1 << 7  # performance monitoring: writes are ignored
CPUID_FAULTING = 1 << 31  # MSR_PLATFORM_INFO

FIRST = {
    **{FEAT_CTL: FEAT_CTL_LOCKED, EFER: EFER_VALUE, UCODE_REV: 0, MTRR_CAP: 0x508, MTRR_DEFAULT: 0},
    **{MISC_ENABLE: MISC_ENABLE_READ_ONLY, PAT: 0x0007040600070406, PLATFORM_INFO: CPUID_FAULTING},
    **{MISC_FEATURES: 0, POWER_CTL: 0, MCG_STATUS: 0, POLL_CONTROL: 1},
    **dict.fromkeys((*VARIABLE, *FIXED), 0),
}
"""Values at the start, of those that are the same for every VMM and vCPU."""
READ_ONLY = frozenset((APIC_BASE, FEAT_CTL, EFER, MTRR_CAP, PLATFORM_INFO, MCG_CAP, ARCH_CAPABILITIES))

Written = MutableMapping[tuple[int, int], int]
"""What was written, by vCPU and MSR."""


def _start(index: int, msr: int, mcg_cap: int, arch_capabilities: int) -> int | None:
    """The value before any write; None: refused."""
    if msr == APIC_BASE:
        return APIC_BASE_X2APIC | (0 if index else APIC_BASE_BSP)
    if msr == ARCH_CAPABILITIES:
        return arch_capabilities
    if msr == MCG_CAP:
        return mcg_cap
    every = ALL_ONES if mcg_cap & MCG_CTL_P else 0  # kvm_vcpu_ioctl_x86_setup_mce
    if msr == MCG_CTL:
        return every if mcg_cap & MCG_CTL_P else None
    if 0 <= msr - MC0_CTL < 4 * (mcg_cap & 0xFF):
        return 0 if msr & 3 else every
    return FIRST.get(msr)


def read(written: Written, index: int, msr: int, mcg_cap: int, arch_capabilities: int) -> int | None:
    """RDMSR by vCPU `index`; None: refused."""
    start = _start(index, msr, mcg_cap, arch_capabilities)
    return None if start is None else written.get((index, msr), start)


def _takes(msr: int, old: int, value: int) -> bool:
    """Whether KVM takes this value for an MSR that can be written."""
    kinds = value.to_bytes(8, "little")
    if msr == PAT:
        return PAT_TYPES.issuperset(kinds)
    if msr in FIXED:
        return MTRR_TYPES.issuperset(kinds)
    if msr in VARIABLE:
        if msr & 1:
            return not value & (RESERVED_GPA | 0x7FF)
        return kinds[0] in MTRR_TYPES and not value & (RESERVED_GPA | 0xF00)
    if msr == MTRR_DEFAULT:
        return not value & ~0xCFF and kinds[0] in MTRR_TYPES
    if msr == MISC_ENABLE:
        return not (old ^ value) & MISC_ENABLE_READ_ONLY
    if msr in (MISC_FEATURES, POLL_CONTROL):
        return value <= 1
    if msr == MCG_CTL:
        return value in (0, ALL_ONES)
    if msr >= MC0_CTL and msr != POLL_CONTROL:
        control, status = not msr & 3, msr & 3 == 1
        return not value or (not status and (not control or value | 1 << 10 | 1 == ALL_ONES))
    return True


def write(written: Written, index: int, msr: int, value: int, mcg_cap: int, arch_capabilities: int) -> bool:
    """WRMSR by vCPU `index`; False: refused."""
    old = read(written, index, msr, mcg_cap, arch_capabilities)
    if old is None or msr in READ_ONLY or not _takes(msr, old, value):
        return False
    if msr == MISC_ENABLE:
        value = value & ~MISC_ENABLE_KEPT | old & MISC_ENABLE_KEPT
    if msr != UCODE_REV:  # taken and ignored
        written[index, msr] = value
    return True
