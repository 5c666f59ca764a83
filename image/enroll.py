"""How do a trust anchor and other files get into an image's CFV, and what lies there?"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from formats import cfv, tdvf
from formats.errors import FieldError, FormatError
from formats.tdvf import Section, SectionType

EXAMPLE = "config CFV 256 KiB at 0xFFDC_0000"  # what a flow declares


def volume_section(image: bytes, *, place: str = "image") -> Section:
    """The image's one CFV section. FormatError: none, several, or one whose bytes are not all in the file."""
    metadata = tdvf.metadata(image, place=place)
    found = [item for item in metadata.sections if item.type == SectionType.CFV]
    if len(found) != 1:
        where = ", ".join(f"GPA {item.address:#x}" for item in found)
        raise FieldError(
            place,
            f"{len(found)} CFV sections ({where})" if found else "no CFV section",
            f"one, declared in its flow: `{EXAMPLE}`",
        )
    (section,) = found
    if section.raw_size != section.memory_size or section.data_offset + section.raw_size > len(image):
        raise FieldError(
            f"{place} CFV, GPA {section.address:#x}",
            f"{section.raw_size:#x} bytes of data at file offset {section.data_offset:#x}",
            f"{section.memory_size:#x} bytes inside the file of {len(image):#x}",
        )
    return section


def content(image: bytes, section: Section) -> bytes:
    """A section's bytes in the file."""
    return image[section.data_offset : section.data_offset + section.raw_size]


def enroll(image: bytes, files: Sequence[tuple[UUID, bytes]], *, place: str = "image") -> bytes:
    """The image with a volume of these files in its CFV, in place of one from an earlier time.

    FormatError: no such section, too little room, one name twice, or other data in the section.
    """
    section = volume_section(image, place=place)
    where = f"{place} CFV, GPA {section.address:#x}"
    names = [name for name, _ in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise FieldError(where, f"file {twice} twice", "each file once: a reader takes the first")
    before = content(image, section)
    if any(before):
        try:
            cfv.read(before, place=where)
        except FormatError as error:
            found = f"data that is no firmware volume ({error.found})"
            raise FieldError(where, found, "zeros, or a volume that may be replaced") from error
    volume = cfv.write(section.raw_size, files, place=where)
    return image[: section.data_offset] + volume + image[section.data_offset + section.raw_size :]
