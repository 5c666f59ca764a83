"""What does Dragonball, Kata's VMM, put into a TD? A vmlinux by its program headers, and three ACPI tables
(Kata src/dragonball: src/vm/x86_64.rs load_kernel_with_tdshim; dbs_acpi madt.rs, fadt.rs, sdt.rs).
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.config import RunConfig
from emu.signals import EmuError
from emu.vmm.contents import Contents
from emu.vmm.devices import ioapic
from formats import acpi, elf
from formats.errors import FormatError
from formats.units import MIB

MAKER = acpi.Maker(b"ALICLD", b"RUND    ", b"ALIC")
HIMEM = MIB  # linux_loader's highmem_start_address: no kernel is entered below it
MAX_CPUS = 254  # machine_config.rs MAX_SUPPORTED_VCPUS
MEMORY_UNIT, MOST_MEMORY = 2 * MIB, 0x10_0000 * MIB  # vmm_action.rs, InvalidMemorySize
TIMER_OVERRIDE = 2  # the row says that interrupt 2 is pin 2
# Ports of power management that no device of Dragonball serves: reads give zero
PM1_EVENT, PM1_CONTROL, PM_TIMER, GPE0, SCI = 0xB000, 0xB004, 0xB008, 0xB020, 9


def madt(ids: Sequence[int], absent: int = 0) -> bytes:
    """A local APIC for each vCPU that can be there, enabled if it boots; the I/O APIC and one override."""
    count = len(ids)
    entries = [
        acpi.madt_entry(
            acpi.MadtType.LAPIC,
            processor_uid=index,
            apic_id=index,
            flags=int(acpi.LapicFlags.ENABLED) if index < count else 0,
        )
        for index in range(count + absent)
    ]
    entries += [
        acpi.madt_entry(acpi.MadtType.IOAPIC, ioapic_id=0, address=ioapic.BASE, gsi_base=0),
        acpi.madt_entry(acpi.MadtType.ISO, bus=0, source=TIMER_OVERRIDE, gsi=TIMER_OVERRIDE, flags=0),
    ]
    return acpi.madt(entries, maker=MAKER)


def fadt() -> bytes:
    """Not hardware reduced, with its power management on ports that nobody serves; no DSDT address."""
    flags = acpi.FadtFlags
    return acpi.fadt(
        MAKER,
        minor_revision=0,
        sci_int=SCI,
        pm1a_evt_blk=PM1_EVENT,
        pm1a_cnt_blk=PM1_CONTROL,
        pm_tmr_blk=PM_TIMER,
        gpe0_blk=GPE0,
        pm1_evt_len=4,
        pm1_cnt_len=2,
        pm_tmr_len=4,
        gpe0_blk_len=2,
        iapc_boot_arch=int(acpi.FadtBootArch.LEGACY_DEVICES),
        flags=int(flags.WBINVD | flags.TMR_VAL_EXT | flags.DCK_CAP | flags.RESET_REG_SUP),
        x_pm1a_evt_blk=acpi.port(PM1_EVENT, 4),
        x_pm1a_cnt_blk=acpi.port(PM1_CONTROL, 2),
        x_pm_tmr_blk=acpi.port(PM_TIMER, 4),
    )


def dsdt() -> bytes:
    """A header and nothing else."""
    return acpi.table(b"DSDT", acpi.DSDT_REVISION, b"", MAKER)


def load(config: RunConfig, memory: Contents, ram: Sequence[tuple[int, int]]) -> int:
    """Puts the segments of the vmlinux at their physical addresses and returns its entry; what follows a
    segment's bytes is not cleared. EmuError: Dragonball refuses the kernel.
    """
    if config.memory % MEMORY_UNIT or config.memory > MOST_MEMORY:
        raise EmuError(
            f"dragonball: {config.memory} bytes of memory, expected an even number of MiB, 1 TiB at most"
        )
    if config.kernel is None:
        raise EmuError("dragonball: no kernel")
    try:
        kernel = elf.executable(config.kernel, place="dragonball: kernel")
    except FormatError as error:
        raise EmuError(f"{error}; Dragonball takes a vmlinux") from None
    if kernel.entry < HIMEM:
        raise EmuError(f"dragonball: kernel entry {kernel.entry:#x}, expected {HIMEM:#x} or above")
    for part in kernel.segments:
        end = part.physical + len(part.data)
        if part.data and not any(start <= part.physical and end <= stop for start, stop in ram):
            raise EmuError(f"dragonball: kernel segment {part.physical:#x} to {end:#x} does not lie in RAM")
        memory.write(part.physical, part.data)
    if config.initrd is not None:
        raise EmuError("dragonball: a TD takes no initrd (InitrdNotSupported)")
    return kernel.entry
