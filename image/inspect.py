"""What is in this image? Its layout, its metadata, its measurement, for people and as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

from formats import guids, tdvf
from formats.described import TdInfo, read_td_info, read_td_params
from formats.errors import FormatError
from formats.tdvf import EXTEND_CHUNK, SectionType
from formats.units import PAGE
from image.check import profile_for
from image.enroll import CfvInfo, content, contents
from image.mrtd import Mrtd, Order, mrtd
from image.sections import WITHIN_BFV

Read = TypeVar("Read")
INSIDE = tuple(tdvf.TYPE_NAMES[kind] for kind in WITHIN_BFV)


@dataclass(frozen=True)
class SectionInfo:
    """One section; sizes in bytes, `gpa` in the guest, `data_offset` in the file, `pages` added at launch."""

    type: str
    gpa: int
    memory_size: int
    data_offset: int
    raw_size: int
    attributes: int
    measured: bool
    pages: int


@dataclass(frozen=True)
class ImageInfo:
    """An image as `tdforge inspect` shows it. MRTD in hex, None with a reason when it cannot be known."""

    size: int
    sha256: str
    sha384: str
    profile: str
    descriptor_offset: int
    offset_by_guid_table: int | None
    offset_by_pointer: int
    guid_table: tuple[str, ...]
    sections: tuple[SectionInfo, ...]
    cfv: tuple[CfvInfo, ...]
    mrtd_single_pass: str | None
    mrtd_two_pass: str | None
    mrtd_unknown_because: str | None
    pages_added: int
    chunks_extended: int | None
    td_info: TdInfo | None
    td_params: dict[str, int | str] | None

    def to_json(self) -> str:
        """The same facts as JSON, sorted keys, numbers as numbers."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each fact but the sections."""
        by_table = "none" if self.offset_by_guid_table is None else f"{self.offset_by_guid_table:#x}"
        rows = [
            ("file size", f"{self.size} bytes ({self.size >> 10} KiB)"),
            ("SHA-256", self.sha256),
            ("SHA-384", self.sha384),
            ("made for", self.profile),
            ("descriptor", f"offset {self.descriptor_offset:#x}"),
            ("by GUID table", by_table),
            ("by pointer", f"{self.offset_by_pointer:#x}"),
            ("GUID table", ", ".join(self.guid_table) or "none"),
        ]
        if self.mrtd_unknown_because:
            rows.append(("MRTD", f"unknown: {self.mrtd_unknown_because}"))
        else:
            rows.append(("MRTD", f"{self.mrtd_single_pass} (single pass: mainline KVM)"))
            rows.append(("MRTD, two-pass", f"{self.mrtd_two_pass} (older KVM series)"))
        rows.append(("pages added", f"{self.pages_added} (TDH.MEM.PAGE.ADD), all in MRTD by address"))
        return [*rows, *extended_rows(self.chunks_extended), *self._described_rows()]

    def _described_rows(self) -> list[tuple[str, str]]:
        rows = []
        if self.td_info:
            version = ".".join(map(str, self.td_info.version))
            size = len(self.td_info.data) // 2
            text = f"{self.td_info.guid}, version {version}, SVN {self.td_info.svn}, {size} bytes of data"
            rows.append(("TD_INFO", text))
        for name, value in (self.td_params or {}).items():
            shown = f"{value:#x}" if isinstance(value, int) else value if value.strip("0") else "zeros"
            rows.append((f"TD_PARAMS {name}", shown))
        return rows

    def section_rows(self) -> list[tuple[str, ...]]:
        """The sections as a table of texts, headings first."""
        rows: list[tuple[str, ...]] = [
            ("type", "GPA", "size", "pages added", "file offset", "attributes", "in MRTD")
        ]
        for item in self.sections:
            rows.append(
                (
                    item.type,
                    f"{item.gpa:#x}",
                    f"{item.memory_size:#x}",
                    f"{item.pages}",
                    f"{item.data_offset:#x}" if item.raw_size else "-",
                    f"{item.attributes:#x}",
                    _in_mrtd(item),
                )
            )
        return rows

    def cfv_rows(self) -> list[tuple[str, ...]]:
        """What lies in each CFV, as a table of texts, headings first; nothing if there is none."""
        rows: list[tuple[str, ...]] = [("CFV", "file", "bytes", "content")]
        for item in self.cfv:
            where = f"{item.gpa:#x}"
            if item.no_volume_because:
                rows.append((where, "-", "-", f"no firmware volume: {item.no_volume_because}"))
                continue
            for file in item.files:
                rows.append((where, file.guid, f"{file.size}", file.content))
            rows.append((where, "-", "-", f"the rest: {item.rest}" if item.files else item.rest))
        return rows if self.cfv else []


def extended_rows(chunks: int | None) -> list[tuple[str, str]]:
    """The row of what is measured by content; none if the number of chunks is not known."""
    if chunks is None:
        return []
    pages = chunks * EXTEND_CHUNK // PAGE
    text = f"{chunks} of 256 bytes (TDH.MR.EXTEND): {pages} pages in MRTD by content"
    return [("chunks extended", text)]


def inspect(image: bytes, *, place: str = "image") -> ImageInfo:
    """Reads an image; FormatError, one line, when it has no TDVF metadata."""
    metadata = tdvf.metadata(image, place=place)
    single: Mrtd | None = None
    double: Mrtd | None = None
    reason: str | None = None
    try:
        single = mrtd(image, Order.SINGLE_PASS, place=place)
        double = mrtd(image, Order.TWO_PASS, place=place)
    except FormatError as error:
        reason = str(error)
    return ImageInfo(
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        sha384=hashlib.sha384(image).hexdigest(),
        profile=str(profile_for(metadata.sections)),
        descriptor_offset=metadata.offset,
        offset_by_guid_table=tdvf.offset_by_table(image, place=place),
        offset_by_pointer=tdvf.offset_by_pointer(image, place=place),
        guid_table=tuple(guids.name(entry.guid) for entry in tdvf.table_entries(image, place=place)),
        sections=tuple(_section(item) for item in metadata.sections),
        cfv=contents(image, metadata.sections),
        mrtd_single_pass=single.digest.hex() if single else None,
        mrtd_two_pass=double.digest.hex() if double else None,
        mrtd_unknown_because=reason,
        pages_added=sum(item.pages for item in metadata.sections),
        chunks_extended=single.chunks_extended if single else None,
        td_info=_described(image, metadata.sections, SectionType.TD_INFO, read_td_info),
        td_params=_described(image, metadata.sections, SectionType.TD_PARAMS, read_td_params),
    )


def _in_mrtd(item: SectionInfo) -> str:
    if item.type in INSIDE and item.raw_size and not item.memory_size:
        return "with BFV"
    return "address and content" if item.measured else "address" if item.pages else "nothing"


def _described(
    image: bytes, sections: Iterable[tdvf.Section], kind: SectionType, read: Callable[[bytes], Read | None]
) -> Read | None:
    """What the first section of that type holds; None: nothing that can be read, as the checker says."""
    for item in sections:
        if item.type == kind:
            with suppress(FormatError):
                return read(content(image, item))
    return None


def _section(item: tdvf.Section) -> SectionInfo:
    return SectionInfo(
        type=item.type_name,
        gpa=item.address,
        memory_size=item.memory_size,
        data_offset=item.data_offset,
        raw_size=item.raw_size,
        attributes=item.attributes,
        measured=item.measured,
        pages=item.pages,
    )
