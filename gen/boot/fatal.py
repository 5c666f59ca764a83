"""How does a boot end when something is wrong? Mark the measurements, report to the VMM, halt."""

from __future__ import annotations

import hashlib

from peachpy.x86_64 import CALL, LEA, MOV, PUSH, SUB, UD2, XOR, ecx, edi, esi, r8, r9, rbx, rdi, rsi

from formats.eventlog import Separator
from formats.ghci import FATAL_TEXT_SIZE
from gen.x86 import DB, REP_MOVSQ, Symbol, Unit, rsp

ERROR_SEPARATOR = int(Separator.ERROR).to_bytes(4, "little")  # event data, which the digest covers
RTMRS_OF_FIRMWARE = (0, 1)
DIGITS = 16
ACCEPT_TEXT = b"tdforge: PAGE.ACCEPT of gggggggggggggggg gave ssssssssssssssss"
"""GPA and status, hexadecimal."""


def emit_fatal(unit: Unit) -> None:
    """`_Noreturn void fatal(const char text[64])`: error separator into RTMR0 and RTMR1, report, halt.

    The VMM may resume the TD after the report; it then halts forever and nothing that was measured can pass
    for a good boot. A failing extend is ignored: there is nothing better to do than to report and halt.
    """
    with unit.code("fatal", section=".text.fatal"):
        PUSH(rbx)
        MOV(rbx, rdi)
        for index in RTMRS_OF_FIRMWARE:
            LEA(rdi, [Symbol("error_separator")])
            MOV(esi, index)
            CALL(Symbol("tdcall_rtmr_extend"))
        XOR(edi, edi)  # code 0: QEMU takes others as reserved
        MOV(rsi, rbx)
        CALL(Symbol("tdvmcall_fatal"))
        UD2()
    # TDG.MR.RTMR.EXTEND wants its input 64-byte aligned.
    with unit.data("error_separator", section=".rodata.tdcall", align=64):
        DB(hashlib.sha384(ERROR_SEPARATOR).digest(), "SHA-384 of 01 00 00 00")


def emit_fatal_accept(unit: Unit) -> None:
    """`_Noreturn void fatal_accept(uint64_t gpa, uint64_t status)`: `fatal`, naming a refused page."""
    with unit.code("fatal_accept", section=".text.fatal_accept"):
        MOV(r8, rdi)
        MOV(r9, rsi)
        SUB(rsp, FATAL_TEXT_SIZE + 8)  # 16-byte alignment for the calls
        LEA(rsi, [Symbol("accept_text")])
        MOV(rdi, rsp)
        MOV(ecx, FATAL_TEXT_SIZE // 8)
        REP_MOVSQ()
        for register, letter in ((r8, b"g"), (r9, b"s")):
            MOV(rsi, register)
            LEA(rdi, [rsp + (ACCEPT_TEXT.index(letter * DIGITS) + DIGITS - 1)])
            MOV(ecx, DIGITS)
            CALL(Symbol("put_hex"))
        MOV(rdi, rsp)
        CALL(Symbol("fatal"))
        UD2()
    with unit.data("accept_text", section=".rodata.accept_text", align=1, exported=False):
        DB(ACCEPT_TEXT.ljust(FATAL_TEXT_SIZE, b"\0"), ACCEPT_TEXT.decode())
