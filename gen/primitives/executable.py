"""How does an executable get the machine? RAM mapped, its image made and given its rights, and the entry."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CMP,
    JA,
    JAE,
    JMP,
    JNE,
    LABEL,
    LEA,
    MOV,
    OR,
    SHL,
    SHR,
    SUB,
    XOR,
    Label,
    dword,
    eax,
    ebp,
    ebx,
    ecx,
    esi,
    qword,
    r8d,
    r9d,
    r10d,
    r11d,
    r12d,
    r13d,
    r14d,
    r15d,
    rax,
    rbx,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import SPAN_DATA, SPAN_SIZE
from formats.linux import E820Type
from formats.paging import ENTRIES, PageBit
from formats.units import FOUR_GIB, GIB, PAGE
from gen.primitives.builder import NONE, READ_WRITE, Body, Builder, pages_arguments, reload_cr3
from gen.primitives.handover import GIB_LEAF, open_park_tables, quiet
from gen.x86 import REP_MOVSB, REP_STOSB, rsp

# RAM that nothing runs in, in a page of 1 GiB; accessed and dirty, so that the CPU has nothing to write.
RAM_LEAF = GIB_LEAF | int(PageBit.NO_EXECUTE | PageBit.ACCESSED | PageBit.DIRTY)
GIB_SHIFT = GIB.bit_length() - 1
# Below the stack's top: the shadow space that a Microsoft x64 function has above its return address.
SHADOW_SPACE = 32


def load_executable(b: Builder) -> None:  # (executable, ram, paging)
    """The image is writable and not executable while it is made; then each part gets its access."""
    executable, ram, paging = b.save(rdi, rsi, rdx)
    image = b.frame.slot(16)
    unaccepted = dict(b.firmware.enumerations["RamState"].members)["unaccepted"]  # before `accept`; now it is

    def map_range(item: int, following: Label) -> None:
        high, low = Label("high"), Label("low")
        MOV(rdx, [rsp + item])
        CMP(dword[rdx + b.offset("RamRange", "state")], unaccepted)
        JNE(following)
        CMP(dword[rdx + b.offset("RamRange", "e820")], int(E820Type.RAM))
        JNE(following)
        MOV(rsi, [rdx + b.offset("RamRange", "start")])
        MOV(rcx, [rdx + b.offset("RamRange", "end")])
        MOV(rax, FOUR_GIB)
        CMP(rsi, rax)
        JAE(high)
        CMP(rsi, 0)
        JNE(low)
        MOV(esi, PAGE)  # page 0 stays absent
        LABEL(low)
        SUB(rcx, rsi)
        MOV(rdi, [rsp + paging])
        pages_arguments(READ_WRITE)
        b.checked("page_map")
        JMP(following)
        LABEL(high)
        _map_gibs(b, paging, following)

    def copy_part(item: int, _following: Label) -> None:
        MOV(rax, [rsp + item])
        MOV(rdi, [rax + b.offset("ImagePart", "to")])
        MOV(rsi, [rax + b.offset("ImagePart", "from")])
        MOV(rcx, [rax + b.offset("ImagePart", "size")])
        REP_MOVSB()

    def restrict_part(item: int, _following: Label) -> None:
        MOV(rax, [rsp + item])
        MOV(rdi, [rsp + paging])
        MOV(rsi, [rax + b.offset("ImagePart", "start")])
        MOV(rdx, rsi)
        MOV(rcx, [rax + b.offset("ImagePart", "length")])
        MOV(r8d, [rax + b.offset("ImagePart", "access")])
        b.checked("page_map")

    MOV(rdi, rsi)
    b.each("range", ram, "Ram", "ranges", map_range)
    MOV(rax, [rsp + executable])
    MOV(rsi, [rax + b.offset("Executable", "load")])
    MOV(rcx, [rax + b.offset("Executable", "size")])
    MOV([rsp + image + SPAN_DATA], rsi)
    MOV([rsp + image + SPAN_SIZE], rcx)
    MOV(rdi, [rsp + paging])
    pages_arguments(READ_WRITE)
    b.checked("page_map")
    reload_cr3()
    MOV(rdi, [rsp + image + SPAN_DATA])
    MOV(rcx, [rsp + image + SPAN_SIZE])
    XOR(eax, eax)
    REP_STOSB()
    MOV(rdi, [rsp + executable])
    b.each("copy", executable, "Executable", "parts", copy_part)
    LEA(rdi, [rsp + image])
    MOV(rsi, [rsp + executable])
    b.checked("relocate_executable")
    MOV(rdi, [rsp + executable])
    b.each("restrict", executable, "Executable", "parts", restrict_part)
    reload_cr3()


def _map_gibs(b: Builder, paging: int, following: Label) -> None:
    """RAM [RSI, RCX) above 4 GiB, of the first 512 GiB: the PDPT's entries that are not in use. A table for
    each GiB would take more pages than the pool has.
    """
    more, used = Label("gib"), Label("gib_used")
    MOV(rdi, [rsp + paging])
    MOV(rdi, [rdi + b.offset("Paging", "tables")])
    MOV(rdi, [rdi])  # PML4 entry 0, made at reset
    AND(rdi, -PAGE)
    MOV(rdx, RAM_LEAF - (1 << 64))
    SHR(rsi, GIB_SHIFT)
    SUB(rcx, 1)
    SHR(rcx, GIB_SHIFT)
    LABEL(more)
    CMP(rsi, ENTRIES - 1)
    JA(following)
    CMP(rsi, rcx)
    JA(following)
    CMP(qword[rdi + rsi * 8], 0)
    JNE(used)
    MOV(rax, rsi)
    SHL(rax, GIB_SHIFT)
    OR(rax, rdx)
    MOV([rdi + rsi * 8], rax)
    LABEL(used)
    ADD(rsi, 1)
    JMP(more)


def handoff_executable(b: Builder) -> None:  # (executable, list, stack, paging)
    """RSP is 8 above a multiple of 16, as after a call; the return address, 0, is in an absent page."""
    executable, hobs, stack, paging = b.save(rdi, rsi, rdx, rcx)
    open_park_tables(b)
    MOV(rdi, [rsp + paging])
    MOV(rax, [rsp + stack])
    MOV(rsi, [rax + SPAN_DATA])
    MOV(rdx, rsi)
    MOV(ecx, PAGE)
    MOV(r8d, NONE)
    b.checked("page_map")
    reload_cr3()
    MOV(rax, [rsp + stack])
    MOV(rbx, [rax + SPAN_DATA])
    ADD(rbx, [rax + SPAN_SIZE])
    MOV(rax, [rsp + hobs])
    MOV(rdi, [rax + SPAN_DATA])
    MOV(rax, [rsp + executable])
    MOV(rsi, [rax + b.offset("Executable", "load")])
    MOV(rax, [rax + b.offset("Executable", "entry")])
    LEA(rsp, [rbx - SHADOW_SPACE - 8])
    MOV([rsp - 8], rax)
    quiet()
    MOV(rcx, rdi)
    MOV(rdx, rsi)
    for register in (eax, ebx, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d):
        XOR(register, register)
    MOV([rsp], rax)  # whatever the flow put into the region before
    JMP(qword[rsp - 8])  # the entry, which no register holds


BODIES: dict[str, Body] = {"load_executable": load_executable, "handoff_executable": handoff_executable}
