"""What does the VMM report to the TD about the platform? The TD HOB as each VMM writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emu.vmm import acpi
from emu.vmm.hosts import cloud_hypervisor as ch
from emu.vmm.hosts import dragonball as db
from formats import hob, tdvf
from formats.units import FOUR_GIB
from formats.vmms import DRAGONBALL_WINDOW

Range = tuple[int, int]

MMIO_BASE = 3 << 30  # where Dragonball and Cloud Hypervisor put 32-bit devices
CH_MMIO_LENGTH = 0x3EE00000  # Cloud Hypervisor layout.rs: up to the local APIC
CH_MMIO64_END = 0x3FFFFFEEFFFF  # end of its 64-bit device area on a 46-bit host


@dataclass(frozen=True)
class Payload:
    """What kind of kernel was loaded, and where it is entered (a GPA)."""

    kind: hob.PayloadImage
    entry: int


@dataclass(frozen=True)
class Facts:
    """What a TD HOB says about the platform. Without `payload`, no kernel was loaded."""

    ram: tuple[Range, ...]
    sections: tuple[tdvf.Section, ...]
    image_size: int
    apic_ids: tuple[int, ...]
    payload: Payload | None
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


def _payload(facts: Facts) -> list[hob.Hob]:
    return [hob.payload_info(facts.payload.kind, facts.payload.entry)] if facts.payload else []


def td_shim_spec(facts: Facts) -> list[hob.Hob]:
    """RAM as unaccepted whatever was added inside it, firmware window, one MMIO entry, payload info, ACPI
    tables: Dragonball's form, with the image's own size and tables of ours.
    """
    bios = FOUR_GIB - facts.image_size
    tables = (acpi.madt(facts.apic_ids, facts.absent), acpi.fadt(), acpi.dsdt())
    return [
        *_memory(hob.ResourceType.UNACCEPTED, facts.ram),
        hob.Resource(hob.ResourceType.SYSTEM_MEMORY, bios, facts.image_size),
        _mmio(MMIO_BASE, bios),
        *_payload(facts),
        *map(hob.acpi_table, tables),
    ]


def dragonball(facts: Facts) -> list[hob.Hob]:
    """Regions by address: RAM as unaccepted whatever was added inside it, 16 MiB of firmware window; then one
    MMIO entry, payload info, ACPI tables (x86_64.rs write_tdshim_hob_list).
    """
    window = [hob.Resource(hob.ResourceType.SYSTEM_MEMORY, DRAGONBALL_WINDOW, FOUR_GIB - DRAGONBALL_WINDOW)]
    regions = [*_memory(hob.ResourceType.UNACCEPTED, facts.ram), *window]
    tables = (db.madt(facts.apic_ids, facts.absent), db.fadt(), db.dsdt())
    return [
        *_by_address(regions),
        _mmio(MMIO_BASE, DRAGONBALL_WINDOW),
        *_payload(facts),
        *map(hob.acpi_table, tables),
    ]


def _cloud_hypervisor(facts: Facts, ram: hob.ResourceType, temporary: hob.ResourceType) -> list[hob.Hob]:
    temp = _of_type(facts, tdvf.SectionType.TEMP_MEM)
    regions = [*_memory(ram, subtract(facts.ram, temp)), *_memory(temporary, temp)]
    high = max(FOUR_GIB, facts.ram[-1][1])
    return [
        *_by_address(regions),
        _mmio(MMIO_BASE, MMIO_BASE + CH_MMIO_LENGTH),
        _mmio(high, CH_MMIO64_END),
    ]


def _with_tables(facts: Facts) -> list[hob.Hob]:
    kind = hob.ResourceType
    tables = (ch.dsdt(), ch.facp(), ch.madt(facts.apic_ids, facts.absent), ch.mcfg())
    return [*_cloud_hypervisor(facts, kind.UNACCEPTED, kind.SYSTEM_MEMORY), *map(hob.acpi_table, tables)]


def cloud_hypervisor(facts: Facts) -> list[hob.Hob]:
    """By address, RAM unaccepted and TempMem as memory; two MMIO entries, ACPI tables, payload info last
    (vm.rs populate_tdx_sections, hob_memory_resources).
    """
    hobs = _with_tables(facts)
    if facts.payload:
        hobs.append(hob.payload_info_packed(facts.payload.kind, facts.payload.entry))
    return hobs


def cloud_hypervisor_v43(facts: Facts) -> list[hob.Hob]:
    """The same up to v43, whose payload info has 16 bytes."""
    return [*_with_tables(facts), *_payload(facts)]


def legacy(facts: Facts) -> list[hob.Hob]:
    """td-shim's older form: RAM is ordinary memory and TempMem reserved, by address. Cloud Hypervisor writes
    it for an image without a GUID table (tdx/mod.rs add_memory_resource).
    """
    kind = hob.ResourceType
    tables = (acpi.dsdt(), acpi.fadt(), acpi.madt(facts.apic_ids, facts.absent))
    hobs = _cloud_hypervisor(facts, kind.SYSTEM_MEMORY, kind.MEMORY_RESERVED)
    return [*hobs, *map(hob.acpi_table, tables), *_payload(facts)]


def libkrun(facts: Facts) -> list[hob.Hob]:
    """All RAM as memory that was added, then the payload info; nothing else (tdshim.rs write_hob_chain)."""
    return [*_memory(hob.ResourceType.SYSTEM_MEMORY, facts.ram), *_payload(facts)]


def qemu(facts: Facts) -> list[hob.Hob]:
    """Every RAM piece by address: added sections as memory, the rest unaccepted; nothing else. Alioth writes
    the same (tdx.rs create_hob_mem_resources).
    """
    types = (
        tdvf.SectionType.TD_HOB,
        tdvf.SectionType.TEMP_MEM,
        tdvf.SectionType.PAYLOAD,
        tdvf.SectionType.PAYLOAD_PARAM,
    )
    added = _in_ram(facts, _of_type(facts, *types))
    hobs = _memory(hob.ResourceType.UNACCEPTED, subtract(facts.ram, added))
    hobs += _memory(hob.ResourceType.SYSTEM_MEMORY, added)
    return _by_address(hobs)


def _by_address(hobs: Iterable[hob.Hob]) -> list[hob.Hob]:
    return sorted(hobs, key=lambda item: item.start if isinstance(item, hob.Resource) else 0)


def build(facts: Facts, hobs: Callable[[Facts], list[hob.Hob]], base: int) -> bytes:
    """The TD HOB of a VMM, whose form is `hobs`, for a list at GPA base."""
    return hob.write(base, hobs(facts))
