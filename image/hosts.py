"""Which VMM loads an image, and if one refuses it, by which rule of its loader?

One table: each row is a rule of one VMM, with the place in its source. A VMM finds the metadata in its own
way, so an image can be fine for one and no image at all for another. The kernel's rules (KVM) are everyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from formats import guids, tdvf
from formats.errors import FormatError
from formats.limits import FILE_UNIT, LEAST_RAM
from formats.tdvf import Section, SectionAttribute, SectionType
from formats.units import FOUR_GIB, PAGE

Broken = Iterator[tuple[str, str]]  # place, and what is found there

BFV, CFV, TD_HOB, TEMP_MEM = (
    SectionType.BFV,
    SectionType.CFV,
    SectionType.TD_HOB,
    SectionType.TEMP_MEM,
)
PERM_MEM, PAYLOAD, PAYLOAD_PARAM = SectionType.PERM_MEM, SectionType.PAYLOAD, SectionType.PAYLOAD_PARAM
WITHIN_BFV = (SectionType.TD_INFO, SectionType.TD_PARAMS)
WITH_DATA = (BFV, CFV)

_TDVF, _ENTRY = "hw/i386/tdvf.c tdvf_parse_metadata", "hw/i386/tdvf.c tdvf_parse_and_check_section_entry"
_KVM = "Linux arch/x86/kvm/vmx/tdx.c tdx_vcpu_init_mem_region"
_SHIM = "td-shim-interface/src/metadata.rs validate_sections"
_CH, _CH_ADD = "arch/src/x86_64/tdx/mod.rs parse_tdvf_sections", "vmm/src/vm.rs populate_tdx_sections"
_DRAGONBALL, _DRAGONBALL_LOAD = (
    "dbs_boot/src/firmware/tdshim/section.rs parse_tdvf_sections",
    "src/dragonball/src/vm/x86_64.rs load_kernel_with_tdshim",
)
_LIBKRUN = "virtee/tdx src/tdvf/mod.rs; src/vmm/src/linux/tee/tdshim.rs"
_ALIOTH = "alioth/src/firmware/ovmf/ovmf_amd64/tdx.rs"


@dataclass(frozen=True)
class Subject:
    """An image as one VMM finds it."""

    image: bytes
    sections: tuple[Section, ...]
    offset: int  # of the descriptor

    def named(self) -> Iterator[tuple[str, Section]]:
        """Each section with its name in messages."""
        for index, item in enumerate(self.sections):
            yield f"section {index} ({item.type_name}, GPA {item.address:#x})", item

    def count(self, kind: SectionType) -> int:
        """How many sections of this type."""
        return sum(item.type == kind for item in self.sections)


@dataclass(frozen=True)
class Rule:
    """What one VMM expects, and where its source says so. `broken` names each place that is otherwise."""

    vmm: str
    expected: str
    source: str
    broken: Callable[[Subject], Broken]


@dataclass(frozen=True)
class Refusal:
    """One broken rule."""

    place: str
    found: str
    expected: str
    source: str

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"{self.place}: found {self.found}, expected {self.expected} ({self.source})"


@dataclass(frozen=True)
class Verdict:
    """What a VMM does with an image: loads it if there are no refusals."""

    vmm: str
    refusals: tuple[Refusal, ...]

    @property
    def accepts(self) -> bool:
        return not self.refusals


def by_table(image: bytes) -> int:
    """The descriptor's offset by the GUID table. FormatError."""
    offset = tdvf.offset_by_table(image)
    if offset is None:
        raise FormatError("image", "no GUID table with a TDX entry", "one, at the end of the file")
    return offset


def by_table_or_pointer(image: bytes) -> int:
    """The same; the pointer where there is no such entry."""
    offset = tdvf.offset_by_table(image)
    return tdvf.offset_by_pointer(image) if offset is None else offset


# How each VMM finds the metadata, and the source of that.
FINDERS: dict[str, tuple[Callable[[bytes], int], str]] = {
    "qemu": (by_table, "QEMU hw/i386/pc_sysfw_ovmf.c pc_system_parse_ovmf_flash"),
    "alioth": (by_table, f"Alioth {_ALIOTH}"),
    "cloud-hypervisor": (by_table_or_pointer, "Cloud Hypervisor tdx/mod.rs tdvf_descriptor_offset"),
    # Its way by the pointer counts from the wrong end of the file: only the table works.
    "libkrun": (by_table, f"libkrun {_LIBKRUN} calculate_tdvf_descriptor_offset"),
    "dragonball": (tdvf.offset_by_pointer, f"Kata {_DRAGONBALL}"),
    "td-shim-spec": (tdvf.offset_by_pointer, "td-shim td-shim-tools/src/loader.rs"),
}
VMMS = tuple(FINDERS)


# ---- predicates


def _each(what: Callable[[Section], str | None], *kinds: SectionType) -> Callable[[Subject], Broken]:
    """A rule for each section of these types (all, if none is named): `what` is found wrong with it."""

    def broken(subject: Subject) -> Broken:
        for name, item in subject.named():
            found = what(item) if not kinds or item.type in kinds else None
            if found:
                yield name, found

    return broken


def _types(known: Iterable[int]) -> Callable[[Subject], Broken]:
    allowed = frozenset(known)
    return _each(lambda item: None if item.type in allowed else f"type {item.type:#x}")


def _at_least(kind: SectionType, number: int = 1) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        if subject.count(kind) < number:
            yield "metadata", f"no {tdvf.TYPE_NAMES[kind]} section"

    return broken


def _at_most_one(*kinds: SectionType) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        for kind in kinds:
            if subject.count(kind) > 1:
                yield "metadata", f"{subject.count(kind)} {tdvf.TYPE_NAMES[kind]} sections"

    return broken


def _memory(item: Section) -> bool:
    """Whether the section has memory of its own that the VMM adds."""
    return item.type not in WITHIN_BFV


def _unaligned(value: Callable[[Section], int], name: str) -> Callable[[Section], str | None]:
    return lambda item: f"{name} {value(item):#x}" if _memory(item) and value(item) % PAGE else None


def _overlaps(subject: Subject) -> Broken:
    own = [(name, item) for name, item in subject.named() if _memory(item) and item.memory_size]
    for (one, a), (two, b) in combinations(own, 2):
        if a.address < b.end and b.address < a.end:
            yield f"{one} and {two}", f"both at GPA {max(a.address, b.address):#x}"


def _file_size(subject: Subject) -> Broken:
    if len(subject.image) % FILE_UNIT:
        yield "file", f"{len(subject.image):#x} bytes"


def _window(subject: Subject) -> Broken:
    """BFV and CFV lie where the file is mapped: it ends at 4 GiB."""
    for name, item in subject.named():
        if item.type in WITH_DATA and item.address - item.data_offset != FOUR_GIB - len(subject.image):
            yield name, f"address {item.address:#x} for data offset {item.data_offset:#x}"


def _outside(size: Callable[[Section], int]) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        for name, item in subject.named():
            if item.type in WITH_DATA and item.data_offset + size(item) > len(subject.image):
                yield name, f"data to offset {item.data_offset + size(item):#x}"

    return broken


def _reset_vector(subject: Subject) -> Broken:
    vector = FOUR_GIB - tdvf.RESET_VECTOR_DISTANCE
    holders = [item for item in subject.sections if item.address <= vector and item.end >= FOUR_GIB]
    if not any(item.type == BFV and item.measured for item in holders):
        found = ", ".join(f"the reset vector in {item.type_name}" for item in holders) or "no section"
        yield f"GPA {vector:#x}", found
    code = subject.image[-tdvf.RESET_VECTOR_DISTANCE :]
    if code in (bytes(len(code)), b"\xff" * len(code)):
        yield f"GPA {vector:#x}", f"{code[:1].hex()} in all 16 bytes"


def _few_sections(subject: Subject) -> Broken:
    if len(subject.sections) < 2:
        yield "metadata", f"{len(subject.sections)} sections"


def _guid_before(subject: Subject) -> Broken:
    before = subject.image[max(0, subject.offset - tdvf.GUID_SIZE) : subject.offset]
    if before != guids.TDX_METADATA.bytes_le:
        yield f"offset {subject.offset - tdvf.GUID_SIZE:#x}", before.hex() or "nothing"


def _no_ram(subject: Subject) -> Broken:
    if not subject.count(TD_HOB) and not subject.count(PERM_MEM):
        yield "metadata", "neither TD_HOB nor PermMem"


def _payload_pair(subject: Subject) -> Broken:
    if subject.count(PAYLOAD_PARAM) and not subject.count(PAYLOAD):
        yield "metadata", "PayloadParam without Payload"


def _attributes(*allowed: int) -> Callable[[Section], str | None]:
    return lambda item: f"attributes {item.attributes:#x}" if item.attributes not in allowed else None


def _raw(item: Section) -> str | None:
    return f"raw size {item.raw_size:#x}" if item.raw_size else None


def _no_raw(item: Section) -> str | None:
    return None if item.raw_size else "raw size 0"


def _raw_larger(item: Section) -> str | None:
    larger = item.raw_size > item.memory_size
    return f"raw size {item.raw_size:#x}, memory size {item.memory_size:#x}" if larger else None


def _low_ram(item: Section) -> str | None:
    return f"end {item.end:#x}" if item.end > LEAST_RAM else None


# ---- the table

EXTEND, AUG = int(SectionAttribute.MR_EXTEND), int(SectionAttribute.PAGE_AUG)
PAGES = f"a multiple of {PAGE:#x}"
LOW_RAM = f"an end at or below {LEAST_RAM:#x}, in low RAM"
_KVM_ROWS: tuple[tuple[str, str, Callable[[Subject], Broken]], ...] = (
    (PAGES, _KVM, _each(_unaligned(lambda item: item.address, "address"))),
    (PAGES, _KVM, _each(_unaligned(lambda item: item.memory_size, "memory size"))),
    (
        "at least one page",
        _KVM,
        _each(lambda s: "memory size 0" if _memory(s) and not s.memory_size else None),
    ),
    ("memory of their own", _KVM, _overlaps),
)
_TD_ROWS = (
    (
        "a measured BFV with instructions at the reset vector",
        "Intel TDX Module ABI: every vCPU starts there",
        _reset_vector,
    ),
)
_ROWS: dict[str, tuple[tuple[str, str, Callable[[Subject], Broken]], ...]] = {
    "qemu": (
        ("a multiple of 64 KiB", "hw/i386/x86-common.c x86_bios_rom_init", _file_size),
        ("at least 2 sections", _TDVF, _few_sections),
        ("BFV, CFV, TD_HOB or TempMem", _ENTRY, _types((BFV, CFV, TD_HOB, TEMP_MEM))),
        ("at most the memory size", _ENTRY, _each(_raw_larger)),
        ("data in the file", _ENTRY, _each(_no_raw, *WITH_DATA)),
        ("0: no data in the file", _ENTRY, _each(_raw, TD_HOB, TEMP_MEM)),
        ("one", "target/i386/kvm/tdx.c tdx_finalize_vm", _at_least(TD_HOB)),
        (LOW_RAM, "target/i386/kvm/tdx.c tdx_accept_ram_range", _each(_low_ram, TD_HOB, TEMP_MEM)),
        ("where a file that ends at 4 GiB puts it", "target/i386/kvm/tdx.c tdx_finalize_vm", _window),
    ),
    "cloud-hypervisor": (
        ("BFV to PayloadParam", _CH, _types(range(7))),
        ("one", _CH_ADD, _at_least(TD_HOB)),
        ("data inside the file", _CH_ADD, _outside(lambda item: item.raw_size)),
    ),
    "dragonball": (
        ("BFV to PayloadParam", _DRAGONBALL, _types(range(7))),
        ("one", _DRAGONBALL_LOAD, _at_least(BFV)),
        ("one", _DRAGONBALL_LOAD, _at_least(TD_HOB)),
        ("one", _DRAGONBALL_LOAD, _at_least(PAYLOAD_PARAM)),
        ("data inside the file", _DRAGONBALL_LOAD, _outside(lambda item: item.raw_size)),
    ),
    "libkrun": (
        ("BFV to PayloadParam", _LIBKRUN, _types(range(7))),
        ("one", _LIBKRUN, _at_least(BFV)),
        ("one", _LIBKRUN, _at_least(TD_HOB)),
        ("data inside the file", _LIBKRUN, _outside(lambda item: item.raw_size)),
    ),
    "alioth": (
        ("BFV, CFV, TD_HOB or TempMem", _ALIOTH, _types((BFV, CFV, TD_HOB, TEMP_MEM))),
        ("one", _ALIOTH, _at_least(TD_HOB)),
        ("data inside the file", _ALIOTH, _outside(lambda item: item.memory_size)),
    ),
    "td-shim-spec": (
        (f"GUID {guids.TDX_METADATA}", "td-shim-tools/src/loader.rs", _guid_before),
        ("a type from 0 to 8", _SHIM, _types(range(9))),
        ("one", _SHIM, _at_least(BFV)),
        ("TD_HOB, or PermMem sections that describe the RAM", _SHIM, _no_ram),
        ("at most one", _SHIM, _at_most_one(TD_HOB, PAYLOAD, PAYLOAD_PARAM, *WITHIN_BFV)),
        ("Payload too", _SHIM, _payload_pair),
        ("data in the file", _SHIM, _each(_no_raw, *WITH_DATA, *WITHIN_BFV)),
        ("0: no data in the file", _SHIM, _each(_raw, TD_HOB, TEMP_MEM, PERM_MEM)),
        ("at most the memory size", _SHIM, _each(_raw_larger, *WITH_DATA)),
        (f"{EXTEND:#x}", _SHIM, _each(_attributes(EXTEND), BFV)),
        (f"0x0 or {EXTEND:#x}", _SHIM, _each(_attributes(0, EXTEND), PAYLOAD)),
        (f"{AUG:#x}", _SHIM, _each(_attributes(AUG), PERM_MEM)),
        ("0x0", _SHIM, _each(_attributes(0), CFV, TD_HOB, TEMP_MEM, PAYLOAD_PARAM, *WITHIN_BFV)),
    ),
}
RULES: tuple[Rule, ...] = tuple(
    Rule(vmm, expected, source, broken)
    for vmm in VMMS
    for expected, source, broken in (*_ROWS[vmm], *_KVM_ROWS, *_TD_ROWS)
)


def verdicts(image: bytes, vmms: Sequence[str] = VMMS) -> tuple[Verdict, ...]:
    """What each of these VMMs does with an image, in their order. KeyError for an unknown VMM."""
    return tuple(_verdict(image, vmm) for vmm in vmms)


def _verdict(image: bytes, vmm: str) -> Verdict:
    finder, source = FINDERS[vmm]
    try:
        metadata = tdvf.metadata_at(image, finder(image))
    except FormatError as error:
        return Verdict(vmm, (Refusal(error.place, error.found, error.expected, source),))
    subject = Subject(image, metadata.sections, metadata.offset)
    found = [
        Refusal(place, what, rule.expected, rule.source)
        for rule in RULES
        if rule.vmm == vmm
        for place, what in rule.broken(subject)
    ]
    return Verdict(vmm, tuple(dict.fromkeys(found)))
