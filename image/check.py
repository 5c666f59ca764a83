"""Which rules does an image of ours break? Those that make it portable: any VMM of its kind loads it.

Every finding names the place, what is there, what should be, and which source says so. Rules that no VMM
checks are here because the TD would die later without a word. What one VMM takes is in image/hosts.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from formats import guids, tdvf
from formats.described import read_td_info, read_td_params
from formats.errors import FormatError
from formats.limits import FILE_UNIT, LEAST_RAM, LOWEST_SPLIT, MAX_FILE_SIZE
from formats.tdvf import Section, SectionAttribute, SectionType
from formats.units import FOUR_GIB, PAGE
from formats.vmms import WITH_DATA
from image.sections import (
    RESET_VECTOR,
    WITHIN_BFV,
    at_reset_vector,
    last_volume,
    more_data_than_memory,
    no_code,
    offset_without_data,
    outside_last_volume,
    overlaps,
    own_memory,
)

GPA_LIMIT = 1 << 47  # the shared bit of a TD with 48 guest physical address bits
MIN_SECTIONS = 2  # QEMU hw/i386/tdvf.c tdvf_parse_metadata

_QEMU_SECTION = "QEMU hw/i386/tdvf.c tdvf_parse_and_check_section_entry"
_TD_SHIM = "td-shim td-shim-interface/src/metadata.rs validate_sections"
_NRX = "td-shim doc/custom_nrx_image.md"
_KVM = "Linux arch/x86/kvm/vmx/tdx.c tdx_vcpu_init_mem_region"
_DRAGONBALL = "Kata dbs_boot/src/firmware/tdshim/section.rs parse_tdvf_sections"


class Profile(StrEnum):
    """Which hosts an image is for: QEMU knows section types 0 to 3, direct boot all of td-shim's, 0 to 8."""

    QEMU = "qemu"
    DIRECT_BOOT = "direct-boot"


_TYPES = {
    Profile.QEMU: (SectionType.BFV, SectionType.CFV, SectionType.TD_HOB, SectionType.TEMP_MEM),
    Profile.DIRECT_BOOT: tuple(SectionType),
}


@dataclass(frozen=True)
class Finding:
    """One broken rule. `code` is stable."""

    code: str
    place: str
    found: str
    expected: str
    source: str

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"{self.place}: found {self.found}, expected {self.expected} ({self.source})"


def profile_for(sections: Sequence[Section]) -> Profile:
    """The profile an image is meant for: direct boot if it has a section type that QEMU does not know."""
    extra = {*_TYPES[Profile.DIRECT_BOOT]} - {*_TYPES[Profile.QEMU]}
    return Profile.DIRECT_BOOT if any(item.type in extra for item in sections) else Profile.QEMU


def check_image(image: bytes, profile: Profile | str | None = None, *, place: str = "image") -> list[Finding]:
    """Every broken rule, in the order of the file; empty for an image all VMMs of the profile load.

    `profile` None: what `profile_for` says. A file without metadata gives one finding, `no-metadata`.
    """
    try:
        metadata = tdvf.metadata(image, place=place)
    except FormatError as error:
        return [Finding("no-metadata", error.place, error.found, error.expected, "TDVF Design Guide, 11")]
    chosen = Profile(profile) if profile else profile_for(metadata.sections)
    findings = [*_file(image, metadata.sections, place), *_pointers(image, metadata.offset, place)]
    for index, section in enumerate(metadata.sections):
        findings += _section(section, _name(place, index, section), len(image), chosen)
    findings += _described(image, metadata.sections, place, chosen)
    findings += _counts(metadata.sections, place, chosen)
    findings += _overlaps(metadata.sections, place)
    findings += _reset_vector(image, metadata.sections, place)
    return findings


def _file(image: bytes, sections: Sequence[Section], place: str) -> Iterator[Finding]:
    if len(image) % FILE_UNIT:
        source = "QEMU hw/i386/x86-common.c x86_bios_rom_init"
        yield Finding("file-size", place, f"{len(image):#x} bytes", "a multiple of 64 KiB", source)
    # Who takes a Payload from the file copies it and maps nothing.
    mapped = len(image) - sum(item.raw_size for item in sections if _is_built_in(item))
    if mapped > MAX_FILE_SIZE:
        source = "QEMU maps the file below 4 GiB, over LAPIC and IOAPIC when it is larger"
        yield Finding("file-too-large", place, f"{mapped:#x} bytes", "at most 16 MiB", source)


def _pointers(image: bytes, offset: int, place: str) -> Iterator[Finding]:
    by_table = tdvf.offset_by_table(image, place=place)
    pointer_place = f"{place} offset {len(image) - tdvf.POINTER_DISTANCE:#x}"
    pointer = tdvf.offset_by_pointer(image, place=place)
    if by_table is None:
        table_place = f"{place} offset {max(0, len(image) - tdvf.FOOTER_DISTANCE):#x}"
        found = "no GUID table with a TDX entry"
        source = "QEMU hw/i386/pc_sysfw_ovmf.c pc_system_parse_ovmf_flash"
        yield Finding("guid-table", table_place, found, "one", source)
    elif pointer != by_table:
        found, expected = f"descriptor pointer {pointer:#x}", f"{by_table:#x}, as the GUID table says"
        yield Finding("pointer", pointer_place, found, expected, _DRAGONBALL)
    before = image[max(0, offset - tdvf.GUID_SIZE) : offset]
    if before != guids.TDX_METADATA.bytes_le:
        where = f"{place} offset {offset - tdvf.GUID_SIZE:#x}"
        found = f"{before.hex() or 'nothing'} before the descriptor"
        source = "td-shim td-shim-interface/src/loader.rs"
        yield Finding("metadata-guid", where, found, f"GUID {guids.TDX_METADATA}", source)


def _name(place: str, index: int, section: Section) -> str:
    return f"{place} section {index} ({section.type_name}, GPA {section.address:#x})"


def _section(item: Section, place: str, file_size: int, profile: Profile) -> Iterator[Finding]:
    if item.type not in _TYPES[profile]:
        known = " ".join(f"{tdvf.TYPE_NAMES[kind]}" for kind in _TYPES[profile])
        yield Finding("type", place, f"type {item.type:#x}", f"one of {known}", _QEMU_SECTION)
        return
    if item.type not in WITHIN_BFV:
        yield from _memory(item, place, profile)
        yield from _data(item, place, file_size)
    yield from _attributes(item, place)


def _memory(item: Section, place: str, profile: Profile) -> Iterator[Finding]:
    page = f"a multiple of {PAGE:#x}"
    if item.address % PAGE:
        yield Finding("address", place, f"address {item.address:#x}", page, _KVM)
    if item.memory_size % PAGE:
        found = f"memory size {item.memory_size:#x}"
        yield Finding("memory-size", place, found, page, _QEMU_SECTION)
    if not item.memory_size:
        yield Finding("empty", place, "memory size 0", "at least one page", _KVM)
    if item.type in WITH_DATA:
        limit, rule = FOUR_GIB, "an end at or below 4 GiB, the end of the image"
    elif item.type in (SectionType.TD_HOB, SectionType.TEMP_MEM):
        limit, rule = LEAST_RAM, f"an end at or below {LEAST_RAM:#x}, in the RAM of the smallest machine"
    elif item.type == SectionType.PERM_MEM:
        limit, rule = GPA_LIMIT, f"an end at or below {GPA_LIMIT:#x}, in private memory"
    else:
        limit, rule = LOWEST_SPLIT, f"an end at or below {LOWEST_SPLIT:#x}, in low RAM of every machine"
    if item.end > min(limit, GPA_LIMIT):
        source = "QEMU target/i386/kvm/tdx.c tdx_accept_ram_range"
        yield Finding("placement", place, f"end {item.end:#x}", rule, source)


def _is_built_in(item: Section) -> bool:
    """A payload that the file has, and no VMM puts there: td-shim specification, Payload section."""
    return item.type == SectionType.PAYLOAD and bool(item.raw_size)


def _data(item: Section, place: str, file_size: int) -> Iterator[Finding]:
    if item.type not in WITH_DATA and not _is_built_in(item):
        if item.raw_size:
            size = f"raw size {item.raw_size:#x}"
            yield Finding("raw-size", place, size, "0: no data in the file", _QEMU_SECTION)
        elif found := offset_without_data(item):
            yield Finding("data-offset", place, found, "0, as there is no data", _TD_SHIM)
        return
    if not item.raw_size:
        yield Finding("raw-size", place, "raw size 0", "its data in the file", _QEMU_SECTION)
        return
    if item.raw_size != item.memory_size:
        found = f"raw size {item.raw_size:#x}, memory size {item.memory_size:#x}"
        source = (
            _QEMU_SECTION
            if more_data_than_memory(item)
            else "QEMU does not zero-fill: MRTD would depend on the VMM"
        )
        yield Finding("raw-differs", place, found, "equal sizes", source)
    if item.data_offset % PAGE:
        found = f"data offset {item.data_offset:#x}"
        yield Finding("data-alignment", place, found, f"a multiple of {PAGE:#x}", _KVM)
    if item.data_offset + max(item.raw_size, item.memory_size) > file_size:
        found = f"data to offset {item.data_offset + max(item.raw_size, item.memory_size):#x}"
        expected = f"data inside the file of {file_size:#x} bytes"
        yield Finding("data-outside", place, found, expected, _KVM)
    elif not _is_built_in(item) and item.address - item.data_offset != FOUR_GIB - file_size:
        found = f"address {item.address:#x} for data offset {item.data_offset:#x}"
        expected = f"{FOUR_GIB - file_size + item.data_offset:#x}, where a file that ends at 4 GiB puts it"
        source = "QEMU hw/i386/x86-common.c x86_bios_rom_init"
        yield Finding("mapping", place, found, expected, source)


def _attributes(item: Section, place: str) -> Iterator[Finding]:
    extend = int(SectionAttribute.MR_EXTEND)
    if item.type == SectionType.BFV:
        allowed: tuple[int, ...] = (extend,)
    elif item.type == SectionType.PAYLOAD:
        allowed = (0, extend)
    elif item.type == SectionType.PERM_MEM:
        allowed = (int(SectionAttribute.PAGE_AUG),)
    else:
        allowed = (0,)
    if item.attributes not in allowed:
        found = f"attributes {item.attributes:#x}"
        expected = " or ".join(f"{value:#x}" for value in allowed)
        yield Finding("attributes", place, found, expected, _TD_SHIM)


def _counts(sections: Sequence[Section], place: str, profile: Profile) -> Iterator[Finding]:
    def count(kind: SectionType) -> int:
        return sum(item.type == kind for item in sections)

    if len(sections) < MIN_SECTIONS:
        source = "QEMU hw/i386/tdvf.c tdvf_parse_metadata"
        yield Finding("section-count", place, f"{len(sections)} sections", "at least 2", source)
    if not count(SectionType.BFV):
        yield Finding("bfv-count", place, "no BFV section", "at least one", _TD_SHIM)
    if count(SectionType.TD_HOB) > 1:
        found = f"{count(SectionType.TD_HOB)} TD_HOB sections"
        yield Finding("hob-count", place, found, "at most one", _TD_SHIM)
    if not count(SectionType.TD_HOB) and (profile is Profile.QEMU or not count(SectionType.PERM_MEM)):
        expected = "one" if profile is Profile.QEMU else "one, or PermMem sections that describe the RAM"
        yield Finding("hob-count", place, "no TD_HOB section", expected, _TD_SHIM)
    if profile is Profile.QEMU:
        return
    for kind in (SectionType.PAYLOAD, SectionType.PAYLOAD_PARAM, *WITHIN_BFV):
        if count(kind) > 1:
            code = "described" if kind in WITHIN_BFV else "payload-count"
            found = f"{count(kind)} {tdvf.TYPE_NAMES[kind]} sections"
            yield Finding(code, place, found, "at most one", _TD_SHIM)
    filled = any(item.type == SectionType.PAYLOAD and not _is_built_in(item) for item in sections)
    payload, param = count(SectionType.PAYLOAD), count(SectionType.PAYLOAD_PARAM)
    if (filled and not param) or (param and not payload):
        found = "only one of Payload and PayloadParam"
        yield Finding("payload-pair", place, found, "both or neither", _DRAGONBALL)


def _described(image: bytes, sections: Sequence[Section], place: str, profile: Profile) -> Iterator[Finding]:
    """TD_INFO and TD_PARAMS name bytes of the BFV, for tools that read and patch them."""
    start, end = last_volume(sections)
    for index, item in enumerate(sections):
        if item.type not in WITHIN_BFV or item.type not in _TYPES[profile]:
            continue
        name = _name(place, index, item)
        if found := own_memory(item):
            yield Finding("described", name, found, "0 and 0: no memory of its own", _TD_SHIM)
        if found := outside_last_volume(item, sections):
            expected = f"bytes of the last BFV, {start:#x} to {end:#x}"
            yield Finding("described", name, found, expected, _TD_SHIM)
            continue
        data = image[item.data_offset : item.data_offset + item.raw_size]
        read = read_td_info if item.type == SectionType.TD_INFO else read_td_params
        code = "td-info" if item.type == SectionType.TD_INFO else "td-params"
        try:
            read(data, place=name)
        except FormatError as error:
            yield Finding(code, error.place, error.found, error.expected, _NRX)


def _overlaps(sections: Sequence[Section], place: str) -> Iterator[Finding]:
    own = [(i, item) for i, item in enumerate(sections) if item.type not in WITHIN_BFV]
    memory = ((item.address, item.end, i) for i, item in own)
    data = ((item.data_offset, item.data_offset + item.raw_size, i) for i, item in own if item.raw_size)

    def names(one: int, two: int) -> str:
        return f"{place} sections {one} ({sections[one].type_name}) and {two} ({sections[two].type_name})"

    for one, two, at in overlaps(memory):
        yield Finding("overlap", names(one, two), f"both at GPA {at:#x}", "memory of their own", _KVM)
    for one, two, at in overlaps(data):
        found, expected = f"both at file offset {at:#x}", "data of their own"
        yield Finding("data-overlap", names(one, two), found, expected, "TDVF Design Guide")


def _reset_vector(image: bytes, sections: Sequence[Section], place: str) -> Iterator[Finding]:
    where = f"{place} GPA {RESET_VECTOR:#x}"
    source = "Intel TDX Module ABI: every vCPU starts there"
    holders = at_reset_vector(sections)
    if not any(item.type == SectionType.BFV and item.measured for item in holders):
        found = ", ".join(f"the reset vector in {item.type_name}" for item in holders) or "no section"
        yield Finding("reset-vector", where, found, "a measured BFV that holds the reset vector", source)
    if code := no_code(image, holders):
        yield Finding("reset-code", where, code, "instructions", source)
