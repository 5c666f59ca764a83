"""How does a guest power off, reset, or end the run? Ports of hosts that are no q35."""

from __future__ import annotations

from dataclasses import dataclass

from emu.signals import End

DEBUG_EXIT, DEBUG_EXIT_SIZE = 0xF4, 4  # QEMU isa-debug-exit as its users place it
KEYBOARD_COMMAND, PULSE_RESET = 0x64, 0xFE  # i8042: the oldest way to reset a PC
RESET_CONTROL, FULL_RESET = 0xCF9, 0x06  # Intel chipsets, CPU reset with system reset
ACPI_SLEEP = 0x600  # Cloud Hypervisor's sleep control register, named in the FADT
SLEEP_ENABLE = 1 << 5  # ACPI 6.5, 4.8.3.7


@dataclass
class Power:
    """Has no state: each of its ports ends the run for the right value, and reads as if nobody were there."""

    ports = (ACPI_SLEEP, KEYBOARD_COMMAND, RESET_CONTROL)

    def write(self, port: int, size: int, value: int) -> None:
        """Raises End."""
        if port == ACPI_SLEEP and value & SLEEP_ENABLE:
            raise End("shutdown", f"the guest powered off through port {port:#x}")
        if (port, value) in ((KEYBOARD_COMMAND, PULSE_RESET), (RESET_CONTROL, FULL_RESET)):
            raise End("reset", f"the guest requested a reset through port {port:#x}")

    def read(self, port: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1


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
