"""What is wrong with a section, by a rule that both tables of this room have? What is found, or None."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from formats.tdvf import RESET_VECTOR_DISTANCE, Section, SectionType
from formats.units import FOUR_GIB

RESET_VECTOR = FOUR_GIB - RESET_VECTOR_DISTANCE  # GPA
# Bytes of the BFV that tools read and patch; no memory of their own.
WITHIN_BFV = (SectionType.TD_INFO, SectionType.TD_PARAMS)


def offset_without_data(item: Section) -> str | None:
    """No data in the file, but a place for it."""
    return f"data offset {item.data_offset:#x}" if item.data_offset and not item.raw_size else None


def more_data_than_memory(item: Section) -> str | None:
    """Data that does not fit."""
    larger = item.raw_size > item.memory_size
    return f"raw size {item.raw_size:#x}, memory size {item.memory_size:#x}" if larger else None


def own_memory(item: Section) -> str | None:
    """A section that only names bytes of the BFV, with memory of its own."""
    own = item.address or item.memory_size
    return f"address {item.address:#x}, memory size {item.memory_size:#x}" if own else None


def last_volume(sections: Sequence[Section]) -> tuple[int, int]:
    """Where the data of the last BFV begin and end in the file."""
    volumes = [item for item in sections if item.type == SectionType.BFV]
    return (volumes[-1].data_offset, volumes[-1].data_offset + volumes[-1].raw_size) if volumes else (0, 0)


def outside_last_volume(item: Section, sections: Sequence[Section]) -> str | None:
    """Such a section that names no bytes of it."""
    start, end = last_volume(sections)
    last = item.data_offset + item.raw_size
    inside = item.raw_size and start <= item.data_offset <= last <= end
    return None if inside else f"data from offset {item.data_offset:#x} to {last:#x}"


def overlaps(parts: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Of parts (start, end, index): indices of one that begins inside another and of that other, the lower
    first, and where it begins. One look at each: an image with many sections has its answer soon, too.
    """
    holder, last = 0, 0
    for start, end, index in sorted(parts):
        if start < last:
            yield min(holder, index), max(holder, index), start
        if end > last:
            holder, last = index, end


def at_reset_vector(sections: Sequence[Section]) -> list[Section]:
    """Those that hold what every vCPU starts with."""
    return [item for item in sections if item.address <= RESET_VECTOR and item.end >= FOUR_GIB]


def no_code(image: bytes, holders: Sequence[Section], *, from_file: bool = False) -> str | None:
    """A BFV at the reset vector that has no instructions there. Behind its data lie zeros; `from_file`: what
    follows in the file.
    """
    for item in holders:
        if item.type == SectionType.BFV:
            at = item.data_offset + RESET_VECTOR - item.address
            stop = len(image) if from_file else item.data_offset + item.raw_size
            code = image[at : min(at + RESET_VECTOR_DISTANCE, stop)].ljust(RESET_VECTOR_DISTANCE, b"\0")
            if code in (bytes(len(code)), b"\xff" * len(code)):
                return f"{code[:1].hex()} in all 16 bytes"
    return None
