"""What can an instruction lead to instead of its result? Control-flow signals between the models and the
run loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from formats.tdx.reduction import ARCH


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
    category: int = ARCH  # of formats.tdx.reduction
    interruptibility: int = (
        0  # as the VMCS has it (Intel SDM volume 3, table 25-3); known when it is delivered
    )


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
