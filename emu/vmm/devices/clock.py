"""What time is it, and how much memory is there? A PC's real-time clock with its CMOS memory."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from emu.signals import EmuError
from formats.units import FOUR_GIB, MIB

INDEX, DATA = 0x70, 0x71
LAST = datetime.datetime.max  # the clock stops there
EPOCH = datetime.datetime(2026, 1, 1)  # what the clock shows at the start unless another time is given
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
    """The CMOS registers that say how much RAM there is: below 4 GiB what begins at 0, above it the sum."""
    ranges = list(ram)
    low = next((end for start, end in ranges if not start), 0)
    high = sum(end - max(start, FOUR_GIB) for start, end in ranges if end > FOUR_GIB)
    extended = max(low - MIB, 0) >> 10
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


@dataclass
class Clock:
    """BCD and 24 hours; `elapsed` gives the seconds since the start, `cmos` has the registers behind it."""

    elapsed: Callable[[], float]
    epoch: str
    cmos: Mapping[int, int]
    index: int = 0

    ports = (INDEX, DATA)

    def write(self, port: int, size: int, value: int) -> None:
        """The index register takes seven bits; the clock is not set."""
        if port == INDEX:
            self.index = value & 0x7F

    def read(self, port: int, size: int) -> int:
        """The register that was selected."""
        return self.register(self.index) if port == DATA else (1 << 8 * size) - 1

    def register(self, number: int) -> int:
        """One register."""
        if number in self.cmos:
            return self.cmos[number]
        now = datetime.datetime.fromisoformat(self.epoch)
        now += min(datetime.timedelta(seconds=self.elapsed()), LAST - now)
        fields = {0: now.second, 2: now.minute, 4: now.hour, 6: now.isoweekday() % 7 + 1, 7: now.day}
        fields |= {8: now.month, 9: now.year % 100, 0x32: now.year // 100}
        if number in fields:
            return _bcd(fields[number])
        return {0x0B: RTC_24_HOURS, 0x0D: RTC_POWER_GOOD}.get(number, 0)
