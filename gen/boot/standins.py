"""What stands in for the TDX module where there is none? One function for each that executes a TDCALL.

Nothing is protected: registers of measurement are memory, accepting and sharing are nothing, ports are ports.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    IMUL,
    JB,
    JE,
    JMP,
    JNE,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    OR,
    POP,
    PUSH,
    RET,
    SHL,
    SHR,
    SUB,
    XOR,
    Label,
    al,
    ax,
    bx,
    dword,
    dx,
    eax,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    rax,
    rbx,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.capabilities import prelude
from formats.fw_cfg import DATA, SELECTOR, Key
from formats.ghci import FATAL_TEXT_SIZE
from formats.tdx.leaves import RTMR_DATA_SIZE
from gen.x86 import (
    CLI,
    CPUID,
    DB,
    HLT,
    IN,
    OUT,
    Symbol,
    Unit,
    rsp,
)

ORDINARY = "tdf_ordinary"
"""A word: 0 in the measured image, 1 where the machine started in 16-bit mode (gen/boot/ordinary.py)."""

# Intel SDM volume 2A, CPUID: leaf 80000008H, EAX bits 7:0 are the width of physical addresses.
CPUID_ADDRESS_WIDTH = 0x8000_0008
CPUID_TOPOLOGY = 0xB
UNAVAILABLE = 1 << 63  # a status with the error bit, for what only the TDX module can do


def branch(name: str) -> None:
    """At the start of a TDCALL function: on an ordinary machine, its stand-in runs instead."""
    CMP(dword[Symbol(ORDINARY)], 0)
    JNE(Symbol(stand_in(name)))


def stand_in(name: str) -> str:
    """The symbol of what a TDCALL function does on an ordinary machine."""
    return f"ordinary_{name}"


def emit_stand_ins(unit: Unit) -> None:
    """One for each TDCALL function that `branch` names, and the machine's own numbering of CPUs."""
    _vp_info(unit)
    _rtmr_extend(unit)
    for name in ("tdcall_ve_info", "tdcall_report", "tdcall_vm_rd", "tdcall_vm_wr", "tdvmcall"):
        _unavailable(unit, name)
    _apic_id(unit)
    _topology(unit)
    _io_write(unit)
    _io_read(unit)
    _map_gpa(unit)
    _halt(unit)
    _fatal(unit)
    _accept_run(unit)
    _accept_shared(unit)


def _vp_info(unit: Unit) -> None:
    """As `tdcall_vp_info`, from CPUID and fw_cfg. No access raises #VE, as if SEPT_VE_DISABLE were set."""
    record = prelude().records["VpInfo"]
    at = {field.name: field.offset for field in record.fields}
    with unit.code(stand_in("tdcall_vp_info"), section=".text.ordinary"):
        PUSH(rbx)
        MOV(eax, CPUID_ADDRESS_WIDTH)
        CPUID()
        MOVZX(eax, al)
        ADD(eax, 1)  # the bit above them would be the shared bit
        MOV([rdi + at["gpaw"]], rax)
        MOV(eax, prelude().constants["SEPT_VE_DISABLE"].value)
        MOV([rdi + at["attributes"]], rax)
        MOV(dword[rdi + at["vcpu_index"]], 0)
        MOV(dword[rdi + at["tdx"]], 0)
        MOV(edx, SELECTOR)
        MOV(eax, int(Key.NB_CPUS))
        OUT(dx, ax)
        MOV(edx, DATA)
        XOR(eax, eax)
        IN(al, dx)
        MOV(ecx, eax)
        IN(al, dx)
        SHL(eax, 8)
        OR(ecx, eax)
        MOV([rdi + at["num_vcpus"]], ecx)
        MOV([rdi + at["max_vcpus"]], ecx)
        POP(rbx)
        RET()


def _rtmr_extend(unit: Unit) -> None:
    """`(digest, index)`: SHA-384 of register and digest into the register."""
    with unit.code(stand_in("tdcall_rtmr_extend"), section=".text.ordinary"):
        size = 2 * RTMR_DATA_SIZE + 16
        PUSH(rbx)
        SUB(rsp, size)
        IMUL(rbx, rsi, RTMR_DATA_SIZE)
        LEA(rax, [Symbol("ordinary_rtmrs")])
        ADD(rbx, rax)
        MOV(rdx, rdi)
        for part in range(0, RTMR_DATA_SIZE, 8):
            MOV(rax, [rbx + part])
            MOV([rsp + 16 + part], rax)
            MOV(rax, [rdx + part])
            MOV([rsp + 16 + RTMR_DATA_SIZE + part], rax)
        LEA(rax, [rsp + 16])
        MOV([rsp], rax)
        MOV(eax, 2 * RTMR_DATA_SIZE)
        MOV([rsp + 8], rax)
        MOV(rdi, rsp)
        MOV(rsi, rbx)
        CALL(Symbol("sha384"))
        XOR(eax, eax)
        ADD(rsp, size)
        POP(rbx)
        RET()


def _apic_id(unit: Unit) -> None:
    """As `tdcall_apic_id`: what CPUID says, leaf 0xB or, on older processors, leaf 1."""
    with unit.code(stand_in("tdcall_apic_id"), section=".text.ordinary"):
        old = Label("old")
        PUSH(rbx)
        XOR(eax, eax)
        CPUID()
        CMP(eax, CPUID_TOPOLOGY)
        JB(old)
        MOV(eax, CPUID_TOPOLOGY)
        XOR(ecx, ecx)
        CPUID()
        MOV(eax, edx)
        POP(rbx)
        RET()
        LABEL(old)
        MOV(eax, 1)
        CPUID()
        MOV(eax, ebx)
        SHR(eax, 24)
        POP(rbx)
        RET()


def _topology(unit: Unit) -> None:
    """`(struct span *slots)`: the ids that the OS will find, from how CPUID leaf 0xB splits an id."""
    with unit.code("ordinary_topology", section=".text.ordinary"):
        none = Label("none")
        PUSH(rbx)
        PUSH(rdi)
        SUB(rsp, 24)
        XOR(eax, eax)
        MOV([rsp], rax)
        MOV([rsp + 8], rax)
        CPUID()
        CMP(eax, CPUID_TOPOLOGY)
        JB(none)
        for level in (0, 1):  # threads of a core, then CPUs of a package
            MOV(eax, CPUID_TOPOLOGY)
            MOV(ecx, level)
            CPUID()
            MOVZX(ebx, bx)
            AND(eax, 31)
            MOV([rsp + 8 * level], ebx)
            MOV([rsp + 8 * level + 4], eax)
        LABEL(none)
        MOV(rdi, rsp)
        MOV(rsi, [rsp + 24])
        CALL(Symbol("ordinary_cpus"))
        ADD(rsp, 24)
        POP(rdi)
        POP(rbx)
        RET()


def _unavailable(unit: Unit, name: str) -> None:
    with unit.code(stand_in(name), section=".text.ordinary"):
        MOV(rax, UNAVAILABLE - (1 << 64))
        RET()


def _io_write(unit: Unit) -> None:
    """`(port, size, value)`: 1, 2 or 4 bytes."""
    with unit.code(stand_in("tdvmcall_io_write"), section=".text.ordinary"):
        short, byte, done = Label("short"), Label("byte"), Label("done")
        MOV(rax, rdx)
        MOV(edx, edi)
        CMP(esi, 2)
        JE(short)
        CMP(esi, 1)
        JE(byte)
        OUT(dx, eax)
        JMP(done)
        LABEL(short)
        OUT(dx, ax)
        JMP(done)
        LABEL(byte)
        OUT(dx, al)
        LABEL(done)
        XOR(eax, eax)
        RET()


def _io_read(unit: Unit) -> None:
    """`(port, size, out)`: 1, 2 or 4 bytes."""
    with unit.code(stand_in("tdvmcall_io_read"), section=".text.ordinary"):
        short, byte, done = Label("short"), Label("byte"), Label("done")
        MOV(rcx, rdx)
        MOV(edx, edi)
        XOR(eax, eax)
        CMP(esi, 2)
        JE(short)
        CMP(esi, 1)
        JE(byte)
        IN(eax, dx)
        JMP(done)
        LABEL(short)
        IN(ax, dx)
        JMP(done)
        LABEL(byte)
        IN(al, dx)
        LABEL(done)
        MOV([rcx], rax)
        XOR(eax, eax)
        RET()


def _map_gpa(unit: Unit) -> None:
    with unit.code(stand_in("tdvmcall_map_gpa"), section=".text.ordinary"):
        XOR(eax, eax)
        RET()


def _halt(unit: Unit) -> None:
    with unit.code(stand_in("tdvmcall_hlt"), section=".text.ordinary"):
        CLI()
        HLT()
        XOR(eax, eax)
        RET()


def _fatal(unit: Unit) -> None:
    """`(code, text)`: the text to COM1, then halt forever."""
    with unit.code(stand_in("tdvmcall_fatal"), section=".text.ordinary"):
        halt = Label("halt")
        MOV(rdi, rsi)
        MOV(esi, FATAL_TEXT_SIZE)
        CALL(Symbol("ordinary_put"))
        LEA(rdi, [Symbol("ordinary_line_end")])
        MOV(esi, 2)
        CALL(Symbol("ordinary_put"))
        LABEL(halt)
        CLI()
        HLT()
        JMP(halt)
    with unit.data("ordinary_line_end", section=".rodata.ordinary", align=1, exported=False):
        DB(b"\r\n\0", "")


def _accept_run(unit: Unit) -> None:
    """`(gpa, count, level, done)`: all RAM is there already."""
    with unit.code(stand_in("tdcall_accept_run"), section=".text.ordinary"):
        MOV([rcx], rsi)
        XOR(eax, eax)
        RET()


def _accept_shared(unit: Unit) -> None:
    """`()`: nothing is left to do. In a section of its own, for few flows have it."""
    with unit.code(stand_in("tdcall_accept_shared"), section=".text.ordinary_accept_shared"):
        XOR(eax, eax)
        RET()
