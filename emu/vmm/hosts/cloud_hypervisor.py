"""Which ACPI tables does Cloud Hypervisor pass in its TD HOB? (vmm/src/acpi.rs create_acpi_tables_tdx,
create_facp_table, create_mcfg_table; vmm/src/cpu.rs create_madt.) These are the same from v34 on. The DSDT
here is a part of the real one: the devices that the emulated host has.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.vmm import aml
from emu.vmm.devices import ioapic
from emu.vmm.devices.power import ACPI_SLEEP
from formats import acpi
from formats.ports import COM1, COM1_IRQ, COM1_PORTS

DSDT_REVISION, FADT_MINOR_REVISION, SLEEP_TYPE_OFF = 6, 3, 5
PM_TIMER = 0x608
ECAM, ECAM_SIZE = 0xE8000000, 0x10000000  # layout.rs PCI_MMCONFIG_START, PCI_MMCONFIG_SIZE
RESET_VALUE = 1


def maker(table: bytes) -> acpi.Maker:
    """Each table names itself; the creator is that of the crate acpi_tables."""
    return acpi.Maker(b"CLOUDH", table.ljust(8), b"RVAT", 0x01000000)


def dsdt() -> bytes:
    """Reserved configuration space, the serial port, power-off, the power button. Absent: PCI with its
    hotplug controller, the event controller, hotplug of CPUs and memory.
    """
    config = aml.device(
        "._SB_MBRD",
        aml.name("_HID", aml.eisa_id("PNP0C02")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_CRS", aml.resources(aml.memory32(ECAM, ECAM_SIZE))),
    )
    ports = aml.interrupt(COM1_IRQ) + aml.io(COM1, COM1_PORTS, alignment=0)
    serial = aml.device(
        "._SB_COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_DDN", aml.string("COM1")),
        aml.name("_CRS", aml.resources(ports)),
    )
    off = aml.name("_S5_", aml.package(aml.integer(SLEEP_TYPE_OFF)))
    button = aml.device(
        "._SB_PWRB", aml.name("_HID", aml.eisa_id("PNP0C0C")), aml.name("_UID", aml.integer(0))
    )
    body = config + serial + off + button
    return acpi.table(b"DSDT", DSDT_REVISION, body, maker(b"CHDSDT"))


def facp() -> bytes:
    """Hardware reduced, with one register for sleep and reset; no DSDT address."""
    flags = acpi.FadtFlags
    sleep = acpi.port(ACPI_SLEEP, 1)
    return acpi.fadt(
        maker(b"CHFACP"),
        minor_revision=FADT_MINOR_REVISION,
        flags=int(flags.HW_REDUCED | flags.RESET_REG_SUP | flags.TMR_VAL_EXT),
        reset_reg=sleep,
        reset_value=RESET_VALUE,
        x_pm_tmr_blk=acpi.port(PM_TIMER, 4),
        sleep_control_reg=sleep,
        sleep_status_reg=sleep,
        hypervisor_vendor=b"CLOUDHYP",
    )


def madt(ids: Sequence[int], absent: int = 0) -> bytes:
    """A local APIC for each vCPU that can be there; those that boot are enabled."""
    flags, kind = acpi.LapicFlags, acpi.MadtType
    more = range(max(ids) + 1, max(ids) + 1 + absent)
    entries = []
    for uid, apic_id in enumerate((*ids, *more)):
        there = flags.ONLINE_CAPABLE | (flags.ENABLED if uid < len(ids) else 0)
        entries.append(acpi.madt_entry(kind.X2APIC, processor_uid=uid, x2apic_id=apic_id, flags=int(there)))
    entries += [
        acpi.madt_entry(kind.IOAPIC, ioapic_id=0, address=ioapic.BASE, gsi_base=0),
        acpi.madt_entry(kind.ISO, bus=0, source=COM1_IRQ, gsi=COM1_IRQ, flags=0),
    ]
    return acpi.madt(entries, maker=maker(b"CHMADT"))


def mcfg() -> bytes:
    """Where PCI configuration space would be, of one bus."""
    return acpi.mcfg(maker(b"CHMCFG"), base=ECAM)
