"""How does Linux get the machine? The copies of a placement, windows opened, and the entry."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    JMP,
    JZ,
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

from dsl.layout import is_cleared
from dsl.sizes import SPAN_DATA, SPAN_SIZE
from formats.units import LARGE_PAGE
from gen.primitives.builder import ALL, READ_WRITE, Body, Builder, map_arguments, pages_arguments, reload_cr3
from gen.primitives.handover import open_park_tables, quiet
from gen.x86 import REP_MOVSB, REP_STOSB, Symbol, rsp

# Linux's LA57 and AP trampolines lie in the first MiB (arch/x86/realmode); this is one large page.
LOW_MEMORY = LARGE_PAGE


def load_linux(b: Builder) -> None:  # (placement, paging)
    """Makes the copies of a placement, whose parts do not overlap (runtime-c/src/place.c, elf.c)."""
    placement, paging = b.save(rdi, rsi)
    to, from_, size, zeros = (b.offset("Copy", name) for name in ("to", "from", "size", "zeros"))

    def copy(item: int, following: Label) -> None:
        MOV(rax, [rsp + item])
        MOV(rsi, [rax + to])
        MOV(rcx, [rax + size])
        ADD(rcx, [rax + zeros])
        JZ(following)
        MOV(rdi, [rsp + paging])
        pages_arguments(READ_WRITE)
        b.checked("page_map")
        reload_cr3()
        MOV(rax, [rsp + item])
        MOV(rdi, [rax + to])
        MOV(rsi, [rax + from_])
        MOV(rcx, [rax + size])
        REP_MOVSB()
        MOV(rcx, [rax + zeros])
        XOR(eax, eax)
        REP_STOSB()

    b.each("copy", placement, "Placement", "copies", copy)


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

    open_park_tables(b)
    if "clear_rest" in b.firmware.primitives:
        _clear_sections(b, placement, page, paging)
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
    _enter()


def _clear_sections(b: Builder, placement: int, page: int, paging: int) -> None:
    """Of the sections that are RAM to the OS, what is not handed over; but for the stack and the page tables,
    which are in use and hold what the firmware put there.

    A vmlinux may be entered by way of code of its host's, which gives the kernel addresses of its own.
    """
    span = b.frame.slot(16)
    for section in b.firmware.image:
        if not is_cleared(section):
            continue
        assert section.address is not None
        assert section.size is not None
        MOV(eax, section.address)
        MOV([rsp + span + SPAN_DATA], rax)
        MOV(eax, section.size)
        MOV([rsp + span + SPAN_SIZE], rax)
        LEA(rsi, [rsp + span])
        MOV(rdi, [rsp + paging])
        map_arguments(rsi, READ_WRITE)
        b.checked("page_map")
        reload_cr3()
        LEA(rdi, [rsp + span])
        MOV(rsi, [rsp + placement])
        MOV(rdx, [rsp + page])
        CALL(Symbol("clear_rest"))


def _enter() -> None:
    """To RCX with RSI kept, other general registers but RSP zero."""
    quiet()
    for register in (eax, ebx, edx, edi, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d):
        XOR(register, register)
    JMP(rcx)


BODIES: dict[str, Body] = {"load_linux": load_linux, "handoff_linux": handoff_linux}
