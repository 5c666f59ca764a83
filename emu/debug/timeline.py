"""What happened when? One self-contained page: phases, exits by kind, console lines over time."""

from __future__ import annotations

import base64
import json
from array import array
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from emu.debug.events import UNKNOWN_CODE, Event, Recorder
from emu.debug.profile import KERNEL
from emu.ending import Ending
from emu.signals import EmuError
from emu.symbols import Symbols
from emu.view import Machine, Vcpu
from formats.ghci import NAMES as VMCALL_NAMES
from formats.ghci import Function
from formats.tdx.leaves import LEAF_NAMES, Leaf

# Rows of the page, top to bottom
CATEGORIES = (
    "page acceptance",
    "RTMR extend",
    "other TDCALLs",
    "#VE",
    "exceptions",
    "port I/O",
    "CPUID",
    "MSRs",
    "HLT",
    "MapGPA",
    "other VMCALLs",
    "interrupts",
)
ACCEPTANCE, EXTEND, TDCALL, VE, EXCEPTION, PORTS, CPUID, MSRS, HLT, MAPGPA, VMCALL, INTERRUPT = range(
    len(CATEGORIES)
)
BY_LEAF: dict[int, int] = {Leaf.MEM_PAGE_ACCEPT: ACCEPTANCE, Leaf.MR_RTMR_EXTEND: EXTEND}
BY_FUNCTION: dict[int, int] = {
    Function.IO: PORTS,
    Function.CPUID: CPUID,
    Function.RDMSR: MSRS,
    Function.WRMSR: MSRS,
    Function.HLT: HLT,
    Function.MAP_GPA: MAPGPA,
}
NUMBERS = {name: number for number, name in VMCALL_NAMES.items()}
LEAVES = {name: number for number, name in LEAF_NAMES.items()}
MAX_MARKS = 3000
LONG_MODE = 64
MAX_EXITS = 2_000_000  # beyond that the page would no longer open well
PHASES = ("reset", "firmware", "decompressor", "kernel", "parked")
RESET, FIRMWARE, PAYLOAD, LINUX, PARKED = range(len(PHASES))


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass
class Lane:
    """One vCPU: when each phase began, as (phase, time, exit)."""

    phases: list[tuple[int, int, int]]
    count: int  # instructions at its last event


def first_phase(machine: Machine, vcpu: Vcpu) -> int:
    """Where a vCPU is when the observation begins: at its reset, unless a snapshot was restored."""
    if vcpu.regs.rip >= KERNEL:
        return LINUX
    if vcpu.index:
        return PARKED
    if machine.handoff and machine.handoff.boot_params is not None:
        return PAYLOAD
    return FIRMWARE if vcpu.regs.mode == LONG_MODE else RESET


class Timeline(Recorder):
    """Collects; `page` is the result once the run is over. Time is instructions of all vCPUs together."""

    def __init__(self, title: str, kernel: Symbols | None = None) -> None:
        super().__init__(self.put, kernel)
        self.title = title
        self.lanes: list[Lane] = []
        self.time = 0
        self.times, self.kinds, self.owners = array("Q"), bytearray(), array("H")
        self.marks: list[tuple[int, int, int, str, str]] = []
        self.lines: list[tuple[int, int, str]] = []
        self.console: bytearray = bytearray()
        self.seen = self.line_start = 0
        self.line_at: tuple[int, int] | None = None
        self.ending: dict[str, object] = {}

    def on_start(self, machine: Machine) -> None:
        super().on_start(machine)
        self.lanes = [Lane([(first_phase(machine, vcpu), 0, 0)], vcpu.count) for vcpu in machine.vcpus]
        self.console = machine.console.data
        self.seen = self.line_start = len(self.console)

    def put(self, event: Event) -> None:
        """One event of the run."""
        lane = self.lanes[event.vcpu]
        self.time += max(event.count - lane.count, 0)
        lane.count = event.count
        exits = len(self.times)
        self.phase(lane, event, exits)
        category = self.category(event)
        if category is not None and exits < MAX_EXITS:
            self.times.append(self.time)
            self.kinds.append(category)
            self.owners.append(event.vcpu)
        if category == PORTS:
            self.read_console(exits)
        if self.notable(event, category) and len(self.marks) < MAX_MARKS:
            where = event.symbol or hex(event.rip)
            values = " ".join(f"{key}={value:#x}" for key, value in (event.given | event.answer).items())
            detail = f"{event.kind} {event.name} {values} {event.result}".strip()
            self.marks.append((self.time, exits, event.vcpu, f"{detail} at {where}", event.kind))

    def category(self, event: Event) -> int | None:
        """Row of an exit, None for what is no exit of its own."""
        if event.kind == "tdcall":
            return BY_LEAF.get(LEAVES.get(event.name, -1), TDCALL)
        if event.kind == "vmcall":
            return BY_FUNCTION.get(NUMBERS.get(event.name, -1), VMCALL)
        if event.kind == "exception":
            return VE if event.name == "#VE" else EXCEPTION
        return INTERRUPT if event.kind == "interrupt" else None

    def notable(self, event: Event, category: int | None) -> bool:
        """What gets a mark of its own."""
        if event.kind in ("control", "mode", "handoff", "end"):
            return True
        return category in (EXTEND, EXCEPTION, MAPGPA, VMCALL)

    def phase(self, lane: Lane, event: Event, exits: int) -> None:
        """Notices where the next phase begins."""
        now = lane.phases[-1][0]
        if event.kind == "mode" and now == RESET:
            lane.phases.append((FIRMWARE, self.time, exits))
        elif event.kind == "handoff" and event.name != UNKNOWN_CODE:
            lane.phases.append((PAYLOAD, self.time, exits))
        elif event.rip >= KERNEL and now != LINUX:
            lane.phases.append((LINUX, self.time, exits))

    def read_console(self, exits: int) -> None:
        """Lines are placed at their first character."""
        if len(self.console) == self.seen:
            return
        if self.line_at is None:
            self.line_at = (self.time, exits)
        self.seen = len(self.console)
        if self.console[-1] == 10:
            self.end_line()

    def end_line(self) -> None:
        """Keeps the line that is complete."""
        text = bytes(self.console[self.line_start :]).decode(errors="replace").strip()
        if text and self.line_at:
            clean = "".join(c if c.isprintable() else " " for c in text)
            self.lines.append((*self.line_at, clean))
        self.line_start, self.line_at = len(self.console), None

    def on_end(self, machine: Machine, ending: Ending) -> None:
        super().on_end(machine, ending)
        self.end_line()
        self.time += sum(
            max(v.count - lane.count, 0) for v, lane in zip(machine.vcpus, self.lanes, strict=True)
        )
        self.ending = {"reason": ending.end.reason, "detail": ending.end.detail}

    def data(self) -> dict[str, object]:
        """What the page draws; exits as varints of (time since the exit before, kind, vCPU)."""
        stream, before = bytearray(), 0
        for time, kind, owner in zip(self.times, self.kinds, self.owners, strict=True):
            stream += varint(time - before) + bytes((kind,)) + varint(owner)
            before = time
        return {
            "title": self.title,
            "end": self.ending,
            "time": self.time,
            "exits": len(self.times),
            "categories": CATEGORIES,
            "phases": PHASES,
            "lanes": [lane.phases for lane in self.lanes],
            "marks": self.marks,
            "lines": self.lines,
            "stream": base64.b64encode(bytes(stream)).decode(),
        }

    def page(self) -> str:
        """The whole page."""
        template = resources.files("emu.debug").joinpath("timeline.html").read_text(encoding="utf-8")
        text = json.dumps(self.data(), separators=(",", ":")).replace("<", "\\u003c")
        return template.replace('"@DATA@"', text)

    def write(self, path: Path) -> None:
        """Writes the page. EmuError when that fails."""
        try:
            path.write_text(self.page(), encoding="utf-8")
        except OSError as error:
            raise EmuError(f"cannot write {path}: {error.strerror}") from None
