"""Which ACPI tables do the tests share, and how is what the core made read as an OS reads it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ccore import CORE, LIB, below_2_gib, check, make_cpus, make_vmm

from formats import acpi
from formats.acpi import MadtType
from gen.core.hostlib import Guarded

MAILBOX_PAGE = CORE.guarded(4096)
MAILBOX, LOG_AREA, LOG_SIZE = MAILBOX_PAGE.address, 0x826000, 0x20000


def lapic(cpu: int, flags: int = 1) -> bytes:
    return acpi.madt_entry(MadtType.LAPIC, processor_uid=cpu & 255, apic_id=cpu & 255, flags=flags)


def x2apic(cpu: int, flags: int = 1) -> bytes:
    return acpi.madt_entry(MadtType.X2APIC, processor_uid=cpu, x2apic_id=cpu, flags=flags)


IOAPIC = acpi.madt_entry(MadtType.IOAPIC, ioapic_id=1, address=0xFEC00000)
ISO = acpi.madt_entry(MadtType.ISO, source=0, gsi=2)
WAKEUP = acpi.madt_entry(MadtType.MP_WAKEUP, mailbox_address=0xDEAD000)
# AML of `Name (A, 1)`: table 20.2.5.1 of the specification.
AML = bytes([0x08, 0x41, 0x5F, 0x5F, 0x5F, 0x01])
DSDT = acpi.table(b"DSDT", 2, AML)
SRAT, SLIT = acpi.table(b"SRAT", 3, bytes(12)), acpi.table(b"SLIT", 1, bytes(8) + b"\n")
SSDTS = [acpi.table(b"SSDT", 2, AML.replace(b"A", letter)) for letter in (b"B", b"C")]
MCFG = acpi.table(b"MCFG", 1, bytes(24))
VMM_TABLES = [
    acpi.fadt(
        firmware_ctrl=0xDEF0,
        dsdt=0x1234,
        x_dsdt=0x5678,
        x_firmware_ctrl=0x9ABC,
        flags=acpi.FadtFlags.HW_REDUCED,
    ),
    acpi.madt([lapic(0), lapic(1), IOAPIC, ISO, WAKEUP], acpi.MadtFlags.PCAT_COMPAT),
    DSDT,
    *SSDTS,
    MCFG,
    SRAT,
    SLIT,
]


def make_log() -> Any:
    """The event log that a CCEL names."""
    log = CORE.new("log")
    log.area.data, log.area.size = CORE.ffi.cast("uint8_t *", LOG_AREA), LOG_SIZE
    return log


class Found:
    """All tables as an OS finds them from an RSDP on, in `memory`."""

    def __init__(self, memory: Guarded, rsdp: int) -> None:
        self.memory = memory
        self.rsdp = CORE.bytes_at(rsdp, 36)
        root = acpi.RSDP.parse(self.rsdp)
        assert sum(self.rsdp[:20]) & 255 == sum(self.rsdp) & 255 == 0
        xsdt = self._read(root.xsdt_address)
        places = [int.from_bytes(xsdt[i : i + 8], "little") for i in range(36, len(xsdt), 8)]
        self.tables = [xsdt, *map(self._read, places)]
        fadt = acpi.FADT.parse(self.one(b"FACP").ljust(276, b"\0"))  # older ones are shorter
        self.dsdt = self._read(fadt.x_dsdt or fadt.dsdt)
        self.tables.append(self.dsdt)
        self.places = [root.xsdt_address, *places]

    def _read(self, address: int) -> bytes:
        assert self.memory.address <= address < self.memory.address + self.memory.size
        head = acpi.HEADER.parse(CORE.bytes_at(address, 36))
        table = CORE.bytes_at(address, head.length)
        acpi.check_table(table)
        return table

    def all(self, signature: bytes) -> list[bytes]:
        return [table for table in self.tables if table[:4] == signature]

    def one(self, signature: bytes) -> bytes:
        (table,) = self.all(signature)
        return table

    @property
    def madt(self) -> list[tuple[int, Any]]:
        return list(acpi.madt_entries(self.one(b"APIC")))

    @property
    def cpus(self) -> list[tuple[int, int]]:
        """Entry type and APIC id."""
        return [
            (kind, entry.apic_id if kind == MadtType.LAPIC else entry.x2apic_id)
            for kind, entry in self.madt
            if kind in (MadtType.LAPIC, MadtType.X2APIC)
        ]


class Tables(Found):
    """Those that a builder makes of the VMM's; `area` ends at a page nobody may touch."""

    def __init__(
        self,
        tables: Any = (),
        cpus: int | Sequence[int] = 1,
        build: str = "acpi_tables",
        size: int = 65536,
        low: bool = False,
        before: int = 0,
        devices: tuple[int, int, int] | None = None,
        power: tuple[int, int, int, int] | None = None,
    ) -> None:
        memory = below_2_gib(size) if low else CORE.guarded(size)
        area = CORE.span(memory.address, size)
        CORE.ffi.buffer(area.data, size)[:] = bytes([before]) * size
        out, mailbox = CORE.ffi.new("uint64_t *"), CORE.span(MAILBOX, 4096)
        vmm = make_vmm([], tables)
        if devices:
            check(LIB.acpi_devices(vmm, *devices))
        if power:
            check(LIB.acpi_power(vmm, *power))
        check(getattr(LIB, build)(area, vmm, make_cpus(cpus), mailbox, make_log(), out))
        super().__init__(memory, out[0])
