"""When is a run over, and why? The condition that a user gives, and what in fact ended it."""

from __future__ import annotations

from dataclasses import dataclass

from emu.signals import EmuError, End
from emu.view import Vcpu

UNTIL_REASONS = ("handoff", "halt", "shutdown", "reset", "debug-exit")  # end reasons that a user may wait for
CONSOLE = "console"


@dataclass(frozen=True)
class Until:
    """The end condition of a run: an end reason, for `console` with the text that has to appear."""

    reason: str
    text: bytes = b""

    @staticmethod
    def parse(text: str) -> Until:
        """From the command line's form: one of UNTIL_REASONS, or console:TEXT. EmuError."""
        reason, _, shown = text.partition(":")
        if reason == CONSOLE and shown:
            return Until(CONSOLE, shown.encode())
        if text in UNTIL_REASONS:
            return Until(text)
        raise EmuError(f"until {text!r}: expected one of {', '.join(UNTIL_REASONS)}, or {CONSOLE}:TEXT")


@dataclass(frozen=True)
class Ending:
    """Why the run is over and which vCPU ended it."""

    end: End
    vcpu: Vcpu

    def meets(self, until: Until) -> bool:
        """Whether the run ended with the condition that was given."""
        return self.end.reason == until.reason
