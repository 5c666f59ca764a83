"""What answers at an I/O port or a device address? The few devices a TD meets: serial port, debug port,
clock, power control, I/O APIC; everything else is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from emu.cpu.apic import Message
from emu.vmm.devices import ioapic
from emu.vmm.devices.clock import EPOCH, Clock
from emu.vmm.devices.debugcon import DebugConsole
from emu.vmm.devices.ioapic import IoApic
from emu.vmm.devices.power import Power
from emu.vmm.devices.uart import Uart
from formats.ports import COM1_IRQ
from formats.units import PAGE


class Device(Protocol):
    """Something behind ports. Accesses have 1, 2 or 4 bytes."""

    @property
    def ports(self) -> Container[int]:
        """Where it answers."""

    def write(self, port: int, size: int, value: int) -> None:
        """OUT. May raise End."""

    def read(self, port: int, size: int) -> int:
        """IN."""


def _nobody(message: Message) -> None:
    """Messages of an I/O APIC that nobody listens to."""


@dataclass
class Ports:
    """The devices of the VMM. `send` gets what the serial and debug ports receive, `interrupt` the messages
    of the I/O APIC; `elapsed` gives the seconds since the start; `cmos` has registers behind the clock's.
    """

    send: Callable[[int], None]
    interrupt: Callable[[Message], None] = _nobody
    elapsed: Callable[[], float] = lambda: 0.0
    epoch: str = EPOCH.isoformat()
    cmos: Mapping[int, int] = field(default_factory=dict)
    uart: Uart = field(init=False)
    ioapic: IoApic = field(init=False)
    clock: Clock = field(init=False)
    devices: tuple[Device, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.ioapic = IoApic(self.interrupt)
        self.uart = Uart(self.send, lambda level: self.ioapic.set_line(COM1_IRQ, level))
        self.clock = Clock(self.elapsed, self.epoch, self.cmos)
        self.devices = (self.uart, DebugConsole(self.send), self.clock, Power())

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes; unknown ports swallow it."""
        for device in self.devices:
            if port in device.ports:
                device.write(port, size, value)

    def read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes; nobody answers: all ones."""
        for device in self.devices:
            if port in device.ports:
                return device.read(port, size)
        return (1 << 8 * size) - 1

    def read_memory(self, gpa: int, size: int) -> int:
        """A read of device memory; where no device is, zero."""
        offset = gpa - ioapic.BASE
        return self.ioapic.read(offset) & (1 << 8 * size) - 1 if 0 <= offset < PAGE else 0

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A write of device memory."""
        offset = gpa - ioapic.BASE
        if 0 <= offset < PAGE:
            self.ioapic.write(offset, value & 0xFFFFFFFF)
