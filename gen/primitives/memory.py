"""How does RAM become usable? Acceptance, what the VMM had added there, and the carved regions."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    JMP,
    JZ,
    LABEL,
    LEA,
    MOV,
    SHR,
    TEST,
    XOR,
    Label,
    eax,
    edx,
    r8,
    r8d,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import SPAN_DATA, SPAN_LENGTH, SPAN_SIZE
from formats.paging import CLEARING_WINDOW
from formats.units import LARGE_PAGE
from gen.flow.names import CONTEXT
from gen.primitives.builder import NONE, READ_WRITE, Body, Builder, map_arguments, reload_cr3
from gen.x86 import REP_STOSB, REP_STOSQ, Symbol, rsp


def clear_added(b: Builder, run: int, paging: int) -> None:
    """Clears what the run says, if anything: at most 2 MiB, which need not be mapped."""
    clear, size = (b.offset("AcceptRun", name) for name in ("clear", "clear_size"))
    window, nothing = b.frame.slot(8), Label("nothing_to_clear")
    MOV(rcx, [rsp + run + size])
    TEST(rcx, rcx)
    JZ(nothing)
    MOV(rdx, [rsp + run + clear])
    MOV(rsi, rdx)
    AND(rsi, LARGE_PAGE - 1)
    MOV(rax, CLEARING_WINDOW)
    ADD(rsi, rax)
    MOV([rsp + window], rsi)
    MOV(rdi, [rsp + paging])
    MOV(r8d, READ_WRITE)
    b.checked("page_map")
    reload_cr3()
    MOV(rdi, [rsp + window])
    MOV(rcx, [rsp + run + size])
    SHR(rcx, 3)
    XOR(eax, eax)
    REP_STOSQ()
    MOV(rdi, [rsp + paging])
    MOV(rsi, [rsp + window])
    MOV(rdx, [rsp + run + clear])
    MOV(rcx, [rsp + run + size])
    MOV(r8d, NONE)
    b.checked("page_map")
    LABEL(nothing)


def accept(b: Builder) -> None:  # (ram, limit, level, paging)
    """Accepts and clears run by run as C plans it, then maps, publishes and clears the carved regions."""
    ram, limit, level, paging = b.save(rdi, rsi, rdx, rcx)
    at, run = b.record_slot("Acceptance"), b.record_slot("AcceptRun")
    done, status, index = (b.frame.slot(8) for _ in range(3))
    start, count, run_level = (b.offset("AcceptRun", name) for name in ("start", "count", "level"))
    more, accepted = Label("more"), Label("accepted")
    MOV(rdi, [rsp + ram])
    MOV(rsi, [rsp + limit])
    MOV(edx, [rsp + level])
    LEA(rcx, [rsp + at])
    CALL(Symbol("accept_begin"))
    XOR(eax, eax)
    MOV([rsp + done], rax)
    MOV([rsp + status], rax)
    LABEL(more)
    MOV(rdi, [rsp + ram])
    LEA(rsi, [rsp + at])
    MOV(rdx, [rsp + done])
    MOV(rcx, [rsp + status])
    LEA(r8, [rsp + run])
    b.checked("accept_next")
    clear_added(b, run, paging)
    MOV(rsi, [rsp + run + count])
    TEST(rsi, rsi)
    JZ(accepted)
    MOV(rdi, [rsp + run + start])
    MOV(rdx, [rsp + run + run_level])
    LEA(rcx, [rsp + done])
    CALL(Symbol("tdcall_accept_run"))
    MOV([rsp + status], rax)
    JMP(more)
    LABEL(accepted)

    for name, place in b.context.carved.items():
        span = b.items("Ram", "carved") + SPAN_LENGTH * list(b.context.carved).index(name)
        MOV(rax, [rsp + ram])
        LEA(rax, [rax + span])
        MOV([rsp + index], rax)
        MOV(rdi, [rsp + paging])
        map_arguments(rax, READ_WRITE)
        b.checked("page_map")
        MOV(rdx, [rsp + index])
        for part in (SPAN_DATA, SPAN_SIZE):
            MOV(rax, [rdx + part])
            MOV([Symbol(CONTEXT, place + part)], rax)
    reload_cr3()
    for place in b.context.carved.values():
        # What was added at launch holds what the VMM put there.
        MOV(rdi, [Symbol(CONTEXT, place)])
        MOV(rcx, [Symbol(CONTEXT, place + SPAN_SIZE)])
        XOR(eax, eax)
        REP_STOSB()


BODIES: dict[str, Body] = {"accept": accept}
