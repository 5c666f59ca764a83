"""How does linked code become a TDVF image that every VMM accepts.

Layout of the image's end, which is 4 GiB in the guest: metadata GUID and descriptor at end-0x400, GUID table
at end-0x48, pointer at end-0x20, reset code at end-0x10. The linker leaves zeros at [end-0x400, end-0x10).
The file's first 96 bytes, outside of every section, make it a firmware volume for tools that look for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from construct import Int32ul

from dsl.model import Firmware
from formats.errors import FormatError
from formats.fv import HEAD_SIZE, volume_head
from formats.tdvf import (
    DESCRIPTOR,
    GUID_SIZE,
    PAGE,
    POINTER_DISTANCE,
    RESET_VECTOR_DISTANCE,
    SECTION,
    SECTION_TYPES,
    TOP,
    Section,
    SectionAttribute,
    SectionType,
    descriptor,
    guid_table,
)
from image.check import FILE_UNIT, MAX_FILE_SIZE, Finding, Profile, check_image

# From the image's end; one place for the linker script and for what is written here.
METADATA_DISTANCE = 0x400  # metadata GUID, descriptor and sections start here
TABLE_DISTANCE = 0x48  # the GUID table with one entry: 22 + 18 bytes, ends at the pointer
HOLE_END_DISTANCE = RESET_VECTOR_DISTANCE
MAX_SECTIONS = (METADATA_DISTANCE - TABLE_DISTANCE - GUID_SIZE - DESCRIPTOR.sizeof()) // SECTION.sizeof()

_WITH_DATA = (SectionType.BFV, SectionType.CFV)


class ImageRefused(FormatError):
    """The image that would result breaks rules of the VMMs that are to load it."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        super().__init__(first.place, first.found, first.expected)
        self.findings = tuple(findings)

    def __str__(self) -> str:
        return "\n".join(finding.text for finding in self.findings)


@dataclass(frozen=True)
class Region:
    """A section to be written: GPA and size in bytes; `data` for BFV and CFV only, exactly `size` bytes."""

    name: str
    type: SectionType
    address: int
    size: int
    attributes: int = 0
    data: bytes = b""


def regions_of(
    firmware: Firmware, bfv: bytes, contents: Mapping[str, bytes] | None = None
) -> tuple[Region, ...]:
    """The sections of a flow in its order; `bfv` is the linked code that ends at 4 GiB, padded here to pages.

    `contents`: data of CFV sections by name, zeros where none is given. FormatError: no place for a section.
    """
    given = dict(contents or {})
    regions: list[Region] = []
    for item in firmware.image:
        kind = SECTION_TYPES[item.kind]
        attributes = int(SectionAttribute.MR_EXTEND) if item.measured else 0
        if kind == SectionType.BFV:
            data = bytes(-len(bfv) % PAGE) + bfv
            regions.append(Region(item.name, kind, TOP - len(data), len(data), attributes, data))
            continue
        if item.address is None or item.size is None:
            raise FormatError(
                f"section {item.name}", "no address or no size", "both, for all sections but BFV"
            )
        data = given.get(item.name, b"").ljust(item.size, b"\0") if kind in _WITH_DATA else b""
        regions.append(Region(item.name, kind, item.address, item.size, attributes, data))
    return tuple(regions)


def sections_of(regions: Sequence[Region]) -> tuple[Section, ...]:
    """The metadata sections that describe these regions, in their order."""
    base = TOP - _file_size(regions)
    return tuple(
        Section(
            data_offset=region.address - base if region.data else 0,
            raw_size=len(region.data),
            address=region.address,
            memory_size=region.size,
            type=region.type,
            attributes=region.attributes,
        )
        for region in regions
    )


def write_image(regions: Sequence[Region], profile: Profile | str = Profile.QEMU) -> bytes:
    """The image file: every region's data where the guest sees it, metadata, table and pointer at the end.

    ImageRefused with every rule the result breaks under `profile`; FormatError when there is no such layout.
    """
    size = _file_size(regions)
    if size > MAX_FILE_SIZE:
        raise FormatError("image", f"{size:#x} bytes", "at most 16 MiB")
    image = bytearray(volume_head(size).ljust(size, b"\0"))
    base = TOP - size
    for region in regions:
        if region.data:
            if len(region.data) != region.size or region.address + region.size > TOP:
                found = f"{len(region.data)} bytes of data for {region.size} bytes at {region.address:#x}"
                raise FormatError(f"section {region.name}", found, "as many bytes as memory, below 4 GiB")
            start = region.address - base
            image[start : start + region.size] = region.data
    _put_metadata(image, sections_of(regions))
    findings = check_image(bytes(image), profile)
    if findings:
        raise ImageRefused(findings)
    return bytes(image)


def _file_size(regions: Sequence[Region]) -> int:
    lowest = min((region.address for region in regions if region.data), default=TOP)
    if lowest >= TOP:
        raise FormatError("image", "no section with data", "a BFV that ends at 4 GiB")
    return -(-(TOP - lowest + int(HEAD_SIZE)) // FILE_UNIT) * FILE_UNIT


def _put_metadata(image: bytearray, sections: Sequence[Section]) -> None:
    end = len(image)
    if len(sections) > MAX_SECTIONS:
        raise FormatError("image", f"{len(sections)} sections", f"at most {MAX_SECTIONS}")
    start = end - METADATA_DISTANCE
    if any(image[start : end - HOLE_END_DISTANCE]):
        first = next(i for i in range(start, end) if image[i])
        raise FormatError(
            f"image GPA {TOP - end + first:#x}",
            f"byte {image[first]:#04x}",
            f"zeros, room for metadata, up to {TOP - HOLE_END_DISTANCE:#x}",
        )
    block = descriptor(list(sections))
    image[start : start + len(block)] = block
    table = guid_table(METADATA_DISTANCE - GUID_SIZE)
    image[end - TABLE_DISTANCE : end - TABLE_DISTANCE + len(table)] = table
    image[end - POINTER_DISTANCE : end - POINTER_DISTANCE + 4] = Int32ul.build(start + GUID_SIZE)
