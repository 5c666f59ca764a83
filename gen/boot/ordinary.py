"""How does an image that `runs without TDX` start where there is none?

Only such an image has this code. There the CPU starts in 16-bit mode, which a TD never does (TDX module,
td_vmcs_init.c), so the word `tdf_ordinary`, 0 in the measured image, can be set by nobody else. The image
is read-only there: the writable data is copied to RAM and the page tables map its own addresses to the copy.

RAM comes from fw_cfg's etc/e820, as a TD HOB, so the flow finds what it finds in a TD. What stands in for
the TDX module is in gen/boot/standins.py.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    JE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    OR,
    RET,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    al,
    ax,
    dword,
    dx,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    rax,
    rdi,
    rsi,
)

from formats.fw_cfg import DATA, SELECTOR, Key
from formats.paging import ENTRIES
from formats.ports import COM1
from formats.tdx.leaves import RTMR_DATA_SIZE, RTMRS
from formats.units import PAGE
from gen.boot.modes import GDT_LIMIT, SELECTOR_CODE32, SELECTOR_DATA, WINDOW, enter_long_mode
from gen.boot.paging import PRESENT, WRITABLE, FirstMap, emit_build
from gen.boot.standins import ORDINARY
from gen.x86 import (
    CLI,
    DB,
    DD,
    DW,
    LGDT_CS,
    LJMP32,
    MOVCR,
    MOVSEG,
    OUT,
    RDMSR,
    REP_INSB,
    REP_MOVSB,
    RESERVE,
    WRMSR,
    Symbol,
    Unit,
    cr0,
    ds,
    es,
    rsp,
    ss,
)

DATA_PAGES = 2
"""Room for the copy of the writable data; the linker checks that it is enough."""

# Intel SDM volume 4, table 2-2: IA32_EFER; bits SCE 0, LME 8, NXE 11. A TD starts with LME and NXE set.
EFER, EFER_LME_NXE = 0xC000_0080, 0x900
NOTICE = b"tdforge: no TDX here: nothing is protected or measured by hardware\r\n\0"
GDT_OFFSET = "gdt_pointer_16"


def emit_real_mode(unit: Unit) -> None:
    """From the 16-bit reset to flat 32-bit mode. Everything it reads lies beside it, in the last 64 KiB."""
    with unit.code("reset_real", section=".reset", bits=16):
        CLI()
        LGDT_CS(Symbol(GDT_OFFSET) - WINDOW)
        MOVCR(eax, cr0)
        OR(eax, 1)
        MOVCR(cr0, eax)
        LJMP32(SELECTOR_CODE32, Symbol("reset_ordinary"))
    with unit.data(GDT_OFFSET, section=".reset", align=4):
        DW(GDT_LIMIT, "limit")
        DD(Symbol("gdt"), "base")
    with unit.data("reset_window_check", section=".rodata.reset", align=4, exported=False):
        # The linker refuses a negative value here: 16-bit code must lie in the last 64 KiB.
        DD(Symbol("reset_real") - WINDOW, "offset of 16-bit code in the last 64 KiB")
        DD(Symbol(GDT_OFFSET) - WINDOW, "offset of its GDT pointer")


def emit_protected_mode(unit: Unit, first_map: FirstMap) -> None:
    """32-bit: the page tables, the data copied and mapped, long mode allowed and entered."""
    copy = first_map.data_copy
    assert copy is not None
    last = next(leaves.table for leaves in first_map.leaves if leaves.name == "data")
    with unit.code("reset_ordinary", section=".reset", bits=32):
        page = Label("page")
        MOV(eax, SELECTOR_DATA)
        for segment in (ds, es, ss):
            MOVSEG(segment, eax)
        emit_build(first_map)
        LEA(esi, [Symbol("__data_start")])
        LEA(ebx, [Symbol("__data_end")])
        SUB(ebx, esi)
        MOV(ecx, ebx)
        MOV(edi, copy)
        REP_MOVSB()
        LEA(edi, [Symbol(ORDINARY)])
        LEA(esi, [Symbol("__data_start")])
        SUB(edi, esi)
        ADD(edi, copy)
        MOV(dword[rdi], 1)
        MOV(edi, esi)
        SHR(edi, 12 - 3)  # the entries of the pages, 8 bytes each
        AND(edi, (ENTRIES - 1) * 8)
        ADD(edi, first_map.pool.start + last)
        MOV(eax, copy | PRESENT | WRITABLE)
        LABEL(page)
        MOV([rdi], eax)
        ADD(edi, 8)
        ADD(eax, PAGE)
        SUB(ebx, PAGE)
        JNZ(page)
        MOV(ecx, EFER)
        RDMSR()
        OR(eax, EFER_LME_NXE)
        WRMSR()
        XOR(ebp, ebp)
        MOV(eax, first_map.pool.start)
        enter_long_mode()
    with unit.data("data_copy_check", section=".rodata.reset", align=2, exported=False):
        # The linker refuses what does not fit 16 bits: data of more than DATA_PAGES pages.
        DW(Symbol("__data_size") + (0xFFFF - DATA_PAGES * PAGE), "the data fits its copy")
    with unit.data(ORDINARY, section=".data.reset", align=4):
        DD(0, "1 on a machine without TDX")
    with unit.data("ordinary_rtmrs", section=".data.reset", align=16):
        RESERVE(RTMRS * RTMR_DATA_SIZE, "RTMR[0] to RTMR[3] where no TDX module keeps them")


def emit_start(unit: Unit, hob: tuple[int, int]) -> None:
    """`ordinary_start` and what it calls. `hob`: GPA and bytes of the TD_HOB section."""
    _put(unit)
    _fw_cfg(unit)
    _memory(unit, hob)


def _put(unit: Unit) -> None:
    """`(text, size)`: to COM1, up to a NUL, at most `size` bytes."""
    with unit.code("ordinary_put", section=".text.ordinary"):
        more, done = Label("more"), Label("done")
        MOV(edx, COM1)
        LABEL(more)
        MOV(al, [rdi])
        TEST(al, al)
        JZ(done)
        OUT(dx, al)
        ADD(rdi, 1)
        SUB(esi, 1)
        JNZ(more)
        LABEL(done)
        RET()


def _fw_cfg(unit: Unit) -> None:
    """`(key, to, size)`: the first bytes of a fw_cfg item, zeros behind its end."""
    with unit.code("ordinary_fw_cfg", section=".text.ordinary"):
        MOV(eax, edi)
        MOV(rdi, rsi)
        MOV(ecx, edx)
        MOV(edx, SELECTOR)
        OUT(dx, ax)
        MOV(edx, DATA)
        REP_INSB()
        RET()


def _memory(unit: Unit, hob: tuple[int, int]) -> None:
    """`ordinary_start()`: nothing in a TD; else says so and makes a TD HOB of etc/e820. Returns a status.

    The last page of the section takes the file directory, then the map; the list goes to its start.
    """
    start, size = hob
    scratch = start + size - PAGE
    with unit.code("ordinary_start", section=".text.ordinary"):
        done = Label("done")
        SUB(rsp, 56)
        XOR(eax, eax)
        CMP(dword[Symbol(ORDINARY)], 0)
        JE(done)
        LEA(rdi, [Symbol("ordinary_notice")])
        MOV(esi, len(NOTICE))
        CALL(Symbol("ordinary_put"))
        MOV(edi, int(Key.FILE_DIR))
        _read_page(scratch)
        MOV(eax, scratch)
        MOV([rsp], rax)
        MOV(eax, PAGE)
        MOV([rsp + 8], rax)
        MOV(rdi, rsp)
        LEA(rsi, [rsp + 16])
        CALL(Symbol("fw_cfg_e820"))
        TEST(eax, eax)
        JNZ(done)
        MOV(edi, [rsp + 16])
        _read_page(scratch)
        MOV(eax, [rsp + 20])
        MOV([rsp + 8], rax)
        MOV(eax, start)
        MOV([rsp + 24], rax)
        MOV(eax, size - PAGE)
        MOV([rsp + 32], rax)
        MOV(rdi, rsp)
        LEA(rsi, [rsp + 24])
        CALL(Symbol("ordinary_hob"))
        LABEL(done)
        ADD(rsp, 56)
        RET()
    with unit.data("ordinary_notice", section=".rodata.ordinary", align=1, exported=False):
        DB(NOTICE, "")


def _read_page(scratch: int) -> None:
    MOV(esi, scratch)
    MOV(edx, PAGE)
    CALL(Symbol("ordinary_fw_cfg"))
