"""Which ACPI tables does the VMM pass in its TD HOB? A hardware-reduced machine: processors, an I/O APIC, a
serial port, power-off.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.vmm import aml
from emu.vmm.devices import ioapic
from emu.vmm.devices.power import ACPI_SLEEP
from formats import acpi
from formats.ports import COM1, COM1_IRQ, COM1_PORTS

SLEEP_TYPE_OFF = 5
IO_SPACE, BYTE = 1, 1  # generic address structure: space and access size (ACPI 6.5, 5.2.3.2)


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
    """A hardware-reduced FADT; its DSDT address is left to whoever places the tables."""
    flags = acpi.FadtFlags.HW_REDUCED | acpi.FadtFlags.WBINVD
    boot = acpi.FadtBootArch.NO_VGA | acpi.FadtBootArch.NO_CMOS_RTC
    sleep = {
        "space_id": IO_SPACE,
        "bit_width": 8,
        "bit_offset": 0,
        "access_size": BYTE,
        "address": ACPI_SLEEP,
    }
    return acpi.fadt(
        flags=int(flags), iapc_boot_arch=int(boot), sleep_control_reg=sleep, sleep_status_reg=sleep
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
