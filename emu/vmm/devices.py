"""What answers at an I/O port? The few devices a TD meets: serial port, debug port, clock; everything
else is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

COM1 = 0x3F8
DEBUG_PORT = 0x402  # QEMU isa-debugcon as firmware uses it
RTC_INDEX, RTC_DATA = 0x70, 0x71
ACPI_SHUTDOWN_PORTS = (0x604, 0xB004)  # QEMU's power-management control ports

# 16550 registers and bits (National Semiconductor PC16550D data sheet)
DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
LCR_DLAB = 0x80
MCR_LOOPBACK = 0x10
LSR_EMPTY = 0x60  # transmitter holding register and shift register empty


@dataclass
class Uart:
    """A 16550 whose transmitter is always ready; bytes go to `send`."""

    send: Callable[[int], None]
    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scratch: int = 0
    divisor: int = 1

    def write(self, register: int, value: int) -> None:
        """An 8-bit OUT."""
        latch = self.lcr & LCR_DLAB
        match register:
            case 0 if latch:
                self.divisor = self.divisor & 0xFF00 | value
            case 1 if latch:
                self.divisor = self.divisor & 0xFF | value << 8
            case 0 if not self.mcr & MCR_LOOPBACK:
                self.send(value)
            case 1:
                self.ier = value & 0xF
            case 2:
                self.fcr = value
            case 3:
                self.lcr = value
            case 4:
                self.mcr = value & 0x1F
            case 7:
                self.scratch = value

    def read(self, register: int) -> int:
        """An 8-bit IN."""
        latch = self.lcr & LCR_DLAB
        match register:
            case 0:
                return self.divisor & 0xFF if latch else 0
            case 1:
                return self.divisor >> 8 if latch else self.ier
            case 2:
                return 0x01 | (0xC0 if self.fcr & 1 else 0)
            case 3:
                return self.lcr
            case 4:
                return self.mcr
            case 5:
                return LSR_EMPTY
            case 6 if self.mcr & MCR_LOOPBACK:  # CTS DSR RI DCD follow RTS DTR OUT1 OUT2
                m = self.mcr
                return (m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4
            case 6:
                return 0xB0
        return self.scratch


@dataclass
class Ports:
    """The port space of the VMM. `console` collects what the serial and debug ports receive."""

    send: Callable[[int], None]
    shutdown: bool = False
    rtc_index: int = 0
    uart: Uart = field(init=False)

    def __post_init__(self) -> None:
        self.uart = Uart(self.send)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes; unknown ports swallow it."""
        if COM1 <= port < COM1 + 8:
            self.uart.write(port - COM1, value & 0xFF)
        elif port == DEBUG_PORT:
            self.send(value & 0xFF)
        elif port == RTC_INDEX:
            self.rtc_index = value & 0x7F
        elif port in ACPI_SHUTDOWN_PORTS and value & 0x2000:
            self.shutdown = True

    def read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes; nobody answers: all ones."""
        if COM1 <= port < COM1 + 8:
            return self.uart.read(port - COM1)
        if port == DEBUG_PORT:
            return 0xE9  # how firmware finds out that the debug port is there
        if port == RTC_DATA:
            return {0x0B: 0x02, 0x0D: 0x80, 7: 1, 8: 1, 9: 0x26, 0x32: 0x20}.get(self.rtc_index, 0)
        return (1 << 8 * size) - 1
