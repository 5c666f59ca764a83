"""What does the TDVF metadata of an image look like, and where does an image keep it?

Source: Intel TDX Virtual Firmware Design Guide, section 11 "TDVF metadata"; the GUID table: edk2
OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc; section types 5 to 8: td-shim specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

import construct as c
from construct import Bytes, Int16ul, Int32ul, Int64ul

from formats import guids
from formats.errors import FieldError, FormatError, TruncatedError
from formats.structs import pack, unpack
from formats.units import PAGE, align_up

EXTEND_CHUNK = 256  # bytes one TDH.MR.EXTEND measures
SIGNATURE = b"TDVF"
VERSION = 1
RESET_VECTOR_DISTANCE = (
    0x10  # of the CPU's first instruction from the image's end (Intel SDM volume 3, 10.1.4)
)
POINTER_DISTANCE = 0x20  # of the dword that holds the descriptor's offset from the image's start
FOOTER_DISTANCE = 0x30  # of the GUID table's footer GUID
GUID_SIZE = 16


class SectionType(IntEnum):
    """TDVF Design Guide table "section types"; 5 to 8 td-shim specification."""

    BFV = 0
    CFV = 1
    TD_HOB = 2
    TEMP_MEM = 3
    PERM_MEM = 4
    PAYLOAD = 5
    PAYLOAD_PARAM = 6
    TD_INFO = 7
    TD_PARAMS = 8


class SectionAttribute(IntFlag):
    """TDVF Design Guide, section attributes."""

    MR_EXTEND = 1
    PAGE_AUG = 2


FILLED = (SectionType.TD_HOB, SectionType.PAYLOAD, SectionType.PAYLOAD_PARAM)  # by the VMM

TYPE_NAMES = {
    SectionType.BFV: "BFV",
    SectionType.CFV: "CFV",
    SectionType.TD_HOB: "TD_HOB",
    SectionType.TEMP_MEM: "TempMem",
    SectionType.PERM_MEM: "PermMem",
    SectionType.PAYLOAD: "Payload",
    SectionType.PAYLOAD_PARAM: "PayloadParam",
    SectionType.TD_INFO: "TD_INFO",
    SectionType.TD_PARAMS: "TD_PARAMS",
}
SECTION_TYPES = {name: kind for kind, name in TYPE_NAMES.items()}

DESCRIPTOR = (
    "tdvf_descriptor"
    / c.Struct("signature" / Bytes(4), "length" / Int32ul, "version" / Int32ul, "section_count" / Int32ul)
) * "TDVF descriptor; the sections follow, the metadata GUID precedes"

SECTION = (
    "tdvf_section"
    / c.Struct(
        "data_offset" / Int32ul,
        "raw_size" / Int32ul,
        "memory_address" / Int64ul,
        "memory_size" / Int64ul,
        "type" / Int32ul,
        "attributes" / Int32ul,
    )
) * "TDVF section"

# What the C core is given in place of the metadata: the sections as the flow declares them, then the regions
# that are carved from RAM, top down below `carve_limit`. An entry is [start, end); for a carved one, start is
# 0 and end its size. `kind` is a section type or LAYOUT_CARVED, `e820` Linux's type number.
LAYOUT_CARVED = 0x100
LAYOUT_ENTRY = (
    "layout_entry" / c.Struct("start" / Int64ul, "end" / Int64ul, "kind" / Int32ul, "e820" / Int32ul)
) * "A section of the image, or a region carved from RAM"
LAYOUT = (
    "layout" / c.Struct("count" / Int32ul, "carved_count" / Int32ul, "carve_limit" / Int64ul)
) * "The image as the flow declares it"

TABLE_ENTRY_TAIL = (
    "ovmf_table_entry" / c.Struct("length" / Int16ul, "guid" / Bytes(16))
) * "End of an entry of the GUID table; its data lies below, `length` counts both"


@dataclass(frozen=True)
class Section:
    """One section of the metadata: sizes in bytes, `data_offset` from the image's start, `address` a GPA."""

    data_offset: int
    raw_size: int
    address: int
    memory_size: int
    type: int
    attributes: int

    @property
    def type_name(self) -> str:
        return TYPE_NAMES.get(self.type, f"type {self.type:#x}")  # type: ignore[call-overload, no-any-return]

    @property
    def added(self) -> bool:
        """Whether the VMM adds the pages at launch, so that MRTD holds their addresses.

        Pages with PAGE.AUG come later: the TD accepts them. TDVF Design Guide, 11.2, "Attributes".
        """
        return self.memory_size > 0 and not self.attributes & SectionAttribute.PAGE_AUG

    @property
    def measured(self) -> bool:
        """Whether MRTD holds the content, too."""
        return self.added and bool(self.attributes & SectionAttribute.MR_EXTEND)

    @property
    def pages(self) -> int:
        """How many pages of 4 KiB the VMM adds at launch."""
        return align_up(self.memory_size, PAGE) // PAGE if self.added else 0

    @property
    def end(self) -> int:
        return self.address + self.memory_size


@dataclass(frozen=True)
class Metadata:
    """A descriptor and its sections; `offset` is the descriptor's, from the image's start."""

    offset: int
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class TableEntry:
    """One entry of the GUID table: its data and the data's offset from the image's start."""

    guid: bytes
    data: bytes
    offset: int


def descriptor(sections: tuple[Section, ...] | list[Section]) -> bytes:
    """Metadata GUID, descriptor and sections; the descriptor starts 16 bytes in."""
    head = pack(
        DESCRIPTOR,
        signature=SIGNATURE,
        length=DESCRIPTOR.sizeof() + SECTION.sizeof() * len(sections),
        version=VERSION,
        section_count=len(sections),
    )
    return guids.TDX_METADATA.bytes_le + head + b"".join(_section(item) for item in sections)


def _section(item: Section) -> bytes:
    return pack(
        SECTION,
        data_offset=item.data_offset,
        raw_size=item.raw_size,
        memory_address=item.address,
        memory_size=item.memory_size,
        type=item.type,
        attributes=item.attributes,
    )


def guid_table(descriptor_distance: int) -> bytes:
    """The GUID table with the TDX entry; it ends FOOTER_DISTANCE - 16 below the image's end."""
    entry = bytes(Int32ul.build(descriptor_distance))
    length = len(entry) + TABLE_ENTRY_TAIL.sizeof()
    entry += pack(TABLE_ENTRY_TAIL, length=length, guid=guids.TDX_METADATA_OFFSET.bytes_le)
    return entry + pack(
        TABLE_ENTRY_TAIL, length=len(entry) + TABLE_ENTRY_TAIL.sizeof(), guid=guids.TABLE_FOOTER.bytes_le
    )


def table_entries(image: bytes, *, place: str = "image") -> Iterator[TableEntry]:
    """The entries of the GUID table from the image's end downwards, up to one of length 0; FieldError at one
    that cannot be. Nothing when there is no table.
    """
    end = len(image) - FOOTER_DISTANCE + GUID_SIZE
    tail = TABLE_ENTRY_TAIL.sizeof()
    if end - tail < 0 or image[end - GUID_SIZE : end] != guids.TABLE_FOOTER.bytes_le:
        return
    footer = unpack(TABLE_ENTRY_TAIL, image, end - tail, place=place)
    if not tail <= footer.length <= end:
        raise FieldError(
            f"{place} offset {end - tail:#x}", f"GUID table length {footer.length}", f"{tail} to {end}"
        )
    bottom = end - footer.length
    position = end - tail
    while position - bottom >= tail:
        item = unpack(TABLE_ENTRY_TAIL, image, position - tail, place=place)
        if not item.length:
            return
        if not tail <= item.length <= position - bottom:
            where = f"{place} offset {position - tail:#x}"
            raise FieldError(
                where, f"GUID table entry of length {item.length}", f"{tail} to {position - bottom}"
            )
        start = position - item.length
        yield TableEntry(item.guid, image[start : position - tail], start)
        position = start


class EntrySize(Enum):
    """What a reader does with a TDX entry whose data are not 4 bytes."""

    REFUSED = 0
    SKIPPED = 1
    ANY = 2  # the first 4 bytes, whatever they are


def offset_by_table(image: bytes, *, place: str = "image", size: EntrySize = EntrySize.REFUSED) -> int | None:
    """The descriptor's offset by the GUID table, None when the table or its TDX entry is absent."""
    for entry in table_entries(image, place=place):
        if entry.guid != guids.TDX_METADATA_OFFSET.bytes_le:
            continue
        if len(entry.data) != Int32ul.sizeof() and size is not EntrySize.ANY:
            if size is EntrySize.SKIPPED:
                continue
            where = f"{place} offset {entry.offset:#x}"
            raise FieldError(where, f"TDX entry with {len(entry.data)} bytes", "4 bytes")
        return len(image) - int(Int32ul.parse(image[entry.offset :]))
    return None


def offset_by_pointer(image: bytes, *, place: str = "image") -> int:
    """The descriptor's offset by the pointer 0x20 below the image's end, unchecked."""
    if len(image) < POINTER_DISTANCE:
        raise TruncatedError(place, f"{len(image)} bytes", f"a TDVF image, at least {POINTER_DISTANCE} bytes")
    return int(Int32ul.parse(image[-POINTER_DISTANCE:]))


def metadata_at(image: bytes, offset: int, *, place: str = "image", any_length: bool = False) -> Metadata:
    """The descriptor at `offset` and its sections; FormatError when it is none. `any_length`: whatever its
    Length says.
    """
    where = f"{place} offset {offset:#x}"
    head = unpack(DESCRIPTOR, image, offset, place=place)
    if head.signature != SIGNATURE:
        raise FieldError(where, f"signature {head.signature!r}", f"{SIGNATURE!r}")
    if head.version != VERSION:
        raise FieldError(where, f"TDVF version {head.version}", f"{VERSION}")
    size = DESCRIPTOR.sizeof() + SECTION.sizeof() * head.section_count
    if head.length != size and not any_length:
        raise FieldError(where, f"length {head.length}", f"{size} for {head.section_count} sections")
    if offset + size > len(image):
        raise TruncatedError(where, f"{len(image) - offset} bytes", f"{size} bytes of TDVF metadata")
    first = offset + DESCRIPTOR.sizeof()
    return Metadata(
        offset, tuple(_read(image, first + i * SECTION.sizeof()) for i in range(head.section_count))
    )


def _read(image: bytes, offset: int) -> Section:
    item = unpack(SECTION, image, offset)
    return Section(
        item.data_offset, item.raw_size, item.memory_address, item.memory_size, item.type, item.attributes
    )


def metadata(image: bytes, *, place: str = "image") -> Metadata:
    """The metadata as a tolerant VMM finds it: by the GUID table, else by the pointer, else FormatError."""
    offset = offset_by_table(image, place=place)
    if offset is not None:
        return metadata_at(image, offset, place=place)
    try:
        return metadata_at(image, offset_by_pointer(image, place=place), place=place)
    except FormatError as error:
        raise FormatError(
            place, f"no TDVF metadata in {len(image)} bytes", "a GUID table or a pointer that leads to it"
        ) from error
