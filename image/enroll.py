"""How do a trust anchor and other files get into an image's CFV, and what lies there?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from formats import cfv, fv, tdvf
from formats.errors import FieldError, FormatError
from formats.tdvf import Section, SectionType

EXAMPLE = "config CFV 256 KiB at 0xFFDC_0000"  # what a flow declares


def volume_section(image: bytes, *, gpa: int | None = None, place: str = "image") -> Section:
    """The image's one CFV section, or that at `gpa`. FormatError: none, several, or one whose bytes are not
    all in the file."""
    metadata = tdvf.metadata(image, place=place)
    volumes = [item for item in metadata.sections if item.type == SectionType.CFV]
    found = [item for item in volumes if gpa in (None, item.address)]
    if len(found) != 1:
        where = ", ".join(f"GPA {item.address:#x}" for item in volumes)
        expected = "one of these: --cfv GPA" if volumes else f"one, declared in its flow: `{EXAMPLE}`"
        if volumes and gpa is not None:
            expected = f"one at GPA {gpa:#x}"
        count = f"{len(volumes)} CFV section" + ("s" if len(volumes) != 1 else "")
        raise FieldError(place, f"{count} ({where})" if volumes else "no CFV section", expected)
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


def enroll(
    image: bytes, files: Sequence[tuple[UUID, bytes]], *, gpa: int | None = None, place: str = "image"
) -> bytes:
    """The image with a volume of these files in its CFV, or in that at `gpa`, in place of one from an earlier
    time.

    FormatError: no such section, too little room, one name twice, or other data in the section.
    """
    section = volume_section(image, gpa=gpa, place=place)
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


@dataclass(frozen=True)
class FileInfo:
    """A file of a CFV; `size` is that of its data, `anchor` in hex the key's hash if a firmware takes it."""

    guid: str
    type: int
    size: int
    anchor: str | None
    content: str


@dataclass(frozen=True)
class CfvInfo:
    """A CFV's files as td-shim finds them, none if there is no volume; `rest`: what lies behind them."""

    gpa: int
    files: tuple[FileInfo, ...]
    no_volume_because: str | None
    rest: str


def contents(image: bytes, sections: Sequence[Section]) -> tuple[CfvInfo, ...]:
    """What lies in each CFV of an image."""
    return tuple(_contents(image, item) for item in sections if item.type == SectionType.CFV)


def _contents(image: bytes, section: Section) -> CfvInfo:
    data = content(image, section)
    if not any(data):
        return CfvInfo(section.address, (), None, "zeros")
    try:
        volume = cfv.read(data, place=f"GPA {section.address:#x}")
    except FormatError as error:
        return CfvInfo(section.address, (), str(error), "data")
    files = tuple(_file(file) for file in volume.files)
    unread = f"data that no reader finds, behind {volume.because} at offset {volume.end:#x}"
    rest = unread if any(data[volume.end :]) else "zeros"
    return CfvInfo(section.address, files, None, rest)


def _file(file: cfv.File) -> FileInfo:
    anchor, content = None, f"type {file.type:#x}"
    if (file.name, file.type) == (cfv.ANCHOR_FILE, fv.RAW_FILE):
        try:
            anchor = cfv.read_anchor(file.data).hex()
            content = f"trust anchor, SHA-384 {anchor}"
        except FormatError as error:
            content = f"malformed: {error}"
    return FileInfo(str(file.name), file.type, len(file.data), anchor, content)
