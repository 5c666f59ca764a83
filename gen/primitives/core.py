"""How does a flow print? To the serial port, by one TDVMCALL for each byte."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    CMP,
    JAE,
    JMP,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    Label,
    byte,
    edi,
    edx,
    esi,
    qword,
    rax,
    rcx,
    rdi,
    rsi,
)

from dsl.sizes import SPAN_SIZE
from gen.flow.names import primitive_symbol
from gen.primitives.builder import Body, Builder
from gen.x86 import Symbol, rsp


def print_line(b: Builder) -> None:  # (line)
    """To COM1, byte by byte."""
    position, end = b.frame.slot(8), b.frame.slot(8)
    top, done = Label("byte"), Label("done")
    MOV(rax, [rdi])
    MOV([rsp + position], rax)
    ADD(rax, [rdi + SPAN_SIZE])
    MOV([rsp + end], rax)
    LABEL(top)
    MOV(rcx, [rsp + position])
    CMP(rcx, [rsp + end])
    JAE(done)
    ADD(qword[rsp + position], 1)
    MOVZX(edx, byte[rcx])
    MOV(edi, b.firmware.constants["COM1"].value)
    MOV(esi, 1)
    CALL(Symbol("tdvmcall_io_write"))
    JMP(top)
    LABEL(done)


def print_hex(b: Builder) -> None:  # (value)
    """The C core writes the text, `print` sends it."""
    text, line = b.record_slot("HexText"), b.frame.slot(16)
    LEA(rsi, [rsp + text])
    CALL(Symbol("hex_text"))
    LEA(rax, [rsp + text + 8])
    MOV([rsp + line], rax)
    MOV(rax, [rsp + text])
    MOV([rsp + line + 8], rax)
    LEA(rdi, [rsp + line])
    CALL(Symbol(primitive_symbol(b.firmware.primitives["print"])))


BODIES: dict[str, Body] = {"print": print_line, "print_hex": print_hex}
