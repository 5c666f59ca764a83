"""What do the emitters of generated primitives share? Frames, record offsets, status checks, page_map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    JAE,
    JMP,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    SUB,
    TEST,
    Label,
    eax,
    qword,
    r8d,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.capabilities import prelude
from dsl.model import Firmware, ListOf
from dsl.sizes import SPAN_DATA, SPAN_SIZE, items_offset, size
from formats.units import PAGE
from gen.flow.context import Context
from gen.flow.frame import Frame
from gen.x86 import MOVCR, Symbol, cr3, rsp

_ACCESS = dict(prelude().enumerations["Access"].members)
NONE, READ, READ_WRITE, READ_EXECUTE, ALL = (_ACCESS[name] for name in ("none", "r", "rw", "rx", "rwx"))


@dataclass
class Builder:
    """What an emitter of one primitive needs."""

    firmware: Firmware
    context: Context
    frame: Frame
    fail: Label
    checks: list[str] = field(default_factory=list)  # errors checked for so far

    def error(self, name: str) -> int:
        return next(error.number for error in self.firmware.errors if error.name == name)

    def offset(self, record: str, field: str) -> int:
        fields = self.firmware.records[record].fields
        return next(each.offset for each in fields if each.name == field)

    def _list(self, record: str, field: str) -> ListOf:
        type_ = next(each.type for each in self.firmware.records[record].fields if each.name == field)
        assert isinstance(type_, ListOf)
        return type_

    def items(self, record: str, field: str) -> int:
        """Where the first item of a list lies in its record."""
        return self.offset(record, field) + items_offset(self._list(record, field), self.firmware.records)

    def each(self, name: str, slot: int, record: str, field: str, work: Callable[[int, Label], None]) -> None:
        """`work` for each item of a record's list: the slot with its address, and where the next one begins.
        The record's address is in `slot` and in RDI; `name` is that of the loop.
        """
        index, item = self.frame.slot(8), self.frame.slot(8)
        top, following, end = (Label(f"{name}_{where}") for where in ("top", "next", "end"))
        LEA(rax, [rdi + self.items(record, field)])
        MOV([rsp + item], rax)
        MOV(qword[rsp + index], 0)
        LABEL(top)
        MOV(rax, [rsp + slot])
        MOV(rcx, [rsp + index])
        CMP(rcx, [rax + self.offset(record, field)])
        JAE(end)
        work(item, following)
        LABEL(following)
        ADD(qword[rsp + item], size(self._list(record, field).element, self.firmware.records))
        ADD(qword[rsp + index], 1)
        JMP(top)
        LABEL(end)

    def record_slot(self, name: str) -> int:
        record = self.firmware.records[name]
        return self.frame.slot(record.size, record.align)

    def save(self, *registers: Any) -> list[int]:
        """Keeps arguments in the frame; returns their slots."""
        slots = [self.frame.slot(8) for _ in registers]
        for register, slot in zip(registers, slots, strict=True):
            MOV([rsp + slot], register)
        return slots

    def checked(self, function: str) -> None:
        """Calls what returns a status; hands a failure on."""
        CALL(Symbol(function))
        TEST(eax, eax)
        JNZ(self.fail)

    def vmm(self, function: str) -> None:
        """Calls a TDVMCALL function; its refusal is `tdvmcall_failed`."""
        CALL(Symbol(function))
        self.require_success(rax, "tdvmcall_failed")

    def require_success(self, status: Any, error: str) -> None:
        """Fails with `error` unless the register is zero."""
        again = self.checks.count(error)
        self.checks.append(error)
        fine = Label(f"fine_{error}_{again}" if again else f"fine_{error}")
        TEST(status, status)
        JZ(fine)
        MOV(eax, self.error(error))
        JMP(self.fail)
        LABEL(fine)


Body = Callable[[Builder], None]  # emits a primitive between the frame's opening and its end


def reload_cr3() -> None:
    """Drops all translations of the vCPU; RAX is used."""
    MOVCR(rax, cr3)
    MOVCR(cr3, rax)


def map_arguments(span: Any, access: int) -> None:
    """Arguments 2 to 5 of page_map: the identity map of a span whose address is in a register."""
    MOV(rcx, [span + SPAN_SIZE])
    MOV(rsi, [span + SPAN_DATA])
    MOV(rdx, rsi)
    MOV(r8d, access)


def pages_arguments(access: int) -> None:
    """Arguments 2 to 5 of page_map for the pages that hold [RSI, RSI + RCX)."""
    ADD(rcx, rsi)
    ADD(rcx, PAGE - 1)
    AND(rcx, -PAGE)
    AND(rsi, -PAGE)
    SUB(rcx, rsi)
    MOV(rdx, rsi)
    MOV(r8d, access)
