"""What happened, one record at a time? Turns what an observer is shown into events with names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.debug import names
from emu.ending import Ending
from emu.handoff import Handoff
from emu.observe import Observer, Raised
from emu.symbols import Symbols
from emu.view import Machine, Vcpu
from formats.ghci import Function
from formats.registers import Gpr
from formats.tdx.leaves import Leaf
from formats.units import LARGE_PAGE, PAGE

UNKNOWN_CODE = "first unmeasured code"  # without boot_params: perhaps another part of the firmware


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `count` is how many instructions its vCPU had done before it."""

    count: int
    vcpu: int
    kind: str  # tdcall, vmcall, page, exception, interrupt, control, mode, handoff, end
    name: str
    rip: int
    given: dict[str, int] = field(default_factory=dict)
    result: str = ""
    answer: dict[str, int] = field(default_factory=dict)
    symbol: str = ""


class Recorder(Observer):
    """Gives each event to `sink`, in order. Symbols of the kernel come on top of the firmware's own."""

    def __init__(self, sink: Callable[[Event], None], kernel: Symbols | None = None) -> None:
        self.sink = sink
        self.kernel = kernel
        self.firmware = Symbols()
        self.modes: dict[int, int] = {}
        self.shared_bit = 0

    def on_start(self, machine: Machine) -> None:
        self.firmware = machine.symbols
        self.shared_bit = machine.memory.shared_bit

    def symbol(self, address: int) -> str:
        """Of firmware or kernel, an empty text for neither."""
        found = self.firmware.name(address)
        return found or (self.kernel.name(address) if self.kernel else "")

    def emit(self, vcpu: Vcpu, kind: str, name: str, rip: int, **more: object) -> None:
        """Completes an event and passes it on."""
        count, index = vcpu.count, vcpu.index
        self.sink(Event(count, index, kind, name, rip, symbol=self.symbol(rip), **more))  # type: ignore[arg-type]

    def look(self, vcpu: Vcpu) -> int:
        """RIP; reports a change of the code segment's width first."""
        regs = vcpu.regs
        mode, rip, index = int(regs.mode), int(regs.rip), vcpu.index
        before = self.modes.get(index, 32)
        if mode != before:
            self.emit(vcpu, "mode", f"{before}-bit to {mode}-bit code", rip)
        self.modes[index] = mode
        return rip

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        rip = self.look(vcpu)
        call = names.describe(given, result)
        self.emit(vcpu, call.kind, call.name, rip, given=call.given, result=call.result, answer=call.answer)
        if call.kind == "vmcall" and call.number == Function.MAP_GPA:
            self.converted(vcpu, call, rip)
        elif call.result == "SUCCESS" and call.kind == "tdcall" and call.number == Leaf.MEM_PAGE_ACCEPT:
            operand = call.given["gpa_level"]
            pages = {"gpa": operand & ~0xFFF, "size": LARGE_PAGE if operand & 7 else PAGE}
            self.emit(vcpu, "page", "pending to private", rip, given=pages)

    def converted(self, vcpu: Vcpu, call: names.Call, rip: int) -> None:
        """What a MapGPA did, whole or up to where it stopped; device memory has no page states."""
        gpa, size = call.given["gpa"], call.given["size"]
        if call.result != "SUCCESS":
            size = call.answer.get("reached", gpa) - gpa
        bare = gpa & ~self.shared_bit
        if 0 < size <= call.given["size"] and vcpu.memory.is_backed(bare):
            towards = "to shared" if gpa & self.shared_bit else "to pending"
            self.emit(vcpu, "page", towards, rip, given={"gpa": bare, "size": size})

    def on_exception(self, vcpu: Vcpu, raised: Raised) -> None:
        given = {} if raised.error_code is None else {"error": raised.error_code}
        if raised.address is not None:
            given["address"] = raised.address
        name = names.EXCEPTIONS.get(raised.vector, f"vector {raised.vector}")
        self.emit(vcpu, "exception", name, raised.rip, given=given)

    def on_interrupt(self, vcpu: Vcpu, vector: int, rip: int) -> None:
        self.emit(vcpu, "interrupt", f"vector {vector}", rip)

    def on_control(self, vcpu: Vcpu, register: str, old: int, new: int) -> None:
        self.emit(vcpu, "control", register, self.look(vcpu), given={"old": old, "new": new})

    def on_mode(self, vcpu: Vcpu) -> None:
        self.look(vcpu)

    def on_handoff(self, vcpu: Vcpu, given: Handoff) -> None:
        name = "handoff" if given.boot_params is not None else UNKNOWN_CODE
        self.emit(vcpu, "handoff", name, given.entry, given={"parameters": given.rsi})

    def on_end(self, machine: Machine, ending: Ending) -> None:
        rip = self.look(ending.vcpu)
        self.emit(ending.vcpu, "end", ending.end.reason, rip, result=ending.end.detail)
