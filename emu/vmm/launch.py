"""How does a VMM build the TD? RAM, image sections, kernel, command line and TD HOB, in PAGE.ADD order."""

from __future__ import annotations

from dataclasses import dataclass

from emu.signals import EmuError
from emu.tdx.measure import Region
from emu.vmm import hob
from emu.vmm.backing import backed, union
from emu.vmm.presets import Preset
from formats import bundle, linux, tdvf
from formats.errors import FormatError
from formats.units import FOUR_GIB, PAGE

MIN_MEMORY, MAX_MEMORY = 16 << 20, 1 << 46  # a power of 2 that GPAW 48 has room for


@dataclass(frozen=True)
class Inputs:
    """What the user gives a VMM."""

    image: bytes
    image_name: str
    memory: int
    vcpus: int
    kernel: bytes | None = None
    initrd: bytes | None = None
    cmdline: str = ""
    hob: bytes | None = None  # instead of the VMM's own; the RAM it claims is given


@dataclass(frozen=True)
class Launch:
    """What the VMM hands to the TDX module: RAM, regions in PAGE.ADD order, and the HOB address for
    TDH.VP.INIT.
    """

    ram: tuple[tuple[int, int], ...]
    regions: tuple[Region, ...]
    sections: tuple[tdvf.Section, ...]
    hob_address: int
    hob: bytes


def _metadata(inputs: Inputs) -> tuple[tdvf.Section, ...]:
    try:
        return tdvf.metadata(inputs.image, place=inputs.image_name).sections
    except FormatError as error:
        raise EmuError(str(error)) from None


def _payload(inputs: Inputs) -> bytes:
    assert inputs.kernel is not None
    try:
        linux.kernel(inputs.kernel)
        return bundle.write(inputs.kernel, inputs.initrd) if inputs.initrd else inputs.kernel
    except FormatError as error:
        raise EmuError(str(error)) from None


def _content(section: tdvf.Section, inputs: Inputs, hob_bytes: bytes) -> bytes:
    """Bytes of a section as it is added; what is missing to its size is zero."""
    data = inputs.image[section.data_offset : section.data_offset + section.raw_size]
    what = section.type_name
    if section.type == tdvf.SectionType.TD_HOB:
        data, what = hob_bytes, "TD HOB"
    elif section.type == tdvf.SectionType.PAYLOAD and inputs.kernel is not None:
        data, what = _payload(inputs), "kernel and initrd" if inputs.initrd else "kernel"
    elif section.type == tdvf.SectionType.PAYLOAD_PARAM:
        data, what = inputs.cmdline.encode() + b"\0", "command line"
    if len(data) > section.memory_size:
        kind = section.type_name
        raise EmuError(
            f"{what}: {len(data)} bytes do not fit into the {kind} section of {section.memory_size} bytes"
        )
    return data


def _check(section: tdvf.Section, inputs: Inputs) -> None:
    where = f"{inputs.image_name}: {section.type_name} section at {section.address:#x}"
    if section.address % PAGE or section.memory_size % PAGE or not section.memory_size:
        raise EmuError(f"{where} with {section.memory_size:#x} bytes is not a number of whole pages")
    end, size = section.data_offset + section.raw_size, len(inputs.image)
    if section.raw_size and end > size:
        raise EmuError(f"{where} has data up to {end:#x}, but the image ends at {size:#x}; it is cut short")


def check_memory(size: int) -> None:
    """Can a TD have this much? EmuError."""
    if not MIN_MEMORY <= size <= MAX_MEMORY or size % PAGE:
        raise EmuError(f"memory: {size} bytes; a TD gets at least 16 MiB and at most 64 TiB, in whole pages")


def prepare(inputs: Inputs, preset: Preset) -> Launch:
    """Builds everything a launch needs; EmuError tells in one line what cannot be launched."""
    check_memory(inputs.memory)
    sections = _metadata(inputs)
    added = [s for s in sections if s.type not in (tdvf.SectionType.TD_INFO, tdvf.SectionType.TD_PARAMS)]
    for section in added:
        _check(section, inputs)
    hobs = [s for s in added if s.type == tdvf.SectionType.TD_HOB]
    if not hobs:
        raise EmuError(f"{inputs.image_name}: no TD_HOB section")
    payloads = [s for s in added if s.type == tdvf.SectionType.PAYLOAD]
    if inputs.kernel is not None and not payloads:
        raise EmuError(f"{inputs.image_name}: no Payload section to copy the kernel into")
    ram = preset.ram(inputs.memory)
    in_low_ram = (tdvf.SectionType.TD_HOB, tdvf.SectionType.PAYLOAD, tdvf.SectionType.PAYLOAD_PARAM)
    for section in added:
        inside = any(start <= section.address and section.end <= end for start, end in ram)
        window = FOUR_GIB - len(inputs.image) <= section.address and section.end <= FOUR_GIB
        if not inside and (section.type in in_low_ram or not window):
            where = f"{section.type_name} section {section.address:#x} to {section.end:#x}"
            raise EmuError(f"{where} does not lie in the {inputs.memory >> 20} MiB of RAM of this TD")
    entry = payloads[0].address if inputs.kernel is not None else None
    machine = hob.Machine(ram, tuple(added), len(inputs.image), inputs.vcpus, entry)
    data = inputs.hob if inputs.hob is not None else hob.build(machine, preset, hobs[0].address)
    measured = tdvf.SectionAttribute.MR_EXTEND
    regions = tuple(
        Region(
            s.address,
            _content(s, inputs, data if s is hobs[0] else b""),
            bool(s.attributes & measured),
            s.memory_size,
        )
        for s in added
    )
    if inputs.hob is not None:
        ram = union((*ram, *backed(inputs.hob)[1]))
    return Launch(ram, regions, tuple(added), hobs[0].address, data)
