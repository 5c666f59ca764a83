"""How does C or flow code call the TDX module and the VMM? One SysV function for each leaf and TDVMCALL used.

Each takes its arguments as C would pass them and returns RAX of the TDCALL (or R10 of a TDVMCALL). Registers
shown to the VMM hold an argument or zero, and none keeps a value of the VMM's after the return. RBP is never
shown (TDX module: CONFIG_FLAGS.NO_RBP_MOD makes such a mask an error).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peachpy.x86_64 import (
    AND,
    CALL,
    CMP,
    JMP,
    JNE,
    JNZ,
    LABEL,
    MOV,
    POP,
    PUSH,
    RET,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    dword,
    eax,
    ecx,
    r8,
    r8d,
    r9,
    r9d,
    r10,
    r10d,
    r11,
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
    rdi,
    rdx,
    rsi,
)

from dsl.capabilities import prelude
from formats.ghci import FATAL_TEXT, IO_READ, IO_WRITE, MASK_FATAL, MASK_STANDARD, Function
from formats.registers import R8, R9, R10, R11, R12, R13, R14, R15, RBX, RDI, RDX, RSI
from formats.tdx.leaves import GPAW_MASK, Leaf
from formats.tdx.status import BUSY_RETRIES, OPERAND_BUSY
from gen.boot.standins import branch
from gen.errors import BuildError
from gen.x86 import TDCALL, Symbol, Unit

# PeachPy's registers by number; RSP and RBP are never shown.
_REGISTERS = {
    RDX: rdx, RBX: rbx, RSI: rsi, RDI: rdi, R8: r8, R9: r9,
    R10: r10, R11: r11, R12: r12, R13: r13, R14: r14, R15: r15,
}  # fmt: skip
SHOWN = (r10, r11, r12, r13, r14, r15)
_SAVED = (r12, r13, r14, r15)


def emit_tdcall(unit: Unit, without_tdx: bool = False) -> None:
    """All functions of this module. `without_tdx`: each has a stand-in (gen/boot/standins.py)."""
    for name, body in _FUNCTIONS.items():
        with unit.code(name, section=f".text.{name}"):
            if without_tdx:
                branch(name)
            body()


def leaf(number: Leaf, reads: Sequence[Any] = (), writes: Sequence[Any] = ()) -> None:
    """Load the leaf number and execute TDCALL; status in RAX."""
    if number:
        MOV(eax, int(number))
    else:
        XOR(eax, eax)
    TDCALL(reads=(rax, *reads), writes=(rax, *writes))


def _vp_info() -> None:
    """`uint64_t tdcall_vp_info(struct vp_info *out)`: gpaw, attributes, num, max, index, all trusted."""
    record = prelude().records["VpInfo"]
    at = {field.name: field.offset for field in record.fields}
    if at["max_vcpus"] != at["num_vcpus"] + 4:  # one store writes both, as TDG.VP.INFO gives both in R8
        raise BuildError("record VpInfo: max_vcpus does not follow num_vcpus")
    leaf(Leaf.VP_INFO, writes=(rcx, rdx, r8, r9, r10, r11))
    AND(ecx, GPAW_MASK)
    MOV([rdi + at["gpaw"]], rcx)
    MOV([rdi + at["attributes"]], rdx)
    MOV([rdi + at["num_vcpus"]], r8)
    MOV([rdi + at["vcpu_index"]], r9d)
    MOV(dword[rdi + at["tdx"]], 1)
    RET()


def _rtmr_extend() -> None:
    """`uint64_t tdcall_rtmr_extend(const void *digest, uint64_t index)`: 48 bytes, 64-byte aligned.

    Patient with registers that are locked, for the mark of a failed boot has to get there too.
    """
    again, done = Label("again"), Label("done")
    MOV(r8d, BUSY_RETRIES + 1)
    LABEL(again)
    MOV(rcx, rdi)
    MOV(rdx, rsi)
    leaf(Leaf.MR_RTMR_EXTEND, reads=(rcx, rdx))
    MOV(r9, rax)
    SHR(r9, 32)
    CMP(r9d, OPERAND_BUSY >> 32)
    JNE(done)
    SUB(r8d, 1)
    JNZ(again)
    LABEL(done)
    RET()


def _ve_info() -> None:
    """`uint64_t tdcall_ve_info(uint64_t out[5])`: reason, qualification, GLA, GPA, length and info halves."""
    leaf(Leaf.VP_VEINFO_GET, writes=(rcx, rdx, r8, r9, r10))
    for index, register in enumerate((rcx, rdx, r8, r9, r10)):
        MOV([rdi + 8 * index], register)
    RET()


def _report() -> None:
    """`uint64_t tdcall_report(void *report, const void *data)`: 1024 bytes at 1024, 64 bytes at 64."""
    MOV(rcx, rdi)
    MOV(rdx, rsi)
    XOR(r8d, r8d)
    leaf(Leaf.MR_REPORT, reads=(rcx, rdx, r8))
    RET()


def _vm_read() -> None:
    """`uint64_t tdcall_vm_rd(uint64_t field, uint64_t *out)`: a metadata field of this TD."""
    XOR(ecx, ecx)
    MOV(rdx, rdi)
    XOR(r8d, r8d)
    leaf(Leaf.VM_RD, reads=(rcx, rdx), writes=(r8,))
    MOV([rsi], r8)
    RET()


def _vm_write() -> None:
    """`uint64_t tdcall_vm_wr(uint64_t field, uint64_t value, uint64_t mask)`."""
    MOV(r9, rdx)
    XOR(ecx, ecx)
    MOV(rdx, rdi)
    MOV(r8, rsi)
    leaf(Leaf.VM_WR, reads=(rcx, rdx, r8, r9), writes=(r8,))
    RET()


def enter() -> None:
    """Keep the caller's registers, which the VMM is about to answer in."""
    for register in _SAVED:
        PUSH(register)


def leave() -> None:
    """Forget what the VMM answered, give the caller its registers back."""
    XOR(r10d, r10d)
    XOR(r11d, r11d)
    for register in reversed(_SAVED):
        POP(register)
    RET()


def _call_vmm() -> None:
    """R11..R15 are set: execute the TDVMCALL. RAX = the module's status, or R10 if that is 0."""
    done = Label("answered")
    MOV(ecx, MASK_STANDARD)
    XOR(r10d, r10d)
    leaf(Leaf.VP_VMCALL, reads=(rcx, *SHOWN), writes=(rcx, *SHOWN))
    TEST(rax, rax)
    JNZ(done)
    MOV(rax, r10)
    LABEL(done)


def _vmcall() -> None:
    """`uint64_t tdvmcall(uint64_t fn, const uint64_t in[4], uint64_t out[5])`: R12..R15 in, R11..R15 out.

    All outputs are the VMM's, hence untrusted; some statuses that are not 0 come with one (MapGPA: retry).
    """
    enter()
    MOV(r11, rdi)
    for index, register in enumerate(_SAVED):
        MOV(register, [rsi + 8 * index])
    _call_vmm()
    for index, register in enumerate((r11, *_SAVED)):
        MOV([rdx + 8 * index], register)
    leave()


def _io_write() -> None:
    """`uint64_t tdvmcall_io_write(uint64_t port, uint64_t size, uint64_t value)`."""
    enter()
    MOV(r11d, int(Function.IO))
    MOV(r12, rsi)
    MOV(r13d, IO_WRITE)
    MOV(r14, rdi)
    MOV(r15, rdx)
    _call_vmm()
    leave()


def _io_read() -> None:
    """`uint64_t tdvmcall_io_read(uint64_t port, uint64_t size, uint64_t *out)`: out is untrusted."""
    enter()
    MOV(r11d, int(Function.IO))
    MOV(r12, rsi)
    MOV(r13d, IO_READ)
    MOV(r14, rdi)
    XOR(r15d, r15d)
    _call_vmm()
    MOV([rdx], r11)
    leave()


def _map_gpa() -> None:
    """`uint64_t tdvmcall_map_gpa(uint64_t start, uint64_t size, uint64_t *next)`: 1 = call again from *next.

    The caller bounds *next: it is untrusted.
    """
    enter()
    MOV(r11d, int(Function.MAP_GPA))
    MOV(r12, rdi)
    MOV(r13, rsi)
    XOR(r14d, r14d)
    XOR(r15d, r15d)
    _call_vmm()
    MOV([rdx], r11)
    leave()


def _halt() -> None:
    """`uint64_t tdvmcall_hlt(void)`: interrupts are always off here, which R12 says."""
    enter()
    MOV(r11d, int(Function.HLT))
    MOV(r12d, 1)
    for register in (r13d, r14d, r15d):
        XOR(register, register)
    _call_vmm()
    leave()


def _fatal() -> None:
    """`_Noreturn void tdvmcall_fatal(uint64_t code, const char text[64])`: report, then halt forever."""
    halt = Label("halt")
    MOV(rax, rsi)
    XOR(r10d, r10d)
    MOV(r11d, int(Function.REPORT_FATAL_ERROR))
    MOV(r12, rdi)
    XOR(r13d, r13d)
    carriers = [_REGISTERS[number] for number in FATAL_TEXT]
    for index, register in enumerate(carriers):
        MOV(register, [rax + 8 * index])
    MOV(ecx, MASK_FATAL)
    leaf(Leaf.VP_VMCALL, reads=(rcx, *SHOWN, *carriers), writes=(rcx, *SHOWN, *carriers))
    LABEL(halt)
    CALL(Symbol("tdvmcall_hlt"))
    JMP(halt)


_FUNCTIONS = {
    "tdcall_vp_info": _vp_info,
    "tdcall_rtmr_extend": _rtmr_extend,
    "tdcall_ve_info": _ve_info,
    "tdcall_report": _report,
    "tdcall_vm_rd": _vm_read,
    "tdcall_vm_wr": _vm_write,
    "tdvmcall": _vmcall,
    "tdvmcall_io_write": _io_write,
    "tdvmcall_io_read": _io_read,
    "tdvmcall_map_gpa": _map_gpa,
    "tdvmcall_hlt": _halt,
    "tdvmcall_fatal": _fatal,
}
