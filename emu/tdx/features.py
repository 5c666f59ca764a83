"""Which features of its CPU does a module after 1.5.01 show a TD, by what the TD chose?

REDUCE_VE hides those that only the VMM could answer for; FEATURE_PARAVIRT_CTLS takes single ones back, as far
as the VMM configured them. Source: intel/tdx-module commit db57c638520a, helpers.c
update_mutable_cpuid_flags, td_cpuid.c td_cpuid_exit, td_control_structures.h feature_paravirt_ctls_t.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.tdx import cpuid
from emu.tdx.cpuid import Registers
from formats.tdx.topology import REDUCE_VE

EAX, EBX, ECX, EDX = range(4)


@dataclass(frozen=True)
class Feature:
    """Its bit in a register of CPUID leaf 1 or leaf 7 sub-leaf 0 and in FEATURE_PARAVIRT_CTLS. `always`:
    without REDUCE_VE it is there, configured or not.
    """

    leaf: int
    register: int
    bit: int
    paravirt: int
    always: bool = False


CORE_CAPABILITIES = Feature(7, EDX, 30, 0, always=True)
DCA = Feature(1, ECX, 18, 1)
EST = Feature(1, ECX, 7, 2)
MCE = Feature(1, EDX, 7, 3, always=True)
MCA = Feature(1, EDX, 14, 3, always=True)
MTRR = Feature(1, EDX, 12, 4, always=True)
PCONFIG = Feature(7, EDX, 18, 5)
RDT_A = Feature(7, EBX, 15, 6)
RDT_M = Feature(7, EBX, 12, 7)
ACPI = Feature(1, EDX, 22, 8)
TM2 = Feature(1, ECX, 8, 9)
TME = Feature(7, ECX, 13, 10)
TSC_DEADLINE = Feature(1, ECX, 24, 11)
FEATURES = (
    CORE_CAPABILITIES, DCA, EST, MCE, MCA, MTRR, PCONFIG, RDT_A, RDT_M, ACPI, TM2, TME, TSC_DEADLINE,
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What a TD chose: TD_CTLS and FEATURE_PARAVIRT_CTLS."""

    controls: int = 0
    paravirt: int = 0

    @property
    def reduced(self) -> bool:
        """Whether REDUCE_VE is set."""
        return bool(self.controls & REDUCE_VE)

    def has(self, feature: Feature) -> bool:
        """Whether the TD has this feature."""
        row = cpuid.find(feature.leaf, 0)
        configured = bool(row and row.answer and row.answer[feature.register] >> feature.bit & 1)
        if not self.reduced:
            return feature.always or configured
        return configured and bool(self.paravirt >> feature.paravirt & 1)


def shown(leaf: int, subleaf: int, answer: Registers, choice: Choice) -> Registers:
    """The answer of CPUID with the bits of features as they are now."""
    registers = list(answer)
    for feature in FEATURES:
        if feature.leaf == leaf and (leaf == 1 or subleaf == 0):
            bit = 1 << feature.bit
            kept = registers[feature.register] & ~bit
            registers[feature.register] = kept | (bit if choice.has(feature) else 0)
    eax, ebx, ecx, edx = registers
    return eax, ebx, ecx, edx
