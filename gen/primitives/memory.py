"""How does RAM become usable? What the image says of it, acceptance, what was added there, carved regions."""

from __future__ import annotations

from dataclasses import dataclass

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    JMP,
    JZ,
    LABEL,
    LEA,
    MOV,
    SHR,
    TEST,
    XOR,
    Label,
    eax,
    ecx,
    edx,
    qword,
    r8,
    r8d,
    r9,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.layout import WITHIN_BFV
from dsl.model import Firmware, ImageSection
from dsl.sizes import SPAN_DATA, SPAN_LENGTH, SPAN_SIZE, size
from formats.hob import MEMORY_ATTRIBUTES, ResourceType
from formats.paging import CLEARING_WINDOW
from formats.units import LARGE_PAGE
from gen.flow.names import CONTEXT, IMAGE_MEMORY
from gen.primitives.builder import NONE, READ_WRITE, Body, Builder, map_arguments, reload_cr3
from gen.x86 import DD, DQ, REP_MOVSB, REP_STOSB, REP_STOSQ, Symbol, Unit, rsp


def image_memory(b: Builder) -> None:  # (out)
    """A record of zeros, and in it the rows of `emit_image_memory`."""
    rows = len(_rows(b.firmware))
    MOV(rdx, rdi)
    XOR(eax, eax)
    MOV(ecx, b.firmware.records["Vmm"].size)
    REP_STOSB()
    MOV(qword[rdx + b.offset("Vmm", "resources")], rows)
    LEA(rdi, [rdx + b.items("Vmm", "resources")])
    LEA(rsi, [Symbol(IMAGE_MEMORY)])
    MOV(ecx, rows * b.firmware.records["Resource"].size)
    REP_MOVSB()


def emit_image_memory(unit: Unit, firmware: Firmware) -> None:
    """The sections as a VMM's list would have them: items of `Vmm.resources`."""
    with unit.data(IMAGE_MEMORY, section=f".rodata.{IMAGE_MEMORY}", align=8, exported=False):
        for section in _rows(firmware):
            assert section.address is not None  # dsl/verify.py
            assert section.size is not None
            aug = section.kind == "PermMem"
            values = {
                "kind": int(ResourceType.UNACCEPTED if aug else ResourceType.SYSTEM_MEMORY),
                "attributes": int(MEMORY_ATTRIBUTES),
                "start": section.address,
                "size": section.size,
            }
            for field in firmware.records["Resource"].fields:
                put = DQ if size(field.type, firmware.records) == 8 else DD
                put(values[field.name], f"{section.name}: {field.name}")


def _rows(firmware: Firmware) -> list[ImageSection]:
    """BFV and CFV lie where no list has RAM."""
    return [section for section in firmware.image if section.kind not in ("BFV", "CFV", *WITHIN_BFV)]


def clear_added(b: Builder, run: int, paging: int) -> None:
    """Clears what the run says, if anything: at most 2 MiB, which need not be mapped."""
    clear, size = (b.offset("AcceptRun", name) for name in ("clear", "clear_size"))
    window, nothing = b.frame.slot(8), Label("nothing_to_clear")
    MOV(rcx, [rsp + run + size])
    TEST(rcx, rcx)
    JZ(nothing)
    MOV(rdx, [rsp + run + clear])
    MOV(rsi, rdx)
    AND(rsi, LARGE_PAGE - 1)
    MOV(rax, CLEARING_WINDOW)
    ADD(rsi, rax)
    MOV([rsp + window], rsi)
    MOV(rdi, [rsp + paging])
    MOV(r8d, READ_WRITE)
    b.checked("page_map")
    reload_cr3()
    MOV(rdi, [rsp + window])
    MOV(rcx, [rsp + run + size])
    SHR(rcx, 3)
    XOR(eax, eax)
    REP_STOSQ()
    MOV(rdi, [rsp + paging])
    MOV(rsi, [rsp + window])
    MOV(rdx, [rsp + run + clear])
    MOV(rcx, [rsp + run + size])
    MOV(r8d, NONE)
    b.checked("page_map")
    LABEL(nothing)


@dataclass(frozen=True)
class Accepting:
    """Slots of an acceptance: its arguments, and what its loop goes by."""

    ram: int
    limit: int
    level: int
    paging: int
    at: int
    run: int
    done: int
    status: int
    index: int


def accepting(b: Builder) -> Accepting:  # (ram, limit, level, paging)
    """Keeps the arguments."""
    ram, limit, level, paging = b.save(rdi, rsi, rdx, rcx)
    at, run = b.record_slot("Acceptance"), b.record_slot("AcceptRun")
    done, status, index = (b.frame.slot(8) for _ in range(3))
    return Accepting(ram, limit, level, paging, at, run, done, status, index)


def begin(a: Accepting) -> None:
    """From the first range of the plan on."""
    MOV(rdi, [rsp + a.ram])
    MOV(rsi, [rsp + a.limit])
    MOV(edx, [rsp + a.level])
    LEA(rcx, [rsp + a.at])
    CALL(Symbol("accept_begin"))


def accept_runs(b: Builder, a: Accepting, end: int | None = None) -> None:
    """Accepts and clears run by run as C plans it; up to the address in slot `end`, if there is one."""
    start, count, run_level = (b.offset("AcceptRun", name) for name in ("start", "count", "level"))
    more, accepted = Label("more"), Label("accepted")
    XOR(eax, eax)
    MOV([rsp + a.done], rax)
    MOV([rsp + a.status], rax)
    LABEL(more)
    MOV(rdi, [rsp + a.ram])
    LEA(rsi, [rsp + a.at])
    if end is None:
        MOV(rdx, [rsp + a.done])
        MOV(rcx, [rsp + a.status])
        LEA(r8, [rsp + a.run])
        b.checked("accept_next")
    else:
        MOV(rdx, [rsp + end])
        MOV(rcx, [rsp + a.done])
        MOV(r8, [rsp + a.status])
        LEA(r9, [rsp + a.run])
        b.checked("accept_rest")
    clear_added(b, a.run, a.paging)
    MOV(rsi, [rsp + a.run + count])
    TEST(rsi, rsi)
    JZ(accepted)
    MOV(rdi, [rsp + a.run + start])
    MOV(rdx, [rsp + a.run + run_level])
    LEA(rcx, [rsp + a.done])
    CALL(Symbol("tdcall_accept_run"))
    MOV([rsp + a.status], rax)
    JMP(more)
    LABEL(accepted)


def map_carved(b: Builder, a: Accepting) -> None:
    """Maps, publishes and clears the carved regions."""
    for name, place in b.context.carved.items():
        span = b.items("Ram", "carved") + SPAN_LENGTH * list(b.context.carved).index(name)
        MOV(rax, [rsp + a.ram])
        LEA(rax, [rax + span])
        MOV([rsp + a.index], rax)
        MOV(rdi, [rsp + a.paging])
        map_arguments(rax, READ_WRITE)
        b.checked("page_map")
        MOV(rdx, [rsp + a.index])
        for part in (SPAN_DATA, SPAN_SIZE):
            MOV(rax, [rdx + part])
            MOV([Symbol(CONTEXT, place + part)], rax)
    reload_cr3()
    for place in b.context.carved.values():
        # What was added at launch holds what the VMM put there.
        MOV(rdi, [Symbol(CONTEXT, place)])
        MOV(rcx, [Symbol(CONTEXT, place + SPAN_SIZE)])
        XOR(eax, eax)
        REP_STOSB()


def accept(b: Builder) -> None:  # (ram, limit, level, paging)
    """Accepts and clears, then gives the carved regions."""
    a = accepting(b)
    begin(a)
    accept_runs(b, a)
    map_carved(b, a)


BODIES: dict[str, Body] = {"accept": accept, "image_memory": image_memory}
