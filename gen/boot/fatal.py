"""How does a boot end when something is wrong? Mark the measurements, report to the VMM, halt."""

from __future__ import annotations

import hashlib

from peachpy.x86_64 import CALL, LEA, MOV, PUSH, UD2, XOR, edi, esi, rbx, rdi, rsi

from formats.eventlog import Separator
from gen.x86 import DB, Symbol, Unit

ERROR_SEPARATOR = int(Separator.ERROR).to_bytes(4, "little")  # event data, which the digest covers
RTMRS_OF_FIRMWARE = (0, 1)


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
