"""What will MRTD be for an image, computed without TDX hardware?

MRTD is the SHA-384 over the blocks that TDH.MEM.PAGE.ADD and TDH.MR.EXTEND hash, in the order the VMM calls
them (Intel TDX Module ABI, "MRTD"): see `Order`. libkrun adds all low RAM first and is not covered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from formats import tdvf
from formats.errors import FormatError
from formats.igvm import Igvm
from formats.limits import MAX_ADDED
from formats.tdvf import EXTEND_CHUNK, Section, SectionAttribute, SectionType
from formats.units import PAGE

BLOCK = 128  # Intel TDX Module ABI: bytes hashed for a page's or a chunk's address
ADDRESS_OFFSET = 16  # of the GPA inside that block
ADD_TEXT = b"MEM.PAGE.ADD"
EXTEND_TEXT = b"MR.EXTEND"


class Order(StrEnum):
    """How ADD and EXTEND follow each other: mainline KVM (6.16) interleaves, series before it did not."""

    SINGLE_PASS = "single-pass"  # each page: ADD, then its 16 EXTENDs
    TWO_PASS = "two-pass"  # each section: all ADDs, then all EXTENDs


class Vmm(StrEnum):
    """VMMs that differ in what they measure if RawDataSize is not MemoryDataSize; all ignore PAGE.AUG."""

    QEMU = "qemu"  # the file bytes that follow: it does not zero-fill
    CLOUD_HYPERVISOR = "cloud-hypervisor"  # zeros; measures only if the attributes are exactly 1
    DRAGONBALL = "dragonball"  # zeros


@dataclass(frozen=True)
class Mrtd:
    """The register's value, and how many TDH.MEM.PAGE.ADD (4 KiB) and TDH.MR.EXTEND (256 bytes) make it."""

    digest: bytes
    pages_added: int
    chunks_extended: int


def mrtd(
    image: bytes, order: Order = Order.SINGLE_PASS, vmm: Vmm | None = None, *, place: str = "image"
) -> Mrtd:
    """MRTD of an image. FormatError when the VMM must be named to know it, or it depends on the launch."""
    sections = tdvf.metadata(image, place=place).sections
    if sum(item.memory_size for item in sections if _is_added(item, vmm)) > MAX_ADDED:
        raise FormatError(place, "more than 1 GiB in sections", "at most 1 GiB, added page by page at launch")
    hasher = hashlib.sha384()
    added = extended = 0
    for index, section in enumerate(sections):
        if not _is_added(section, vmm):
            continue
        name = f"{place} section {index} ({section.type_name}, GPA {section.address:#x})"
        if section.address % PAGE or section.memory_size % PAGE or section.end > 1 << 64:
            raise FormatError(name, f"size {section.memory_size:#x}", "4 KiB pages: no VMM can add it")
        content = _content(image, section, vmm, name) if _is_measured(section, vmm) else None
        for block in _blocks(section.address, section.end, content, order):
            hasher.update(block)
        added += section.memory_size // PAGE
        extended += section.memory_size // EXTEND_CHUNK if content is not None else 0
    return Mrtd(hasher.digest(), added, extended)


def igvm_mrtd(file: Igvm, *, place: str = "file") -> Mrtd:
    """MRTD of an IGVM file, whose loader goes header by header. FormatError when readers differ in it."""
    hasher = hashlib.sha384()
    for item in file.regions:
        if item.measured and not item.has_data:
            name = f"{place} offset {item.offset:#x} (GPA {item.gpa:#x})"
            raise FormatError(
                name, "measured pages without data", "data: some readers measure zeros, some nothing"
            )
        for block in _blocks(item.gpa, item.end, item.content if item.measured else None, Order.SINGLE_PASS):
            hasher.update(block)
    measured = sum(item.size for item in file.regions if item.measured)
    return Mrtd(hasher.digest(), sum(item.pages for item in file.regions), measured // EXTEND_CHUNK)


def _is_added(section: Section, vmm: Vmm | None) -> bool:
    """By the specification; the VMMs that can be named ignore PAGE.AUG and add whatever has memory."""
    return section.memory_size > 0 if vmm else section.added


def _is_measured(section: Section, vmm: Vmm | None) -> bool:
    if vmm is Vmm.CLOUD_HYPERVISOR:
        return section.attributes == int(SectionAttribute.MR_EXTEND)
    return bool(section.attributes & SectionAttribute.MR_EXTEND) if vmm else section.measured


def _content(image: bytes, section: Section, vmm: Vmm | None, name: str) -> bytes:
    supplied = section.type == SectionType.PAYLOAD and not section.raw_size
    if supplied or section.type in (SectionType.TD_HOB, SectionType.PAYLOAD_PARAM):
        raise FormatError(
            name, "measured content that the VMM supplies", "data in the image, so that MRTD can be computed"
        )
    raw = image[section.data_offset : section.data_offset + section.raw_size]
    if len(raw) != section.raw_size:
        raise FormatError(
            name, f"data to offset {section.data_offset + section.raw_size:#x}", "data inside the file"
        )
    if section.raw_size == section.memory_size:
        return raw
    found = f"raw size {section.raw_size:#x}, memory size {section.memory_size:#x}"
    if vmm is None:
        raise FormatError(name, found, "equal sizes, or a named VMM: VMMs fill the rest differently")
    if section.raw_size > section.memory_size:
        raise FormatError(name, found, "no more data than memory")
    if vmm is Vmm.QEMU and section.raw_size:
        filled = image[section.data_offset : section.data_offset + section.memory_size]
        if len(filled) != section.memory_size:
            raise FormatError(name, found, "file bytes behind the data, which QEMU measures")
        return filled
    return raw.ljust(section.memory_size, b"\0")


def _blocks(start: int, end: int, content: bytes | None, order: Order) -> Iterator[bytes]:
    pages = range(start, end, PAGE)
    if content is None or order is Order.TWO_PASS:
        for page in pages:
            yield _header(ADD_TEXT, page)
    if content is None:
        return
    for page in pages:
        if order is Order.SINGLE_PASS:
            yield _header(ADD_TEXT, page)
        for gpa in range(page, page + PAGE, EXTEND_CHUNK):
            yield _header(EXTEND_TEXT, gpa)
            yield content[gpa - start : gpa - start + EXTEND_CHUNK]


def _header(text: bytes, gpa: int) -> bytes:
    return (text.ljust(ADDRESS_OFFSET, b"\0") + gpa.to_bytes(8, "little")).ljust(BLOCK, b"\0")
