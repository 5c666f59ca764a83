"""How does a TD get a quote? The module's report, the VMM's quoting service, and a bounded wait for it."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    CMP,
    JNE,
    JNZ,
    LABEL,
    LEA,
    MOV,
    SHL,
    SUB,
    TEST,
    XOR,
    Label,
    cl,
    dword,
    eax,
    edi,
    qword,
    r8,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import DIGEST_SIZE, SPAN_DATA, SPAN_SIZE
from formats.ghci import Function
from formats.tdx.leaves import REPORT_DATA_SIZE, REPORT_SIZE  # each is aligned to its size
from gen.primitives.builder import Body, Builder
from gen.x86 import Symbol, rsp

POLLS = 1_000_000  # each is an exit to the VMM, some microseconds


def get_quote(b: Builder) -> None:  # (to, window, report_data, td, out)
    """The first page of `to` holds the report and its data until the quote comes."""
    to, window, data, td, out = b.save(rdi, rsi, rdx, rcx, r8)
    inputs, outputs, left = b.frame.slot(32), b.frame.slot(40), b.frame.slot(8)
    poll, answered = Label("poll"), Label("answered")
    MOV(rax, [rsp + to])
    MOV(rdi, [rax + SPAN_DATA])
    MOV(rsi, [rsp + data])
    for part in range(0, REPORT_DATA_SIZE, 8):
        if part < DIGEST_SIZE:
            MOV(rax, [rsi + part])
        else:
            XOR(eax, eax)
        MOV([rdi + REPORT_SIZE + part], rax)
    LEA(rsi, [rdi + REPORT_SIZE])
    CALL(Symbol("tdcall_report"))
    b.require_success(rax, "quote_failed")
    MOV(rdi, [rsp + window])
    MOV(rsi, [rsp + to])
    CALL(Symbol("quote_request"))
    # The GPA has the shared bit, the topmost one: GPAW - 1.
    MOV(rcx, [rsp + td])
    MOV(rcx, [rcx + b.offset("VpInfo", "gpaw")])
    SUB(rcx, 1)
    MOV(eax, 1)
    SHL(rax, cl)
    MOV(rcx, [rsp + window])
    ADD(rax, [rcx + SPAN_DATA])
    MOV([rsp + inputs], rax)
    MOV(rax, [rcx + SPAN_SIZE])
    MOV([rsp + inputs + 8], rax)
    for part in (16, 24):
        MOV(qword[rsp + inputs + part], 0)
    _call_vmm(Function.GET_QUOTE, inputs, outputs)
    b.require_success(rax, "tdvmcall_failed")
    for part in (0, 8):
        MOV(qword[rsp + inputs + part], 0)
    MOV(dword[rsp + left], POLLS)
    LABEL(poll)
    MOV(rdi, [rsp + to])
    MOV(rsi, [rsp + window])
    MOV(rdx, [rsp + out])
    CALL(Symbol("quote_answer"))
    CMP(eax, b.error("quote_pending"))
    JNE(answered)
    _call_vmm(Function.GET_TD_VM_CALL_INFO, inputs, outputs)  # gives the VMM the CPU
    SUB(dword[rsp + left], 1)
    JNZ(poll)
    MOV(eax, b.error("quote_pending"))
    LABEL(answered)
    TEST(eax, eax)
    JNZ(b.fail)


def _call_vmm(function: Function, inputs: int, outputs: int) -> None:
    MOV(edi, int(function))
    LEA(rsi, [rsp + inputs])
    LEA(rdx, [rsp + outputs])
    CALL(Symbol("tdvmcall"))


BODIES: dict[str, Body] = {"get_quote": get_quote}
