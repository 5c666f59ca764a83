"""How do the APs wait? In the park loop, with page tables of their own."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    LEA,
    MOV,
    SUB,
    XOR,
    eax,
    ecx,
    rax,
    rcx,
    rdi,
    rsi,
)

from dsl.sizes import SPAN_SIZE
from formats.units import PAGE
from gen.flow.names import CONTEXT
from gen.primitives.builder import READ, READ_EXECUTE, READ_WRITE, Body, Builder, pages_arguments
from gen.x86 import REP_STOSB, Symbol, rsp


def park_aps(b: Builder) -> None:  # (mailbox, paging)
    """Page 0 of the region is the mailbox; the APs' own page tables follow and outlive the shim's.

    They map the park loop and what it reads; the OS's wakeup code, wherever it lies, is added in the handoff.
    """
    (mailbox,) = b.save(rdi)
    pool = b.context.ap_paging
    tables = pool + b.offset("Paging", "tables")
    MOV(rax, [rdi])
    ADD(rax, PAGE)
    MOV([Symbol(CONTEXT, tables)], rax)
    MOV(rcx, [rdi + SPAN_SIZE])
    SUB(rcx, PAGE)
    MOV([Symbol(CONTEXT, tables + SPAN_SIZE)], rcx)
    MOV(eax, 1)  # the PML4
    MOV([Symbol(CONTEXT, pool + b.offset("Paging", "used"))], rax)
    MOV(rcx, [rdi + SPAN_SIZE])
    MOV(rdi, [rdi])
    XOR(eax, eax)
    REP_STOSB()
    for part, access in (("text", READ_EXECUTE), ("rodata", READ), ("data", READ)):
        LEA(rdi, [Symbol(CONTEXT, pool)])
        LEA(rsi, [Symbol(f"__{part}_start")])
        LEA(rcx, [Symbol(f"__{part}_end")])
        SUB(rcx, rsi)
        pages_arguments(access)
        b.checked("page_map")
    LEA(rdi, [Symbol(CONTEXT, pool)])
    MOV(rax, [rsp + mailbox])
    MOV(rsi, [rax])
    MOV(ecx, PAGE)
    pages_arguments(READ_WRITE)
    b.checked("page_map")
    # The gate opens last: an AP that sees it finds everything else in place (stores stay in order on x86).
    MOV(rax, [rsp + mailbox])
    MOV(rax, [rax])
    MOV([Symbol("ap_mailbox")], rax)
    ADD(rax, PAGE)
    MOV([Symbol("ap_gate")], eax)


BODIES: dict[str, Body] = {"park_aps": park_aps}
