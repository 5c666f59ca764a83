"""Which APIC id does this vCPU have? What the TDX module says where it can, else what the VMM says.

A TDX module that enumerates the topology answers CPUID itself, with the id that the host gave it and of which
it checked that it is unique. Otherwise the answer is the VMM's: the local APIC's id, else CPUID leaf 0xB,
else the vCPU index, a number of the module's. vCPU 0 checks that all ids differ (runtime-c/src/cpus.c); a
host that lies gets CPUs that do not start.

Sources: intel/tdx-module td_cpuid.c and td_msr handling; Linux arch/x86/coco/tdx/tdx.c,
enable_cpu_topology_enumeration; SDM volume 3, 11.12.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    CMP,
    JE,
    JMP,
    JNZ,
    LABEL,
    MOV,
    OR,
    POP,
    PUSH,
    XOR,
    Label,
    dword,
    eax,
    ecx,
    edi,
    edx,
    esi,
    r10,
    r10d,
    r11d,
    r12,
    r12d,
    r13,
    r13d,
    r14,
    r14d,
    r15,
    r15d,
    rax,
    rbx,
    rcx,
)

from formats.ghci import MASK_STANDARD, Function
from formats.tdx.leaves import Leaf
from gen.boot.standins import CPUID_TOPOLOGY, branch
from gen.boot.tdcall import SHOWN, enter, leaf, leave
from gen.x86 import CPUID, Symbol, Unit

ENUMERATED = "ap_enumerated"
X2APIC_ID = 0x802  # SDM volume 3, table 11-6


def emit_apic_id() -> None:
    """EAX = the id. In: ESI = vCPU index, kept, as are RBP, RSP, RDI, R8 and R9. Uses no stack and the other
    registers.
    """
    ask, second, index, done = Label("ask_msr"), Label("ask_cpuid"), Label("take_index"), Label("identified")
    CMP(dword[Symbol(ENUMERATED)], 0)
    JE(ask)
    MOV(eax, CPUID_TOPOLOGY)
    XOR(ecx, ecx)
    CPUID()
    MOV(eax, edx)
    JMP(done)
    LABEL(ask)
    _vmcall(Function.RDMSR, X2APIC_ID)
    JNZ(second)
    MOV(eax, r11d)
    JMP(done)
    LABEL(second)
    _vmcall(Function.CPUID, CPUID_TOPOLOGY)
    JNZ(index)
    MOV(rax, r12)  # a leaf of zeros says nothing
    for register in (r13, r14, r15):
        OR(rax, register)
    MOV(eax, r15d)
    JNZ(done)
    LABEL(index)
    MOV(eax, esi)
    LABEL(done)
    for register in (r10d, r11d, r12d, r13d, r14d, r15d):
        XOR(register, register)


def emit_apic_id_function(unit: Unit, without_tdx: bool = False) -> None:
    """`uint32_t tdcall_apic_id(uint64_t index)`: of this vCPU, whose index is given."""
    with unit.code("tdcall_apic_id", section=".text.tdcall_apic_id"):
        if without_tdx:
            branch("tdcall_apic_id")
        enter()
        PUSH(rbx)
        MOV(esi, edi)
        emit_apic_id()
        POP(rbx)
        leave()


def _vmcall(function: Function, operand: int) -> None:
    """TDVMCALL with R12 = operand; flag Z if module and VMM say that it succeeded."""
    MOV(ecx, MASK_STANDARD)
    XOR(r10d, r10d)
    MOV(r11d, int(function))
    MOV(r12d, operand)
    for register in (r13d, r14d, r15d):
        XOR(register, register)
    leaf(Leaf.VP_VMCALL, reads=(rcx, *SHOWN), writes=(rcx, *SHOWN))
    OR(rax, r10)
