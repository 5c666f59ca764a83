"""How does a VMM build the TD? RAM, image sections, kernel, command line and TD HOB, in PAGE.ADD order."""

from __future__ import annotations

from dataclasses import dataclass

from emu.config import LARGE_PAGES, RunConfig
from emu.signals import EmuError
from emu.tdx import topology
from emu.tdx.measure import AddedRegion
from emu.tdx.topology import Topology
from emu.vmm import hob
from emu.vmm.backing import backed, union
from emu.vmm.kvm_msr import MCG_CAP_KVM
from emu.vmm.presets import Preset
from emu.vmm.q35.items import Q35, DirectBoot
from formats import bundle, linux, tdvf
from formats.errors import FormatError
from formats.units import FOUR_GIB, PAGE


@dataclass(frozen=True)
class Launch:
    """What the VMM hands to the TDX module: RAM, regions in PAGE.ADD order, and the HOB address for
    TDH.VP.INIT, the vCPUs' APIC ids; whether RAM is mapped in 2 MiB pages where it can be, the MCG_CAP of the
    vCPUs, and what a host that is a q35 has in fw_cfg.
    """

    ram: tuple[tuple[int, int], ...]
    regions: tuple[AddedRegion, ...]
    sections: tuple[tdvf.Section, ...]
    hob_address: int
    hob: bytes
    topology: Topology
    large_pages: bool = True
    mcg_cap: int = MCG_CAP_KVM
    q35: Q35 | None = None


def _metadata(config: RunConfig) -> tuple[tdvf.Section, ...]:
    try:
        return tdvf.metadata(config.image, place=config.image_name).sections
    except FormatError as error:
        raise EmuError(str(error)) from None


def _payload(config: RunConfig) -> bytes:
    assert config.kernel is not None
    try:
        linux.kernel(config.kernel)
        return bundle.write(config.kernel, config.initrd) if config.initrd else config.kernel
    except FormatError as error:
        raise EmuError(str(error)) from None


def _direct_boot(config: RunConfig) -> DirectBoot | None:
    if config.kernel is None:
        return None
    return DirectBoot(config.kernel, config.initrd, config.cmdline.encode())


def _content(section: tdvf.Section, config: RunConfig, hob_bytes: bytes) -> bytes:
    """Bytes of a section as it is added; what is missing to its size is zero."""
    data = config.image[section.data_offset : section.data_offset + section.raw_size]
    what = section.type_name
    if section.type == tdvf.SectionType.TD_HOB:
        data, what = hob_bytes, "TD HOB"
    elif section.type == tdvf.SectionType.PAYLOAD and config.kernel is not None:
        data, what = _payload(config), "kernel and initrd" if config.initrd else "kernel"
    elif section.type == tdvf.SectionType.PAYLOAD_PARAM:
        data, what = config.cmdline.encode() + b"\0", "command line"
    if len(data) > section.memory_size:
        kind = section.type_name
        raise EmuError(
            f"{what}: {len(data)} bytes do not fit into the {kind} section of {section.memory_size} bytes"
        )
    return data


def _check(section: tdvf.Section, config: RunConfig) -> None:
    where = f"{config.image_name}: {section.type_name} section at {section.address:#x}"
    if not section.memory_size and section.type in (tdvf.SectionType.TD_INFO, tdvf.SectionType.TD_PARAMS):
        return
    if section.address % PAGE or section.memory_size % PAGE or not section.memory_size:
        raise EmuError(f"{where} with {section.memory_size:#x} bytes is not a number of whole pages")
    end, size = section.data_offset + section.raw_size, len(config.image)
    if section.raw_size and end > size:
        raise EmuError(f"{where} has data up to {end:#x}, but the image ends at {size:#x}; it is cut short")


def prepare(config: RunConfig, preset: Preset) -> Launch:
    """Builds everything a launch needs; EmuError: what cannot be launched, in one line."""
    sections = _metadata(config)
    for section in sections:
        _check(section, config)
    added = [s for s in sections if s.added]
    hobs = [s for s in added if s.type == tdvf.SectionType.TD_HOB]
    if not hobs:
        raise EmuError(f"{config.image_name}: no TD_HOB section")
    payloads = [s for s in added if s.type == tdvf.SectionType.PAYLOAD]
    if config.kernel is not None and not payloads and not preset.fw_cfg:
        raise EmuError(f"{config.image_name}: no Payload section to copy the kernel into")
    ram = preset.ram(config.memory)
    in_low_ram = (tdvf.SectionType.TD_HOB, tdvf.SectionType.PAYLOAD, tdvf.SectionType.PAYLOAD_PARAM)
    for section in (s for s in sections if s.memory_size):
        inside = any(start <= section.address and section.end <= end for start, end in ram)
        window = FOUR_GIB - len(config.image) <= section.address and section.end <= FOUR_GIB
        if not inside and (section.type in in_low_ram or not window):
            where = f"{section.type_name} section {section.address:#x} to {section.end:#x}"
            raise EmuError(f"{where} does not lie in the {config.memory >> 20} MiB of RAM of this TD")
    entry = payloads[0].address if config.kernel is not None and payloads else None
    shown = topology.parse(config.apic_ids, config.vcpus)
    absent = max(config.td.max_vcpus - config.vcpus, 0)
    facts = hob.Facts(ram, tuple(added), len(config.image), shown.ids, entry, absent)
    data = config.hob if config.hob is not None else hob.build(facts, preset, hobs[0].address)
    regions = tuple(
        AddedRegion(
            s.address,
            _content(s, config, data if s is hobs[0] else b""),
            s.measured,
            s.memory_size,
        )
        for s in added
    )
    if config.hob is not None:
        ram = union((*ram, *backed(config.hob)[1]))
    large = preset.large_pages if config.host_page_size is None else config.host_page_size == LARGE_PAGES
    q35 = Q35(preset.ram(config.memory), _direct_boot(config)) if preset.fw_cfg else None
    return Launch(ram, regions, tuple(added), hobs[0].address, data, shown, large, preset.mcg_cap, q35)
