"""Which ACPI tables does the VMM pass in its TD HOB? A hardware-reduced machine: processors, no legacy
devices.
"""

from __future__ import annotations

from gen.formats import acpi


def dsdt() -> bytes:
    """A DSDT without any device: the header alone, which Linux accepts."""
    return acpi.table(b"DSDT", acpi.DSDT_REVISION, b"")


def fadt() -> bytes:
    """A hardware-reduced FADT; its DSDT address is left to whoever places the tables."""
    flags = acpi.FadtFlags.HW_REDUCED | acpi.FadtFlags.WBINVD
    boot = acpi.FadtBootArch.NO_VGA | acpi.FadtBootArch.NO_CMOS_RTC
    return acpi.fadt(flags=int(flags), iapc_boot_arch=int(boot))


def madt(vcpus: int) -> bytes:
    """One enabled processor per vCPU, x2APIC id = vCPU index."""
    entries = []
    for index in range(vcpus):
        enabled = int(acpi.LapicFlags.ENABLED)
        if index < acpi.TYPE0_APIC_ID_LIMIT:
            entry = acpi.madt_entry(acpi.MadtType.LAPIC, processor_uid=index, apic_id=index, flags=enabled)
        else:
            entry = acpi.madt_entry(acpi.MadtType.X2APIC, processor_uid=index, x2apic_id=index, flags=enabled)
        entries.append(entry)
    return acpi.madt(entries)
