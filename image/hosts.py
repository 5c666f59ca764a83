"""Which VMM loads an image, and if one refuses it, by which rule of its loader?

One table: each row is a rule of one VMM, with the place in its source. A VMM finds the metadata in its own
way, so an image can be fine for one and no image at all for another. The kernel's rules (KVM) are everyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from formats import guids, hob, tdvf, vmms
from formats.errors import FormatError
from formats.limits import FILE_UNIT
from formats.tdvf import Section, SectionAttribute, SectionType
from formats.units import FOUR_GIB, MIB, PAGE
from formats.vmms import WITH_DATA, Vmm
from image.sections import (
    RESET_VECTOR,
    WITHIN_BFV,
    at_reset_vector,
    more_data_than_memory,
    no_code,
    offset_without_data,
    outside_last_volume,
    overlaps,
    own_memory,
)

Broken = Iterator[tuple[str, str]]  # place, and what is found there

BFV, CFV, TD_HOB, TEMP_MEM = (
    SectionType.BFV,
    SectionType.CFV,
    SectionType.TD_HOB,
    SectionType.TEMP_MEM,
)
PERM_MEM, PAYLOAD, PAYLOAD_PARAM = SectionType.PERM_MEM, SectionType.PAYLOAD, SectionType.PAYLOAD_PARAM
WITH_MEMORY = (BFV, CFV, TD_HOB, TEMP_MEM, PERM_MEM, PAYLOAD, PAYLOAD_PARAM)

_TDVF, _ENTRY = "hw/i386/tdvf.c tdvf_parse_metadata", "hw/i386/tdvf.c tdvf_parse_and_check_section_entry"
_KVM = "Linux arch/x86/kvm/vmx/tdx.c tdx_vcpu_init_mem_region"
_MEMORY = "Linux virt/kvm/guest_memfd.c kvm_gmem_populate"
_LOADER = "td-shim-interface/src/loader.rs"
_SHIM = "td-shim-interface/src/metadata.rs validate_sections"
_CH, _CH_ADD = "arch/src/x86_64/tdx/mod.rs parse_tdvf_sections", "vmm/src/vm.rs populate_tdx_sections"
_DRAGONBALL, _DRAGONBALL_LOAD = (
    "src/dragonball/crates/dbs_boot/src/firmware/tdshim/section.rs parse_tdvf_sections",
    "src/dragonball/src/vm/x86_64.rs load_kernel_with_tdshim",
)
_DRAGONBALL_ADD = "src/dragonball/src/vm/x86_64.rs tdx_init_mem_region"
_LIBKRUN = "virtee/tdx src/tdvf/mod.rs; src/vmm/src/linux/tee/tdshim.rs"
# Rust does not define what happens with a number that an enum lacks. libkrun itself asks for BFV and TD_HOB
# only, and td-shim's images, for which it is made, have Payload and PayloadParam.
_LIBKRUN_TYPES = "virtee/tdx src/tdvf/mod.rs TdvfSectionType; 4 to 6 are undefined behavior there"
_LIBKRUN_RAM = "src/vmm/src/linux/tee/tdshim.rs load_sections, generate_hobs, high_firmware_range"
_ALIOTH = "alioth/src/firmware/ovmf/ovmf_amd64/tdx.rs"
_ALIOTH_ADD = "alioth/src/cpu/cpu_amd64/tdx.rs setup_tdx"

IOAPIC, LAPIC = 0xFEC0_0000 + PAGE, 0xFEE0_0000  # the first page that a file may have; the MSI window of KVM
# libkrun's list: handoff, one resource, payload information, end
LIBKRUN_LIST = hob.PHIT.sizeof() + hob.RESOURCE.sizeof() + 40 + hob.HEADER.sizeof()
MOST_RAM = 1 << 51  # private memory of a TD with 52 guest physical address bits


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


# What each VMM takes, where it finds the metadata, where it reads the descriptor.
READERS: dict[str, tuple[Vmm, str, str]] = {
    "qemu": (
        vmms.QEMU,
        "QEMU hw/i386/pc_sysfw_ovmf.c pc_system_parse_ovmf_flash",
        f"QEMU {_TDVF}, tdvf_get_metadata",
    ),
    "alioth": (vmms.ALIOTH, f"Alioth {_ALIOTH} parse_entries", f"Alioth {_ALIOTH} parse_entries"),
    "cloud-hypervisor": (
        vmms.CLOUD_HYPERVISOR,
        "Cloud Hypervisor tdx/mod.rs tdvf_descriptor_offset",
        f"Cloud Hypervisor {_CH}",
    ),
    "libkrun": (
        vmms.LIBKRUN,
        f"libkrun {_LIBKRUN} calculate_tdvf_descriptor_offset",
        f"libkrun {_LIBKRUN} parse_sections",
    ),
    "dragonball": (vmms.DRAGONBALL, f"Kata {_DRAGONBALL}", f"Kata {_DRAGONBALL}"),
    "td-shim-spec": (vmms.TD_SHIM, f"td-shim {_LOADER}", f"td-shim {_LOADER}"),
}
VMMS = tuple(READERS)


# ---- predicates


def _each(what: Callable[[Section], str | None], *kinds: SectionType) -> Callable[[Subject], Broken]:
    """A rule for each section of these types (all, if none is named): `what` is found wrong with it."""

    def broken(subject: Subject) -> Broken:
        for name, item in subject.named():
            found = what(item) if not kinds or item.type in kinds else None
            if found:
                yield name, found

    return broken


def _types(vmm: Vmm) -> Callable[[Subject], Broken]:
    return _each(lambda item: None if item.type in vmm.types else f"type {item.type:#x}")


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


def _unaligned(
    value: Callable[[Section], int], name: str, seen: Callable[[Section], bool] = _memory
) -> Callable[[Section], str | None]:
    return lambda item: f"{name} {value(item):#x}" if seen(item) and value(item) % PAGE else None


def _overlaps(
    seen: Callable[[Section], bool], whole: Callable[[Section], bool]
) -> Callable[[Subject], Broken]:
    def end(item: Section) -> int:
        return item.end if whole(item) else item.address + item.memory_size // PAGE * PAGE

    def broken(subject: Subject) -> Broken:
        own = [each for each in subject.named() if seen(each[1]) and each[1].memory_size]
        for one, two, at in overlaps((item.address, end(item), i) for i, (_, item) in enumerate(own)):
            yield f"{own[one][0]} and {own[two][0]}", f"both at GPA {at:#x}"

    return broken


def _file_size(unit: int) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        if len(subject.image) % unit:
            yield "file", f"{len(subject.image):#x} bytes"

    return broken


def _places(vmm: Vmm, *kinds: SectionType) -> Callable[[Subject], Broken]:
    """Sections of these types (all, if none is named) that no machine has a place for. If each has one, but
    no machine has all of them, those that are missing in the machine that has most of them.
    """

    def broken(subject: Subject) -> Broken:
        def missing(memory: int) -> list[tuple[str, Section]]:
            ram, size = vmm.ram(memory), len(subject.image)
            return [named for named in subject.named() if not vmm.takes(named[1], ram, size)]

        for name, item in min(missing(vmm.low_border), missing(MOST_RAM), key=len):
            if not kinds or item.type in kinds:
                yield name, f"memory from {item.address:#x} to {item.end:#x}"

    return broken


def _outside(
    size: Callable[[Section], int], types: Container[int] = WITH_DATA
) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        for name, item in subject.named():
            if item.type in types and item.data_offset + size(item) > len(subject.image):
                yield name, f"data to offset {item.data_offset + size(item):#x}"

    return broken


def _list_size(subject: Subject) -> Broken:
    """A list of RAM that is too small for what it has to say in the machine that has least to say: a header,
    an entry for each section that it names and one for each gap in front of one, an end.
    """
    named = sorted((s.address, s.end) for s in subject.sections if s.type in (TD_HOB, TEMP_MEM))
    gaps = sum(start > before for before, (start, _) in zip((0, *(e for _, e in named)), named, strict=False))
    least = hob.PHIT.sizeof() + (len(named) + gaps) * hob.RESOURCE.sizeof() + hob.HEADER.sizeof()
    for name, item in subject.named():
        if item.type == TD_HOB and item.memory_size < least:
            yield name, f"memory size {item.memory_size:#x}, {least:#x} needed"


def _first_list(least: int) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        lists = [(name, item) for name, item in subject.named() if item.type == TD_HOB]
        for name, item in lists[:1]:
            if item.memory_size < least:
                yield name, f"memory size {item.memory_size:#x}"

    return broken


def _reaches(limit: int) -> Callable[[Subject], Broken]:
    """A file that ends at 4 GiB and begins below a limit."""

    def broken(subject: Subject) -> Broken:
        if len(subject.image) > FOUR_GIB - limit:
            yield "file", f"{len(subject.image):#x} bytes"

    return broken


def _aligned_descriptor(subject: Subject) -> Broken:
    if subject.offset % 8:
        yield "metadata", f"descriptor at offset {subject.offset:#x}"


def _unmeasured_start(subject: Subject) -> Broken:
    holders = at_reset_vector(subject.sections)
    if not any(item.type == BFV and item.attributes & SectionAttribute.MR_EXTEND for item in holders):
        found = ", ".join(f"the reset vector in {item.type_name}" for item in holders) or "no section"
        yield f"GPA {RESET_VECTOR:#x}", found


def _no_code(*, from_file: bool) -> Callable[[Subject], Broken]:
    def broken(subject: Subject) -> Broken:
        found = no_code(subject.image, at_reset_vector(subject.sections), from_file=from_file)
        if found:
            yield f"GPA {RESET_VECTOR:#x}", found

    return broken


def _over(start: int, end: int) -> Callable[[Subject], Broken]:
    """Data where the VMM has a device, of a file that reaches down to it."""

    def broken(subject: Subject) -> Broken:
        for name, item in subject.named():
            if item.type in WITH_DATA and item.address < end and start < item.end:
                yield name, f"memory from {item.address:#x} to {item.end:#x}"

    return broken


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


def _described(subject: Subject) -> Broken:
    for name, item in subject.named():
        found = outside_last_volume(item, subject.sections) if item.type in WITHIN_BFV else None
        if found:
            yield name, found


def _payload_pair(subject: Subject) -> Broken:
    if subject.count(PAYLOAD_PARAM) and not subject.count(PAYLOAD):
        yield "metadata", "PayloadParam without Payload"


def _shared(item: Section) -> str | None:
    return f"end {item.end:#x}" if item.end > MOST_RAM else None


def _attributes(*allowed: int) -> Callable[[Section], str | None]:
    return lambda item: f"attributes {item.attributes:#x}" if item.attributes not in allowed else None


def _raw(item: Section) -> str | None:
    return f"raw size {item.raw_size:#x}" if item.raw_size else None


def _no_raw(item: Section) -> str | None:
    return None if item.raw_size else "raw size 0"


# ---- the table

EXTEND, AUG = int(SectionAttribute.MR_EXTEND), int(SectionAttribute.PAGE_AUG)
PAGES = f"a multiple of {PAGE:#x}"
RAM = "RAM of one machine"
NO_FILE = "0: it copies none from the image, only the kernel that it is given"
TO_PARAM = f"BFV to PayloadParam, or {vmms.RESERVED:#x}"
MAPPED = "RAM of one machine, or where a file that ends at 4 GiB lies"
Row = tuple[str, str, Callable[[Subject], Broken]]


def _kvm_rows(
    seen: Callable[[Section], bool] = _memory, whole: Callable[[Section], bool] = _memory
) -> tuple[Row, ...]:
    """What the kernel refuses of the sections that it is asked to add, `seen`. Of those that are not `whole`
    the VMM names as many pages as fit.
    """

    def small(item: Section) -> str | None:
        few = seen(item) and item.memory_size < (1 if whole(item) else PAGE)
        return f"memory size {item.memory_size:#x}" if few else None

    return (
        (PAGES, _KVM, _each(_unaligned(lambda item: item.address, "address", seen))),
        (PAGES, _KVM, _each(_unaligned(lambda item: item.memory_size, "memory size", whole))),
        ("at least one page", _KVM, _each(small)),
        ("memory of their own", _KVM, _overlaps(seen, whole)),
        (f"an end at or below {MOST_RAM:#x}, in private memory", _KVM, _each(_shared)),
    )


def _none(_item: Section) -> bool:
    return False


def _with_slot(item: Section) -> bool:
    """Outside of the RAM of every machine of Cloud Hypervisor: a memory slot of its own, of whole pages."""
    ram = vmms.CLOUD_HYPERVISOR.ram(MOST_RAM)
    return _memory(item) and not any(start <= item.address < end for start, end in ram)


def _high(item: Section) -> bool:
    """Above the RAM that libkrun adds as one region."""
    return _memory(item) and item.address >= vmms.LIBKRUN_MMIO


def _measured_in_ram(item: Section) -> str | None:
    return f"attributes {item.attributes:#x}" if item.attributes & EXTEND and not _high(item) else None


_KVM_ROWS: dict[str, tuple[Row, ...]] = {
    "qemu": _kvm_rows(),
    "cloud-hypervisor": _kvm_rows(whole=_with_slot),
    "dragonball": _kvm_rows(whole=_none),
    "libkrun": _kvm_rows(_high, _high),
    "alioth": _kvm_rows(whole=_none),
    "td-shim-spec": _kvm_rows(),
}
_START = "Intel TDX Module ABI: every vCPU starts there"


def _td_rows(*, from_file: bool) -> tuple[Row, ...]:
    """The first is our own: a TD whose first code is not measured proves nothing."""
    return (
        ("a measured BFV at the reset vector", _START, _unmeasured_start),
        ("instructions at the reset vector", _START, _no_code(from_file=from_file)),
    )


# Of VMMs that have the kernel read the mapped file, not a copy of its sections
_ADDED_FROM_THE_FILE = (
    PAGES,
    _KVM,
    _each(_unaligned(lambda item: item.data_offset, "data offset"), *WITH_DATA),
)
_ROWS: dict[str, tuple[Row, ...]] = {
    "qemu": (
        ("a multiple of 64 KiB", "hw/i386/x86-common.c x86_bios_rom_init", _file_size(FILE_UNIT)),
        ("at least 2 sections", _TDVF, _few_sections),
        ("BFV, CFV, TD_HOB or TempMem", _ENTRY, _types(vmms.QEMU)),
        ("at most the memory size", _ENTRY, _each(more_data_than_memory)),
        ("data in the file", _ENTRY, _each(_no_raw, *WITH_DATA)),
        ("0: no data in the file", _ENTRY, _each(_raw, TD_HOB, TEMP_MEM)),
        ("one", "target/i386/kvm/tdx.c tdx_get_hob_entry", _at_least(TD_HOB)),
        (
            "data inside the file",
            "util/mmap-alloc.c qemu_ram_mmap: no memory follows",
            _outside(lambda item: item.memory_size),
        ),
        (RAM, "target/i386/kvm/tdx.c tdx_accept_ram_range", _places(vmms.QEMU, TD_HOB, TEMP_MEM)),
        (MAPPED, _MEMORY, _places(vmms.QEMU, *WITH_DATA)),
        ("room for the list", "hw/i386/tdvf-hob.c tdvf_get_area", _list_size),
        ("RAM, not the local APIC", "hw/i386/kvm/apic.c kvm_apic_realize", _over(LAPIC, LAPIC + MIB)),
        _ADDED_FROM_THE_FILE,
    ),
    "cloud-hypervisor": (
        (TO_PARAM, _CH, _types(vmms.CLOUD_HYPERVISOR)),
        ("one", _CH_ADD, _at_least(TD_HOB)),
        (NO_FILE, _CH_ADD, _each(_raw, PAYLOAD)),
    ),
    "dragonball": (
        (TO_PARAM, _DRAGONBALL, _types(vmms.DRAGONBALL)),
        ("RAM of one machine, or the last 16 MiB below 4 GiB", _DRAGONBALL_ADD, _places(vmms.DRAGONBALL)),
        ("one", _DRAGONBALL_LOAD, _at_least(BFV)),
        ("one", _DRAGONBALL_LOAD, _at_least(TD_HOB)),
        ("one", _DRAGONBALL_LOAD, _at_least(PAYLOAD_PARAM)),
        (NO_FILE, _DRAGONBALL_LOAD, _each(_raw, PAYLOAD)),
    ),
    "libkrun": (
        (TO_PARAM, _LIBKRUN_TYPES, _types(vmms.LIBKRUN)),
        (f"RAM of one machine, or from {vmms.LIBKRUN_MMIO:#x} on", _LIBKRUN_RAM, _places(vmms.LIBKRUN)),
        (f"at least {LIBKRUN_LIST:#x} bytes", "tdshim.rs write_hob_chain", _first_list(LIBKRUN_LIST)),
        ("one", _LIBKRUN, _at_least(BFV)),
        ("one", _LIBKRUN, _at_least(TD_HOB)),
        ("data inside the file", _LIBKRUN, _outside(lambda item: item.raw_size, vmms.LIBKRUN.types)),
        ("0x0: of RAM it measures nothing", _LIBKRUN_RAM, _each(_measured_in_ram, PAYLOAD)),
    ),
    "alioth": (
        (PAGES, "alioth/src/loader/firmware/firmware_amd64.rs load", _file_size(PAGE)),
        ("BFV, CFV, TD_HOB or TempMem", _ALIOTH_ADD, _types(vmms.ALIOTH)),
        ("one", _ALIOTH_ADD, _at_least(TD_HOB)),
        ("data inside the file", _ALIOTH_ADD, _outside(lambda item: item.memory_size)),
        (RAM, f"{_ALIOTH} create_hob_mem_resources", _places(vmms.ALIOTH, TD_HOB, TEMP_MEM)),
        (MAPPED, _MEMORY, _places(vmms.ALIOTH, *WITH_DATA)),
        ("room for the list", f"{_ALIOTH} create_hob", _list_size),
        (f"at most {FOUR_GIB - IOAPIC:#x} bytes", "alioth/src/mem/mem.rs add_region", _reaches(IOAPIC)),
        ("a descriptor at a multiple of 8", f"{_ALIOTH} parse_entries", _aligned_descriptor),
        _ADDED_FROM_THE_FILE,
    ),
    "td-shim-spec": (
        (f"GUID {guids.TDX_METADATA}", _LOADER, _guid_before),
        ("a type from 0 to 8", _SHIM, _types(vmms.TD_SHIM)),
        ("one", _SHIM, _at_least(BFV)),
        ("TD_HOB, or PermMem sections that describe the RAM", _SHIM, _no_ram),
        ("at most one", _SHIM, _at_most_one(TD_HOB, PAYLOAD, PAYLOAD_PARAM, *WITHIN_BFV)),
        ("Payload too", _SHIM, _payload_pair),
        ("data in the file", _SHIM, _each(_no_raw, *WITH_DATA, *WITHIN_BFV)),
        ("0: no data in the file", _SHIM, _each(_raw, TD_HOB, TEMP_MEM, PERM_MEM)),
        ("0, as there is no data", _SHIM, _each(offset_without_data, *WITH_MEMORY)),
        ("at most the memory size", _SHIM, _each(more_data_than_memory, *WITH_MEMORY)),
        ("0 and 0: no memory of its own", _SHIM, _each(own_memory, *WITHIN_BFV)),
        ("bytes of the last BFV", _SHIM, _described),
        (f"{EXTEND:#x}", _SHIM, _each(_attributes(EXTEND), BFV)),
        (f"0x0 or {EXTEND:#x}", _SHIM, _each(_attributes(0, EXTEND), PAYLOAD)),
        (f"{AUG:#x}", _SHIM, _each(_attributes(AUG), PERM_MEM)),
        ("0x0", _SHIM, _each(_attributes(0), CFV, TD_HOB, TEMP_MEM, PAYLOAD_PARAM, *WITHIN_BFV)),
    ),
}
RULES: tuple[Rule, ...] = tuple(
    Rule(vmm, expected, source, broken)
    for vmm in VMMS
    for expected, source, broken in (
        *_ROWS[vmm],
        *_KVM_ROWS[vmm],
        *_td_rows(from_file=READERS[vmm][0].whole_pages),
    )
)


def verdicts(image: bytes, vmms: Sequence[str] = VMMS) -> tuple[Verdict, ...]:
    """What each of these VMMs does with an image, in their order. KeyError for an unknown VMM."""
    return tuple(_verdict(image, vmm) for vmm in vmms)


def _verdict(image: bytes, vmm: str) -> Verdict:
    reader, finder, parser = READERS[vmm]
    source = finder
    try:
        reader.find(image)
        source = parser
        metadata = reader.metadata(image)
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
