"""What answers at an I/O port or a device address? The few devices a TD meets: serial port, debug ports,
clock, power control, I/O APIC; everything else is absent.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from emu.cpu.apic import Message
from emu.signals import EmuError, End
from emu.vmm import ioapic
from emu.vmm.ioapic import IoApic
from emu.vmm.uart import Uart
from formats.units import FOUR_GIB

COM1, COM1_IRQ = 0x3F8, 4
DEBUG_PORT = 0x402  # QEMU isa-debugcon as firmware uses it
DEBUG_EXIT = 0xF4  # QEMU isa-debug-exit
KEYBOARD_COMMAND, PULSE_RESET = 0x64, 0xFE  # i8042: the oldest way to reset a PC
RESET_CONTROL, FULL_RESET = 0xCF9, 0x06  # Intel chipsets, CPU reset with system reset
RTC_INDEX, RTC_DATA = 0x70, 0x71
ACPI_SHUTDOWN_PORTS = (0x604, 0xB004)  # QEMU's power-management control ports
ACPI_SLEEP = 0x600  # Cloud Hypervisor's sleep control register, named in the FADT
SLEEP_ENABLE = 1 << 5  # ACPI 6.5, 4.8.3.7
LAST = datetime.datetime.max  # the clock stops there
EPOCH = datetime.datetime(2026, 1, 1)  # what the clock shows at the start unless told otherwise
RTC_24_HOURS, RTC_POWER_GOOD = 0x02, 0x80  # Motorola MC146818: register B, register D
# CMOS registers of the memory size, low byte first (QEMU hw/i386/pc.c, pc_cmos_init; Cloud Hypervisor
# devices/src/legacy/cmos.rs has the last two): the first 640 KiB and what lies above 1 MiB in KiB, above
# 16 MiB and above 4 GiB in units of 64 KiB
CMOS_BASE, CMOS_EXTENDED, CMOS_EXTENDED_TOO = (0x15, 0x16), (0x17, 0x18), (0x30, 0x31)
CMOS_ABOVE_16M, CMOS_ABOVE_4G = (0x34, 0x35), (0x5B, 0x5C, 0x5D)


def parse_time(text: str) -> datetime.datetime:
    """An ISO date and time, which is UTC unless it says otherwise. EmuError when it is none."""
    try:
        time = datetime.datetime.fromisoformat(text)
        return time.astimezone(datetime.UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        raise EmuError(f"rtc {text!r}: expected a date and time like 2026-01-31T12:00:00") from None


def cmos_memory(ram: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The CMOS registers that tell how much RAM there is: below 4 GiB what begins at 0, above it the sum."""
    ranges = list(ram)
    low = next((end for start, end in ranges if not start), 0)
    high = sum(end - max(start, FOUR_GIB) for start, end in ranges if end > FOUR_GIB)
    extended = max(low - (1 << 20), 0) >> 10
    sizes = {
        CMOS_BASE: min(low >> 10, 640),
        CMOS_EXTENDED: extended,
        CMOS_EXTENDED_TOO: extended,
        CMOS_ABOVE_16M: max(low - (16 << 20), 0) >> 16,
        CMOS_ABOVE_4G: high >> 16,
    }
    found: dict[int, int] = {}
    for registers, size in sizes.items():
        capped = min(size, (1 << 8 * len(registers)) - 1)
        found |= {register: capped >> 8 * place & 0xFF for place, register in enumerate(registers)}
    return found


def _bcd(number: int) -> int:
    return number // 10 << 4 | number % 10


def _nobody(message: Message) -> None:
    """Messages of an I/O APIC that nobody listens to."""


@dataclass
class Ports:
    """The devices of the VMM. `send` gets what the serial and debug ports receive, `interrupt` the messages
    of the I/O APIC; `elapsed` tells the seconds since the start; `cmos` has registers behind the clock's.
    """

    send: Callable[[int], None]
    interrupt: Callable[[Message], None] = _nobody
    elapsed: Callable[[], float] = lambda: 0.0
    epoch: str = EPOCH.isoformat()
    cmos: Mapping[int, int] = field(default_factory=dict)
    rtc_index: int = 0
    uart: Uart = field(init=False)
    ioapic: IoApic = field(init=False)

    def __post_init__(self) -> None:
        self.ioapic = IoApic(self.interrupt)
        self.uart = Uart(self.send, lambda level: self.ioapic.set_line(COM1_IRQ, level))

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes; unknown ports swallow it."""
        if COM1 <= port < COM1 + 8:
            self.uart.write(port - COM1, value & 0xFF)
        elif port == DEBUG_PORT:
            self.send(value & 0xFF)
        elif port == RTC_INDEX:
            self.rtc_index = value & 0x7F
        elif (port in ACPI_SHUTDOWN_PORTS and value & 0x2000) or (
            port == ACPI_SLEEP and value & SLEEP_ENABLE
        ):
            raise End("shutdown", f"the guest powered off through port {port:#x}")
        elif port == DEBUG_EXIT:
            raise End(
                "debug-exit", f"the guest ended the run with {value:#x}, exit status {value * 2 + 1 & 0xFF}"
            )
        elif (port, value) in ((KEYBOARD_COMMAND, PULSE_RESET), (RESET_CONTROL, FULL_RESET)):
            raise End("reset", f"the guest asked for a reset through port {port:#x}")

    def read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes; nobody answers: all ones."""
        if COM1 <= port < COM1 + 8:
            return self.uart.read(port - COM1)
        if port == DEBUG_PORT:
            return 0xE9  # how firmware finds out that the debug port is there
        if port == RTC_DATA:
            return self.clock(self.rtc_index)
        return (1 << 8 * size) - 1

    def clock(self, register: int) -> int:
        """A register of the real-time clock, BCD and 24 hours, or of its memory."""
        if register in self.cmos:
            return self.cmos[register]
        now = datetime.datetime.fromisoformat(self.epoch)
        now += min(datetime.timedelta(seconds=self.elapsed()), LAST - now)
        fields = {0: now.second, 2: now.minute, 4: now.hour, 6: now.isoweekday() % 7 + 1, 7: now.day}
        fields |= {8: now.month, 9: now.year % 100, 0x32: now.year // 100}
        if register in fields:
            return _bcd(fields[register])
        return {0x0B: RTC_24_HOURS, 0x0D: RTC_POWER_GOOD}.get(register, 0)

    def read_memory(self, gpa: int, size: int) -> int:
        """A read of device memory; where no device is, zero."""
        offset = gpa - ioapic.BASE
        return self.ioapic.read(offset) & (1 << 8 * size) - 1 if 0 <= offset < 0x1000 else 0

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A write of device memory."""
        offset = gpa - ioapic.BASE
        if 0 <= offset < 0x1000:
            self.ioapic.write(offset, value & 0xFFFFFFFF)
