"""What frames a firmware's flows? The entry that the reset code calls, and the end of a flow that failed."""

from __future__ import annotations

from peachpy.x86_64 import (
    CALL,
    CMP,
    JE,
    JNZ,
    LABEL,
    LEA,
    MOV,
    SHL,
    SUB,
    TEST,
    UD2,
    Label,
    eax,
    ecx,
    edi,
    rcx,
    rdi,
    rdx,
)

from dsl.model import Firmware
from formats.ghci import FATAL_TEXT_SIZE
from gen.flow.context import Context
from gen.flow.names import CONTEXT, ENTRY, FATAL_STATUS, ORDINARY_START, flow_symbol
from gen.x86 import DB, Symbol, Unit, rsp

_PREFIX = "tdforge: "
_NUMBERS, _TEXTS = "tdf_error_numbers", "tdf_error_texts"


def emit_entry(unit: Unit, firmware: Firmware, context: Context) -> None:
    """Adds `tdf_entry` and `tdf_fatal`."""
    with unit.code(ENTRY, section=f".text.{ENTRY}"):
        SUB(rsp, 8)  # aligned as the ABI has it
        LEA(rdi, [Symbol(CONTEXT, context.td)])
        CALL(Symbol("tdcall_vp_info"))
        if firmware.without_tdx:
            CALL(Symbol(ORDINARY_START))
            MOV(edi, eax)
            TEST(eax, eax)
            JNZ(Symbol(FATAL_STATUS))
        LEA(rdi, [Symbol(CONTEXT, context.td)])
        CALL(Symbol(flow_symbol("boot")))
        UD2()
    _emit_fatal(unit, firmware)
    _emit_texts(unit, firmware)


def _emit_fatal(unit: Unit, firmware: Firmware) -> None:
    """`tdf_fatal(status)`: the status's text to `fatal`, which marks the measurements and reports."""
    found, search = Label("found"), Label("search")
    with unit.code(FATAL_STATUS, section=f".text.{FATAL_STATUS}"):
        SUB(rsp, 8)
        LEA(rdx, [Symbol(_NUMBERS)])
        MOV(ecx, len(firmware.errors))
        LABEL(search)  # from the last error to the first; text 0 is for none of them
        CMP(edi, [rdx + rcx * 4 - 4])
        JE(found)
        SUB(ecx, 1)
        JNZ(search)
        LABEL(found)
        SHL(rcx, FATAL_TEXT_SIZE.bit_length() - 1)
        LEA(rdi, [Symbol(_TEXTS)])
        LEA(rdi, [rdi + rcx * 1])
        CALL(Symbol("fatal"))
        UD2()


def _emit_texts(unit: Unit, firmware: Firmware) -> None:
    with unit.data(_NUMBERS, section=f".rodata.{_NUMBERS}", align=4):
        for error in firmware.errors:
            DB(error.number.to_bytes(4, "little"), f"{error.number}: {error.name}")
    texts = ["a status that no primitive declares", *(error.text for error in firmware.errors)]
    with unit.data(_TEXTS, section=f".rodata.{_TEXTS}", align=FATAL_TEXT_SIZE):
        for text in texts:
            sent = (_PREFIX + text).encode("ascii")
            DB(sent.ljust(FATAL_TEXT_SIZE, b"\0"), text)
