"""What do the primitives of home `generated` do? Order and privilege around the C core and TDCALLs.

Each function follows the ABI of `dsl.model.Primitive` under the symbol `prim_<name>`. C functions are called
by their own names, TDCALL functions by theirs (gen/tdcall.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CLD,
    CMP,
    JAE,
    JBE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    SHL,
    SUB,
    TEST,
    XOR,
    Label,
    byte,
    cl,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    qword,
    r8,
    r8d,
    r9,
    r9d,
    r10d,
    r11d,
    r12d,
    r13d,
    r14d,
    r15d,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.model import Firmware, Primitive
from gen.flow.context import Context
from gen.flow.frame import Frame
from gen.flow.names import CONTEXT, primitive_symbol
from gen.x86 import CLI, MOVCR, MOVSEG, REP_MOVSB, REP_STOSB, Symbol, Unit, cr3, ds, es, rsp, ss

PAGE = 0x1000
# Access of `page_map`, as the prelude has it.
READ, READ_WRITE, READ_EXECUTE, ALL = 1, 2, 3, 7
# Linux's LA57 and AP trampolines lie in the first MiB (arch/x86/realmode); this is one large page.
LOW_MEMORY = 0x20_0000
COM1 = 0x3F8
# GHCI, sub-function status of MapGPA: "partly done, go on at R11".
RETRY = 1


@dataclass
class _Builder:
    """What an emitter of one primitive needs."""

    firmware: Firmware
    context: Context
    frame: Frame
    fail: Label

    def error(self, name: str) -> int:
        return next(error.number for error in self.firmware.errors if error.name == name)

    def offset(self, record: str, field: str) -> int:
        fields = self.firmware.records[record].fields
        return next(each.offset for each in fields if each.name == field)

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

    def require_success(self, status: Any, error: str) -> None:
        """Fails with `error` unless the register is zero."""
        fine = Label(f"fine_{error}")
        TEST(status, status)
        JZ(fine)
        MOV(eax, self.error(error))
        JMP(self.fail)
        LABEL(fine)


def emit_primitives(unit: Unit, firmware: Firmware, context: Context) -> None:
    """Adds every generated primitive."""
    for name, primitive in firmware.primitives.items():
        if primitive.home == "generated":
            symbol = primitive_symbol(primitive)
            frame = Frame()
            with unit.code(symbol, section=f".text.{symbol}"):
                _function(_Builder(firmware, context, frame, Label("fail")), primitive, _BODIES[name])
            frame.close()


def _function(builder: _Builder, primitive: Primitive, body: Callable[[_Builder], None]) -> None:
    builder.frame.open()
    body(builder)
    if primitive.fallible:
        XOR(eax, eax)
        LABEL(builder.fail)
    builder.frame.leave()


# ---------------------------------------------------------------- measurement


def _measure(log: str) -> Callable[[_Builder], None]:
    def body(b: _Builder) -> None:  # (data, rtmr, name, log)
        data, rtmr, name, state = b.save(rdi, rsi, rdx, rcx)
        digest = b.record_slot("Digest")
        MOV(rdi, [rsp + state])
        MOV(esi, [rsp + rtmr])
        MOV(rdx, [rsp + name])
        MOV(rcx, [rsp + data])
        LEA(r8, [rsp + digest])
        b.checked(log)
        _extend(b, digest, rtmr, state)

    return body


def _separate(b: _Builder) -> None:  # (rtmr, log)
    rtmr, state = b.save(rdi, rsi)
    digest = b.record_slot("Digest")
    MOV(rdi, [rsp + state])
    MOV(esi, [rsp + rtmr])
    LEA(rdx, [rsp + digest])
    b.checked("log_separator")
    _extend(b, digest, rtmr, state)


def _extend(b: _Builder, digest: int, rtmr: int, log: int) -> None:
    """Extends the RTMR with the digest, then makes the event part of the log."""
    operand = b.frame.slot(64, 64)
    for part in range(0, 48, 8):  # the list's items start behind its count, the operand is aligned to 64
        MOV(rax, [rsp + digest + 8 + part])
        MOV([rsp + operand + part], rax)
    LEA(rdi, [rsp + operand])
    MOV(esi, [rsp + rtmr])
    CALL(Symbol("tdcall_rtmr_extend"))
    b.require_success(rax, "rtmr_extend_failed")
    MOV(rdi, [rsp + log])
    CALL(Symbol("log_commit"))


# ---------------------------------------------------------------- memory


def _reload_cr3() -> None:
    MOVCR(rax, cr3)
    MOVCR(cr3, rax)


def _accept(b: _Builder) -> None:  # (ram, limit, level, paging)
    ram, limit, level, paging = b.save(rdi, rsi, rdx, rcx)
    at, run = b.record_slot("Acceptance"), b.record_slot("AcceptRun")
    done, status, index = (b.frame.slot(8) for _ in range(3))
    start, count, run_level = (b.offset("AcceptRun", name) for name in ("start", "count", "level"))
    more, accepted = Label("more"), Label("accepted")
    MOV(rdi, [rsp + ram])
    MOV(rsi, [rsp + limit])
    MOV(edx, [rsp + level])
    LEA(rcx, [rsp + at])
    CALL(Symbol("accept_begin"))
    XOR(eax, eax)
    MOV([rsp + done], rax)
    MOV([rsp + status], rax)
    LABEL(more)
    MOV(rdi, [rsp + ram])
    LEA(rsi, [rsp + at])
    MOV(rdx, [rsp + done])
    MOV(rcx, [rsp + status])
    LEA(r8, [rsp + run])
    b.checked("accept_next")
    MOV(rsi, [rsp + run + count])
    TEST(rsi, rsi)
    JZ(accepted)
    MOV(rdi, [rsp + run + start])
    MOV(rdx, [rsp + run + run_level])
    LEA(rcx, [rsp + done])
    CALL(Symbol("tdcall_accept_run"))
    MOV([rsp + status], rax)
    JMP(more)
    LABEL(accepted)

    for name, place in b.context.carved.items():
        span = b.offset("Ram", "carved") + 8 + 16 * list(b.context.carved).index(name)
        MOV(rax, [rsp + ram])
        LEA(rax, [rax + span])
        MOV([rsp + index], rax)
        MOV(rdi, [rsp + paging])
        _map(rax, READ_WRITE)
        b.checked("page_map")
        MOV(rdx, [rsp + index])
        for part in (0, 8):
            MOV(rax, [rdx + part])
            MOV([Symbol(CONTEXT, place + part)], rax)
    _reload_cr3()
    for place in b.context.carved.values():
        # What was added at launch holds what the VMM put there.
        MOV(rdi, [Symbol(CONTEXT, place)])
        MOV(rcx, [Symbol(CONTEXT, place + 8)])
        XOR(eax, eax)
        REP_STOSB()


def _map(span: Any, access: int) -> None:
    """Arguments 2 to 5 of page_map: the identity map of a span whose address is in a register."""
    MOV(rcx, [span + 8])
    MOV(rsi, [span])
    MOV(rdx, rsi)
    MOV(r8d, access)


def _map_pages(access: int) -> None:
    """Arguments 2 to 5 of page_map for the pages that hold [RSI, RSI + RCX)."""
    ADD(rcx, rsi)
    ADD(rcx, PAGE - 1)
    AND(rcx, -PAGE)
    AND(rsi, -PAGE)
    SUB(rcx, rsi)
    MOV(rdx, rsi)
    MOV(r8d, access)


def _load_linux(b: _Builder) -> None:  # (placement, paging)
    placement, paging = b.save(rdi, rsi)
    index, item = b.frame.slot(8), b.frame.slot(8)
    to, from_, size = (b.offset("Copy", name) for name in ("to", "from", "size"))
    copies = b.offset("Placement", "copies")
    step = b.firmware.records["Copy"].size
    top, end, forward, copied = Label("copy"), Label("done"), Label("forward"), Label("copied")
    LEA(rax, [rdi + copies + 8])
    MOV([rsp + item], rax)
    MOV(qword[rsp + index], 0)
    LABEL(top)
    MOV(rax, [rsp + placement])
    MOV(rcx, [rsp + index])
    CMP(rcx, [rax + copies])
    JAE(end)
    MOV(rax, [rsp + item])
    MOV(rsi, [rax + to])
    MOV(rcx, [rax + size])
    TEST(rcx, rcx)
    JZ(copied)
    MOV(rdi, [rsp + paging])
    _map_pages(READ_WRITE)
    b.checked("page_map")
    _reload_cr3()
    MOV(rax, [rsp + item])
    MOV(rdi, [rax + to])
    MOV(rsi, [rax + from_])
    MOV(rcx, [rax + size])
    # Upwards into its own source: from the end, so that nothing is overwritten before it was copied.
    CMP(rdi, rsi)
    JBE(forward)
    LEA(rdx, [rsi + rcx * 1])
    CMP(rdi, rdx)
    JAE(forward)
    MOV(rdx, rcx)
    CALL(Symbol("memmove"))
    JMP(copied)
    LABEL(forward)
    REP_MOVSB()
    LABEL(copied)
    ADD(qword[rsp + item], step)
    ADD(qword[rsp + index], 1)
    JMP(top)
    LABEL(end)


# ---------------------------------------------------------------- processors and handoff


def _park_aps(b: _Builder) -> None:  # (mailbox, paging)
    """Page 0 of the region is the mailbox; the APs' own page tables follow and outlive the shim's.

    They map the park loop and what it reads; memory for the OS's wakeup code is added in the handoff.
    """
    (mailbox,) = b.save(rdi)
    pool = b.context.ap_paging
    tables = pool + b.offset("Paging", "tables")
    MOV(rax, [rdi])
    ADD(rax, PAGE)
    MOV([Symbol(CONTEXT, tables)], rax)
    MOV(rcx, [rdi + 8])
    SUB(rcx, PAGE)
    MOV([Symbol(CONTEXT, tables + 8)], rcx)
    MOV(eax, 1)  # the PML4
    MOV([Symbol(CONTEXT, pool + b.offset("Paging", "used"))], rax)
    MOV(rcx, [rdi + 8])
    MOV(rdi, [rdi])
    XOR(eax, eax)
    REP_STOSB()
    for part, access in (("text", READ_EXECUTE), ("rodata", READ), ("data", READ)):
        LEA(rdi, [Symbol(CONTEXT, pool)])
        LEA(rsi, [Symbol(f"__{part}_start")])
        LEA(rcx, [Symbol(f"__{part}_end")])
        SUB(rcx, rsi)
        _map_pages(access)
        b.checked("page_map")
    LEA(rdi, [Symbol(CONTEXT, pool)])
    MOV(rax, [rsp + mailbox])
    MOV(rsi, [rax])
    MOV(ecx, PAGE)
    _map_pages(READ_WRITE)
    b.checked("page_map")
    # The gate opens last: an AP that sees it finds everything else in place (stores stay in order on x86).
    MOV(rax, [rsp + mailbox])
    MOV(rax, [rax])
    MOV([Symbol("ap_mailbox")], rax)
    ADD(rax, PAGE)
    MOV([Symbol("ap_gate")], eax)


def _handoff_linux(b: _Builder) -> None:  # (placement, page, paging)
    """Opens what the boot protocol wants writable and executable, then enters at the 64-bit entry point."""
    placement, page, paging = b.save(rdi, rsi, rdx)

    def low_memory() -> None:  # paging trampoline of the kernel, wakeup code of its APs
        XOR(esi, esi)
        MOV(ecx, LOW_MEMORY)

    def window() -> None:
        MOV(rax, [rsp + placement])
        MOV(rsi, [rax + b.offset("Placement", "window_start")])
        MOV(rcx, [rax + b.offset("Placement", "window_end")])
        SUB(rcx, rsi)

    def protected_part() -> None:
        MOV(rax, [rsp + placement])
        MOV(rsi, [rax + b.offset("Placement", "load")])
        MOV(rcx, [rax + b.offset("Placement", "kernel") + b.offset("Linux", "protected_size")])

    LEA(rdi, [Symbol(CONTEXT, b.context.ap_paging)])
    low_memory()
    _map_pages(ALL)
    b.checked("page_map")
    for part in (low_memory, window, protected_part):
        MOV(rdi, [rsp + paging])
        part()
        _map_pages(ALL)
        b.checked("page_map")
    _reload_cr3()
    MOV(rax, [rsp + placement])
    MOV(rcx, [rax + b.offset("Placement", "entry")])
    MOV(rsi, [rsp + page])
    MOV(rsi, [rsi])
    JMP(Symbol("enter_payload"))


def emit_enter_payload(unit: Unit) -> None:
    """`enter_payload`: jumps to RCX with RSI kept, other general registers but RSP zero, IF = DF = 0.

    The data segments get the boot protocol's selector; CS has been 0x10 since reset.
    """

    with unit.code("enter_payload", section=".text.enter_payload"):
        CLI()
        CLD()
        MOV(eax, 0x18)
        for segment in (ds, es, ss):
            MOVSEG(segment, eax)
        for register in (eax, ebx, edx, edi, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d):
            XOR(register, register)
        JMP(rcx)


# ---------------------------------------------------------------- the VMM


def _print(b: _Builder) -> None:  # (line)
    position, end = b.frame.slot(8), b.frame.slot(8)
    top, done = Label("byte"), Label("done")
    MOV(rax, [rdi])
    MOV([rsp + position], rax)
    ADD(rax, [rdi + 8])
    MOV([rsp + end], rax)
    LABEL(top)
    MOV(rcx, [rsp + position])
    CMP(rcx, [rsp + end])
    JAE(done)
    ADD(qword[rsp + position], 1)
    MOVZX(edx, byte[rcx])
    MOV(edi, COM1)
    MOV(esi, 1)
    CALL(Symbol("tdvmcall_io_write"))
    JMP(top)
    LABEL(done)


def _tdvmcall(b: _Builder) -> None:  # (function, r12, r13, r14, r15, out)
    inputs, outputs = b.frame.slot(32), b.frame.slot(40)
    (out,) = b.save(r9)
    for part, register in enumerate((rsi, rdx, rcx, r8)):
        MOV([rsp + inputs + 8 * part], register)
    LEA(rsi, [rsp + inputs])
    LEA(rdx, [rsp + outputs])
    CALL(Symbol("tdvmcall"))
    b.require_success(rax, "tdvmcall_failed")
    MOV(rax, [rsp + outputs])
    MOV(rcx, [rsp + out])
    MOV([rcx], rax)


def _io_write(b: _Builder) -> None:  # (port, size, value)
    CALL(Symbol("tdvmcall_io_write"))
    b.require_success(rax, "tdvmcall_failed")


def _io_read(b: _Builder) -> None:  # (port, size, out)
    CALL(Symbol("tdvmcall_io_read"))
    b.require_success(rax, "tdvmcall_failed")


def _share(b: _Builder) -> None:  # (region, td, paging, out)
    region, _, paging, out = b.save(rdi, rsi, rdx, rcx)
    bit, at, end, following = (b.frame.slot(8) for _ in range(4))
    again, done, refused = Label("again"), Label("done"), Label("refused")
    # The shared bit is the topmost bit of a guest physical address: GPAW - 1.
    MOV(rcx, [rsi + b.offset("VpInfo", "gpaw")])
    SUB(rcx, 1)
    MOV(eax, 1)
    SHL(rax, cl)
    MOV([rsp + bit], rax)
    ADD(rax, [rdi])
    MOV([rsp + at], rax)
    ADD(rax, [rdi + 8])
    MOV([rsp + end], rax)
    LABEL(again)
    MOV(rdi, [rsp + at])
    MOV(rsi, [rsp + end])
    SUB(rsi, rdi)
    LEA(rdx, [rsp + following])
    CALL(Symbol("tdvmcall_map_gpa"))
    TEST(rax, rax)
    JZ(done)
    CMP(rax, RETRY)
    JNE(refused)
    # Only an answer that makes progress inside the range is taken.
    MOV(rcx, [rsp + following])
    CMP(rcx, [rsp + at])
    JBE(refused)
    CMP(rcx, [rsp + end])
    JAE(refused)
    TEST(ecx, PAGE - 1)
    JNZ(refused)
    MOV([rsp + at], rcx)
    JMP(again)
    LABEL(refused)
    MOV(eax, b.error("tdvmcall_failed"))
    JMP(b.fail)
    LABEL(done)
    MOV(rax, [rsp + region])
    MOV(rdi, [rsp + paging])
    _map(rax, READ_WRITE)
    ADD(rdx, [rsp + bit])
    b.checked("page_map")
    _reload_cr3()
    MOV(rax, [rsp + region])
    MOV(rdx, [rsp + out])
    for part in (0, 8):
        MOV(rcx, [rax + part])
        MOV([rdx + part], rcx)


_BODIES: dict[str, Callable[[_Builder], None]] = {
    "measure_platform_config": _measure("log_platform_config"),
    "measure_blob": _measure("log_blob"),
    "separate": _separate,
    "accept": _accept,
    "load_linux": _load_linux,
    "park_aps": _park_aps,
    "handoff_linux": _handoff_linux,
    "print": _print,
    "tdvmcall": _tdvmcall,
    "io_write": _io_write,
    "io_read": _io_read,
    "share": _share,
}
