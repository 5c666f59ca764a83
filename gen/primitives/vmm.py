"""How does a flow talk to the VMM? Each answer is taken only as far as it can do no harm."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    CMP,
    JAE,
    JBE,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    SHL,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    cl,
    dword,
    eax,
    ecx,
    edi,
    edx,
    r8,
    r9,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import SPAN_DATA, SPAN_SIZE
from formats.ghci import RETRY
from formats.units import PAGE
from gen.flow.names import FATAL_STATUS
from gen.primitives.builder import READ_WRITE, Body, Builder, map_arguments, reload_cr3
from gen.x86 import Symbol, rsp


def tdvmcall(b: Builder) -> None:  # (function, r12, r13, r14, r15, out)
    """Any standard sub-function; the result is R11."""
    inputs, outputs = b.frame.slot(32), b.frame.slot(40)
    (out,) = b.save(r9)
    for part, register in enumerate((rsi, rdx, rcx, r8)):
        MOV([rsp + inputs + 8 * part], register)
    LEA(rsi, [rsp + inputs])
    LEA(rdx, [rsp + outputs])
    CALL(Symbol("tdvmcall"))
    b.require_success(rax, "tdvmcall_failed")
    MOV(rax, [rsp + outputs])
    MOV(rcx, [rsp + out])
    MOV([rcx], rax)


def io_write(b: Builder) -> None:  # (port, size, value)
    """OUT by TDVMCALL."""
    CALL(Symbol("tdvmcall_io_write"))
    b.require_success(rax, "tdvmcall_failed")


def io_read(b: Builder) -> None:  # (port, size, out)
    """IN by TDVMCALL."""
    CALL(Symbol("tdvmcall_io_read"))
    b.require_success(rax, "tdvmcall_failed")


def share(b: Builder) -> None:  # (region, td, paging, out)
    """MapGPA to shared, then the mapping with the shared bit. The VMM may do it in parts."""
    region, _, paging, out = b.save(rdi, rsi, rdx, rcx)
    bit = b.frame.slot(8)
    _shared_bit(b, bit)
    _map_gpa(b, region, bit)
    MOV(rax, [rsp + region])
    MOV(rdi, [rsp + paging])
    map_arguments(rax, READ_WRITE)
    ADD(rdx, [rsp + bit])
    b.checked("page_map")
    reload_cr3()
    MOV(rax, [rsp + region])
    MOV(rdx, [rsp + out])
    for part in (SPAN_DATA, SPAN_SIZE):
        MOV(rcx, [rax + part])
        MOV([rdx + part], rcx)


def unshare(b: Builder) -> None:  # (region, td, paging)
    """The way back: MapGPA to private, the mapping without the shared bit, and acceptance, which clears."""
    region, _, paging = b.save(rdi, rsi, rdx)
    zero, done = b.frame.slot(8), b.frame.slot(8)
    XOR(eax, eax)
    MOV([rsp + zero], rax)
    _map_gpa(b, region, zero)
    MOV(rax, [rsp + region])
    MOV(rdi, [rsp + paging])
    map_arguments(rax, READ_WRITE)
    b.checked("page_map")
    reload_cr3()
    MOV(rax, [rsp + region])
    MOV(rdi, [rax + SPAN_DATA])
    MOV(rsi, [rax + SPAN_SIZE])
    SHR(rsi, PAGE.bit_length() - 1)
    XOR(edx, edx)  # 4 KiB
    LEA(rcx, [rsp + done])
    CALL(Symbol("tdcall_accept_run"))
    b.require_success(rax, "accept_failed")


def _shared_bit(b: Builder, bit: int) -> None:
    """The topmost bit of a guest physical address, GPAW - 1, of the VpInfo at RSI; none without TDX."""
    none = Label("no_shared_bit")
    XOR(eax, eax)
    if b.firmware.without_tdx:
        CMP(dword[rsi + b.offset("VpInfo", "tdx")], 0)
        JE(none)
    MOV(rcx, [rsi + b.offset("VpInfo", "gpaw")])
    SUB(rcx, 1)
    MOV(eax, 1)
    SHL(rax, cl)
    LABEL(none)
    MOV([rsp + bit], rax)


def _map_gpa(b: Builder, region: int, bit: int) -> None:
    """MapGPA of the span whose address is in slot `region`, shared if slot `bit` holds the shared bit.

    If the VMM did a part and refuses the rest, no flow goes on: the part is no RAM any more.
    """
    at, end, following = (b.frame.slot(8) for _ in range(3))
    again, done, refused = Label("again"), Label("done"), Label("refused")
    MOV(rdi, [rsp + region])
    MOV(rax, [rsp + bit])
    ADD(rax, [rdi])
    MOV([rsp + at], rax)
    ADD(rax, [rdi + SPAN_SIZE])
    MOV([rsp + end], rax)
    LABEL(again)
    MOV(rdi, [rsp + at])
    MOV(rsi, [rsp + end])
    SUB(rsi, rdi)
    LEA(rdx, [rsp + following])
    CALL(Symbol("tdvmcall_map_gpa"))
    TEST(rax, rax)
    JZ(done)
    CMP(rax, RETRY)
    JNE(refused)
    # Only an answer that makes progress inside the range is taken.
    MOV(rcx, [rsp + following])
    CMP(rcx, [rsp + at])
    JBE(refused)
    CMP(rcx, [rsp + end])
    JAE(refused)
    TEST(ecx, PAGE - 1)
    JNZ(refused)
    MOV([rsp + at], rcx)
    JMP(again)
    LABEL(refused)
    MOV(eax, b.error("tdvmcall_failed"))
    MOV(rdi, [rsp + region])
    MOV(rcx, [rsp + bit])
    ADD(rcx, [rdi])
    CMP(rcx, [rsp + at])
    JE(b.fail)  # of nothing
    MOV(edi, eax)
    CALL(Symbol(FATAL_STATUS))  # does not return
    LABEL(done)


BODIES: dict[str, Body] = {
    "tdvmcall": tdvmcall,
    "io_write": io_write,
    "io_read": io_read,
    "share": share,
    "unshare": unshare,
}
