"""What becomes of RDMSR and WRMSR under a module after 1.5.01, by what the TD chose?

Where 1.5.01 raises #VE and the TD has set REDUCE_VE, there is no such MSR: #GP, but for those that stay the
VMM's, those of features that the TD asked for, and a few that the module answers itself. Sources:
intel/tdx-module commit db57c638520a, td_msr_access.c; commit 1666adc494db,
auto_gen_2_0/msr_config_lookup.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.tdx import features, msr
from emu.tdx.features import Choice, Feature
from emu.tdx.msr import Access
from emu.tdx.topology import Topology
from formats.tdx.reduction import CONFIG_PARAVIRT, NON_CONFIG_PARAVIRT, UNSUPPORTED_FEATURE
from formats.tdx.topology import ENUM_TOPOLOGY

Kind = Feature | Access | None
"""#VE where the TD has the feature, else #GP; an outcome; or as in 1.5.01."""


@dataclass(frozen=True)
class Row:
    """MSRs first..last (inclusive), what a read and a write do."""

    first: int
    last: int
    read: Kind
    write: Kind


def _of(feature: Feature, *ranges: tuple[int, int]) -> tuple[Row, ...]:
    return tuple(Row(first, last, feature, feature) for first, last in ranges)


G = Access.GP
ROWS: tuple[Row, ...] = (
    *_of(features.CORE_CAPABILITIES, (0x33, 0x33), (0xED, 0xF0)),  # MEMORY_CTRL, RAR
    Row(0xCF, 0xCF, features.CORE_CAPABILITIES, G),  # CORE_CAPABILITIES
    *_of(features.PCONFIG, (0x87, 0x87)),  # MKTME_PARTITIONING
    Row(0xFE, 0xFE, features.MTRR, G),  # MTRRCAP
    Row(0x179, 0x179, features.MCA, G),  # MCG_CAP
    # MCG_STATUS, MCG_CTL; MCx_CTL2; MC0_CTL to MC28_MISC; MCG_EXT_CTL
    *_of(features.MCA, (0x17A, 0x17B), (0x280, 0x29F), (0x400, 0x473), (0x4D0, 0x4D0)),
    *_of(features.EST, (0x198, 0x199)),  # PERF_STATUS, PERF_CTL
    *_of(features.ACPI, (0x19A, 0x19C)),  # CLOCK_MODULATION, THERM_INTERRUPT, THERM_STATUS
    *_of(features.TM2, (0x19D, 0x19D)),  # THERM2_CTL
    # SMRR, SMRR2; MTRR variable and fixed; PRMRR, FUSARR; MTRR_DEF_TYPE
    *_of(features.MTRR, (0x1F2, 0x1F3), (0x1F6, 0x1F7), (0x200, 0x213), (0x250, 0x250), (0x258, 0x259)),
    *_of(features.MTRR, (0x268, 0x26F), (0x2A0, 0x2A7), (0x2C0, 0x2C1), (0x2FF, 0x2FF)),
    *_of(features.DCA, (0x1F8, 0x1FA)),
    Row(0x3F4, 0x3F5, G, G),  # PEBS_BASE, PEBS_INDEX
    Row(0x550, 0x550, G, G),  # SEAM_SAI_MODE
    *_of(features.TSC_DEADLINE, (0x6E0, 0x6E0)),
    Row(0x803, 0x803, None, G),  # x2APIC version
    Row(0x80D, 0x80D, None, G),  # LDR
    Row(0x839, 0x839, None, G),  # current count
    Row(0x83B, 0x83D, G, G),  # reserved for the x2APIC
    *_of(features.TME, (0x981, 0x984)),
    Row(0xC80, 0xC80, G, Access.VE),  # DEBUG_INTERFACE
    *_of(features.RDT_A, (0xC81, 0xC82), (0xC90, 0xD8F)),  # L3 and L2 QOS_CFG, masks, throttling
    *_of(features.RDT_M, (0xC8D, 0xC8F)),  # QM_EVTSEL, QM_CTR, PQR_ASSOC
    # PMC_GPn and PMC_FXn without PERFMON: their CTR and CFG_C, four numbers a counter
    *(Row(0x1900 + 4 * n + part, 0x1900 + 4 * n + part, G, G) for n in range(8) for part in (0, 3)),
    *(Row(0x1980 + 4 * n + part, 0x1980 + 4 * n + part, G, G) for n in range(7) for part in (0, 3)),
)
X2APIC_ID = 0x802
# First and last MSR, read, write: those that stay the VMM's under REDUCE_VE (MSR_ACTION_VE)
STAY: tuple[tuple[int, int, bool, bool], ...] = (
    (0x00, 0x01, True, True),  # P5_MC_ADDR, P5_MC_TYPE
    (0x06, 0x06, True, True),  # MONITOR_FILTER_SIZE
    (0x10, 0x10, False, True),  # TIME_STAMP_COUNTER
    (0x17, 0x17, True, False),  # PLATFORM_ID
    (0x1B, 0x1B, True, True),  # APIC_BASE
    (0xBC, 0xBC, False, True),  # MISC_PACKAGE_CTLS
    (0x803, 0x803, True, False),  # x2APIC version
    (0x80D, 0x80D, True, False),  # LDR
    (0x80F, 0x80F, True, True),  # SIVR
    (0x828, 0x828, True, True),  # ESR
    (0x82F, 0x830, True, True),  # LVT CMCI, ICR
    (0x832, 0x838, True, True),  # LVT, initial count
    (0x839, 0x839, True, False),  # current count
    (0x83A, 0x83A, True, True),  # LVT HWP
    (0x83E, 0x83E, True, True),  # divide configuration
    (0xC0000083, 0xC0000083, True, True),  # CSTAR
)
BITMAPS = (range(0x2000), range(0xC0000000, 0xC0002000))  # MSRs outside of these are #VE always
# What the module answers itself under REDUCE_VE: FEATURE_CONTROL and PPIN_CTL locked, no microcode revision,
# no PLATFORM_INFO or FEATURE_ENABLES; SMI_COUNT and MISC_ENABLE are kept for each vCPU
SMI_COUNT, MISC_ENABLE, FEATURE_ENABLES = 0x34, 0x1A0, 0x140
ANSWERS = {0x3A: 1, 0x4E: 1, 0x8B: 0xFFFFFFFF, 0xCE: 0, FEATURE_ENABLES: 0}
IGNORED = frozenset((0x79, 0x8B))  # writes of BIOS_UPDT_TRIG and BIOS_SIGN_ID
MISC_ENABLE_ZERO = 0xFFFFFFFFFF3AE776  # wrmsr_ia32_misc_enable: GP_ON_NON_0_MASK
MISC_ENABLE_EST, MISC_ENABLE_MONITOR, MISC_ENABLE_LIMIT, MISC_ENABLE_TPR = 1 << 16, 1 << 18, 1 << 22, 1 << 23
# Performance monitoring, BTS and PEBS: what is written is ignored
MISC_ENABLE_KEPT = 1 << 7 | 1 << 11 | 1 << 12


def stays(index: int, is_write: bool) -> bool:
    """Whether no choice of the TD changes that this access is the VMM's."""
    if not any(index in bitmap for bitmap in BITMAPS):
        return True
    return any(first <= index <= last and (read, write)[is_write] for first, last, read, write in STAY)


def category(index: int, is_write: bool, own: bool) -> int:
    """Why the access is #VE. `own`: the module has the MSR, but not this value."""
    if own:
        return UNSUPPORTED_FEATURE
    return NON_CONFIG_PARAVIRT if stays(index, is_write) else CONFIG_PARAVIRT


def access(index: int, is_write: bool, plain: Access, choice: Choice) -> Access:
    """What becomes of an access that 1.5.01 would answer with `plain`; FIXED is a value of `read`."""
    if index == X2APIC_ID:
        known = choice.controls & ENUM_TOPOLOGY
        return Access.GP if is_write else Access.FIXED if known else Access.VE
    if index == MISC_ENABLE and (choice.reduced or not is_write):
        return Access.NATIVE
    row = next((row for row in ROWS if row.first <= index <= row.last), None)
    kind = (row.write if is_write else row.read) if row else None
    if isinstance(kind, Feature):
        return Access.VE if choice.has(kind) else Access.GP
    plain = kind or plain
    if not choice.reduced:
        return plain
    if index == SMI_COUNT:
        return Access.NATIVE
    if index in (IGNORED | {FEATURE_ENABLES} if is_write else ANSWERS):
        return Access.FIXED
    return Access.GP if plain is Access.VE and not stays(index, is_write) else plain


def read(index: int, vcpu: int, topology: Topology) -> int | None:
    """What a FIXED read gives; None: what 1.5.01 gives."""
    return topology.ids[vcpu] if index == X2APIC_ID else ANSWERS.get(index)


def write_misc_enable(old: int, value: int, choice: Choice) -> tuple[Access, int]:
    """MISC_ENABLE, which is kept for each vCPU, without xTPR in this TD."""
    if value & MISC_ENABLE_ZERO:
        return Access.GP, old
    if value & MISC_ENABLE_EST and not choice.has(features.EST):
        return Access.GP, old
    if (value ^ old) & MISC_ENABLE_MONITOR or value & MISC_ENABLE_LIMIT:
        return Access.VE, old
    if value & MISC_ENABLE_TPR:
        return Access.GP, old
    return Access.NATIVE, value & ~MISC_ENABLE_KEPT | old & MISC_ENABLE_KEPT


def first_misc_enable() -> int:
    """MISC_ENABLE before any write: what 1.5.01 reads."""
    row = msr.find(MISC_ENABLE)
    return row.value if row else 0
