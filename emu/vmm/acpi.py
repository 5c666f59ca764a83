"""Which ACPI tables does the VMM pass in its TD HOB? Processors, I/O APIC, serial port, power control."""

from __future__ import annotations

from collections.abc import Sequence

from emu.vmm import aml
from emu.vmm.devices import ioapic
from emu.vmm.devices.power import FULL_RESET, PM1_CONTROL, PM1_EVENTS, RESET_CONTROL
from formats import acpi
from formats.ports import COM1, COM1_IRQ, COM1_PORTS

SLEEP_TYPE_OFF = 5


def dsdt() -> bytes:
    """The serial port with its interrupt, and the sleep type of power-off."""
    serial = aml.device(
        "COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(1)),
        aml.name("_CRS", aml.resources(aml.io(COM1, COM1_PORTS), aml.irq(COM1_IRQ))),
    )
    off = aml.name("_S5_", aml.package(aml.integer(SLEEP_TYPE_OFF)))
    return acpi.table(b"DSDT", acpi.DSDT_REVISION, off + aml.scope("\\_SB_", serial))


def fadt() -> bytes:
    """A PM1 block without fixed buttons and a reset register; the DSDT's address is left to whoever places
    the tables.
    """
    flags = acpi.FadtFlags
    return acpi.fadt(
        flags=int(flags.WBINVD | flags.PWR_BUTTON | flags.SLP_BUTTON | flags.RESET_REG_SUP),
        iapc_boot_arch=int(acpi.FadtBootArch.NO_VGA),
        sci_int=acpi.SCI_IRQ,
        pm1a_evt_blk=PM1_EVENTS,
        pm1_evt_len=4,
        pm1a_cnt_blk=PM1_CONTROL,
        pm1_cnt_len=2,
        x_pm1a_evt_blk=acpi.port(PM1_EVENTS, 4),
        x_pm1a_cnt_blk=acpi.port(PM1_CONTROL, 2),
        reset_reg=acpi.port(RESET_CONTROL, 1),
        reset_value=FULL_RESET,
    )


def madt(ids: Sequence[int], absent: int = 0) -> bytes:
    """One enabled processor per vCPU, a disabled one for each that could be added (Dragonball, Cloud
    Hypervisor with more vCPUs than it boots with), and the I/O APIC.
    """
    entries = []
    enabled = int(acpi.LapicFlags.ENABLED)
    more = range(max(ids) + 1, max(ids) + 1 + absent)
    for uid, apic_id in enumerate((*ids, *more)):
        flags = enabled if uid < len(ids) else 0
        if max(uid, apic_id) < acpi.TYPE0_APIC_ID_LIMIT:
            entry = acpi.madt_entry(acpi.MadtType.LAPIC, processor_uid=uid, apic_id=apic_id, flags=flags)
        else:
            entry = acpi.madt_entry(acpi.MadtType.X2APIC, processor_uid=uid, x2apic_id=apic_id, flags=flags)
        entries.append(entry)
    entries.append(acpi.madt_entry(acpi.MadtType.IOAPIC, ioapic_id=0, address=ioapic.BASE, gsi_base=0))
    return acpi.madt(entries)
