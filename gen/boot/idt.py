"""What happens on an exception? A fixed IDT leads every vector to `fatal` with a text that names it, on a
stack that is there whatever became of RSP (gen/boot/reset.py, TSS).

The table is measured read-only data: a gate splits its handler's address, which no ELF relocation can do, but
all handlers lie in the last 64 KiB below 4 GiB, so only the low 16 bits vary and those the linker fills (and
checks).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CLD,
    CMP,
    JBE,
    JMP,
    JNE,
    JNZ,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    PUSH,
    RET,
    SHR,
    SUB,
    UD2,
    Label,
    al,
    ax,
    eax,
    ecx,
    qword,
    r8,
    r9,
    r10,
    r11,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
    word,
)

from formats.ghci import FATAL_TEXT_SIZE
from formats.tdx.leaves import Leaf
from gen.boot.modes import SELECTOR_CODE64, WINDOW
from gen.boot.tdcall import leaf
from gen.x86 import DB, DD, DQ, DW, MOVCR, REP_MOVSQ, Symbol, Unit, cr2, rsp

VECTORS = 32
VE = 20
# Intel SDM volume 3A, table 6-1; virtualization exception 20, control protection 21; AMD APM for 28 to 30.
_NAME_ROWS = (
    "DE DB NI BP OF BR UD NM DF 09 TS NP SS GP PF 15",
    "MF AC MC XM VE CP 22 23 24 25 26 27 HV VC SX 31",
)
NAMES = tuple(name for row in _NAME_ROWS for name in row.split())
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
# 64-bit interrupt gate, present, DPL 0, IST 1: Intel SDM volume 3A, figure 6-8. IF is cleared on entry.
GATE_TYPE = 0x8E01

TEXT = b"tdforge: #xx(eeeeeeee) at iiiiiiiiiiiiiiii on aaaaaaaaaaaaaaaa\0"
"""Name, error code (for #VE: exit reason), RIP, address (CR2; for #VE: GLA); hexadecimal."""


def emit_idt(unit: Unit) -> None:
    """`idt_pointer` for LIDT, the table, one handler for each vector, and the way to `fatal`."""
    for vector in range(VECTORS):
        with unit.code(handler(vector), section=".reset", align=1):
            if vector not in WITH_ERROR_CODE:
                PUSH(0)
            PUSH(vector)
            JMP(Symbol("exception_common"))
    _common(unit)
    _fatal_exception(unit)
    _hex(unit)
    _tables(unit)


def handler(vector: int) -> str:
    """Symbol of a vector's handler."""
    return f"exception_{vector:02}_{NAMES[vector]}"


def _common(unit: Unit) -> None:
    """Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS. Never returns, so no register is saved.

    For #VE the module's record comes first: a second #VE before TDG.VP.VEINFO.GET would become #DF.
    """
    with unit.code("exception_common", section=".reset"):
        other, report = Label("other"), Label("report")
        CMP(qword[rsp], VE)
        JNE(other)
        leaf(Leaf.VP_VEINFO_GET, writes=(rcx, rdx, r8, r9, r10))
        MOV([rsp + 8], rcx)  # exit reason
        MOV(rcx, r8)  # GLA
        JMP(report)
        LABEL(other)
        MOVCR(rcx, cr2)
        LABEL(report)
        CLD()
        MOV(rdi, [rsp])
        MOV(rsi, [rsp + 8])
        MOV(rdx, [rsp + 16])
        AND(rsp, -16)
        CALL(Symbol("fatal_exception"))
        UD2()


def _fatal_exception(unit: Unit) -> None:
    """`_Noreturn void fatal_exception(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address)`."""
    with unit.code("fatal_exception", section=".reset"):
        MOV(r8, rdi)
        AND(r8, VECTORS - 1)
        MOV(r9, rsi)
        MOV(r10, rdx)
        MOV(r11, rcx)
        SUB(rsp, FATAL_TEXT_SIZE + 8)  # 16-byte alignment for the calls
        LEA(rsi, [Symbol("exception_text")])
        MOV(rdi, rsp)
        MOV(ecx, FATAL_TEXT_SIZE // 8)
        REP_MOVSQ()
        LEA(rax, [Symbol("exception_names")])
        MOVZX(eax, word[rax + r8 * 2])
        MOV([rsp + TEXT.index(b"xx")], ax)
        for register, letter in ((r9, b"e"), (r10, b"i"), (r11, b"a")):
            width = 8 if letter == b"e" else 16
            MOV(rsi, register)
            LEA(rdi, [rsp + (TEXT.index(letter * width) + width - 1)])
            MOV(ecx, width)
            CALL(Symbol("put_hex"))
        MOV(rdi, rsp)
        CALL(Symbol("fatal"))
        UD2()


def _hex(unit: Unit) -> None:
    """RCX hexadecimal digits of RSI, written downwards from the last one at RDI."""
    with unit.code("put_hex", section=".reset"):
        digit, decimal = Label("digit"), Label("decimal")
        LABEL(digit)
        MOV(rax, rsi)
        AND(eax, 15)
        ADD(al, ord("0"))
        CMP(al, ord("9"))
        JBE(decimal)
        ADD(al, ord("a") - ord("0") - 10)
        LABEL(decimal)
        MOV([rdi], al)
        SUB(rdi, 1)
        SHR(rsi, 4)
        SUB(ecx, 1)
        JNZ(digit)
        RET()


def _tables(unit: Unit) -> None:
    with unit.data("idt", section=".rodata.reset", align=16):
        for vector in range(VECTORS):
            DW(Symbol(handler(vector)) - WINDOW, f"{vector:2} #{NAMES[vector]}: offset 15:0")
            DW(SELECTOR_CODE64, "selector")
            DW(GATE_TYPE, "interrupt gate")
            DW(WINDOW >> 16, "offset 31:16")
            DQ(0, "offset 63:32")
    with unit.data("idt_pointer", section=".rodata.reset", align=2):
        DW(VECTORS * 16 - 1, "limit")
        DQ(Symbol("idt"), "base")
    with unit.data("idt_window_check", section=".rodata.reset", align=4, exported=False):
        # The linker refuses a negative value: then bits 31:16 above would be wrong.
        DD(Symbol(handler(0)) - WINDOW, "offset of the handlers in the last 64 KiB")
    with unit.data("exception_text", section=".rodata.reset", align=1, exported=False):
        DB(TEXT.ljust(FATAL_TEXT_SIZE, b"\0"), TEXT[:-1].decode())
    with unit.data("exception_names", section=".rodata.reset", align=1, exported=False):
        DB("".join(NAMES).encode(), " ".join(NAMES))
