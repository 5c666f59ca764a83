"""How does each VMM find the metadata of an image, which sections does it know, and where may they lie?

What a check of an image and the emulated launch both need. Sources: image/hosts.py names one for each rule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from formats import tdvf
from formats.errors import FormatError
from formats.tdvf import EntrySize, Metadata, Section, SectionType
from formats.units import FOUR_GIB, GIB, MIB

Range = tuple[int, int]
RESERVED = 0xFFFF_FFFF  # a section type that VMMs written in Rust add without content
DRAGONBALL_WINDOW = FOUR_GIB - 16 * MIB  # Kata dbs_boot layout.rs BIOS_MEM_START, whatever the file's size
LIBKRUN_MMIO = 0xD000_0000  # libkrun arch/src/x86_64/layout.rs MMIO_MEM_START
IN_LOW_RAM = (SectionType.TD_HOB, SectionType.PAYLOAD, SectionType.PAYLOAD_PARAM)
WITH_DATA = (SectionType.BFV, SectionType.CFV)


def by_table(image: bytes, *, place: str = "image", size: EntrySize = EntrySize.REFUSED) -> int:
    """The descriptor's offset by the GUID table. FormatError."""
    offset = tdvf.offset_by_table(image, place=place, size=size)
    if offset is None:
        raise FormatError(place, "no GUID table with a TDX entry", "one, at the end of the file")
    return offset


def by_table_or_pointer(image: bytes, *, place: str = "image", size: EntrySize = EntrySize.SKIPPED) -> int:
    """The same; the pointer where there is no such entry."""
    offset = tdvf.offset_by_table(image, place=place, size=size)
    return tdvf.offset_by_pointer(image, place=place) if offset is None else offset


def by_pointer_or_table(image: bytes, *, place: str = "image") -> int:
    """The pointer's, if it leads to a descriptor; else the table's."""
    with suppress(FormatError):
        return tdvf.metadata_at(image, tdvf.offset_by_pointer(image, place=place), place=place).offset
    return by_table(image, place=place)


@dataclass(frozen=True)
class Vmm:
    """One VMM. `beside(section, ram, file size)`: whether a section that does not lie in RAM may lie there.
    RAM below 4 GiB holds up to `low_top` bytes unless `low_border` moves the border.
    """

    find: Callable[..., int]
    types: frozenset[int]
    beside: Callable[[Section, tuple[Range, ...], int], bool]
    low_top: int = 3 * GIB
    low_border: int = 3 * GIB  # RAM up to this lies wholly below 4 GiB
    any_length: bool = False  # the descriptor's Length is not looked at
    whole_pages: bool = False  # a section's pages are those of the image file, whatever its raw size says

    def metadata(self, image: bytes, *, place: str = "image") -> Metadata:
        """What this VMM reads. FormatError."""
        offset = self.find(image, place=place)
        return tdvf.metadata_at(image, offset, place=place, any_length=self.any_length)

    def ram(self, size: int) -> tuple[Range, ...]:
        """RAM (start, end) of a machine with this much, in bytes."""
        if size <= self.low_border:
            return ((0, size),)
        return ((0, self.low_top), (FOUR_GIB, FOUR_GIB + size - self.low_top))

    def takes(self, section: Section, ram: tuple[Range, ...], file_size: int) -> bool:
        """Whether a machine with this RAM has the section's memory. One without memory lies nowhere."""
        inside = any(start <= section.address and section.end <= end for start, end in ram)
        return not section.memory_size or inside or self.beside(section, ram, file_size)


# ---- beside the RAM


def _file(section: Section, file_size: int) -> bool:
    """Where a file that ends at 4 GiB is mapped."""
    return FOUR_GIB - file_size <= section.address and section.end <= FOUR_GIB


def _data_in_file(section: Section, _ram: tuple[Range, ...], file_size: int) -> bool:
    return section.type in WITH_DATA and _file(section, file_size)


def _specification(section: Section, _ram: tuple[Range, ...], file_size: int) -> bool:
    return section.type not in IN_LOW_RAM and _file(section, file_size)


def _window(section: Section, _ram: tuple[Range, ...], _file_size: int) -> bool:
    return section.address >= DRAGONBALL_WINDOW and section.end <= FOUR_GIB


def _own_ram(section: Section, ram: tuple[Range, ...], _file_size: int) -> bool:
    """What begins outside of RAM gets RAM of its own, which must not overlap."""
    return all(section.end <= start or end <= section.address for start, end in ram)


def _own_high_ram(section: Section, ram: tuple[Range, ...], file_size: int) -> bool:
    return section.address >= LIBKRUN_MMIO and _own_ram(section, ram, file_size)


_TO_TEMP_MEM = frozenset(range(SectionType.TEMP_MEM + 1))
_TO_PAYLOAD_PARAM = frozenset((*range(SectionType.PAYLOAD_PARAM + 1), RESERVED))
QEMU = Vmm(
    partial(by_table, size=EntrySize.ANY),
    _TO_TEMP_MEM,
    _data_in_file,
    2 * GIB,
    0xB000_0000 - 1,
    whole_pages=True,
)
ALIOTH = Vmm(by_table, _TO_TEMP_MEM, _data_in_file, 2 * GIB, 2 * GIB, any_length=True, whole_pages=True)
CLOUD_HYPERVISOR = Vmm(by_table_or_pointer, _TO_PAYLOAD_PARAM, _own_ram)
# libkrun's way by the pointer counts from the wrong end of the file: only the table works.
LIBKRUN = Vmm(by_table, _TO_PAYLOAD_PARAM, _own_high_ram, LIBKRUN_MMIO, LIBKRUN_MMIO)
DRAGONBALL = Vmm(tdvf.offset_by_pointer, _TO_PAYLOAD_PARAM, _window)
TD_SHIM = Vmm(tdvf.offset_by_pointer, frozenset(SectionType), _specification)  # as its checker reads it
SPECIFICATION = replace(TD_SHIM, find=by_pointer_or_table)  # the emulated VMM takes what either way leads to
