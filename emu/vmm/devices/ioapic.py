"""Where do device interrupts go? An I/O APIC (Intel 82093AA data sheet). Pins of QEMU's (hw/intc/ioapic.c)
can be level-triggered, which the EOI register ends; on other hosts all are edge-triggered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.cpu.apic import Message

BASE = 0xFEC00000
PINS = 24
SELECT, WINDOW, EOI = 0x00, 0x10, 0x40
REG_ID, REG_VERSION, REG_REDIRECTION = 0, 1, 0x10
VERSION_PLAIN, VERSION_EOI = 0x11, 0x20  # the second has the EOI register
MASKED, LEVEL, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11
READ_ONLY = 1 << 12 | REMOTE_IRR  # delivery status, remote IRR
VECTOR = 0xFF


@dataclass
class IoApic:
    """Turns changes of its pins into messages for local APICs."""

    send: Callable[[Message], None]
    version: int = VERSION_PLAIN
    selected: int = 0
    identity: int = 0
    entries: list[int] = field(default_factory=lambda: [MASKED] * PINS)
    levels: list[bool] = field(default_factory=lambda: [False] * PINS)

    def set_line(self, pin: int, level: bool) -> None:
        """A device drives its line."""
        rising = level and not self.levels[pin]
        self.levels[pin] = level
        entry = self.entries[pin]
        if self.is_level(entry):
            self.serve(pin)
        elif rising and not entry & MASKED:
            self.post(entry)

    def is_level(self, entry: int) -> bool:
        """Whether a pin is level-triggered."""
        return self.version == VERSION_EOI and bool(entry & LEVEL)

    def serve(self, pin: int) -> None:
        """A level-triggered pin that is high and has been acknowledged sends its message."""
        entry = self.entries[pin]
        if self.is_level(entry) and self.levels[pin] and not entry & (MASKED | REMOTE_IRR):
            self.entries[pin] |= REMOTE_IRR
            self.post(entry)

    def post(self, entry: int) -> None:
        """Bits 14:8 of the destination: KVM_FEATURE_MSI_EXT_DEST_ID."""
        destination = entry >> 56 | (entry >> 49 & 0x7F) << 8
        self.send(Message(entry & VECTOR, entry >> 8 & 7, destination, bool(entry & LOGICAL)))

    def end(self, vector: int) -> None:
        """ioapic_eoi_broadcast: the level-triggered pins with this vector may send again."""
        for pin, entry in enumerate(self.entries):
            if self.is_level(entry) and entry & VECTOR == vector:
                self.entries[pin] &= ~REMOTE_IRR
                self.serve(pin)

    def read(self, offset: int) -> int:
        """A 32-bit read at an offset from the base."""
        if offset == SELECT:
            return self.selected
        if offset != WINDOW:
            return 0
        if self.selected == REG_ID:
            return self.identity
        if self.selected == REG_VERSION:
            return self.version | (PINS - 1) << 16
        pin, high = divmod(self.selected - REG_REDIRECTION, 2)
        return self.entries[pin] >> 32 * high & 0xFFFFFFFF if 0 <= pin < PINS else 0

    def write(self, offset: int, value: int) -> None:
        """A 32-bit write."""
        if offset == SELECT:
            self.selected = value & 0xFF
        if offset == EOI:
            self.end(value & VECTOR)
        if offset != WINDOW:
            return
        if self.selected == REG_ID:
            self.identity = value & 0x0F000000
        pin, high = divmod(self.selected - REG_REDIRECTION, 2)
        if 0 <= pin < PINS:
            self.write_entry(pin, bool(high), value)

    def write_entry(self, pin: int, high: bool, value: int) -> None:
        """Half of a redirection entry. An edge-triggered one has no remote IRR."""
        old = self.entries[pin]
        if high:
            self.entries[pin] = old & 0xFFFFFFFF | value << 32
        else:
            self.entries[pin] = old & (0xFFFFFFFF << 32 | READ_ONLY) | value & ~READ_ONLY
        if not self.is_level(self.entries[pin]):
            self.entries[pin] &= ~REMOTE_IRR
        self.serve(pin)
