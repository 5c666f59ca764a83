"""Which MSR does a TD reach natively, which raises #VE, which #GP? (intel/tdx-module TDX_1.5.01; names as in
Intel SDM volume 4)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from formats.tdx.td import PKS


class Access(enum.Enum):
    """What RDMSR or WRMSR does."""

    NATIVE = "native"
    FIXED = "fixed value"
    VE = "#VE"
    GP = "#GP"


LOOKUP, ACCESS = "msr_config_lookup.c", "td_msr_access.c"


@dataclass(frozen=True)
class Row:
    """MSRs first..last (inclusive), what a read and a write do, their names, the value of a FIXED read."""

    first: int
    last: int
    read: Access
    write: Access
    name: str
    value: int = 0
    xfam: int = 0  # these XFAM bits must all be set, else both are #GP
    attributes: int = 0  # and these ATTRIBUTES
    source: str = LOOKUP  # in the module's sources


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

# What the module makes of the CPU's ARCH_CAPABILITIES (virt_msr_helpers.c init_virt_ia32_arch_capabilities,
# check_virt_ia32_arch_capabilities): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO,
# TAA_NO, DOITM, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO are 1 on every CPU with TDX; SSB_NO, BHI_NO and PBRSB_NO are
# 0 where the host did not configure the MSR, which KVM does not; the CPU has RRSBA 0.
ARCH_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 5, 6, 8, 12, 13, 14, 15))


ROWS: tuple[Row, ...] = (
    Row(0x10, 0x10, N, V, "TIME_STAMP_COUNTER"),
    Row(SPEC_CTRL, SPEC_CTRL, N, N, "SPEC_CTRL"),
    Row(PRED_CMD, PRED_CMD, G, N, "PRED_CMD; native, and a CPU lets it be written only"),
    Row(0x87, 0x87, G, G, "MKTME_KEYID_PARTITIONING"),
    Row(0x8C, 0x8F, G, G, "SGXLEPUBKEYHASH0 to 3"),
    Row(0x98, 0x9B, G, G, "WBINVDP, WBNOINVDP, INTR_PENDING, SMM_MONITOR_CTL"),
    Row(0x9E, 0x9E, G, G, "SMBASE"),
    Row(0xBC, 0xBC, N, V, "MISC_PACKAGE_CTLS"),
    Row(0xBD, 0xBD, F, G, "XAPIC_DISABLE_STATUS", 1),
    Row(0xC1, 0xC8, G, G, "PMC0 to 7"),
    Row(0xE1, 0xE1, G, G, "UMWAIT_CONTROL"),
    Row(0x10A, 0x10A, F, G, "ARCH_CAPABILITIES", ARCH_CAPABILITIES),
    Row(FLUSH_CMD, FLUSH_CMD, G, N, "FLUSH_CMD; native, and a CPU lets it be written only"),
    Row(0x122, 0x122, G, G, "TSX_CTRL"),
    Row(0x174, 0x176, N, N, "SYSENTER_CS, ESP, EIP"),
    Row(0x186, 0x18D, G, G, "PERFEVTSEL0 to 7"),
    Row(0x195, 0x195, G, G, "OVERCLOCKING_STATUS"),
    Row(0x1A0, 0x1A0, F, V, "MISC_ENABLE: PEBS unavailable, fast strings", 1 << 12 | 1),
    Row(0x1A6, 0x1A7, G, G, "OFFCORE_RSP0, 1"),
    Row(0x1C4, 0x1C5, G, G, "XFD, XFD_ERR"),
    Row(DEBUGCTL, DEBUGCTL, N, N, "DEBUGCTL; `written` checks", source=ACCESS),
    Row(0x1F8, 0x1FA, G, G, "PLATFORM_DCA_CAP, CPU_DCA_CAP, DCA_0_CAP"),
    Row(0x276, 0x276, G, G, "SLAM_ENABLE"),
    Row(PAT, PAT, N, N, "PAT"),
    Row(0x309, 0x310, G, G, "FIXED_CTR0 to 7"),
    Row(0x329, 0x329, G, G, "PERF_METRICS"),
    Row(0x345, 0x345, F, G, "PERF_CAPABILITIES"),
    Row(0x38D, 0x392, G, G, "FIXED_CTR_CTRL to PERF_GLOBAL_INUSE"),
    Row(0x3F1, 0x3F2, G, G, "PEBS_ENABLE, PEBS_DATA_CFG"),
    Row(0x3F6, 0x3F7, G, G, "PEBS_LD_LAT, PEBS_FRONTEND"),
    Row(0x480, 0x480, F, G, "VMX_BASIC"),
    Row(0x481, 0x484, V, G, "VMX_PINBASED_CTLS to VMX_ENTRY_CTLS"),
    Row(0x485, 0x489, F, G, "VMX_MISC to VMX_CR4_FIXED1"),
    Row(0x48A, 0x48A, V, G, "VMX_VMCS_ENUM"),
    Row(0x48B, 0x492, F, G, "VMX_PROCBASED_CTLS2 to VMX_PROCBASED_CTLS3"),
    Row(0x4C1, 0x4C8, G, G, "A_PMC0 to 7"),
    Row(0x500, 0x500, G, G, "SGX_SVN_STATUS"),
    Row(0x560, 0x561, N, N, "RTIT_OUTPUT_BASE, RTIT_OUTPUT_MASK_PTRS", xfam=1 << 8),
    Row(0x570, 0x572, N, N, "RTIT_CTL, RTIT_STATUS, RTIT_CR3_MATCH", xfam=1 << 8),
    Row(0x580, 0x587, N, N, "RTIT_ADDR0_A to RTIT_ADDR3_B", xfam=1 << 8),
    Row(0x600, 0x600, N, N, "DS_AREA"),
    Row(0x6A0, 0x6A0, N, N, "U_CET", xfam=0x1800),
    Row(0x6A2, 0x6A2, N, N, "S_CET", xfam=0x1800),
    Row(0x6A4, 0x6A8, N, N, "PL0_SSP to INTERRUPT_SSP_TABLE_ADDR", xfam=0x1800),
    Row(0x6E0, 0x6E0, V, V, "TSC_DEADLINE"),
    Row(0x6E1, 0x6E1, N, N, "PKRS", attributes=PKS),
    Row(0x800, 0x801, G, G, "x2APIC, reserved"),
    Row(0x804, 0x807, G, G, "x2APIC, reserved"),
    Row(0x808, 0x80C, N, N, "x2APIC TPR, APR, PPR, EOI, RRD"),
    Row(0x80E, 0x80E, N, N, "x2APIC DFR"),
    Row(0x810, 0x827, N, N, "x2APIC ISR, TMR, IRR"),
    Row(0x829, 0x82E, G, G, "x2APIC, reserved"),
    Row(0x831, 0x831, G, G, "x2APIC, reserved"),
    Row(0x83F, 0x83F, N, N, "x2APIC SELF_IPI"),
    Row(0x840, 0x8FF, G, G, "x2APIC, reserved"),
    Row(0x981, 0x984, G, G, "TME_CAPABILITY, TME_ACTIVATE, TME_EXCLUDE_MASK, TME_EXCLUDE_BASE"),
    Row(0x985, 0x98A, N, N, "UINTR_RR to UINTR_TT", xfam=1 << 14),
    Row(0xC80, 0xC80, N, V, "DEBUG_INTERFACE"),
    Row(0xD90, 0xD90, G, G, "BNDCFGS"),
    Row(0xD93, 0xD93, G, G, "PASID"),
    Row(XSS, XSS, N, N, "XSS; `written` checks against XFAM", source=ACCESS),
    Row(0x1200, 0x12FF, N, N, "LBR_INFO", xfam=1 << 15),
    Row(0x14CE, 0x14CF, N, N, "LBR_CTL, LBR_DEPTH", xfam=1 << 15),
    Row(0x1500, 0x16FF, N, N, "LBR_FROM_IP, LBR_TO_IP", xfam=1 << 15),
    Row(0x1B01, 0x1B01, N, N, "UARCH_MISC_CTL"),
    Row(0xC0000080, 0xC0000080, N, N, "EFER; control.write_efer checks", source=ACCESS),
    Row(0xC0000081, 0xC0000082, N, N, "STAR, LSTAR"),
    Row(FMASK, FMASK, N, N, "FMASK"),
    Row(0xC0000100, 0xC0000103, N, N, "FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX"),
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
