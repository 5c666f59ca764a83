"""How does the payload get the machine? Parked APs, windows opened, and the entry."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CLD,
    JMP,
    JNZ,
    LABEL,
    LEA,
    MOV,
    SUB,
    XOR,
    Label,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    r8d,
    r9d,
    r10d,
    r11d,
    r12d,
    r13d,
    r14d,
    r15d,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import SPAN_SIZE
from formats.paging import ENTRIES, PageBit
from formats.units import GIB, LARGE_PAGE, PAGE
from gen.flow.names import CONTEXT
from gen.primitives.builder import ALL, READ, READ_EXECUTE, READ_WRITE, Builder, pages_arguments, reload_cr3
from gen.x86 import CLI, MOVSEG, REP_STOSB, Symbol, Unit, ds, es, rsp, ss

# Linux's LA57 and AP trampolines lie in the first MiB (arch/x86/realmode); this is one large page.
LOW_MEMORY = LARGE_PAGE
# A page of a PDPT is 1 GiB: SDM volume 3A, 4.5.4.
GIB_LEAF = int(PageBit.PRESENT | PageBit.WRITABLE | PageBit.LARGE)


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


def handoff_linux(b: Builder) -> None:  # (placement, page, paging)
    """Opens what the boot protocol wants writable and executable, then enters at the 64-bit entry point."""
    placement, page, paging = b.save(rdi, rsi, rdx)

    def low_memory() -> None:  # paging trampoline of the kernel, wakeup code of its APs
        XOR(esi, esi)
        MOV(ecx, LOW_MEMORY)

    def window() -> None:
        MOV(rax, [rsp + placement])
        MOV(rsi, [rax + b.offset("Placement", "window_start")])
        MOV(rcx, [rax + b.offset("Placement", "window_end")])
        SUB(rcx, rsi)

    def protected_part() -> None:
        MOV(rax, [rsp + placement])
        MOV(rsi, [rax + b.offset("Placement", "load")])
        MOV(rcx, [rax + b.offset("Placement", "kernel") + b.offset("Linux", "protected_size")])

    _open_park_tables(b)
    for part in (low_memory, window, protected_part):
        MOV(rdi, [rsp + paging])
        part()
        pages_arguments(ALL)
        b.checked("page_map")
    reload_cr3()
    MOV(rax, [rsp + placement])
    MOV(rcx, [rax + b.offset("Placement", "entry")])
    MOV(rsi, [rsp + page])
    MOV(rsi, [rsi])
    JMP(Symbol("enter_payload"))


def _open_park_tables(b: Builder) -> None:
    """The parked APs' tables become the OS's: 512 GiB in 1 GiB pages, for a wakeup vector anywhere."""
    more = Label("more")
    MOV(rax, [Symbol(CONTEXT, b.context.ap_paging + b.offset("Paging", "tables"))])
    MOV(rdi, [rax])  # PML4 entry 0: the PDPT, made by park_aps
    AND(rdi, -PAGE)
    MOV(eax, GIB_LEAF)
    MOV(edx, GIB)
    MOV(ecx, ENTRIES)
    LABEL(more)
    MOV([rdi], rax)
    ADD(rdi, 8)
    ADD(rax, rdx)
    SUB(ecx, 1)
    JNZ(more)


def emit_enter_payload(unit: Unit) -> None:
    """`enter_payload`: jumps to RCX with RSI kept, other general registers but RSP zero, IF = DF = 0.

    The data segments get the boot protocol's selector; CS has been 0x10 since reset.
    """

    with unit.code("enter_payload", section=".text.enter_payload"):
        CLI()
        CLD()
        MOV(eax, 0x18)
        for segment in (ds, es, ss):
            MOVSEG(segment, eax)
        for register in (eax, ebx, edx, edi, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d):
            XOR(register, register)
        JMP(rcx)
