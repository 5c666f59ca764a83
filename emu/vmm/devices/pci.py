"""How does a guest find the chipset? PCI configuration space of a q35 through ports 0xCF8 and 0xCFC and
through memory (ECAM), as QEMU's hw/pci/pci_host.c, pcie_host.c and hw/pci-host/q35.c answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from formats.q35 import (
    ACPI_CNTL,
    ACPI_ENABLE,
    CONFIG_ADDRESS,
    CONFIG_DATA,
    CONFIG_ENABLE,
    PCIEXBAR,
    PCIEXBAR_ENABLE,
    PMBASE,
)
from formats.units import KIB, MIB

CONFIG_SIZE = 256  # of a conventional function; behind it all ones
ECAM_FUNCTION = 4 * KIB

# Registers of every function that a guest can write (hw/pci/pci.c pci_init_wmask): command, cache line size,
# interrupt line, and all that is not in the standard header
COMMAND, COMMAND_MASK, CACHE_LINE, INTERRUPT_LINE, HEADER_END = 0x04, 0x0507, 0x0C, 0x3C, 0x40

# Host bridge (q35.h MCH_HOST_BRIDGE_PCIEXBAR*)
PCIEXBAR_LENGTH, PCIEXBAR_RESET = 6, 0xB0000000
ECAM_SIZES = {0: 256 * MIB, 2: 128 * MIB, 4: 64 * MIB}  # by the length bits; the fourth value is reserved
PCIEXBAR_TOP = 1 << 36  # address bits 35:28

# LPC bridge (include/hw/southbridge/ich9.h ICH9_LPC_*)
PMBASE_RESET, PMBASE_ADDRESS = 1, 0xFF80

HOST_BRIDGE, LPC = 0x00, 0xF8  # device number * 8 + function


@dataclass
class Function:
    """Configuration space of one function: bytes and which of their bits can be written."""

    data: bytearray
    mask: bytes

    def read(self, at: int, size: int) -> int:
        """Little-endian; all ones behind the end."""
        return int.from_bytes(self.data[at : at + size].ljust(size, b"\xff"), "little")

    def write(self, at: int, size: int, value: int) -> None:
        """Changes what can be written."""
        for place in range(at, min(at + size, len(self.data))):
            keep = self.data[place] & ~self.mask[place]
            self.data[place] = keep | value & self.mask[place]
            value >>= 8


def function(values: Mapping[int, bytes], masks: Mapping[int, bytes] | None = None) -> Function:
    """From the bytes after a reset, by offset, and the masks that are not the usual ones."""
    data, mask = bytearray(CONFIG_SIZE), bytearray(CONFIG_SIZE)
    mask[COMMAND : COMMAND + 2] = COMMAND_MASK.to_bytes(2, "little")
    mask[CACHE_LINE] = mask[INTERRUPT_LINE] = 0xFF
    mask[HEADER_END:] = b"\xff" * (CONFIG_SIZE - HEADER_END)
    for target, parts in ((data, values), (mask, masks or {})):
        for at, part in parts.items():
            target[at : at + len(part)] = part
    return Function(data, bytes(mask))


SUBSYSTEM = {0x2C: bytes.fromhex("f41a0011")}  # Red Hat, QEMU virtual machine (include/hw/pci/pci.h)


def host_bridge() -> Function:
    """Intel 82G33 memory controller hub (hw/pci-host/q35.c mch_class_init, mch_reset)."""
    return function(
        {0x00: bytes.fromhex("8680c029"), 0x0B: b"\x06", PCIEXBAR: PCIEXBAR_RESET.to_bytes(8, "little")}
        | SUBSYSTEM
    )


def lpc() -> Function:
    """Intel 82801IB LPC interface (hw/isa/lpc_ich9.c ich9_lpc_class_init, ich9_lpc_reset). Interrupt routes
    begin disabled.
    """
    routes = b"\x80" * 4
    return function(
        {
            0x00: bytes.fromhex("86801829"),
            0x08: bytes.fromhex("0200010600008000"),  # revision 2, ISA bridge, multifunction
            PMBASE: PMBASE_RESET.to_bytes(4, "little"),
            0x60: routes,
            0x68: routes,
            0x82: b"\x01",  # as QEMU's I/O decode register reads after a reset
        }
        | SUBSYSTEM,
        {PMBASE: (PMBASE_ADDRESS | 7).to_bytes(4, "little")},
    )


@dataclass
class Pci:
    """One bus with a host bridge at 00.0 and an LPC bridge at 1f.0; nothing else is there."""

    address: int = 0
    functions: dict[int, Function] = field(default_factory=lambda: {HOST_BRIDGE: host_bridge(), LPC: lpc()})
    ecam: tuple[int, int] | None = None  # first and last byte + 1 of the window, once it is enabled

    ports = range(CONFIG_ADDRESS, CONFIG_DATA + 4)

    # -- ports

    def write(self, port: int, size: int, value: int) -> None:
        """The address takes 4 bytes at once, the data port any size."""
        if port == CONFIG_ADDRESS and size == 4:
            self.address = value
        elif port >= CONFIG_DATA and self.address & CONFIG_ENABLE:
            self.write_config(*self.place(port), size, value)

    def read(self, port: int, size: int) -> int:
        """The address, or the register that it selects."""
        if port < CONFIG_DATA:
            return self.address & (1 << 8 * size) - 1
        if not self.address & CONFIG_ENABLE:
            return (1 << 8 * size) - 1
        return self.read_config(*self.place(port), size)

    def place(self, port: int) -> tuple[int, int]:
        """Bus, device and function, and the register."""
        return self.address >> 8 & 0xFFFF, self.address & 0xFC | port & 3

    # -- memory

    def covers(self, gpa: int) -> bool:
        """Whether the ECAM window is there."""
        return self.ecam is not None and self.ecam[0] <= gpa < self.ecam[1]

    def read_memory(self, gpa: int, size: int) -> int:
        """A read in the ECAM window."""
        assert self.ecam
        where, at = divmod(gpa - self.ecam[0], ECAM_FUNCTION)
        return self.read_config(where, at, size)

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A write there."""
        assert self.ecam
        where, at = divmod(gpa - self.ecam[0], ECAM_FUNCTION)
        self.write_config(where, at, size, value)

    # -- configuration space

    def read_config(self, where: int, at: int, size: int) -> int:
        """All ones where no function is."""
        found = self.functions.get(where)
        return found.read(at, size) if found else (1 << 8 * size) - 1

    def write_config(self, where: int, at: int, size: int, value: int) -> None:
        """A write of the host bridge may move the window."""
        if found := self.functions.get(where):
            found.write(at, size, value)
        if where == HOST_BRIDGE and at < PCIEXBAR + 8 and at + size > PCIEXBAR:
            self.move_ecam()

    def move_ecam(self) -> None:
        """mch_update_pciexbar: the base is a multiple of the length; the reserved length changes nothing."""
        value = self.functions[HOST_BRIDGE].read(PCIEXBAR, 8)
        length = ECAM_SIZES.get(value & PCIEXBAR_LENGTH)
        if length is not None:
            base = value % PCIEXBAR_TOP // length * length
            self.ecam = (base, base + length) if value & PCIEXBAR_ENABLE else None

    # -- what other devices and the tables are made from

    @property
    def pm_base(self) -> int:
        """I/O address of the power-management block, 0 if it is not set."""
        return self.functions[LPC].read(PMBASE, 4) & PMBASE_ADDRESS

    @property
    def acpi_enabled(self) -> bool:
        """Whether that block answers."""
        return bool(self.functions[LPC].read(ACPI_CNTL, 1) & ACPI_ENABLE)
