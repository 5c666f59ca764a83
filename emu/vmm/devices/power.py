"""How does a guest power off, reset, or end the run? Ports of hosts that are no q35, a table each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.signals import End

DEBUG_EXIT, DEBUG_EXIT_SIZE = 0xF4, 4  # QEMU isa-debug-exit as its users place it
KEYBOARD_COMMAND, PULSE_RESET = 0x64, 0xFE  # i8042: the oldest way to reset a PC
RESET_CONTROL, FULL_RESET = 0xCF9, 0x06  # Intel chipsets, CPU reset with system reset
ACPI_SLEEP = 0x600  # sleep control register, named in the FADT
SLEEP_ENABLE = 1 << 5  # ACPI 6.5, 4.8.3.7
SLEEP_TYPE_5 = 5 << 2
PM1_EVENTS, PM1_CONTROL = 0x600, 0x604  # of the specification's host, which specifies none
TIMER_HZ = 3579545  # ACPI 6.5, 4.8.3.3
OFF, RESET = "shutdown", "reset"
SAID = {OFF: "the guest powered off", RESET: "the guest requested a reset"}


@dataclass(frozen=True)
class Switch:
    """What ends the run when it is written to a port; only the bits of `mask` count. The port reads
    `shows` in each byte.
    """

    port: int
    reason: str
    value: int
    mask: int = 0xFF
    shows: int = 0xFF


@dataclass(frozen=True)
class Register:
    """A port that is there and ends nothing. It reads zero, or what was written if it `keeps` that."""

    port: int
    keeps: bool = False


PowerPorts = tuple[Switch | Register, ...]
KEYBOARD = Switch(KEYBOARD_COMMAND, RESET, PULSE_RESET)
# The upper byte of a PM1 control register is laid out as a sleep control register (ACPI 6.5, 4.8.3.2.1).
PM1 = Switch(PM1_CONTROL, OFF, (SLEEP_ENABLE | SLEEP_TYPE_5) << 8, (SLEEP_ENABLE | 7 << 2) << 8)
# Status and enable register of PM1 events (ACPI 6.5, 4.8.3.1): whichever is enabled, none happens.
PM1_NO_EVENTS = (Register(PM1_EVENTS), Register(PM1_EVENTS + 2, keeps=True))
SLEEP = Switch(ACPI_SLEEP, OFF, SLEEP_ENABLE, SLEEP_ENABLE)
CHIPSET = Switch(RESET_CONTROL, RESET, FULL_RESET)
OF_SPECIFICATION: PowerPorts = (PM1, *PM1_NO_EVENTS, KEYBOARD, CHIPSET)


@dataclass
class Power:
    """The ports of a host. `kept`: what was written to registers that keep it, by port."""

    switches: PowerPorts
    kept: dict[int, int] = field(default_factory=dict)

    @property
    def ports(self) -> frozenset[int]:
        """Where it answers."""
        return frozenset(switch.port for switch in self.switches)

    def write(self, port: int, size: int, value: int) -> None:
        """Raises End."""
        for one in self.switches:
            if one.port != port:
                continue
            if isinstance(one, Register):
                if one.keeps:
                    self.kept[port] = value
            elif value & one.mask == one.value:
                raise End(one.reason, f"{SAID[one.reason]} through port {port:#x}")

    def read(self, port: int, size: int) -> int:
        """As if nobody were there, zeros, or what was written."""
        one = next(one for one in self.switches if one.port == port)
        if isinstance(one, Register):
            return self.kept.get(port, 0) & (1 << 8 * size) - 1
        return int.from_bytes(bytes((one.shows,)) * size, "little")


@dataclass
class PmTimer:
    """The power-management timer, 32 bits wide, at a port of its own."""

    port: int
    elapsed: Callable[[], float]

    @property
    def ports(self) -> range:
        """Where it answers."""
        return range(self.port, self.port + 4)

    def write(self, port: int, size: int, value: int) -> None:
        """Nothing can be written."""

    def read(self, port: int, size: int) -> int:
        """Ticks since the start."""
        return int(self.elapsed() * TIMER_HZ) >> 8 * (port - self.port) & (1 << 8 * size) - 1


@dataclass
class DebugExit:
    """QEMU's isa-debug-exit, which a user adds to a machine: any write ends the run."""

    ports = range(DEBUG_EXIT, DEBUG_EXIT + DEBUG_EXIT_SIZE)

    def write(self, port: int, size: int, value: int) -> None:
        """Raises End."""
        status = value * 2 + 1 & 0xFF
        raise End("debug-exit", f"the guest ended the run with {value:#x}, exit status {status}")

    def read(self, port: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1
