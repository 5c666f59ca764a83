"""How does linked code become a TDVF image that every VMM accepts?

Layout of the image's end, which is 4 GiB in the guest: metadata GUID and descriptor at end-0x400, GUID table
at end-0x48, pointer at end-0x20, reset code at end-0x10. The linker leaves zeros at [end-0x400, end-0x10).
The file's first 96 bytes, outside of every section, make it a firmware volume for tools that look for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from construct import Int32ul

from formats.errors import FormatError
from formats.fv import HEAD_SIZE, volume_head
from formats.limits import FILE_UNIT, MAX_FILE_SIZE, MAX_SECTIONS
from formats.tdvf import (
    GUID_SIZE,
    POINTER_DISTANCE,
    RESET_VECTOR_DISTANCE,
    Section,
    SectionType,
    descriptor,
    guid_table,
)
from formats.units import FOUR_GIB, PAGE, align_up
from formats.vmms import WITH_DATA
from image.check import Finding, Profile, check_image
from image.sections import WITHIN_BFV

# From the image's end; one place for the linker script and for what is written here.
METADATA_DISTANCE = 0x400  # metadata GUID, descriptor and sections start here
TABLE_DISTANCE = 0x48  # the GUID table with one entry: 22 + 18 bytes, ends at the pointer
HOLE_END_DISTANCE = RESET_VECTOR_DISTANCE


class ImageRefused(FormatError):
    """The image that would result breaks rules of the VMMs that are to load it."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        super().__init__(first.place, first.found, first.expected)
        self.findings = tuple(findings)

    def __str__(self) -> str:
        return "\n".join(finding.text for finding in self.findings)


@dataclass(frozen=True)
class Placed:
    """A section to be written: GPA and size in bytes; `data` exactly `size` bytes, if the file has it: of BFV
    and CFV where the guest sees them, of a Payload in front of these. TD_INFO and TD_PARAMS name bytes of the
    BFV, which has them already.
    """

    name: str
    type: SectionType
    address: int
    size: int
    attributes: int = 0
    data: bytes = b""


def metadata_sections(sections: Sequence[Placed]) -> tuple[Section, ...]:
    """The metadata sections that describe these sections, in their order."""
    offsets, base = _offsets(sections), FOUR_GIB - _file_size(sections)
    return tuple(
        Section(section.address - base, section.size, 0, 0, section.type, section.attributes)
        if section.type in WITHIN_BFV
        else Section(
            data_offset=offsets.get(section.name, 0),
            raw_size=len(section.data),
            address=section.address,
            memory_size=section.size,
            type=section.type,
            attributes=section.attributes,
        )
        for section in sections
    )


def write_image(sections: Sequence[Placed], profile: Profile | str = Profile.QEMU) -> bytes:
    """The image file: data of sections that lie elsewhere, then a volume with what is seen below 4 GiB, and
    metadata, table and pointer at its end.

    ImageRefused with every rule the result breaks under `profile`; FormatError when there is no such layout.
    """
    size = _mapped_size(sections)
    if size > MAX_FILE_SIZE:
        raise FormatError("image", f"{size:#x} bytes", "at most 16 MiB")
    image = bytearray(_elsewhere(sections)) + volume_head(size).ljust(size, b"\0")
    offsets = _offsets(sections)
    for section in sections:
        if section.data:
            if len(section.data) != section.size or section.address + section.size > FOUR_GIB:
                found = f"{len(section.data)} bytes of data for {section.size} bytes at {section.address:#x}"
                raise FormatError(f"section {section.name}", found, "as many bytes as memory, below 4 GiB")
            start = offsets[section.name]
            image[start : start + section.size] = section.data
    _put_metadata(image, metadata_sections(sections))
    findings = check_image(bytes(image), profile)
    if findings:
        raise ImageRefused(findings)
    return bytes(image)


def _is_mapped(section: Placed) -> bool:
    return section.type in WITH_DATA


def _offsets(sections: Sequence[Placed]) -> dict[str, int]:
    """Where in the file each section's data lies."""
    base, at = FOUR_GIB - _file_size(sections), 0
    offsets = {}
    for section in sections:
        if section.data and _is_mapped(section):
            offsets[section.name] = section.address - base
        elif section.data:
            offsets[section.name] = at
            at += align_up(section.size, PAGE)
    return offsets


def _elsewhere(sections: Sequence[Placed]) -> int:
    """Bytes in front of the volume. They may be many: who takes them copies section by section."""
    return align_up(sum(align_up(s.size, PAGE) for s in sections if s.data and not _is_mapped(s)), FILE_UNIT)


def _mapped_size(sections: Sequence[Placed]) -> int:
    lowest = min((s.address for s in sections if s.data and _is_mapped(s)), default=FOUR_GIB)
    if lowest >= FOUR_GIB:
        raise FormatError("image", "no section with data", "a BFV that ends at 4 GiB")
    return align_up(FOUR_GIB - lowest + int(HEAD_SIZE), FILE_UNIT)


def _file_size(sections: Sequence[Placed]) -> int:
    return _elsewhere(sections) + _mapped_size(sections)


def _put_metadata(image: bytearray, sections: Sequence[Section]) -> None:
    end = len(image)
    if len(sections) > MAX_SECTIONS:
        raise FormatError("image", f"{len(sections)} sections", f"at most {MAX_SECTIONS}")
    start = end - METADATA_DISTANCE
    if any(image[start : end - HOLE_END_DISTANCE]):
        first = next(i for i in range(start, end) if image[i])
        raise FormatError(
            f"image GPA {FOUR_GIB - end + first:#x}",
            f"byte {image[first]:#04x}",
            f"zeros, room for metadata, up to {FOUR_GIB - HOLE_END_DISTANCE:#x}",
        )
    block = descriptor(list(sections))
    image[start : start + len(block)] = block
    table = guid_table(METADATA_DISTANCE - GUID_SIZE)
    image[end - TABLE_DISTANCE : end - TABLE_DISTANCE + len(table)] = table
    image[end - POINTER_DISTANCE : end - POINTER_DISTANCE + 4] = Int32ul.build(start + GUID_SIZE)
