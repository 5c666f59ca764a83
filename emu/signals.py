"""What can an instruction lead to instead of its result? Control-flow signals between the models and the
run loop.
"""

from __future__ import annotations

from dataclasses import dataclass


class EmuError(Exception):
    """A mistake of the user or a limit of the emulator, in one line."""


@dataclass
class Fault(Exception):
    """An exception that the guest gets: vector and, where it has one, an error code."""

    vector: int
    error_code: int | None = None


@dataclass
class VirtualizationException(Exception):
    """#VE with what TDG.VP.VEINFO.GET shall report."""

    reason: int
    qualification: int = 0
    gla: int = 0
    gpa: int = 0
    length: int = 0
    info: int = 0


@dataclass
class End(Exception):
    """The run is over: reason is one of REASONS, detail one line for a person."""

    reason: str
    detail: str = ""


REASONS = (
    "handoff",
    "console",
    "halt",
    "fatal",
    "triple-fault",
    "sept-violation",
    "illegal",
    "limit",
    "shutdown",
    "reset",
    "debug-exit",
)

GP = Fault(13, 0)
UD = Fault(6)
