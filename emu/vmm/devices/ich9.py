"""How does a guest of a q35 measure time, power off and reset? The power-management block of the ICH9 and its
reset register, as QEMU's hw/acpi/ich9.c, hw/acpi/core.c and hw/isa/lpc_ich9.c answer with smm=off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.signals import End
from emu.vmm.devices.pci import Pci
from emu.vmm.devices.power import TIMER_HZ
from formats.q35 import RESET_PORT

BLOCK, WORD = 0x80, 2
STATUS, ENABLED, CONTROL, TIMER, EVENT0, SMI, TCO = 0x00, 0x02, 0x04, 0x08, 0x20, 0x30, 0x60
EVENT0_SIZE, SMI_SIZE, TCO_SIZE = 16, 8, 32
TIMER_BITS = 24
TIMER_STATUS = 1  # its top bit has changed
SCI_ENABLED = 1
SLEEP_ENABLE, SLEEP_TYPE_SHIFT, SLEEP_TYPE_MASK = 1 << 13, 10, 7
OFF, SUSPEND, HIBERNATE = 0, 1, 2  # acpi_pm1_cnt_write; HIBERNATE is ICH9's s4_val
RESET_CPU, RESET_KEPT = 1 << 2, 0x0A  # ich9_rst_cnt_write
SMI_ENABLED = 1 << 5  # as the register reads with smm=off
TCO_RESET = {0x0A: 8, 0x10: 3, 0x12: 4}  # 16-bit registers after a reset, TCO_RLD first


@dataclass
class Reset:
    """The chipset's reset register, in the middle of PCI's address port."""

    kept: int = 0

    ports = (RESET_PORT,)

    def write(self, port: int, size: int, value: int) -> None:
        """May raise End."""
        if value & RESET_CPU:
            raise End("reset", f"the guest requested a reset through port {port:#x}")
        self.kept = value & RESET_KEPT

    def read(self, port: int, size: int) -> int:
        """What was written, without the bit that resets."""
        return self.kept


@dataclass
class Pm:
    """The block at PMBASE, while ACPI_CNTL has it on; `line` is the SCI."""

    pci: Pci
    elapsed: Callable[[], float]
    line: Callable[[bool], None]
    enabled: int = 0
    control: int = SCI_ENABLED
    overflow: int = 0  # tick from which on the status bit of the timer is set
    events: int = 0  # enable bits of the general-purpose events
    level: bool = False
    latest: int = 0  # what the timer has shown: no vCPU reads less than another has read

    @property
    def ports(self) -> range:
        """Where it answers at present."""
        base = self.pci.pm_base
        return range(base, base + BLOCK) if self.pci.acpi_enabled and base else range(0)

    @property
    def ticks(self) -> int:
        """Of the timer since the start."""
        self.latest = max(self.latest, int(self.elapsed() * TIMER_HZ))
        return self.latest

    @property
    def status(self) -> int:
        """PM1_STS: nothing but the timer ever happens here."""
        return TIMER_STATUS if self.ticks >= self.overflow else 0

    def register(self, at: int) -> tuple[int, int, int]:
        """Start, size and value of the register at an offset; size 0: nobody is there."""
        if at < CONTROL:
            return STATUS, 4, self.status | self.enabled << 16
        if at < CONTROL + 2:
            return CONTROL, 2, self.control
        if TIMER <= at < TIMER + 4:
            return TIMER, 4, self.ticks & (1 << TIMER_BITS) - 1
        if EVENT0 <= at < EVENT0 + EVENT0_SIZE:
            return EVENT0, EVENT0_SIZE, self.events << 8 * EVENT0_SIZE // 2
        if SMI <= at < SMI + SMI_SIZE:
            return SMI, SMI_SIZE, SMI_ENABLED
        if TCO <= at < TCO + TCO_SIZE:
            return TCO, TCO_SIZE, sum(value << 8 * place for place, value in TCO_RESET.items())
        return at, 0, 0

    def takes(self, at: int, size: int) -> bool:
        """Events and control have 2 bytes, SMI registers 4."""
        if SMI <= at < SMI + SMI_SIZE:
            return size == 2 * WORD
        return size <= WORD or at >= CONTROL + WORD

    def read(self, port: int, size: int) -> int:
        """Nobody is there: all ones. A width that a register does not take reads zero."""
        if not self.takes(port - self.pci.pm_base, size):
            return 0
        start, length, value = self.register(port - self.pci.pm_base)
        ones = (1 << 8 * size) - 1
        if not length:
            return ones
        skipped = port - self.pci.pm_base - start
        return (value | -1 << 8 * length) >> 8 * skipped & ones

    def write(self, port: int, size: int, value: int) -> None:
        """May raise End."""
        at = port - self.pci.pm_base
        if not self.takes(at, size):
            return
        if at == STATUS:
            self.write_status(value)
        elif at == ENABLED:
            self.enabled = value
        elif at in (CONTROL, CONTROL + 1):
            high = at == CONTROL + 1
            self.write_control((value & 0xFF) << 8 | self.control & 0xFF if high else value)
        elif EVENT0 + EVENT0_SIZE // 2 <= at < EVENT0 + EVENT0_SIZE:
            shift = 8 * (at - EVENT0 - EVENT0_SIZE // 2)
            self.events = self.events & ~(((1 << 8 * size) - 1) << shift) | value << shift
        self.update()

    def write_status(self, value: int) -> None:
        """Ones clear: the timer's bit comes back when its top bit changes next."""
        if value & self.status & TIMER_STATUS:
            half = 1 << TIMER_BITS - 1
            self.overflow = (self.ticks + half) // half * half

    def write_control(self, value: int) -> None:
        """acpi_pm1_cnt_write."""
        self.control = value & ~SLEEP_ENABLE
        if value & SLEEP_ENABLE:
            self.sleep(value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK)

    def sleep(self, kind: int) -> None:
        """S5 and S4 end the machine; nothing would wake it from S3; other types do nothing."""
        port = self.pci.pm_base + CONTROL
        if kind in (OFF, HIBERNATE):
            raise End("shutdown", f"the guest powered off through port {port:#x}")
        if kind == SUSPEND:
            raise End("halt", f"the guest went to sleep through port {port:#x} and nothing will wake it")

    def update(self) -> None:
        """acpi_update_sci."""
        level = bool(self.status & self.enabled)
        if level != self.level:
            self.level = level
            self.line(level)
