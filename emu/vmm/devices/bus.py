"""What answers at an I/O port or a device address? The few devices a TD meets: serial port, debug port,
clock, I/O APIC, debug exit, and those of the host's board; everything else is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from emu.cpu.apic import Message
from emu.vmm.devices import ioapic
from emu.vmm.devices.clock import EPOCH, Clock
from emu.vmm.devices.debugcon import DebugConsole
from emu.vmm.devices.ioapic import IoApic
from emu.vmm.devices.power import OF_SPECIFICATION, DebugExit, Power
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


@runtime_checkable
class MemoryDevice(Protocol):
    """Something behind addresses. Accesses have 1, 2, 4 or 8 bytes."""

    def covers(self, gpa: int) -> bool:
        """Whether it answers there at present."""

    def read_memory(self, gpa: int, size: int) -> int:
        """A read of an address that it covers."""

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A write there."""


SetLine = Callable[[int, bool], None]  # pin of the I/O APIC, level


def power_only(set_line: SetLine) -> tuple[Device, ...]:
    """A host with nothing but power control."""
    return (Power(OF_SPECIFICATION),)


@dataclass(frozen=True)
class Host:
    """What one host has and others do not: `board` makes its devices. `aligned_only`: other accesses of ports
    read zero and write nothing. `zeros`: so do ports that no device has, which else read all ones.
    `memory_ones`: addresses that no device has read all ones, else zero.
    """

    board: Callable[[SetLine], tuple[Device, ...]] = power_only
    ioapic_version: int = ioapic.VERSION_PLAIN
    aligned_only: bool = False
    zeros: bool = False
    memory_ones: bool = False


PLAIN = Host()


def _ones(size: int) -> int:
    """What nobody answers on a bus, `size` bytes wide."""
    return (1 << 8 * size) - 1


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
    host: Host = PLAIN
    uart: Uart = field(init=False)
    ioapic: IoApic = field(init=False)
    clock: Clock = field(init=False)
    board: tuple[Device, ...] = field(init=False)
    devices: tuple[Device, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.ioapic = IoApic(self.interrupt, self.host.ioapic_version)
        self.uart = Uart(self.send, lambda level: self.ioapic.set_line(COM1_IRQ, level))
        self.clock = Clock(self.elapsed, self.epoch, self.cmos)
        self.board = self.host.board(self.ioapic.set_line)
        self.devices = (self.uart, DebugConsole(self.send), self.clock, DebugExit(), *self.board)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes; unknown ports swallow it."""
        if self.host.aligned_only and port % size:
            return
        for device in self.devices:
            if port in device.ports:
                device.write(port, size, value)

    def read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes."""
        if self.host.aligned_only and port % size:
            return 0
        for device in self.devices:
            if port in device.ports:
                return device.read(port, size)
        return 0 if self.host.zeros else _ones(size)

    def read_memory(self, gpa: int, size: int) -> int:
        """A read of device memory."""
        for device in self.board:
            if isinstance(device, MemoryDevice) and device.covers(gpa):
                return device.read_memory(gpa, size)
        offset = gpa - ioapic.BASE
        if 0 <= offset < PAGE:
            return self.ioapic.read(offset) & _ones(size)
        return _ones(size) if self.host.memory_ones else 0

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A write of device memory."""
        for device in self.board:
            if isinstance(device, MemoryDevice) and device.covers(gpa):
                device.write_memory(gpa, size, value)
        offset = gpa - ioapic.BASE
        if 0 <= offset < PAGE:
            self.ioapic.write(offset, value & 0xFFFFFFFF)
