"""Where does firmware write debug output? QEMU's isa-debugcon: a port that takes one byte after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from formats.ports import DEBUG_PORT

PRESENT = 0xE9  # how firmware finds out that the port is there


@dataclass
class DebugConsole:
    """Bytes of the guest go to `send`."""

    send: Callable[[int], None]

    ports = (DEBUG_PORT,)

    def write(self, port: int, size: int, value: int) -> None:
        """The lowest byte."""
        self.send(value & 0xFF)

    def read(self, port: int, size: int) -> int:
        """Says that it is there."""
        return PRESENT
