"""What does the emulated VMM make of an IGVM file: which sections does it stand for, and what is in them?

No VMM with public sources loads one into a TD; this one goes by microsoft/igvm's definitions. An area that no
parameter fills is one of docs/image.md: its index is the type of a section, which the VMM fills as always.
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.signals import EmuError
from emu.vmm.backing import Range
from formats import igvm
from formats.errors import FormatError
from formats.igvm import HeaderType, Igvm, Region
from formats.structs import pack
from formats.tdvf import FILLED, Section, SectionAttribute, SectionType
from formats.units import FOUR_GIB, PAGE

WINDOW = FOUR_GIB - (16 << 20)  # where the code of an image lies, beside the RAM


def read(data: bytes, name: str) -> Igvm:
    """The file. EmuError: what no TDX loader takes, in one line."""
    try:
        return igvm.read(data, place=name)
    except FormatError as error:
        raise EmuError(str(error)) from None


def sections(file: Igvm) -> tuple[Section, ...]:
    """A section for each region, in the order in which the loader adds them; then the memory that the file
    requires, which the TD accepts.
    """
    extend, later = int(SectionAttribute.MR_EXTEND), int(SectionAttribute.PAGE_AUG)
    return (
        *(Section(0, 0, i.gpa, i.size, _kind(i), extend if i.measured else 0) for i in file.regions),
        *(Section(0, 0, start, end - start, SectionType.PERM_MEM, later) for start, end in file.required),
    )


def _kind(item: Region) -> SectionType:
    if item.area is not None:
        return SectionType(item.area) if item.area in FILLED else SectionType.TEMP_MEM
    if item.measured:
        return SectionType.BFV
    return SectionType.CFV if item.has_data else SectionType.TEMP_MEM


def window_size(file: Igvm) -> int:
    """From its lowest page there to 4 GiB: what is the file's size for a TDVF image."""
    return FOUR_GIB - min(
        (item.gpa for item in file.regions if WINDOW <= item.gpa < FOUR_GIB), default=FOUR_GIB
    )


def has_memory_map(file: Igvm) -> bool:
    """Whether the firmware has its RAM from the parameter and not from a TD HOB."""
    return any(kind is HeaderType.MEMORY_MAP for item in file.regions for kind, _ in item.parameters)


def memory_map(ram: tuple[Range, ...]) -> bytes:
    """The content of the parameter: all RAM, and an entry without pages at the end."""
    entries = (
        {"starting_gpa_page_number": start // PAGE, "number_of_pages": (end - start) // PAGE}
        for start, end in (*ram, (0, 0))
    )
    return b"".join(pack(igvm.MEMORY_MAP_ENTRY, **entry) for entry in entries)


def contents(file: Igvm, ram: tuple[Range, ...], vcpus: int, cmdline: str) -> Iterator[tuple[int, bytes]]:
    """GPA and bytes of what is in the file, and of the parameters. EmuError: one that cannot be filled."""
    parameters = {
        HeaderType.MEMORY_MAP: memory_map(ram),
        HeaderType.COMMAND_LINE: cmdline.encode() + b"\0",
        HeaderType.VP_COUNT: vcpus.to_bytes(4, "little"),
    }
    for item in file.regions:
        yield item.gpa, item.content
        for kind, at in item.parameters:
            if kind not in parameters:
                raise EmuError(f"parameter {kind.name}: the emulated VMM has nothing for it")
            if len(parameters[kind]) > item.size - at:
                size = f"{len(parameters[kind])} bytes do not fit into {item.size - at} bytes"
                raise EmuError(f"parameter {kind.name} of parameter area {item.area}: {size}")
            yield item.gpa + at, parameters[kind]
