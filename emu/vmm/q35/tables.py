"""Which ACPI tables does QEMU give its firmware, and which script places them? (hw/i386/acpi-build.c
acpi_build, acpi-common.c acpi_build_madt, hw/acpi/aml-build.c build_fadt; with smm=off, pic=off, hpet=off,
i8042=off.) The DSDT is a small one of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.vmm import aml
from emu.vmm.aml import Space
from emu.vmm.backing import Range
from emu.vmm.devices import ich9, ioapic
from formats import acpi, table_loader
from formats.acpi import FadtFlags, MadtType
from formats.ports import COM1, COM1_IRQ, COM1_PORTS
from formats.q35 import CONFIG_ADDRESS, RESET_PORT, RESET_VALUE, SCI_IRQ
from formats.structs import offset_of, pack
from formats.table_loader import LOADER_FILE, Command, Zone
from formats.units import FOUR_GIB, GIB, KIB, align_up

FILES = TABLES, RSDP, LOADER = "etc/acpi/tables", "etc/acpi/rsdp", LOADER_FILE
TABLES_UNIT, LOADER_UNIT = 128 * KIB, 4 * KIB  # the blobs grow in such steps
TABLES_ALIGN, RSDP_ALIGN = 64, 16
QEMU = acpi.Maker(b"BOCHS ", b"BXPC    ", b"BXPC")
FADT_REVISION, FADT_SIZE, MADT_REVISION, OTHER_REVISION = 3, 244, 3, 1
CHECKSUM = offset_of(acpi.HEADER, "checksum")
UNDEFINED = 0  # access size (ACPI 6.5, 5.2.3.2)
NO_LATENCY = 0xFFF  # C2 and C3 are not there
CENTURY = 0x32
MANY_CPUS = 8  # flat logical destinations end there
PCI_INTERRUPTS = (5, 9, 10, 11)  # level-triggered, active high
LINT1 = 1
ALL_CPUS, ALL_X2APIC_CPUS = 0xFF, 0xFFFFFFFF
LAST_BUS = 0xFF
PM_TIMER_GOOD = 1 << 1  # WAET: one read of the timer is enough
PCI_CONFIG = (CONFIG_ADDRESS, 8)
LEGACY_VIDEO = (0xA0000, 0xBFFFF)
PCI_HOLE_END = 0xFEBFFFFF  # up to the I/O APIC
PCI_HOLE64_SIZE = 32 * GIB  # pci-hole64-size of a q35


@dataclass(frozen=True)
class Facts:
    """What the tables depend on: `ecam` and `pm_base` as the firmware has programmed them so far."""

    apic_ids: Sequence[int]
    ram: tuple[Range, ...]
    ecam: Range | None
    pm_base: int


class Blobs:
    """The two files under construction, and the commands for them. QEMU puts allocations in front."""

    def __init__(self) -> None:
        self.data = {TABLES: bytearray(), RSDP: bytearray()}
        self.script = [
            table_loader.command(Command.ALLOCATE, file=RSDP, align=RSDP_ALIGN, zone=Zone.FSEG),
            table_loader.command(Command.ALLOCATE, file=TABLES, align=TABLES_ALIGN, zone=Zone.HIGH),
        ]
        self.listed: list[int] = []  # offsets of what the RSDT lists

    @property
    def end(self) -> int:
        """Where the next table begins."""
        return len(self.data[TABLES])

    def add(self, table: bytes, listed: bool = True, pointers: Sequence[tuple[int, int]] = ()) -> int:
        """A table whose checksum the firmware will compute, after its pointers (place, size), which hold
        offsets. Its offset.
        """
        at = self.end
        whole = bytearray(table)
        whole[CHECKSUM] = 0
        self.data[TABLES] += whole
        for place, size in pointers:
            self.point(TABLES, at + place, size)
        self.sum(TABLES, at + CHECKSUM, at, len(whole))
        if listed:
            self.listed.append(at)
        return at

    def point(self, file: str, place: int, size: int) -> None:
        """The number there becomes an address."""
        command = table_loader.command(Command.ADD_POINTER, dest=file, src=TABLES, offset=place, size=size)
        self.script.append(command)

    def sum(self, file: str, place: int, start: int, length: int) -> None:
        """The byte there becomes a checksum."""
        command = table_loader.command(
            Command.ADD_CHECKSUM, file=file, offset=place, start=start, length=length
        )
        self.script.append(command)

    def files(self) -> dict[str, bytes]:
        """All three, padded."""
        tables, script = bytes(self.data[TABLES]), b"".join(self.script)
        return {
            TABLES: tables.ljust(align_up(len(tables), TABLES_UNIT), b"\0"),
            RSDP: bytes(self.data[RSDP]),
            LOADER: script.ljust(align_up(len(script), LOADER_UNIT), b"\0"),
        }


def windows(facts: Facts) -> list[bytes]:
    """What the host bridge hands on: buses, ports, and memory beside RAM and configuration space."""
    low = next((end for start, end in facts.ram if not start), 0)
    high = align_up(max(FOUR_GIB, *(end for _, end in facts.ram)), GIB)
    holes = [(low, PCI_HOLE_END)]
    if facts.ecam:
        start, end = facts.ecam
        holes = [(low, min(start - 1, PCI_HOLE_END)), (max(end, low), PCI_HOLE_END)]
    return [
        aml.window(Space.BUS, 2, 0, LAST_BUS),
        aml.io(*PCI_CONFIG),
        aml.window(Space.IO, 2, 0, PCI_CONFIG[0] - 1),
        aml.window(Space.IO, 2, PCI_CONFIG[0] + PCI_CONFIG[1], 0xFFFF),
        aml.window(Space.MEMORY, 4, *LEGACY_VIDEO),
        *(aml.window(Space.MEMORY, 4, first, last) for first, last in holes if first < last),
        aml.window(Space.MEMORY, 8, high, high + PCI_HOLE64_SIZE - 1),
    ]


def dsdt(facts: Facts) -> bytes:
    """A PCI host bridge with its windows, the serial port, the configuration space as a reserved range, and
    the sleep type of power-off.
    """
    bridge = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_CRS", aml.resources(*windows(facts))),
    )
    serial = aml.device(
        "COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(1)),
        aml.name("_CRS", aml.resources(aml.io(COM1, COM1_PORTS), aml.irq(COM1_IRQ))),
    )
    devices = [bridge, serial]
    if facts.ecam:
        start, end = facts.ecam
        reserved = aml.resources(aml.memory32(start, end - start))
        devices.append(
            aml.device("DRAC", aml.name("_HID", aml.eisa_id("PNP0C01")), aml.name("_CRS", reserved))
        )
    off = aml.name("_S5_", aml.package(*[aml.integer(ich9.OFF)] * 4))
    return acpi.table(b"DSDT", OTHER_REVISION, off + aml.scope("_SB_", *devices), QEMU)


def fadt(facts: Facts, facs_at: int, dsdt_at: int) -> bytes:
    """Revision 3. Without a power-management block its registers seem to begin at port 0."""
    base = facts.pm_base
    flags = FadtFlags.WBINVD | FadtFlags.PROC_C1 | FadtFlags.SLP_BUTTON | FadtFlags.RTC_S4
    flags |= FadtFlags.RESET_REG_SUP | FadtFlags.PLATFORM_CLOCK
    if len(facts.apic_ids) > MANY_CPUS:
        flags |= FadtFlags.APIC_CLUSTER_MODEL
    event, control, timer, general = (
        base + at for at in (ich9.STATUS, ich9.CONTROL, ich9.TIMER, ich9.EVENT0)
    )

    def port(address: int, width: int) -> dict[str, int]:
        return acpi.port(address, width, UNDEFINED)

    whole = pack(
        acpi.FADT,
        firmware_ctrl=facs_at,
        dsdt=dsdt_at,
        x_dsdt=dsdt_at,
        int_model=1,
        sci_int=SCI_IRQ,
        pm1a_evt_blk=event,
        pm1a_cnt_blk=control,
        pm_tmr_blk=timer,
        gpe0_blk=general,
        pm1_evt_len=4,
        pm1_cnt_len=2,
        pm_tmr_len=4,
        gpe0_blk_len=ich9.EVENT0_SIZE,
        p_lvl2_lat=NO_LATENCY,
        p_lvl3_lat=NO_LATENCY,
        century=CENTURY,
        flags=int(flags),
        reset_reg=port(RESET_PORT, 1),
        reset_value=RESET_VALUE,
        x_pm1a_evt_blk=port(event, 4),
        x_pm1a_cnt_blk=port(control, 2),
        x_pm_tmr_blk=port(timer, 4),
        x_gpe0_blk=port(general, ich9.EVENT0_SIZE),
    )
    return acpi.table(b"FACP", FADT_REVISION, whole[acpi.HEADER.sizeof() : FADT_SIZE], QEMU)


def madt(apic_ids: Sequence[int]) -> bytes:
    """Processors by index; those with a wide id, and the NMI of all if there is one, in the x2APIC form."""
    enabled = int(acpi.LapicFlags.ENABLED)
    entries = []
    for index, apic_id in enumerate(apic_ids):
        if apic_id < acpi.TYPE0_APIC_ID_LIMIT:
            entry = acpi.madt_entry(MadtType.LAPIC, processor_uid=index, apic_id=apic_id, flags=enabled)
        else:
            entry = acpi.madt_entry(MadtType.X2APIC, processor_uid=index, x2apic_id=apic_id, flags=enabled)
        entries.append(entry)
    entries.append(acpi.madt_entry(MadtType.IOAPIC, address=ioapic.BASE))
    entries.append(acpi.madt_entry(MadtType.ISO, source=0, gsi=2))
    level = acpi.INTI_LEVEL_HIGH
    entries += [acpi.madt_entry(MadtType.ISO, source=pin, gsi=pin, flags=level) for pin in PCI_INTERRUPTS]
    if max(apic_ids) >= acpi.TYPE0_APIC_ID_LIMIT:
        entries.append(acpi.madt_entry(MadtType.X2APIC_NMI, processor_uid=ALL_X2APIC_CPUS, lint=LINT1))
    else:
        entries.append(acpi.madt_entry(MadtType.LAPIC_NMI, processor_uid=ALL_CPUS, lint=LINT1))
    body = acpi.LAPIC_ADDRESS.to_bytes(4, "little") + bytes(4) + b"".join(entries)
    return acpi.table(b"APIC", MADT_REVISION, body, QEMU)


def mcfg(ecam: Range) -> bytes:
    """All buses of the window."""
    buses = (ecam[1] - ecam[0]) >> 20
    return acpi.mcfg(QEMU, base=ecam[0], end_bus=buses - 1)


def waet() -> bytes:
    """Windows ACPI emulated devices table."""
    return acpi.table(b"WAET", OTHER_REVISION, PM_TIMER_GOOD.to_bytes(4, "little"), QEMU)


def build(facts: Facts) -> dict[str, bytes]:
    """The files by name."""
    blobs = Blobs()
    blobs.data[TABLES] += pack(acpi.FACS, signature=b"FACS", length=acpi.FACS.sizeof())
    dsdt_at = blobs.add(dsdt(facts), listed=False)
    pointers = [
        (offset_of(acpi.FADT, name), size)
        for name, size in (("firmware_ctrl", 4), ("dsdt", 4), ("x_dsdt", 8))
    ]
    blobs.add(fadt(facts, 0, dsdt_at), pointers=pointers)
    blobs.add(madt(facts.apic_ids))
    if facts.ecam:
        blobs.add(mcfg(facts.ecam))
    blobs.add(waet())
    body = b"".join(at.to_bytes(4, "little") for at in blobs.listed)
    header = acpi.HEADER.sizeof()
    places = [(header + 4 * index, 4) for index in range(len(blobs.listed))]
    rsdt = blobs.add(acpi.table(b"RSDT", OTHER_REVISION, body, QEMU), listed=False, pointers=places)
    rsdp = pack(acpi.RSDP, signature=acpi.RSDP_SIGNATURE, oem_id=QEMU.oem_id, rsdt_address=rsdt)
    blobs.data[RSDP] += rsdp[: acpi.RSDP_V1_SIZE]
    blobs.point(RSDP, offset_of(acpi.RSDP, "rsdt_address"), 4)
    blobs.sum(RSDP, offset_of(acpi.RSDP, "checksum"), 0, acpi.RSDP_V1_SIZE)
    return blobs.files()
