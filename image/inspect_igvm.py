"""What is in this IGVM file? Its platform and policy, the pages of the TD, its measurement."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from formats import igvm
from formats.errors import FormatError
from formats.igvm import Igvm, PlatformType, Policy, Region
from image.inspect import extended_rows
from image.mrtd import Mrtd, igvm_mrtd


@dataclass(frozen=True)
class RegionInfo:
    """Pages that are added one after the other; size in bytes. `area`: the index of a parameter area, with
    the parameters in it and their byte offsets; null for page data.
    """

    gpa: int
    memory_size: int
    pages: int
    header_offset: int
    has_data: bool
    measured: bool
    area: int | None
    parameters: dict[str, int]


@dataclass(frozen=True)
class IgvmInfo:
    """A file as `tdforge inspect` shows it. MRTD in hex, None with a reason when readers differ in it."""

    size: int
    sha256: str
    sha384: str
    platforms: tuple[str, ...]
    highest_vtl: int
    shared_gpa_boundary: int
    policy: int | None
    data_size: int
    regions: tuple[RegionInfo, ...]
    required_memory: tuple[tuple[int, int], ...]
    mrtd_single_pass: str | None
    mrtd_unknown_because: str | None
    pages_added: int
    chunks_extended: int | None

    def to_json(self) -> str:
        """The same facts as JSON, sorted keys, numbers as numbers."""
        return json.dumps({"format": "igvm", **asdict(self)}, indent=2, sort_keys=True) + "\n"

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each fact but the regions."""
        mrtd = f"{self.mrtd_single_pass} (each page: added, then extended)"
        return [
            ("file size", f"{self.size} bytes ({self.size >> 10} KiB), {self.data_size} of them file data"),
            ("SHA-256", self.sha256),
            ("SHA-384", self.sha384),
            ("platforms", ", ".join(self.platforms)),
            ("shared from", f"GPA {self.shared_gpa_boundary:#x}, highest VTL {self.highest_vtl}"),
            ("policy", _policy(self.policy)),
            *(("required memory", f"GPA {start:#x} to {end:#x}") for start, end in self.required_memory),
            ("MRTD", f"unknown: {self.mrtd_unknown_because}" if self.mrtd_unknown_because else mrtd),
            ("pages added", f"{self.pages_added} (TDH.MEM.PAGE.ADD), all in MRTD by address"),
            *extended_rows(self.chunks_extended),
        ]

    def section_rows(self) -> list[tuple[str, ...]]:
        """The regions as a table of texts, headings first."""
        rows: list[tuple[str, ...]] = [
            ("what", "GPA", "size", "pages added", "header at", "content", "in MRTD")
        ]
        for item in self.regions:
            what = "page data" if item.area is None else f"parameter area {item.area}"
            named = ", ".join(f"{name} at {at:#x}" for name, at in item.parameters.items())
            content = named or (
                "in the file" if item.has_data else "zero" if item.area is None else "the loader's"
            )
            rows.append(
                (
                    what,
                    f"{item.gpa:#x}",
                    f"{item.memory_size:#x}",
                    f"{item.pages}",
                    f"{item.header_offset:#x}",
                    content,
                    "address and content" if item.measured else "address",
                )
            )
        return rows


def _policy(value: int | None) -> str:
    if value is None:
        return "none"
    names = [str(bit.name) for bit in Policy if value & bit]
    return f"{value:#x} ({', '.join(names) or 'no bit that is known'})"


def inspect_igvm(data: bytes, *, place: str = "file") -> IgvmInfo:
    """Reads a file; FormatError, one line, when no TDX loader takes it."""
    file = igvm.read(data, place=place)
    measured: Mrtd | None = None
    reason: str | None = None
    try:
        measured = igvm_mrtd(file, place=place)
    except FormatError as error:
        reason = str(error)
    return IgvmInfo(
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        sha384=hashlib.sha384(data).hexdigest(),
        platforms=_platforms(file),
        highest_vtl=file.platform.fields.highest_vtl,
        shared_gpa_boundary=file.platform.fields.shared_gpa_boundary,
        policy=file.policy,
        data_size=file.data_size,
        regions=tuple(_region(item) for item in file.regions),
        required_memory=file.required,
        mrtd_single_pass=measured.digest.hex() if measured else None,
        mrtd_unknown_because=reason,
        pages_added=sum(item.pages for item in file.regions),
        chunks_extended=measured.chunks_extended if measured else None,
    )


def _platforms(file: Igvm) -> tuple[str, ...]:
    names = {int(kind): kind.name for kind in PlatformType}
    found = (item.fields.platform_type for item in file.platforms)
    return tuple(names.get(kind, f"type {kind:#x}") for kind in found)


def _region(item: Region) -> RegionInfo:
    return RegionInfo(
        gpa=item.gpa,
        memory_size=item.size,
        pages=item.pages,
        header_offset=item.offset,
        has_data=item.has_data,
        measured=item.measured,
        area=item.area,
        parameters={kind.name: at for kind, at in item.parameters},
    )
