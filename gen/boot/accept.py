"""How does a run of pages become usable? A tight loop over TDG.MEM.PAGE.ACCEPT.

What to accept and what a status means is decided in C (accept_next); here is only the part that repeats for
each page.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    RET,
    SHL,
    SUB,
    TEST,
    XOR,
    Label,
    cl,
    eax,
    ecx,
    r8,
    r8d,
    r9,
    r10,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from formats.tdx.leaves import Leaf
from formats.units import PAGE
from gen.boot.standins import branch
from gen.x86 import TDCALL, Unit

LOOP_BUDGET = 9
"""Instructions for each page; the boot has a budget of 40,000 outside of hashing."""


def emit_accept(unit: Unit, without_tdx: bool = False) -> None:
    """`uint64_t tdcall_accept_run(uint64_t gpa, uint64_t count, uint64_t level, uint64_t *done)`.

    Accepts `count` consecutive pages of `level` (0 = 4 KiB, 1 = 2 MiB) until one gives a status that is not
    0, and returns that status; *done = pages accepted before it.
    """
    with unit.code("tdcall_accept_run", section=".text.tdcall_accept_run"):
        if without_tdx:
            branch("tdcall_accept_run")
        page, stop = Label("page"), Label("stop")
        MOV(r9, rcx)
        MOV(r10, rsi)
        LEA(ecx, [rdx + rdx * 8])  # 9 address bits for each level
        MOV(r8d, PAGE)
        SHL(r8, cl)
        ADD(rdi, rdx)  # operand: GPA | level
        XOR(eax, eax)
        TEST(rsi, rsi)
        JZ(stop)
        LABEL(page)
        MOV(eax, int(Leaf.MEM_PAGE_ACCEPT))
        MOV(rcx, rdi)
        TDCALL(reads=(rax, rcx), writes=(rax,))
        TEST(rax, rax)
        JNZ(stop)
        ADD(rdi, r8)
        SUB(rsi, 1)
        JNZ(page)
        LABEL(stop)
        SUB(r10, rsi)
        MOV([r9], r10)
        RET()
