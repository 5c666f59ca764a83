"""What does every payload find? The parked APs' tables opened; the boot protocol's segments and flags."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CLD,
    JNZ,
    LABEL,
    MOV,
    SUB,
    Label,
    eax,
    ecx,
    edx,
    rax,
    rdi,
    rdx,
)

from formats.paging import ENTRIES, PageBit
from formats.units import GIB, PAGE
from gen.flow.names import CONTEXT
from gen.primitives.builder import Builder
from gen.x86 import CLI, MOVSEG, Symbol, ds, es, ss

# A page of a PDPT is 1 GiB: SDM volume 3A, 4.5.4.
GIB_LEAF = int(PageBit.PRESENT | PageBit.WRITABLE | PageBit.LARGE)


def open_park_tables(b: Builder) -> None:
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


def quiet() -> None:
    """IF = DF = 0; the boot protocol's data segments. CS has been 0x10 since reset. Uses EAX."""
    CLI()
    CLD()
    MOV(eax, 0x18)
    for segment in (ds, es, ss):
        MOVSEG(segment, eax)
