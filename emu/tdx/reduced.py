"""What does a module after 1.5.01 answer for CPUID, by what the TD chose in TD_CTLS and
FEATURE_PARAVIRT_CTLS?

ENUM_TOPOLOGY: it tells each vCPU its x2APIC id. VIRT_CPUID2: it answers leaf 2. REDUCE_VE: it answers what
1.5.01 makes #VE; it implies the two others. Sources: intel/tdx-module commit db57c638520a, td_cpuid.c,
metadata_td.c, auto_gen_2_0/cpuid_configurations_defines.h; commit 1666adc494db,
auto_gen_2_0/cpuid_configurations.c.
"""

from __future__ import annotations

from dataclasses import replace

from emu.tdx import cpuid, features
from emu.tdx.cpuid import Caller, Registers, Row
from emu.tdx.features import Choice
from emu.tdx.topology import Topology
from formats.tdx.topology import ENUM_TOPOLOGY, REDUCE_VE, VIRT_CPUID2

TOPOLOGY_LEAVES, LEAF2 = (0xB, 0x1F), 2
HYPERVISOR = range(cpuid.HYPERVISOR_FIRST, cpuid.HYPERVISOR_LAST + 1)
# Rows that 1.5.01 has not, or has as #VE. Leaf 2: one more query is not needed; caches are in leaf 4, TLBs in
# leaf 18, 64-byte prefetching (SDM volume 2A, table 3-12). Leaf 6: ARAT. Leaf 80000002: a name, its letters
# in the order of the module's table. Leaf 80000006: L2 with 64-byte lines, see leaf 4; its size is the
# CPU's. The emulated CPU has no TLBs to tell of and is no hybrid: leaves 18 and 1A are zero.
L2_KIB = 512
CHANGED: tuple[Row, ...] = (
    Row(LEAF2, None, 72, (0x00FEFF01, 0xF0, 0, 0)),
    Row(6, None, 13, (4, 0, 0, 0)),
    *(Row(0xB, subleaf, 64 + subleaf) for subleaf in range(3)),
    *(Row(0x18, subleaf, 68 + subleaf + (subleaf > 3)) for subleaf in range(9)),
    Row(0x1A, None, 67),
    *(replace(row, answer=cpuid.ZERO) for row in cpuid.ROWS if row.leaf == 0x1F),
    Row(0x80000002, None, 78, (0x65746E49, 0x58204454, 0x6C202020, 0)),
    Row(0x80000006, None, 56, (0, 0, L2_KIB << 16 | 0x7040, 0)),
)
_BY_LEAF = {(row.leaf, row.subleaf): row for row in (*cpuid.ROWS, *CHANGED)}
FIXED0 = 0x0380000508CFD308  # CPUID_FIXED0_BITMAP: leaves that are zero; bits from 52 on are 80000000 and up
FIXED0_EXTENDED, EXTENDED = 52, 0x80000000
ONLY_REDUCED = frozenset((0x6, 0xC, 0x16, 0x17, *range(0x80000002, 0x80000006)))
# Leaves of features: #VE with them, and without REDUCE_VE
OF_FEATURES = {0x9: features.DCA, 0xF: features.RDT_M, 0x10: features.RDT_A, 0x1B: features.PCONFIG}


def control_bits(value: int) -> int:
    """What TD_CTLS becomes of a value that may be written."""
    return value | ENUM_TOPOLOGY | VIRT_CPUID2 if value & REDUCE_VE else value


def _fixed_zero(leaf: int) -> bool:
    bit = leaf - EXTENDED + FIXED0_EXTENDED if leaf >= EXTENDED else leaf
    return bool(FIXED0 >> bit & 1)


def find(leaf: int, subleaf: int) -> Row | None:
    """The table's row, whose number CPUID_CONTROL goes by; leaves beyond their range are the last one."""
    leaf = cpuid.in_range(leaf)
    return _BY_LEAF.get((leaf, None)) or _BY_LEAF.get((leaf, subleaf))


def answer_cpuid(
    leaf: int, subleaf: int, caller: Caller, choice: Choice, topology: Topology
) -> Registers | None:
    """CPUID; None is #VE."""
    if leaf in HYPERVISOR:
        return None
    leaf, row = cpuid.in_range(leaf), find(leaf, subleaf)
    if row is None and not choice.reduced and not _fixed_zero(leaf):
        return None
    if leaf in TOPOLOGY_LEAVES:
        return topology.leaf(subleaf, caller.index) if choice.controls & ENUM_TOPOLOGY else None
    if leaf == LEAF2 and not choice.controls & VIRT_CPUID2:
        return None
    if leaf in ONLY_REDUCED and not choice.reduced:
        return None
    if leaf in OF_FEATURES and (not choice.reduced or choice.has(OF_FEATURES[leaf])):
        return None
    answer = cpuid.of_caller(row, caller) if row else None
    if answer is None:
        return cpuid.ZERO
    eax, ebx, ecx, edx = features.shown(leaf, subleaf, answer, choice)
    if leaf == 1 and choice.controls & ENUM_TOPOLOGY:
        ebx = ebx & 0xFFFFFF | (topology.ids[caller.index] & 0xFF) << 24
    return eax, ebx, ecx, edx
