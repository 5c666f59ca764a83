"""What runs from the first instruction to the flow? The reset vector, the way into 64-bit mode, parked CPUs.

A TD starts at 0xFFFFFFF0 in flat 32-bit protected mode with EFER.LME and NXE already set; an ordinary VM
starts there in 16-bit real mode. The first bytes decode equally in both. TD entry state: Intel TDX module,
td_vmcs_init.c (CR0 reads 0x31, CR4 0x40, RSI = vCPU index, GDTR and IDTR unusable).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    CLD,
    CMP,
    JAE,
    JMP,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    PAUSE,
    TEST,
    UD2,
    XOR,
    Label,
    al,
    ax,
    byte,
    dx,
    eax,
    ebp,
    edx,
    esi,
    rcx,
    rdx,
    rsi,
    si,
)

from dsl.capabilities import prelude
from formats import wakeup
from formats.ports import COM1, DEBUG_PORT
from gen.boot import ordinary
from gen.boot.apicid import ENUMERATED, emit_apic_id
from gen.boot.modes import GDT, GDT_LIMIT, SELECTOR_DATA, SELECTOR_TSS, WINDOW, enter_long_mode
from gen.boot.paging import FirstMap, Mapped, emit_build
from gen.boot.park import CLEARED, clear, emit_park
from gen.boot.share import emit_take_part
from gen.x86 import (
    BALIGN,
    CLI,
    DB,
    DD,
    DQ,
    DW,
    HLT,
    JMP16,
    LGDT,
    LIDT,
    LODSB_CS,
    LTR,
    MOVCR,
    MOVOFFSET,
    MOVSEG,
    OUT,
    Symbol,
    Unit,
    cr0,
    cr3,
    ds,
    es,
    esp,
    fs,
    gs,
    ss,
)

# 64-bit TSS: size, place of IST1 in it, access byte of its descriptor. Intel SDM volume 3A, 8.7 and 3.5.
TSS_SIZE, TSS_IST1, TSS_AVAILABLE = 104, 36, 0x89

MAX_CPUS = prelude().constants["MAX_CPUS"].value

NOT_A_TD = b"tdforge: not in a TD: this image needs Intel TDX\r\n\0"


def emit_reset(unit: Unit, first_map: FirstMap, stack: Mapped, all_vcpus: bool = False) -> None:
    """Everything from the reset vector to `tdf_entry`, which never returns. `all_vcpus`: APs accept RAM."""
    _vector(unit)
    if first_map.data_copy is None:
        _not_a_td(unit)
    else:
        ordinary.emit_real_mode(unit)
        ordinary.emit_protected_mode(unit, first_map)
    _protected_mode(unit, first_map)
    _long_mode(unit, stack)
    _identify(unit, first_map.cpu_ids, all_vcpus)
    emit_park(unit)
    _tables(unit)
    _task(unit, stack)


def _vector(unit: Unit) -> None:
    """The 16 bytes at 0xFFFFFFF0: both modes decode the first three instructions equally, then differ."""
    with unit.code("reset_vector", section=".resetvec", bits=32):
        real = Label("real")
        MOVCR(eax, cr0)
        TEST(al, 1)
        JZ(real)
        JMP(Symbol("reset_td"))
        LABEL(real)
    with unit.code("reset_vector_16", section=".resetvec", bits=16, align=1, exported=False):
        # Displacement = target - next IP (0xFFFF) modulo 64 KiB, written so that it is positive.
        JMP16(Symbol("reset_real") - (WINDOW - 1))
        HLT()


def _not_a_td(unit: Unit) -> None:
    """Not a TD: say so on the debug port and COM1, then stop."""
    with unit.code("reset_real", section=".reset", bits=16):
        put, stop = Label("put"), Label("stop")
        CLD()
        MOVOFFSET(si, Symbol("not_a_td") - WINDOW)
        LABEL(put)
        LODSB_CS()
        TEST(al, al)
        JZ(stop)
        MOV(dx, DEBUG_PORT)
        OUT(dx, al)
        MOV(dx, COM1)
        OUT(dx, al)
        JMP(put)
        LABEL(stop)
        CLI()
        HLT()
        JMP(stop)
    with unit.data("not_a_td", section=".reset", align=1):
        DB(NOT_A_TD, "read with CS overrides by 16-bit code")
    with unit.data("reset_window_check", section=".rodata.reset", align=4, exported=False):
        # The linker refuses a negative value here: 16-bit code must lie in the last 64 KiB.
        DD(Symbol("reset_real") - WINDOW, "offset of 16-bit code in the last 64 KiB")
        DD(Symbol("not_a_td") - WINDOW, "offset of its message")


def _protected_mode(unit: Unit, first_map: FirstMap) -> None:
    """32-bit, no paging, no stack: vCPU 0 builds the page tables, the others wait; both leave by one way.

    EBP carries the vCPU index to 64-bit mode. Nothing here can fault visibly: there is no IDT yet.
    """
    with unit.code("reset_td", section=".reset", bits=32):
        hold, enter = Label("hold"), Label("enter")
        CLD()
        LGDT([Symbol("gdt_pointer")])
        TEST(esi, esi)
        JNZ(hold)
        emit_build(first_map)
        XOR(ebp, ebp)
        MOV(eax, first_map.pool.start)
        JMP(enter)

        # The gate lies in the measured image, so it is 0 until vCPU 0 opens it with its PML4's address.
        LABEL(hold)
        MOV(ebp, esi)
        poll = Label("poll")
        LABEL(poll)
        PAUSE()
        MOV(eax, [Symbol("ap_gate")])
        TEST(eax, eax)
        JZ(poll)

        LABEL(enter)
        enter_long_mode()


def _long_mode(unit: Unit, stack: Mapped) -> None:
    with unit.code("reset_long", section=".reset"):
        MOV(eax, SELECTOR_DATA)
        for segment in (ds, es, ss, fs, gs):
            MOVSEG(segment, eax)
        TEST(ebp, ebp)
        JNZ(Symbol("ap_identify"))
        MOV(esp, stack.end)
        MOV(eax, SELECTOR_TSS)
        LTR(ax)
        LIDT([Symbol("idt_pointer")])
        CALL(Symbol("tdf_entry"))
        UD2()


def _identify(unit: Unit, cpu_ids: int, all_vcpus: bool) -> None:
    """An AP on vCPU 0's page tables, without a stack: tells its APIC id, waits for its own tables, goes to
    them.

    EBP is the vCPU index. The slot holds id + 1, so that 0 means that the vCPU has not come. That it runs on
    tables which the OS leaves alone is told in the mailbox's part for firmware, a byte for each index. If the
    OS may send it back, it leaves its id where it finds it again.
    """
    with unit.code("ap_identify", section=".reset"):
        lost, wait, parked = Label("lost"), Label("wait"), Label("parked")
        MOV(esi, ebp)
        CMP(esi, MAX_CPUS)
        JAE(lost)
        emit_apic_id()
        MOV(ebp, eax)
        ADD(eax, 1)
        MOV(edx, cpu_ids)
        MOV([rdx + rsi * 4], eax)
        LABEL(wait)
        PAUSE()
        if all_vcpus:
            emit_take_part(wait)
        MOV(rdx, [Symbol("ap_mailbox")])
        TEST(rdx, rdx)
        JZ(wait)
        LEA(rcx, [rdx + wakeup.TABLES])
        MOVCR(cr3, rcx)
        MOV(rcx, [Symbol("ap_ids")])
        TEST(rcx, rcx)
        JZ(parked)
        MOV([rcx + rsi * 4], ebp)
        LABEL(parked)
        MOV(byte[rdx + rsi * 1 + wakeup.PARKED], 1)
        # The OS finds nothing of what the vCPU was entered with: R8 is the host's, RSI its order of vCPUs.
        clear(CLEARED)
        JMP(Symbol("ap_park"))
        LABEL(lost)  # vCPU 0 refuses so many
        PAUSE()
        JMP(lost)


def _tables(unit: Unit) -> None:
    # Data, because LTR marks the TSS as busy.
    with unit.data("gdt", section=".data.reset", align=8):
        for descriptor, meaning in GDT:
            DQ(descriptor, meaning)
        DW(TSS_SIZE - 1, f"{SELECTOR_TSS:#x}: TSS: limit")
        DW(Symbol("tss") - WINDOW, "base 15:0")
        DB(bytes([0xFF, TSS_AVAILABLE, 0, 0xFF]), "base 23:16, type, limit 19:16, base 31:24")
        DQ(0, "base 63:32")
    with unit.data("gdt_pointer", section=".rodata.reset", align=4):
        DW(GDT_LIMIT, "limit")
        DD(Symbol("gdt"), "base")
        BALIGN(4)
    with unit.data("ap_gate", section=".data.reset", align=4):
        DD(0, "0: APs hold; else the first PML4")
    with unit.data(ENUMERATED, section=".data.reset", align=4):
        DD(0, "1: the TDX module says which APIC ids the vCPUs have")
    with unit.data("ap_mailbox", section=".data.reset", align=8):
        DQ(0, "0: APs wait; else the ACPI wakeup mailbox")
    with unit.data("ap_ids", section=".data.reset", align=8):
        DQ(0, "0: no AP comes back; else where each leaves its APIC id, by its index")


def _task(unit: Unit, stack: Mapped) -> None:
    """The TSS, for its one field: every exception starts at the top of the stack, whatever became of RSP.

    No handler returns, so what lies there is no longer needed.
    """
    with unit.data("tss", section=".reset", align=128):  # not over a page boundary
        DB(bytes(TSS_IST1), "no stack for other privilege levels")
        DQ(stack.end, "IST1")
        DB(bytes(TSS_SIZE - 2 - TSS_IST1 - 8), "IST2 to IST7")
        DW(TSS_SIZE, "no I/O permission map")
