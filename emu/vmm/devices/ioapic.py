"""Where do device interrupts go? An I/O APIC (Intel 82093AA data sheet) whose pins are all edge-triggered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.cpu.apic import Message

BASE = 0xFEC00000
PINS = 24
SELECT, WINDOW = 0x00, 0x10
REG_ID, REG_VERSION, REG_REDIRECTION = 0, 1, 0x10
VERSION = 0x11 | (PINS - 1) << 16
MASKED, LOGICAL = 1 << 16, 1 << 11
READ_ONLY = 1 << 12 | 1 << 14  # delivery status, remote IRR


@dataclass
class IoApic:
    """Turns edges of its pins into messages for local APICs."""

    send: Callable[[Message], None]
    selected: int = 0
    identity: int = 0
    entries: list[int] = field(default_factory=lambda: [MASKED] * PINS)
    levels: list[bool] = field(default_factory=lambda: [False] * PINS)

    def set_line(self, pin: int, level: bool) -> None:
        """A device drives its line."""
        rising = level and not self.levels[pin]
        self.levels[pin] = level
        entry = self.entries[pin]
        if rising and not entry & MASKED:
            # bits 14:8 of the destination: KVM_FEATURE_MSI_EXT_DEST_ID
            destination = entry >> 56 | (entry >> 49 & 0x7F) << 8
            self.send(Message(entry & 0xFF, entry >> 8 & 7, destination, bool(entry & LOGICAL)))

    def read(self, offset: int) -> int:
        """A 32-bit read at an offset from the base."""
        if offset == SELECT:
            return self.selected
        if offset != WINDOW:
            return 0
        if self.selected == REG_ID:
            return self.identity
        if self.selected == REG_VERSION:
            return VERSION
        pin, high = divmod(self.selected - REG_REDIRECTION, 2)
        return self.entries[pin] >> 32 * high & 0xFFFFFFFF if 0 <= pin < PINS else 0

    def write(self, offset: int, value: int) -> None:
        """A 32-bit write."""
        if offset == SELECT:
            self.selected = value & 0xFF
        if offset != WINDOW:
            return
        if self.selected == REG_ID:
            self.identity = value & 0x0F000000
        pin, high = divmod(self.selected - REG_REDIRECTION, 2)
        if 0 <= pin < PINS:
            kept = self.entries[pin] & (0xFFFFFFFF if high else 0xFFFFFFFF << 32)
            self.entries[pin] = kept | (value << 32 if high else value & ~READ_ONLY)
