"""What can a debugger ask of one vCPU's engine? Breakpoints, steps, watchpoints, exact counts, segments, and
the last exception. Nothing of this costs anything until it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEGMENTS = 6


@dataclass(frozen=True)
class Counted:
    """Straight-line code and how many instructions were executed there."""

    begin: int
    end: int
    instructions: int
    mode: int
    user: bool = False  # at CPL 3


@dataclass(frozen=True)
class Segment:
    """Selector and base of a segment register."""

    selector: int
    base: int


@dataclass(frozen=True)
class LastFault:
    """The last exception that the guest's own code raised; `cr2` only after a #PF."""

    vector: int
    error_code: int
    rip: int
    cr2: int


@dataclass(frozen=True)
class Probe:
    """The debugger's side of a vCPU."""

    ffi: Any
    lib: Any
    handle: Any

    # -- stops

    def report_exceptions(self) -> None:
        """Exceptions that the engine delivers, and changes of the code's width, stop the vCPU from now on."""
        self.lib.td_report_exceptions(self.handle, True)

    def break_set(self, address: int) -> bool:
        """A breakpoint at a linear address; False when there are too many."""
        return bool(self.lib.td_break_set(self.handle, address))

    def break_clear(self, address: int) -> None:
        """Takes a breakpoint away."""
        self.lib.td_break_clear(self.handle, address)

    def break_pass(self) -> None:
        """The instruction at RIP is not stopped at again."""
        self.lib.td_break_pass(self.handle)

    def step(self, on: bool) -> None:
        """Stop behind the instruction at RIP, or at the first one of the handler that it leads to."""
        self.lib.td_step(self.handle, on)

    def watch_set(self, gpa: int, size: int, access: int) -> bool:
        """Stop behind an instruction that touches these bytes; False when there are too many watches."""
        return bool(self.lib.td_watch_set(self.handle, gpa, size, access))

    def watch_clear(self, gpa: int, size: int, access: int) -> None:
        """Takes a watchpoint away."""
        self.lib.td_watch_clear(self.handle, gpa, size, access)

    def watch_hit(self) -> int:
        """The GPA of the watchpoint that the last stop is for, all ones if it is for none."""
        return int(self.lib.td_watch_hit(self.handle))

    # -- state

    def segments(self) -> tuple[Segment, ...]:
        """ES CS SS DS FS GS."""
        six = self.ffi.new(f"td_segment[{SEGMENTS}]")
        self.lib.td_segments(self.handle, six)
        return tuple(Segment(int(one.selector), int(one.base)) for one in six)

    def forget_code(self) -> None:
        """Memory was changed behind the engine's back."""
        self.lib.td_forget_code(self.handle)

    def last_fault(self) -> LastFault | None:
        """None if there was none."""
        last = self.lib.td_last_fault(self.handle)
        if last.vector < 0:
            return None
        return LastFault(int(last.vector), int(last.error_code), int(last.rip), int(last.cr2))

    # -- counts

    def profile_start(self) -> None:
        """Count instructions by block from now on."""
        self.lib.td_profile_start(self.handle)

    def profile(self) -> list[Counted]:
        """What was counted so far."""
        room = self.lib.td_profile_read(self.handle, self.ffi.NULL, 0)
        out = self.ffi.new("td_counted[]", max(room, 1))
        filled = min(room, self.lib.td_profile_read(self.handle, out, room))
        rows = (
            (int(c.begin), int(c.end), int(c.instructions), int(c.mode), bool(c.user)) for c in out[0:filled]
        )
        return [Counted(*row) for row in rows if row[2]]

    def instruction_starts(self, code: Counted) -> list[int]:
        """Addresses of the instructions in a range, empty when its code cannot be read."""
        begin, size = code.begin, code.end - code.begin
        out = self.ffi.new("uint8_t[]", size + 16)
        if not self.lib.td_read_linear(self.handle, begin, out, size):
            return []
        found, at = [], 0
        while at < size:
            length = int(self.lib.td_insn_length(out + at, size - at, code.mode or 64))
            if length <= 0:
                break
            found.append(begin + at)
            at += length
        return found
