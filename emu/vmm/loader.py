"""How does a VMM build the TD? RAM, image sections, kernel, command line and TD HOB, in PAGE.ADD order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.config import LARGE_PAGES, RunConfig
from emu.signals import EmuError
from emu.tdx import topology
from emu.tdx.measure import AddedRegion
from emu.tdx.topology import Topology
from emu.vmm import hob, igvm
from emu.vmm.backing import Range, backed, union
from emu.vmm.contents import Contents
from emu.vmm.devices.power import PowerPorts
from emu.vmm.hosts import dragonball, libkrun
from emu.vmm.kvm_msr import MCG_CAP_KVM
from emu.vmm.presets import Kernel, Preset
from emu.vmm.q35.items import Q35, DirectBoot
from formats import bundle, linux, payload
from formats.errors import FormatError
from formats.hob import PayloadImage
from formats.igvm import Igvm, is_igvm
from formats.tdvf import Section, SectionAttribute, SectionType
from formats.units import PAGE
from formats.vmms import LIBKRUN_MMIO, WITH_DATA

BY_FW_CFG = (Kernel.FW_CFG, Kernel.ALIOTH)
LOADERS = {Kernel.SEGMENTS: dragonball.load, Kernel.BUNDLE: libkrun.load}


@dataclass(frozen=True)
class Launch:
    """What the VMM hands to the TDX module: RAM, regions in PAGE.ADD order, and the HOB address for
    TDH.VP.INIT (0, and no HOB, if the image says what its RAM is); the vCPUs' APIC ids; whether RAM is mapped
    in 2 MiB pages where it can be, the MCG_CAP of the vCPUs, ports that end the run, what ports and addresses
    without a device read, and what a q35, or Alioth's machine, has in fw_cfg. Each of `sections` lies in one
    of the regions, which may be larger.
    """

    ram: tuple[Range, ...]
    regions: tuple[AddedRegion, ...]
    sections: tuple[Section, ...]
    hob_address: int
    hob: bytes
    topology: Topology
    large_pages: bool = True
    mcg_cap: int = MCG_CAP_KVM
    power: PowerPorts = ()
    pm_timer: int = 0
    zeros: bool = False
    memory_ones: bool = False
    q35: Q35 | None = None
    alioth: Q35 | None = None
    memory_map: bool = False  # `hob` is the memory map of an IGVM loader

    def holder(self, section: Section) -> tuple[int, int]:
        """Which region has the section's pages, and where in it they begin (bytes)."""
        for index, region in enumerate(self.regions):
            if region.gpa <= section.address and section.end <= region.gpa + region.length:
                return index, section.address - region.gpa
        raise LookupError(f"no region has the pages of {section.type_name} at {section.address:#x}")

    def content(self, section: Section) -> bytes:
        """The section's bytes as they are added, up to the last one that the VMM wrote."""
        index, at = self.holder(section)
        return self.regions[index].content[at : at + section.memory_size]


@dataclass(frozen=True)
class Image:
    """What the VMM reads of the image: its sections, what it is as an IGVM file, if it is one, and how many
    bytes of memory end at 4 GiB.
    """

    sections: tuple[Section, ...]
    igvm: Igvm | None
    window: int


def _image(config: RunConfig, preset: Preset) -> Image:
    if not is_igvm(config.image):
        return Image(_metadata(config, preset), None, len(config.image))
    if not preset.igvm:
        raise EmuError(f"{config.image_name}: {preset.name} has no loader for an IGVM file for TDX")
    file = igvm.read(config.image, config.image_name)
    return Image(igvm.sections(file), file, igvm.window_size(file))


def _metadata(config: RunConfig, preset: Preset) -> tuple[Section, ...]:
    try:
        return preset.vmm.metadata(config.image, place=config.image_name).sections
    except FormatError as error:
        raise EmuError(str(error)) from None


def _file(kernel: bytes, initrd: bytes | None, preset: Preset) -> tuple[PayloadImage, bytes]:
    """What goes into the Payload section, and its kind."""
    try:
        if preset.any_payload:
            kind = payload.kind(kernel)
        else:
            linux.kernel(kernel)
            kind = PayloadImage.BZIMAGE
        data = bundle.write(kernel, initrd) if initrd else kernel
    except FormatError as error:
        raise EmuError(str(error)) from None
    return kind, data


def _direct_boot(config: RunConfig) -> DirectBoot | None:
    if config.kernel is None:
        return None
    return DirectBoot(config.kernel, config.initrd, config.cmdline.encode())


def _place(memory: Contents, section: Section, data: bytes, what: str) -> None:
    if len(data) > section.memory_size:
        kind = section.type_name
        raise EmuError(
            f"{what}: {len(data)} bytes do not fit into the {kind} section of {section.memory_size} bytes"
        )
    memory.write(section.address, data)


def _load_image(config: RunConfig, preset: Preset, sections: Sequence[Section], memory: Contents) -> None:
    """The parts of a TDVF image."""
    for section in sections:
        if section.raw_size and (section.type in WITH_DATA or not preset.volumes):
            size = section.memory_size if preset.vmm.whole_pages else section.raw_size
            memory.write(section.address, config.image[section.data_offset : section.data_offset + size])


def _load_kernel(
    config: RunConfig, preset: Preset, sections: Sequence[Section], memory: Contents, ram: tuple[Range, ...]
) -> hob.Payload | None:
    """Kernel, initrd and command line as the VMM puts them into memory, and what its TD HOB says of them."""
    loaded: hob.Payload | None
    if load := LOADERS.get(preset.kernel):
        loaded = hob.Payload(PayloadImage.RAW_VMLINUX, load(config, memory, ram))
        command_line = preset.kernel is Kernel.SEGMENTS
    elif preset.kernel in BY_FW_CFG:
        return None
    else:
        loaded, command_line = _load_section(config, preset, sections, memory), True
    for section in sections:
        if section.type == SectionType.PAYLOAD_PARAM and command_line:
            _place(memory, section, config.cmdline.encode() + b"\0", "command line")
    return loaded


def _load_section(
    config: RunConfig, preset: Preset, sections: Sequence[Section], memory: Contents
) -> hob.Payload | None:
    payloads = [section for section in sections if section.type == SectionType.PAYLOAD]
    if config.kernel is None:
        return None
    if not payloads:
        raise EmuError(f"{config.image_name}: no Payload section to copy the kernel into")
    what = "kernel and initrd" if config.initrd else "kernel"
    kind, data = _file(config.kernel, config.initrd, preset)
    for section in payloads:
        _place(memory, section, data, what)
    return hob.Payload(kind, payloads[0].address)


def _check(section: Section, config: RunConfig, preset: Preset) -> None:
    where = f"{config.image_name}: {section.type_name} section at {section.address:#x}"
    if section.type not in preset.vmm.types:
        raise EmuError(f"{where}: {preset.name} does not know this type of section")
    if not section.memory_size and section.type in (SectionType.TD_INFO, SectionType.TD_PARAMS):
        return
    if section.address % PAGE or section.memory_size % PAGE or not section.memory_size:
        raise EmuError(f"{where} with {section.memory_size:#x} bytes is not a number of whole pages")
    if not section.raw_size:
        return
    read = section.memory_size if preset.vmm.whole_pages else section.raw_size
    end, size = section.data_offset + read, len(config.image)
    if end > size:
        raise EmuError(f"{where} has data up to {end:#x}, but the image ends at {size:#x}; it is cut short")
    if preset.vmm.whole_pages and section.data_offset % PAGE:
        raise EmuError(
            f"{where} has data from {section.data_offset:#x} on, which is not a multiple of {PAGE:#x}"
        )


def _check_place(
    section: Section, config: RunConfig, preset: Preset, ram: tuple[Range, ...], window: int
) -> None:
    if not preset.vmm.takes(section, ram, window):
        where = f"{section.type_name} section {section.address:#x} to {section.end:#x}"
        raise EmuError(f"{where} does not lie in the {config.memory >> 20} MiB of RAM of this TD")


def _describes_ram(image: Image) -> bool:
    """Without a TD HOB: td-shim-interface/src/metadata.rs validate_sections; or the memory map of IGVM."""
    if image.igvm and igvm.has_memory_map(image.igvm):
        return True
    return any(section.type == SectionType.PERM_MEM for section in image.sections)


def _check_cpus(config: RunConfig, preset: Preset, ids: tuple[int, ...]) -> None:
    if preset.max_id and max(ids) > preset.max_id:
        raise EmuError(f"{preset.name}: APIC id {max(ids)}, at most {preset.max_id}")
    if preset.max_cpus and config.vcpus > preset.max_cpus:
        raise EmuError(f"{preset.name}: {config.vcpus} vCPUs, at most {preset.max_cpus}")
    if preset.indexed and ids != tuple(range(config.vcpus)):
        raise EmuError(f"{preset.name}: a vCPU's APIC id is its index; apic ids cannot be chosen")


def _measured(section: Section, preset: Preset) -> bool:
    extend = int(SectionAttribute.MR_EXTEND)
    return section.attributes == extend if preset.exact_attributes else bool(section.attributes & extend)


def _regions(
    preset: Preset, sections: Sequence[Section], ram: tuple[Range, ...], memory: Contents
) -> tuple[AddedRegion, ...]:
    """In the order in which the VMM adds them: libkrun all RAM, unmeasured, then the sections above it."""
    whole: tuple[Range, ...] = ()
    if preset.kernel is Kernel.BUNDLE:
        whole = ram
        sections = [section for section in sections if section.address >= LIBKRUN_MMIO]
    return (
        *(AddedRegion(start, memory.read(start, end - start), False, end - start) for start, end in whole),
        *(
            AddedRegion(
                section.address,
                memory.read(section.address, section.memory_size),
                _measured(section, preset),
                section.memory_size,
            )
            for section in sections
        ),
    )


def _description(config: RunConfig, preset: Preset, image: Image, facts: hob.Facts, address: int) -> bytes:
    """What the VMM says of the machine: a TD HOB, where the image does not ask for IGVM's memory map."""
    if config.hob is not None:
        return config.hob
    if image.igvm and igvm.has_memory_map(image.igvm):
        return igvm.memory_map(facts.ram)
    return hob.build(facts, preset.hobs, address)


def prepare(config: RunConfig, preset: Preset) -> Launch:
    """Builds everything a launch needs; EmuError: what cannot be launched, in one line."""
    image = _image(config, preset)
    sections = image.sections
    ram = preset.vmm.ram(config.memory)
    for section in sections:
        _check(section, config, preset)
    added = tuple(s for s in sections if (s.added if preset.page_aug else s.memory_size))
    hobs = [s for s in added if s.type == SectionType.TD_HOB]
    if not hobs and (config.hob is not None or not (preset.page_aug and _describes_ram(image))):
        raise EmuError(f"{config.image_name}: no TD_HOB section")
    for section in sections:
        _check_place(section, config, preset, ram, image.window)
    shown = topology.parse(config.apic_ids, config.vcpus)
    _check_cpus(config, preset, shown.ids)
    memory = Contents()
    if image.igvm:
        for gpa, data in igvm.contents(image.igvm, ram, config.vcpus, config.cmdline):
            memory.write(gpa, data)
    else:
        _load_image(config, preset, added, memory)
    loaded = _load_kernel(config, preset, added, memory, ram)
    absent = max(config.td.max_vcpus - config.vcpus, 0)
    facts = hob.Facts(ram, added, image.window, shown.ids, loaded, absent)
    list_at, data = 0, b""
    if hobs:
        section = hobs[-1] if preset.last_hob else hobs[0]
        list_at = section.address
        data = _description(config, preset, image, facts, list_at)
        _place(memory, section, data, "TD HOB")
    regions = _regions(preset, added, ram, memory)
    if config.hob is not None:
        ram = union((*ram, *backed(config.hob)[1]))
    large = preset.large_pages if config.host_page_size is None else config.host_page_size == LARGE_PAGES
    files = Q35(preset.vmm.ram(config.memory), _direct_boot(config))
    return Launch(
        ram,
        regions,
        added,
        list_at,
        data,
        shown,
        large,
        preset.mcg_cap,
        preset.power,
        preset.pm_timer,
        preset.zeros,
        preset.memory_ones,
        files if preset.kernel is Kernel.FW_CFG else None,
        files if preset.kernel is Kernel.ALIOTH else None,
        image.igvm is not None and igvm.has_memory_map(image.igvm),
    )
