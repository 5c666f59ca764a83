"""What does the VMM report to the TD about the platform? The TD HOB as each VMM writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emu.vmm import acpi
from emu.vmm.presets import HobStyle, Preset
from formats import hob, tdvf
from formats.units import FOUR_GIB

Range = tuple[int, int]

MMIO_BASE = 3 << 30  # where Dragonball and Cloud Hypervisor put 32-bit devices
CH_MMIO_LENGTH = 0x3EE00000  # Cloud Hypervisor layout.rs: up to the local APIC
CH_MMIO64_END = 0x3FFFFFEEFFFF  # end of its 64-bit device area on a 46-bit host


@dataclass(frozen=True)
class Facts:
    """What a TD HOB says about the platform."""

    ram: tuple[Range, ...]
    sections: tuple[tdvf.Section, ...]
    image_size: int
    apic_ids: tuple[int, ...]
    payload_entry: int | None  # GPA of the kernel, None when no kernel was given
    absent: int = 0  # vCPUs that could be added


def subtract(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """The parts of ranges that no hole covers, in order."""
    rest = sorted(ranges)
    for low, high in holes:
        cut: list[Range] = []
        for start, end in rest:
            cut += [(start, min(end, low)), (max(start, high), end)]
        rest = [piece for piece in cut if piece[0] < piece[1]]
    return rest


def _memory(kind: hob.ResourceType, pieces: Iterable[Range]) -> list[hob.Hob]:
    return [hob.Resource(kind, start, end - start) for start, end in pieces]


def _mmio(start: int, end: int) -> hob.Hob:
    return hob.Resource(hob.ResourceType.MMIO, start, end - start, hob.MMIO_ATTRIBUTES)


def _of_type(facts: Facts, *types: tdvf.SectionType) -> list[Range]:
    return [(s.address, s.end) for s in facts.sections if s.type in types]


def _in_ram(facts: Facts, pieces: Iterable[Range]) -> list[Range]:
    return [p for p in pieces if any(start <= p[0] and p[1] <= end for start, end in facts.ram)]


def _payload(facts: Facts, preset: Preset) -> list[hob.Hob]:
    if facts.payload_entry is None or not preset.payload_info:
        return []
    make = hob.payload_info_packed if preset.packed_payload_info else hob.payload_info
    return [make(hob.PayloadImage.BZIMAGE, facts.payload_entry)]


def dragonball(facts: Facts, preset: Preset) -> list[hob.Hob]:
    """RAM as unaccepted whatever was added inside it, firmware window, one MMIO entry, payload info, ACPI
    tables.
    """
    bios = FOUR_GIB - facts.image_size
    tables = (acpi.madt(facts.apic_ids, facts.absent), acpi.fadt(), acpi.dsdt())
    return [
        *_memory(hob.ResourceType.UNACCEPTED, facts.ram),
        hob.Resource(hob.ResourceType.SYSTEM_MEMORY, bios, facts.image_size),
        _mmio(MMIO_BASE, bios),
        *_payload(facts, preset),
        *map(hob.acpi_table, tables),
    ]


def cloud_hypervisor(facts: Facts, preset: Preset) -> list[hob.Hob]:
    """RAM unaccepted except TempMem, two MMIO entries, ACPI tables, payload info last. In the legacy form
    RAM is ordinary memory and TempMem reserved.
    """
    legacy = preset.style is HobStyle.LEGACY
    ram_type = hob.ResourceType.SYSTEM_MEMORY if legacy else hob.ResourceType.UNACCEPTED
    temp_type = hob.ResourceType.MEMORY_RESERVED if legacy else hob.ResourceType.SYSTEM_MEMORY
    temp = _of_type(facts, tdvf.SectionType.TEMP_MEM)
    high = max(FOUR_GIB, facts.ram[-1][1])
    tables = (acpi.dsdt(), acpi.fadt(), acpi.madt(facts.apic_ids, facts.absent))
    return [
        *_memory(ram_type, subtract(facts.ram, temp)),
        *_memory(temp_type, temp),
        _mmio(MMIO_BASE, MMIO_BASE + CH_MMIO_LENGTH),
        _mmio(high, CH_MMIO64_END),
        *map(hob.acpi_table, tables),
        *_payload(facts, preset),
    ]


def qemu(facts: Facts, preset: Preset) -> list[hob.Hob]:
    """Every RAM piece by address: added sections as memory, the rest unaccepted; nothing else."""
    types = (
        tdvf.SectionType.TD_HOB,
        tdvf.SectionType.TEMP_MEM,
        tdvf.SectionType.PAYLOAD,
        tdvf.SectionType.PAYLOAD_PARAM,
    )
    added = _in_ram(facts, _of_type(facts, *types))
    hobs = _memory(hob.ResourceType.UNACCEPTED, subtract(facts.ram, added))
    hobs += _memory(hob.ResourceType.SYSTEM_MEMORY, added)
    return sorted(hobs, key=lambda item: item.start if isinstance(item, hob.Resource) else 0)


_STYLES = {
    HobStyle.DRAGONBALL: dragonball,
    HobStyle.CLOUD_HYPERVISOR: cloud_hypervisor,
    HobStyle.LEGACY: cloud_hypervisor,
    HobStyle.QEMU: qemu,
}


def build(facts: Facts, preset: Preset, base: int) -> bytes:
    """The TD HOB of this VMM for a list at GPA base."""
    return hob.write(base, _STYLES[preset.style](facts, preset))
