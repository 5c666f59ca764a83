"""How does an image that `runs without TDX` start where there is none, and what stands in for the TDX module?

Only such an image has this code. There the CPU starts in 16-bit mode, which a TD never does (TDX module,
td_vmcs_init.c), so the word `tdf_ordinary`, 0 in the measured image, can be set by nobody else. The image
is read-only there: the writable data is copied to RAM and the page tables map its own addresses to the copy.

Nothing is protected: registers of measurement are memory, accepting and sharing are nothing, ports are ports.
RAM comes from fw_cfg's etc/e820, as a TD HOB, so that the flow finds what it finds in a TD.
"""

from __future__ import annotations

from collections.abc import Callable

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    IMUL,
    JB,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    OR,
    POP,
    PUSH,
    RET,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    al,
    ax,
    bx,
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
    rbx,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.capabilities import prelude
from formats.fw_cfg import DATA, SELECTOR, Key
from formats.ghci import FATAL_TEXT_SIZE
from formats.paging import ENTRIES
from formats.ports import COM1
from formats.units import PAGE
from gen.boot.paging import PRESENT, WRITABLE, FirstMap
from gen.x86 import (
    CLI,
    CPUID,
    DB,
    DD,
    DW,
    HLT,
    IN,
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

ORDINARY = "tdf_ordinary"
DATA_PAGES = 2
"""Room for the copy of the writable data; the linker checks that it is enough."""

SELECTOR_CODE32, SELECTOR_DATA = 0x08, 0x18
# Intel SDM volume 4, table 2-2: IA32_EFER; bits SCE 0, LME 8, NXE 11. A TD starts with LME and NXE set.
EFER, EFER_LME_NXE = 0xC000_0080, 0x900
# Intel SDM volume 2A, CPUID: leaf 80000008H, EAX bits 7:0 are the width of physical addresses.
CPUID_ADDRESS_WIDTH = 0x8000_0008
CPUID_TOPOLOGY = 0xB
RTMRS, DIGEST = 4, 48
UNAVAILABLE = 1 << 63  # a status with the error bit, for what only the TDX module can do

NOTICE = b"tdforge: no TDX here: nothing is protected or measured by hardware\r\n\0"
GDT_OFFSET = "gdt_pointer_16"


def emit_real_mode(unit: Unit, window: int) -> None:
    """From the 16-bit reset to flat 32-bit mode. Everything it reads lies beside it, in the last 64 KiB."""
    with unit.code("reset_real", section=".reset", bits=16):
        CLI()
        LGDT_CS(Symbol(GDT_OFFSET) - window)
        MOVCR(eax, cr0)
        OR(eax, 1)
        MOVCR(cr0, eax)
        LJMP32(SELECTOR_CODE32, Symbol("reset_ordinary"))
    with unit.data(GDT_OFFSET, section=".reset", align=4):
        DW(6 * 8 - 1, "limit")
        DD(Symbol("gdt"), "base")
    with unit.data("reset_window_check", section=".rodata.reset", align=4, exported=False):
        # The linker refuses a negative value here: 16-bit code must lie in the last 64 KiB.
        DD(Symbol("reset_real") - window, "offset of 16-bit code in the last 64 KiB")
        DD(Symbol(GDT_OFFSET) - window, "offset of its GDT pointer")


def emit_protected_mode(
    unit: Unit, first_map: FirstMap, build: Callable[[], None], enter: Callable[[], None]
) -> None:
    """32-bit: tables by `build`, the data copied and mapped, long mode allowed; on by `enter`, EAX = CR3."""
    copy = first_map.data_copy
    assert copy is not None
    last = next(leaves.table for leaves in first_map.leaves if leaves.name == "data")
    with unit.code("reset_ordinary", section=".reset", bits=32):
        page = Label("page")
        MOV(eax, SELECTOR_DATA)
        for segment in (ds, es, ss):
            MOVSEG(segment, eax)
        build()
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
        enter()
    with unit.data("data_copy_check", section=".rodata.reset", align=2, exported=False):
        # The linker refuses a value above 64 KiB less the room that there is not.
        DW(Symbol("__data_size") + (0xFFFF - DATA_PAGES * PAGE), "the data fits its copy")
    with unit.data(ORDINARY, section=".data.reset", align=4):
        DD(0, "1 on a machine without TDX")
    with unit.data("ordinary_rtmrs", section=".data.reset", align=16):
        RESERVE(RTMRS * DIGEST, "RTMR[0] to RTMR[3] where no TDX module keeps them")


def branch(name: str) -> None:
    """At the start of a TDCALL function: on an ordinary machine, its stand-in runs instead."""
    CMP(dword[Symbol(ORDINARY)], 0)
    JNE(Symbol(stand_in(name)))


def stand_in(name: str) -> str:
    """The symbol of what a TDCALL function does on an ordinary machine."""
    return f"ordinary_{name}"


def emit_stand_ins(unit: Unit, hob: tuple[int, int]) -> None:
    """One for each TDCALL function that `branch` names. `hob`: GPA and bytes of the TD_HOB section."""
    _vp_info(unit)
    _rtmr_extend(unit)
    for name in ("tdcall_ve_info", "tdcall_report", "tdcall_vm_rd", "tdcall_vm_wr", "tdvmcall"):
        _unavailable(unit, name)
    _apic_id(unit)
    _topology(unit)
    _io_write(unit)
    _io_read(unit)
    _map_gpa(unit)
    _halt(unit)
    _fatal(unit)
    _accept_run(unit)
    _put(unit)
    _fw_cfg(unit)
    _memory(unit, hob)


def _vp_info(unit: Unit) -> None:
    """As `tdcall_vp_info`, from CPUID and fw_cfg. No access raises #VE, as if SEPT_VE_DISABLE were set."""
    record = prelude().records["VpInfo"]
    at = {field.name: field.offset for field in record.fields}
    with unit.code(stand_in("tdcall_vp_info"), section=".text.ordinary"):
        PUSH(rbx)
        MOV(eax, CPUID_ADDRESS_WIDTH)
        CPUID()
        MOVZX(eax, al)
        ADD(eax, 1)  # the bit above them would be the shared bit
        MOV([rdi + at["gpaw"]], rax)
        MOV(eax, prelude().constants["SEPT_VE_DISABLE"].value)
        MOV([rdi + at["attributes"]], rax)
        MOV(dword[rdi + at["vcpu_index"]], 0)
        MOV(dword[rdi + at["tdx"]], 0)
        MOV(edx, SELECTOR)
        MOV(eax, int(Key.NB_CPUS))
        OUT(dx, ax)
        MOV(edx, DATA)
        XOR(eax, eax)
        IN(al, dx)
        MOV(ecx, eax)
        IN(al, dx)
        MOV(ebx, eax)
        for _ in range(8):
            ADD(ebx, ebx)
        OR(ecx, ebx)
        MOV([rdi + at["num_vcpus"]], ecx)
        MOV([rdi + at["max_vcpus"]], ecx)
        POP(rbx)
        RET()


def _rtmr_extend(unit: Unit) -> None:
    """`(digest, index)`: SHA-384 of register and digest into the register."""
    with unit.code(stand_in("tdcall_rtmr_extend"), section=".text.ordinary"):
        size = 2 * DIGEST + 16
        PUSH(rbx)
        SUB(rsp, size)
        IMUL(rbx, rsi, DIGEST)
        LEA(rax, [Symbol("ordinary_rtmrs")])
        ADD(rbx, rax)
        MOV(rdx, rdi)
        for part in range(0, DIGEST, 8):
            MOV(rax, [rbx + part])
            MOV([rsp + 16 + part], rax)
            MOV(rax, [rdx + part])
            MOV([rsp + 16 + DIGEST + part], rax)
        LEA(rax, [rsp + 16])
        MOV([rsp], rax)
        MOV(eax, 2 * DIGEST)
        MOV([rsp + 8], rax)
        MOV(rdi, rsp)
        MOV(rsi, rbx)
        CALL(Symbol("sha384"))
        XOR(eax, eax)
        ADD(rsp, size)
        POP(rbx)
        RET()


def _apic_id(unit: Unit) -> None:
    """As `tdcall_apic_id`: what CPUID says, leaf 0xB or, on older processors, leaf 1."""
    with unit.code(stand_in("tdcall_apic_id"), section=".text.ordinary"):
        old = Label("old")
        PUSH(rbx)
        XOR(eax, eax)
        CPUID()
        CMP(eax, CPUID_TOPOLOGY)
        JB(old)
        MOV(eax, CPUID_TOPOLOGY)
        XOR(ecx, ecx)
        CPUID()
        MOV(eax, edx)
        POP(rbx)
        RET()
        LABEL(old)
        MOV(eax, 1)
        CPUID()
        MOV(eax, ebx)
        SHR(eax, 24)
        POP(rbx)
        RET()


def _topology(unit: Unit) -> None:
    """`(struct span *slots)`: the ids that the OS will find, from how CPUID leaf 0xB splits an id."""
    with unit.code("ordinary_topology", section=".text.ordinary"):
        none = Label("none")
        PUSH(rbx)
        PUSH(rdi)
        SUB(rsp, 24)
        XOR(eax, eax)
        MOV([rsp], rax)
        MOV([rsp + 8], rax)
        CPUID()
        CMP(eax, CPUID_TOPOLOGY)
        JB(none)
        for level in (0, 1):  # threads of a core, then CPUs of a package
            MOV(eax, CPUID_TOPOLOGY)
            MOV(ecx, level)
            CPUID()
            MOVZX(ebx, bx)
            AND(eax, 31)
            MOV([rsp + 8 * level], ebx)
            MOV([rsp + 8 * level + 4], eax)
        LABEL(none)
        MOV(rdi, rsp)
        MOV(rsi, [rsp + 24])
        CALL(Symbol("ordinary_cpus"))
        ADD(rsp, 24)
        POP(rdi)
        POP(rbx)
        RET()


def _unavailable(unit: Unit, name: str) -> None:
    with unit.code(stand_in(name), section=".text.ordinary"):
        MOV(rax, UNAVAILABLE - (1 << 64))
        RET()


def _io_write(unit: Unit) -> None:
    """`(port, size, value)`: 1, 2 or 4 bytes."""
    with unit.code(stand_in("tdvmcall_io_write"), section=".text.ordinary"):
        short, byte = Label("short"), Label("byte")
        MOV(rax, rdx)
        MOV(edx, edi)
        CMP(esi, 2)
        JE(short)
        CMP(esi, 1)
        JE(byte)
        OUT(dx, eax)
        XOR(eax, eax)
        RET()
        LABEL(short)
        OUT(dx, ax)
        XOR(eax, eax)
        RET()
        LABEL(byte)
        OUT(dx, al)
        XOR(eax, eax)
        RET()


def _io_read(unit: Unit) -> None:
    """`(port, size, out)`: 1, 2 or 4 bytes."""
    with unit.code(stand_in("tdvmcall_io_read"), section=".text.ordinary"):
        short, byte, done = Label("short"), Label("byte"), Label("done")
        MOV(rcx, rdx)
        MOV(edx, edi)
        XOR(eax, eax)
        CMP(esi, 2)
        JE(short)
        CMP(esi, 1)
        JE(byte)
        IN(eax, dx)
        JMP(done)
        LABEL(short)
        IN(ax, dx)
        JMP(done)
        LABEL(byte)
        IN(al, dx)
        LABEL(done)
        MOV([rcx], rax)
        XOR(eax, eax)
        RET()


def _map_gpa(unit: Unit) -> None:
    with unit.code(stand_in("tdvmcall_map_gpa"), section=".text.ordinary"):
        XOR(eax, eax)
        RET()


def _halt(unit: Unit) -> None:
    with unit.code(stand_in("tdvmcall_hlt"), section=".text.ordinary"):
        CLI()
        HLT()
        XOR(eax, eax)
        RET()


def _fatal(unit: Unit) -> None:
    """`(code, text)`: the text to COM1, then halt forever."""
    with unit.code(stand_in("tdvmcall_fatal"), section=".text.ordinary"):
        halt = Label("halt")
        MOV(rdi, rsi)
        MOV(esi, FATAL_TEXT_SIZE)
        CALL(Symbol("ordinary_put"))
        LEA(rdi, [Symbol("ordinary_line_end")])
        MOV(esi, 2)
        CALL(Symbol("ordinary_put"))
        LABEL(halt)
        CLI()
        HLT()
        JMP(halt)
    with unit.data("ordinary_line_end", section=".rodata.ordinary", align=1, exported=False):
        DB(b"\r\n\0", "")


def _accept_run(unit: Unit) -> None:
    """`(gpa, count, level, done)`: all RAM is there already."""
    with unit.code(stand_in("tdcall_accept_run"), section=".text.ordinary"):
        MOV([rcx], rsi)
        XOR(eax, eax)
        RET()


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
