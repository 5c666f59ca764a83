"""What does the serial port do? A 16550 (National Semiconductor PC16550D data sheet) whose transmitter is
always ready, with a receiver that is fed from outside and an interrupt line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from formats.ports import COM1, COM1_PORTS

LCR_DLAB = 0x80
MCR_OUT2, MCR_LOOPBACK = 0x08, 0x10  # on a PC, OUT2 lets the interrupt out
IER_RECEIVED, IER_EMPTY = 1, 2
IIR_NONE, IIR_EMPTY, IIR_RECEIVED = 1, 2, 4
LSR_READY, LSR_EMPTY = 0x01, 0x60  # data ready; transmitter holding register and shift register empty


def no_line(level: bool) -> None:
    """An interrupt line that leads nowhere."""


@dataclass
class Uart:
    """Bytes of the guest go to `send`; `line` is the interrupt output. Input waits while the guest has its
    receive interrupt off: a driver empties the receiver each time before it turns that on.
    """

    send: Callable[[int], None]
    line: Callable[[bool], None] = no_line
    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scratch: int = 0
    divisor: int = 1
    empty: bool = False  # the interrupt of the empty transmitter is pending
    received: deque[int] = field(default_factory=deque)
    level: bool = False

    ports = range(COM1, COM1 + COM1_PORTS)

    def feed(self, data: bytes) -> None:
        """Somebody types."""
        self.received.extend(data)
        self.update()

    @property
    def ready(self) -> bool:
        """A received byte can be read."""
        return bool(self.ier & IER_RECEIVED and self.received)

    @property
    def cause(self) -> int:
        """The interrupt identification without the FIFO bits."""
        if self.ready:
            return IIR_RECEIVED
        return IIR_EMPTY if self.empty and self.ier & IER_EMPTY else IIR_NONE

    def update(self) -> None:
        """Drives the line."""
        level = self.cause != IIR_NONE and bool(self.mcr & MCR_OUT2)
        if level != self.level:
            self.level = level
            self.line(level)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT; a register has eight bits."""
        register, value = port - COM1, value & 0xFF
        latch = self.lcr & LCR_DLAB
        match register:
            case 0 if latch:
                self.divisor = self.divisor & 0xFF00 | value
            case 1 if latch:
                self.divisor = self.divisor & 0xFF | value << 8
            case 0 if not self.mcr & MCR_LOOPBACK:
                self.empty = False
                self.update()
                self.send(value)
                self.empty = True
            case 1:
                self.empty |= bool(value & ~self.ier & IER_EMPTY)
                self.ier = value & 0xF
            case 2:
                self.fcr = value
            case 3:
                self.lcr = value
            case 4:
                self.mcr = value & 0x1F
            case 7:
                self.scratch = value
        self.update()

    def read(self, port: int, size: int) -> int:
        """IN; reading some registers changes them."""
        register = port - COM1
        value = self.look(register)
        if register == 0 and self.ready and not self.lcr & LCR_DLAB:
            self.received.popleft()
        elif register == 2 and self.cause == IIR_EMPTY:
            self.empty = False
        self.update()
        return value

    def look(self, register: int) -> int:
        """What a register reads as, without a change."""
        latch = self.lcr & LCR_DLAB
        match register:
            case 0:
                return self.divisor & 0xFF if latch else self.received[0] if self.ready else 0
            case 1:
                return self.divisor >> 8 if latch else self.ier
            case 2:
                return self.cause | (0xC0 if self.fcr & 1 else 0)
            case 3:
                return self.lcr
            case 4:
                return self.mcr
            case 5:
                return LSR_EMPTY | (LSR_READY if self.ready else 0)
            case 6 if self.mcr & MCR_LOOPBACK:  # CTS DSR RI DCD follow RTS DTR OUT1 OUT2
                m = self.mcr
                return (m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4
            case 6:
                return 0xB0
        return self.scratch
