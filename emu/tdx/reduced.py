"""What does a module after 1.5.01 answer for CPUID and MSRs, by what the TD chose in TD_CTLS?

ENUM_TOPOLOGY: it tells each vCPU its x2APIC id. VIRT_CPUID2: it answers CPUID leaf 2. REDUCE_VE: where 1.5.01
raises #VE, a CPU without that feature is seen, which has zeros in CPUID and #GP for the MSR; it implies the
two others. Sources: intel/tdx-module commit db57c638520a, td_cpuid.c, td_msr_access.c, metadata_td.c,
helpers.c update_mutable_cpuid_flags, auto_gen_2_0/msr_config_lookup.c. FEATURE_PARAVIRT_CTLS and LOCK are not
modelled.
"""

from __future__ import annotations

from emu.tdx import cpuid, msr
from emu.tdx.cpuid import Caller, Registers
from emu.tdx.msr import Access
from emu.tdx.topology import Topology
from formats.tdx.topology import ENUM_TOPOLOGY, REDUCE_VE, VIRT_CPUID2

CONTROLS = 1 | ENUM_TOPOLOGY | VIRT_CPUID2 | REDUCE_VE
TOPOLOGY_LEAVES, LEAF2 = (0xB, 0x1F), 2
# One more query is not needed; caches are in leaf 4, TLBs in leaf 0x18, 64-byte prefetching (SDM volume 2A,
# table 3-12)
LEAF2_ANSWER: Registers = (0x00FEFF01, 0xF0, 0, 0)
HYPERVISOR = range(cpuid.HYPERVISOR_FIRST, cpuid.HYPERVISOR_LAST + 1)
# What REDUCE_VE hides of leaf 1, as its flags say: TSC deadline in ECX; MCE, MTRR, MCA, ACPI in EDX
HIDDEN_ECX, HIDDEN_EDX = cpuid.bits(24), cpuid.bits(7, 12, 14, 22)

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
MISC_ENABLE_KEPT = (
    1 << 7 | 1 << 11 | 1 << 12
)  # performance monitoring, BTS and PEBS: what is written is ignored


def control_bits(value: int, topology: Topology | None) -> int | None:
    """What TD_CTLS becomes of a value that may be written; None: FIELD_VALUE_NOT_VALID."""
    if value & REDUCE_VE:
        value |= ENUM_TOPOLOGY | VIRT_CPUID2
    return None if value & ENUM_TOPOLOGY and topology is None else value


def answer_cpuid(
    leaf: int, subleaf: int, caller: Caller, controls: int, topology: Topology
) -> Registers | None:
    """CPUID; None is #VE."""
    if leaf in TOPOLOGY_LEAVES:
        known = controls & ENUM_TOPOLOGY and (controls & REDUCE_VE or subleaf <= (2, 5)[leaf == 0x1F])
        return topology.leaf(subleaf, caller.index) if known else None
    if leaf == LEAF2:
        return LEAF2_ANSWER if controls & VIRT_CPUID2 else None
    answer = cpuid.lookup(leaf, subleaf, caller)
    if answer is None:
        return cpuid.ZERO if controls & REDUCE_VE and leaf not in HYPERVISOR else None
    eax, ebx, ecx, edx = answer
    if leaf == 1 and controls & ENUM_TOPOLOGY:
        ebx = ebx & 0xFFFFFF | (topology.ids[caller.index] & 0xFF) << 24
    if leaf == 1 and controls & REDUCE_VE:
        ecx, edx = ecx & ~HIDDEN_ECX, edx & ~HIDDEN_EDX
    return eax, ebx, ecx, edx


def _stays(index: int, is_write: bool) -> bool:
    if not any(index in bitmap for bitmap in BITMAPS):
        return True
    return any(first <= index <= last and (read, write)[is_write] for first, last, read, write in STAY)


def access(index: int, is_write: bool, plain: Access, controls: int) -> Access:
    """What becomes of an access that 1.5.01 would answer with `plain`; FIXED is a value of `read`."""
    if index == X2APIC_ID:
        return Access.GP if is_write else Access.FIXED if controls & ENUM_TOPOLOGY else Access.VE
    if not controls & REDUCE_VE:
        return plain
    if index in (SMI_COUNT, MISC_ENABLE):
        return Access.NATIVE
    if index in (IGNORED | {FEATURE_ENABLES} if is_write else ANSWERS):
        return Access.FIXED
    return Access.GP if plain is Access.VE and not _stays(index, is_write) else plain


def read(index: int, vcpu: int, topology: Topology) -> int | None:
    """What a FIXED read gives; None: what 1.5.01 gives."""
    return topology.ids[vcpu] if index == X2APIC_ID else ANSWERS.get(index)


def write_misc_enable(old: int, value: int) -> tuple[Access, int]:
    """MISC_ENABLE, which is kept for each vCPU, without EST, MONITOR and xTPR in this TD."""
    if value & MISC_ENABLE_ZERO or value & (MISC_ENABLE_EST | MISC_ENABLE_TPR):
        return Access.GP, old
    if (value ^ old) & MISC_ENABLE_MONITOR or value & MISC_ENABLE_LIMIT:
        return Access.VE, old
    return Access.NATIVE, value & ~MISC_ENABLE_KEPT | old & MISC_ENABLE_KEPT


def first_misc_enable() -> int:
    """MISC_ENABLE before any write: what 1.5.01 reads."""
    row = msr.find(MISC_ENABLE)
    return row.value if row else 0
