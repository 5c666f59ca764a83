"""How does a TDVF image become an IGVM file with the same pages, and which rules does such a file break?

A page that the image has is page data; one that the VMM fills is part of a parameter area. They are in the
order of the image's sections, so MRTD is the same. docs/image.md says more.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import igvm, tdvf
from formats.errors import FormatError
from formats.igvm import HeaderType, Igvm, PageFlag, PlatformType, Policy
from formats.limits import MAX_ADDED
from formats.tdvf import FILLED, RESET_VECTOR_DISTANCE, Section, SectionAttribute, SectionType
from formats.units import FOUR_GIB, GIB, PAGE
from image.check import Finding
from image.sections import RESET_VECTOR, WITHIN_BFV, overlaps

BOUNDARIES = (1 << 47, 1 << 51)  # with 48 and 52 guest physical address bits

# QEMU backends/igvm.c takes native, SEV, SEV-ES and SNP files, Cloud Hypervisor vmm/src/igvm those for SNP.
NO_IGVM = "it has no loader for an IGVM file for TDX"

_DEFINITIONS = "microsoft/igvm igvm_defs/src/lib.rs"
_MEASURE = "microsoft/igvm igvm/src/measurement/tdx.rs extends zeros, td-shim-tools extends nothing"
_MODULE = "Intel TDX Module ABI"

Item = tuple[HeaderType, dict[str, int], bytes]


def write_igvm(image: bytes, *, memory_map: bool = False, place: str = "image") -> bytes:
    """The IGVM file of a TDVF image. `memory_map`: its firmware wants this parameter, where others have a TD
    HOB. FormatError: the image is none, or has what such a file cannot say.
    """
    sections = tdvf.metadata(image, place=place).sections
    if sum(item.memory_size for item in sections if item.added) > MAX_ADDED:
        raise FormatError(place, "more than 1 GiB in sections", "at most 1 GiB, added page by page at launch")
    items: list[Item] = [
        (
            HeaderType.SUPPORTED_PLATFORM,
            {
                "compatibility_mask": igvm.MASK,
                "platform_type": PlatformType.TDX,
                "platform_version": igvm.TDX_VERSION,
                "shared_gpa_boundary": igvm.SHARED_BOUNDARY,
            },
            b"",
        ),
        _header(HeaderType.GUEST_POLICY, policy=Policy.SEPT_VE_DISABLE),
    ]
    for index, section in enumerate(sections):
        name = f"{place} section {index} ({section.type_name}, GPA {section.address:#x})"
        if section.type in WITHIN_BFV and not section.memory_size:
            continue  # bytes of the BFV, which are page data
        if section.memory_size % PAGE or section.address % PAGE:
            raise FormatError(name, f"size {section.memory_size:#x}", "whole pages of 4 KiB")
        if section.attributes & SectionAttribute.PAGE_AUG:
            items += _required(section)
        elif section.type in FILLED and not section.raw_size:
            items += _area(section, name, memory_map)
        else:
            items += _pages(image, section, name)
    return igvm.write(items)


def _header(kind: HeaderType, **fields: int) -> Item:
    return kind, {"compatibility_mask": igvm.MASK, **fields}, b""


def _required(section: Section) -> Iterator[Item]:
    """Memory that the TD accepts. A header has 32 bits for a size."""
    for start in range(section.address, section.end, GIB):
        size = min(GIB, section.end - start)
        yield _header(HeaderType.REQUIRED_MEMORY, gpa=start, number_of_bytes=size)


def _area(section: Section, name: str, memory_map: bool) -> Iterator[Item]:
    """Its index is the section's type, for a loader that has what is no parameter of IGVM: a kernel."""
    if section.measured:
        raise FormatError(name, "measured content that the VMM supplies", "measured pages with data")
    index = {"parameter_area_index": section.type}
    yield HeaderType.PARAMETER_AREA, {"number_of_bytes": section.memory_size, **index}, b""
    if section.type == SectionType.PAYLOAD_PARAM:
        yield HeaderType.COMMAND_LINE, index, b""
    if section.type == SectionType.TD_HOB and memory_map:
        yield HeaderType.MEMORY_MAP, index, b""
    yield _header(HeaderType.PARAMETER_INSERT, gpa=section.address, **index)


def _pages(image: bytes, section: Section, name: str) -> Iterator[Item]:
    """Page data. A measured page has data, always: readers differ in what they measure of one without."""
    data = image[section.data_offset : section.data_offset + section.raw_size]
    if len(data) != (section.memory_size if section.raw_size or section.measured else 0):
        found = f"{len(data):#x} bytes of data for {section.memory_size:#x} bytes"
        raise FormatError(name, found, "as much data as memory")
    flags = 0 if section.measured else PageFlag.UNMEASURED
    for start in range(0, section.memory_size, PAGE):
        kind, fields, _ = _header(HeaderType.PAGE_DATA, gpa=section.address + start, flags=flags)
        yield kind, fields, data[start : start + PAGE]


def check_igvm(file: Igvm, *, place: str = "file") -> list[Finding]:
    """Every broken rule: the firmware would not start, or would not be measured as every reader says."""
    return [*_platform(file, place), *_memory(file, place), *_reset(file, place)]


def _platform(file: Igvm, place: str) -> Iterator[Finding]:
    where, fields = f"{place} offset {file.platform.offset:#x}", file.platform.fields
    if fields.highest_vtl:
        yield Finding(
            "igvm-vtl", where, f"highest VTL {fields.highest_vtl}", "0: no partitioning", _DEFINITIONS
        )
    if fields.shared_gpa_boundary not in BOUNDARIES:
        found = f"shared GPA boundary {fields.shared_gpa_boundary:#x}"
        expected = " or ".join(f"{bit:#x}" for bit in BOUNDARIES)
        yield Finding("igvm-boundary", where, found, f"{expected}, a TD's shared bit", _MODULE)
    found = "no guest policy" if file.policy is None else f"guest policy {file.policy:#x}"
    if file.policy not in (Policy.SEPT_VE_DISABLE, Policy.SEPT_VE_DISABLE | Policy.MIGRATABLE):
        expected = f"{Policy.SEPT_VE_DISABLE:#x}, SEPT_VE_DISABLE, without debug"
        yield Finding("igvm-policy", place, found, expected, f"{_DEFINITIONS} TdxPolicy")


def _memory(file: Igvm, place: str) -> Iterator[Finding]:
    names = [f"{place} offset {item.offset:#x} (GPA {item.gpa:#x})" for item in file.regions]
    for item, name in zip(file.regions, names, strict=True):
        if item.measured and not item.has_data:
            yield Finding("igvm-no-data", name, "measured pages without data", "data", _MEASURE)
        if item.end > (file.platform.fields.shared_gpa_boundary or BOUNDARIES[0]):
            yield Finding("igvm-private", name, f"pages to GPA {item.end:#x}", "private memory", _MODULE)
    parts = ((item.gpa, item.end, index) for index, item in enumerate(file.regions))
    for one, two, at in overlaps(parts):
        found = f"GPA {at:#x}, as in offset {file.regions[one].offset:#x}"
        yield Finding(
            "igvm-twice", names[two], found, "pages that are added once", f"{_MODULE}, TDH.MEM.PAGE.ADD"
        )


def _reset(file: Igvm, place: str) -> Iterator[Finding]:
    """A TD has no VP context: every vCPU starts at the reset vector."""
    where = f"{place} GPA {RESET_VECTOR:#x}"
    holders = [item for item in file.regions if item.gpa <= RESET_VECTOR and item.end >= FOUR_GIB]
    if not any(item.measured for item in holders):
        found = "unmeasured pages" if holders else "no page"
        yield Finding("igvm-reset", where, found, "a measured page that holds the reset vector", _MODULE)
    for item in holders:
        at = RESET_VECTOR - item.gpa
        code = item.content[at : at + RESET_VECTOR_DISTANCE].ljust(RESET_VECTOR_DISTANCE, b"\0")
        if code in (bytes(len(code)), b"\xff" * len(code)):
            yield Finding("igvm-code", where, f"{code[:1].hex()} in all 16 bytes", "instructions", _MODULE)
