"""Where do the APs wait for the OS, and how do they come back? The park loop, and the code of a reset vector.

Source: ACPI specification 6.6, 5.2.12.19: the multiprocessor wakeup structure, its mailbox and reset vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peachpy.x86_64 import (
    AND,
    CMP,
    JE,
    JMP,
    JNE,
    LABEL,
    LEA,
    MOV,
    OR,
    PAUSE,
    SHR,
    XOR,
    Label,
    ax,
    cx,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    r8,
    r8d,
    r9,
    r9d,
    r10,
    r10d,
    r11,
    r11d,
    r12d,
    r13d,
    r14d,
    r15d,
    rax,
    rbx,
    rcx,
    rdx,
    word,
)

from formats import wakeup
from formats.acpi import MailboxCommand
from formats.tdx.leaves import Leaf
from gen.boot.modes import (
    CR0,
    CR0_PG,
    CR4,
    CR4_LA57,
    GDT,
    SELECTOR_CODE32,
    SELECTOR_CODE64,
    SELECTOR_DATA,
    paging_on,
)
from gen.boot.tdcall import leaf
from gen.x86 import (
    CLI,
    DB,
    DD,
    DQ,
    DW,
    ENDBR64,
    JMP_FAR,
    LGDT,
    LIDT,
    LOCK_CMPXCHG,
    MOVCR,
    MOVOFFSET,
    MOVSEG,
    Symbol,
    Unit,
    cr0,
    cr3,
    cr4,
    ds,
    es,
    fs,
    gs,
    ss,
)

# What the loop does not use. Entered with less, an AP would show the OS its index, or what the host gave it.
CLEARED = (ebx, esi, edi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d)


def clear(registers: Iterable[Any]) -> None:
    """Sets 32-bit registers, and with them the 64-bit ones, to 0."""
    for register in registers:
        XOR(register, register)


def emit_park(unit: Unit) -> None:
    """The loop, which every image has, and the reset code, which the linker drops if no flow asks for it."""
    _loop(unit)
    _reset_data(unit)
    _reset_code(unit)


def _loop(unit: Unit) -> None:
    """The AP's last loop: wait for the OS's command.

    Command and ApicId come from one aligned load: between two loads the OS may go on to the next AP, and
    this one would take a wakeup that is not its own. The vector, 64 bits wide, is read before Command is
    given back: from then on the mailbox is the OS's again. A test, by which the OS asks whether an AP has
    come back, is answered in the same step that looks whether it still stands there: an OS that no longer
    waits may have written the wakeup of another AP.

    Entered with RDX = mailbox and EBP = the AP's APIC id, all other general registers 0 but RAX and RCX; left
    with all 0 but RAX, the vector.

    There is no IDT: a handler would need a stack in memory that is the OS's by now, and `fatal` would extend
    registers of a TD that runs. The loop cannot fault; an NMI, which only the VMM can send, ends the TD.
    """
    with unit.code("ap_park", section=".reset"):
        wait, wake = Label("wait"), Label("wake")
        LABEL(wait)
        PAUSE()
        MOV(rax, [rdx + wakeup.COMMAND])
        MOV(rcx, rax)
        SHR(rcx, 8 * (wakeup.APIC_ID - wakeup.COMMAND))
        CMP(ecx, ebp)
        JNE(wait)
        CMP(ax, int(MailboxCommand.WAKEUP))
        JE(wake)
        CMP(ax, int(MailboxCommand.TEST))
        JNE(wait)
        MOV(rcx, rax)
        XOR(cx, cx)
        LOCK_CMPXCHG([rdx + wakeup.COMMAND], rcx)
        JMP(wait)
        LABEL(wake)
        MOV(rax, [rdx + wakeup.VECTOR])
        MOVCR(rcx, cr3)  # the handoff opened the tables; forget what was cached of them before
        MOVCR(cr3, rcx)
        MOV(word[rdx + wakeup.COMMAND], int(MailboxCommand.NOOP))
        clear((ecx, edx, ebp))  # the others were cleared before
        JMP(rax)


def _reset_data(unit: Unit) -> None:
    with unit.data("ap_reset", section=".text.ap_reset", align=16):
        for descriptor, meaning in GDT:
            DQ(descriptor, meaning)
        DW(8 * len(GDT) - 1, "GDT: limit")
        DQ(Symbol("ap_reset"), "base")
        DB(bytes(wakeup.TO_32 - wakeup.GDT_POINTER - 10))
        for target, selector in (("ap_reset_32", SELECTOR_CODE32), ("ap_reset_64", SELECTOR_CODE64)):
            DD(Symbol(target), f"{target}: offset")
            DW(selector, "selector")
            DW(0)
        DW(0, "no IDT: limit")
        DQ(0, "base")
        DB(bytes(wakeup.ENTRY - wakeup.NO_IDT - 10))


def _reset_code(unit: Unit) -> None:
    """Whoever jumps to the vector goes back to the park loop, on the APs' page tables and as at first.

    Entered in 64-bit mode on tables of the OS that map this page and its neighbours, below 4 GiB, one to one.
    Bits of CR4 that the OS has set, 5-level paging among them, change what page tables mean, so paging goes
    off and on again. There is no stack, and nothing is written: any number of vCPUs may come at once.
    """
    with unit.code("ap_reset_vector", section=".text.ap_reset"):
        ENDBR64()  # Linux may come by an indirect jump that is tracked: SDM volume 1, 17.3
        CLI()
        LEA(rbx, [Symbol("ap_reset")])
        LIDT([rbx + wakeup.NO_IDT])
        MOVCR(rax, cr4)
        AND(eax, CR4_LA57)
        OR(eax, CR4)
        MOVCR(cr4, rax)
        LGDT([rbx + wakeup.GDT_POINTER])
        JMP_FAR([rbx + wakeup.TO_32])
    with unit.code("ap_reset_32", section=".text.ap_reset", bits=32):
        MOV(eax, SELECTOR_DATA)
        for segment in (ds, es, ss, fs, gs):
            MOVSEG(segment, eax)
        MOV(eax, CR0 & ~CR0_PG)
        MOVCR(cr0, eax)
        LEA(eax, [rbx + wakeup.TABLES - wakeup.RESET])
        paging_on()
        MOVOFFSET(esi, Symbol("ap_park"))
        JMP_FAR([rbx + wakeup.TO_64])
    with unit.code("ap_reset_64", section=".text.ap_reset"):
        MOV(ebx, ebx)
        MOV(esi, esi)
        leaf(Leaf.VP_INFO, writes=(rcx, rdx, r8, r9, r10, r11))
        MOV(r9d, r9d)  # the vCPU index
        LEA(rdx, [rbx - wakeup.RESET])
        MOV(ebp, [rdx + r9 * 4 + wakeup.IDS])
        MOV(eax, esi)
        clear(CLEARED)
        JMP(rax)
    with unit.data("ap_reset_end", section=".text.ap_reset", align=16):
        DB(b"")
