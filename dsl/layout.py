"""Where does everything lie? Gives image sections their addresses and checks T05 (write xor execute) and
T06 (disjoint and aligned) on the declarations, and T10 (fits) on their number."""

from __future__ import annotations

import re

from dsl import tree
from dsl.declare import Names
from dsl.diagnostics import Reporter, join_words
from dsl.model import ImageSection, ListOf, MemoryRegion, Span
from formats.limits import (
    FILE_UNIT,
    LEAST_RAM,
    LOWEST_SPLIT,
    MAX_ADDED,
    MAX_FILE_SIZE,
    MAX_SECTIONS,
    SEARCHED,
)
from formats.units import FOUR_GIB, KIB, MIB, PAGE, align_down, align_up

MAX_BFV = 2 * MIB  # its pages share one page table (gen/boot/paging.py)

KINDS = ("BFV", "CFV", "TD_HOB", "TempMem", "PermMem", "Payload", "PayloadParam", "TD_INFO", "TD_PARAMS")
WITHIN_BFV = ("TD_INFO", "TD_PARAMS")  # bytes of the BFV that tools read; the flow has no name for them
BUILT_IN = ("CFV", "Payload")  # may be filled when the image is built
AT_MOST_ONE = ("BFV", "TD_HOB", "Payload", "PayloadParam", *WITHIN_BFV)
GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ACCESS = ("r", "rw", "rx", "rwx")
E820 = ("ram", "reserved", "acpi", "nvs")
# Where RAM may lie: private memory of a TD with 48 guest physical address bits, and below 4 GiB not where the
# firmware does (FIRMWARE_WINDOW of runtime-c/src/plan.c).
PRIVATE_END, WINDOW = 1 << 47, FOUR_GIB - 64 * MIB
CARVED_FOR_FILES = 1  # of a RAM plan's carved regions: the room that fw_cfg takes (runtime-c/src/fw_cfg.c)
# Sections the compiler itself uses, known by their names.
OWNED = {"stack": "stack TempMem 32 KiB guarded", "paging": "paging TempMem 80 KiB"}


def is_cleared(section: ImageSection) -> bool:
    """Whether the handoff of a vmlinux clears what of it is not handed over: it is RAM, and not in use."""
    if section.address is None:  # part of the BFV
        return False
    return section.e820 == "ram" and section.name not in OWNED and section.kind != "PermMem"


def shown(address: int) -> str:
    """An address as messages show it."""
    return f"0x{address:x}"


class Layout:
    """Lays out one firmware. Results in `sections` and `regions`, by order of declaration."""

    def __init__(self, names: Names, reporter: Reporter) -> None:
        self._names = names
        self._error = reporter.error
        self._reporter = reporter
        self.sections: list[ImageSection] = []
        self.regions: list[MemoryRegion] = []
        self.placed: list[tuple[int, int, str]] = []
        self.astray = False  # the last section lies wrong, so do those that only follow it

    # ---- image

    def image(self, image: tree.Image) -> None:
        if image.limit.value != FOUR_GIB:
            self._error(
                "T06", image.limit.span, "an image ends at 4 GiB, where the reset vector is", "write `4 GiB`"
            )
        cursor: int | None = None
        before = len(self._reporter)
        for section in image.sections:
            self._names.claim(section.name, self._reporter)
            cursor = self._section(section, cursor)
        for extra in image.sections[MAX_SECTIONS : MAX_SECTIONS + 1]:
            message = f"`{extra.name.text}` is one section too many, the metadata has room for {MAX_SECTIONS}"
            self._error("T10", extra.name.span, message)
        if len(self._reporter) == before:
            self._sum()
        for kind, what, instead in (
            ("BFV", "the firmware's code", ()),
            ("TD_HOB", "the VMM's list of memory", ("PermMem",)),
        ):
            if not any(s.kind.text in (kind, *instead) for s in image.sections):
                message = f"the image has no {kind} section for {what}"
                more = "".join(f", or {other} sections: RAM that is part of the image" for other in instead)
                self._error("T06", image.span, message, f"declare one {kind}{more}")
        seen: dict[str, str] = {}
        for section in image.sections:
            kind = section.kind.text
            if kind in AT_MOST_ONE and kind in seen:
                self._error("T06", section.span, f"a second {kind} section, {seen[kind]} is the first")
            seen.setdefault(kind, f"`{section.name.text}` in line {section.span.line}")
        for kind, without in (("PayloadParam", "Payload"), ("Payload", "PayloadParam")):
            if kind in seen and without not in seen:
                first = next(s for s in image.sections if s.kind.text == kind)
                place = first.span
                if first.file is not None:  # no host has to fill it
                    continue
                message = f"{kind} without a {without} section"
                self._error("T06", place, message, f"VMMs refuse such metadata; declare one {without}")
        for name, example in OWNED.items():
            own = next((s for s in image.sections if s.name.text == name), None)
            if own is None:
                self._error("E05", image.span, f"the image has no section `{name}`", f"add `{example}`")
            elif own.kind.text != "TempMem":
                self._error("E05", own.kind.span, f"`{name}` is a TempMem section")

    def not_cleared(self, start: int, end: int) -> tuple[int, int] | None:
        """The first addresses in [start, end) where no section lies that the handoff of a vmlinux clears."""
        for section in sorted(filter(is_cleared, self.sections), key=lambda s: s.address or 0):
            first = section.address or 0
            if start < first:
                return start, min(first, end)
            start = max(start, first + (section.size or 0))
            if start >= end:
                return None
        return start, end

    def _sum(self) -> None:
        """Refuses the first section with which all have more than a VMM adds."""
        total = MAX_BFV
        for section in self.sections:
            total += section.size or 0 if section.kind != "PermMem" else 0
            if total > MAX_ADDED:
                message = f"up to `{section.name}`, the sections have more than 1 GiB with a BFV of 2 MiB"
                self._error("T10", section.span, message, "declare RAM under `memory`: no VMM has to add it")
                return

    def _section(self, section: tree.Section, cursor: int | None) -> int | None:
        """Adds the section; returns where the next one starts if it says nothing else."""
        kind = section.kind.text
        e820 = self._one_of(section.attributes, E820, "reserved" if kind in ("BFV", "CFV") else "ram")
        if kind == "BFV" and e820 != "reserved":
            place = next(a.span for a in section.attributes if a.text in E820)
            hint = "leave the word out"
            self._error("T06", place, "parked APs run the code of BFV for as long as the OS runs", hint)
        if kind == "CFV" and e820 != "reserved":
            place = next(a.span for a in section.attributes if a.text in E820)
            message = f"a CFV lies among devices, where nothing is `{e820}` to the OS"
            self._error("T06", place, message, "leave the word out")
        if kind == "PermMem":
            for attribute in section.attributes:
                if attribute.text in (*E820, *ACCESS) and attribute.text != "ram":
                    message = f"`{section.name.text}` is RAM, which nobody uses before `accept`"
                    self._error("T06", attribute.span, message, "leave the word out")
        if kind == "Payload" and e820 != "ram":
            place = next(a.span for a in section.attributes if a.text in E820)
            message = f"the kernel may run where it lies, which is `{e820}` to the OS"
            self._error("T06", place, message, "leave the word out")
        access = self._section_access(section)
        if section.file is not None and kind not in (*BUILT_IN, *WITHIN_BFV):
            message = f"a {kind} section is not filled when the image is built"
            self._error("E05", section.file.span, message, f"only {join_words(BUILT_IN)} is")
        if kind in WITHIN_BFV:
            self._within(section)
        elif section.guid is not None:
            self._error("E05", section.guid.span, "a GUID says what a TD_INFO section holds", "leave it out")
        guarded = any(a.text == "guarded" for a in section.attributes)
        for attribute in section.attributes:
            if attribute.text == "guarded" and section.name.text != "stack":
                hint = "only `stack` grows down to it"
                self._error("T06", attribute.span, f"the first page of `{section.name.text}` is used", hint)
        address: int | None = None
        size: int | None = None
        budget: int | None = None
        if kind == "BFV":
            budget = self._budget(section)
        elif kind not in WITHIN_BFV:
            address, size = self._extent(section, cursor)
            if guarded and size is not None and size < 2 * PAGE:
                self._error(
                    "T06", section.span, "a guarded section of one page has no usable page", "make it 8 KiB"
                )
            if address is not None and kind != "CFV":  # a CFV lies in the image file, far from the rest
                cursor = align_up(address + (size or 0), PAGE)
            if address is not None and size and (section.at is not None or not self.astray):
                right = self._placed(section, address, size)
                self.astray = self.astray if kind == "CFV" else not right
        self.sections.append(
            ImageSection(
                name=section.name.text,
                kind=kind,
                address=address,
                size=size,
                guarded=guarded,
                e820=e820,
                span=section.span,
                access=access,
                budget=budget,
                file=section.file.value if isinstance(section.file, tree.String) else None,
                chosen=isinstance(section.file, tree.Chosen),
                guid=section.guid.value if section.guid is not None else None,
            )
        )
        return cursor

    def _within(self, section: tree.Section) -> None:
        """A part of the BFV, where the linker puts it."""
        kind = section.kind.text
        for given in (section.size, section.at, *section.attributes):
            if given is not None:
                message = f"{kind} lies in the BFV, as large as what it holds"
                self._error("E05", given.span, message, "leave it out")
        if kind == "TD_PARAMS" and section.guid is not None:
            self._error("E05", section.guid.span, "a GUID says what a TD_INFO section holds", "leave it out")
        if kind == "TD_PARAMS" and section.file is None:
            self._error("E05", section.span, "TD_PARAMS come from a file", 'write `from "td_params.json"`')
        if kind == "TD_INFO" and section.guid is None:
            hint = 'write `guid "00000000-0000-4000-8000-000000000000"` with one of your own'
            self._error("E05", section.span, "TD_INFO needs the GUID of what it holds", hint)
        elif kind == "TD_INFO" and section.guid is not None and not GUID.fullmatch(section.guid.value):
            self._error("E05", section.guid.span, f"`{section.guid.value}` is no GUID")

    def _budget(self, section: tree.Section) -> int | None:
        if section.at is not None:
            self._error("T06", section.at.span, "BFV has no address of its own: it ends at 4 GiB")
        if section.size is None:
            return None
        if not section.up_to:
            hint = f"write `up to {section.size.value // KIB} KiB` to bound it"
            self._error("T06", section.size.span, "BFV is as large as the code", hint)
        if section.size.value % FILE_UNIT or not 0 < section.size.value <= MAX_BFV:
            self._error("T06", section.size.span, "the bound of BFV is a multiple of 64 KiB, at most 2 MiB")
        return section.size.value

    def _extent(self, section: tree.Section, cursor: int | None) -> tuple[int | None, int | None]:
        name = section.name.text
        if section.up_to and section.size is not None:
            self._error("T06", section.size.span, f"`up to` is for BFV; the size of `{name}` is exact")
        if section.size is None:
            self._error(
                "T06",
                section.span,
                f"section `{name}` needs a size",
                f"write `{name} {section.kind.text} 4 KiB`",
            )
        else:
            self._size(section.size, name)
        address = section.at.value if section.at is not None else cursor
        if address is None:
            if not self.astray:
                message = f"the first section, `{name}`, needs an address"
                self._error("T06", section.span, message, "add `at 0x0080_0000`")
            self.astray = True
            return None, section.size.value if section.size else None
        place = section.at.span if section.at is not None else section.span
        if address % PAGE:
            down = shown(align_down(address, PAGE))
            self._error(
                "T06", place, f"{shown(address)} is not a multiple of 4 KiB", f"the page begins at {down}"
            )
        if address == 0 and section.kind.text != "PermMem":
            self._error("T06", place, 'address 0 means "not placed" to VMMs', "place it at 0x1000 or above")
        return address, section.size.value if section.size else None

    def _size(self, size: tree.Number, name: str) -> None:
        if size.value == 0:
            self._error("T06", size.span, f"`{name}` is empty")
        elif size.value % PAGE:
            up = align_up(size.value, PAGE) // KIB
            self._error(
                "T06", size.span, f"{size.value} bytes is not a multiple of 4 KiB", f"round up to {up} KiB"
            )

    def _placed(self, section: tree.Section, address: int, size: int) -> bool:
        """Whether it may lie there; what is wrong with it is reported once."""
        before = len(self._reporter)
        name, end = section.name.text, address + size
        where = f"`{name}` [{shown(address)}, {shown(end)})"
        kind = section.kind.text
        if kind == "PermMem":
            if end > PRIVATE_END:
                message = f"{where} is not in private memory, which may end at {shown(PRIVATE_END)}"
                self._error("T06", section.span, message)
            elif address < FOUR_GIB and end > WINDOW:
                message = f"{where} reaches into the last 64 MiB below 4 GiB, where image and APICs lie"
                self._error("T06", section.span, message, f"end it at {shown(WINDOW)} or below")
        elif end > FOUR_GIB - FILE_UNIT:
            self._error("T06", section.span, f"{where} reaches into BFV, which ends at 4 GiB")
        elif kind == "CFV":
            # The file begins with the head of a volume.
            lowest, highest = FOUR_GIB - MAX_FILE_SIZE + PAGE, FOUR_GIB - MAX_BFV
            if address < lowest or end > highest:
                message = (
                    f"{where} is not in [{shown(lowest)}, {shown(highest)}), where the image file is mapped"
                )
                self._error("T06", section.span, message, f"write `at {shown(highest - MIB)}`")
                return True  # it takes no room here: what follows lies where it would without it
        else:
            limit = LEAST_RAM if kind in ("TD_HOB", "TempMem") else LOWEST_SPLIT
            if end > limit:
                message = f"{where} is not in low RAM, which may end at {shown(limit)}"
                self._error("T06", section.span, message)
            if address < MIB and end > SEARCHED:
                message = f"{where} is where an OS looks for tables of a BIOS, and would find them"
                self._error("T06", section.span, message, f"place it at {shown(MIB)} or above")
        for start, stop, other in self.placed:
            if address < stop and start < end:
                own, its = f"[{shown(address)}, {shown(end)})", f"[{shown(start)}, {shown(stop)})"
                message = f"`{name}` {own} overlaps `{other}` {its}"
                self._error(
                    "T06", section.span, message, f"the first free address after `{other}` is {shown(stop)}"
                )
        self.placed.append((address, end, name))
        return len(self._reporter) == before

    def _section_access(self, section: tree.Section) -> str:
        kind, name = section.kind.text, section.name.text
        access = self._one_of(section.attributes, ACCESS, "rx" if kind == "BFV" else "rw")
        place: Span = next((a.span for a in section.attributes if a.text in ACCESS), section.span)
        if access == "rwx":
            self._error("T05", place, f"`{name}` would be writable and executable", "choose `rw` or `rx`")
        elif access == "rx" and kind != "BFV":
            hint = "only BFV holds code of the firmware"
            if kind == "Payload":
                hint = "the payload's window becomes executable in `handoff`, not before"
            self._error(
                "T05", place, f"`{name}` is {kind}, which the VMM fills: it is never executable", hint
            )
        elif access == "rw" and kind == "BFV":
            self._error(
                "T05", place, f"`{name}` holds the code, which is never writable", "leave the word out"
            )
        elif access == "r" and name in OWNED:
            self._error("T05", place, f"the firmware writes to `{name}`", "leave the word out")
        return access

    # ---- memory carved at run time

    def memory(self, memory: tree.Memory) -> None:
        limit = memory.limit
        if limit.value % PAGE or not PAGE <= limit.value <= FOUR_GIB:
            self._error("T06", limit.span, "memory lies below a multiple of 4 KiB that is at most 4 GiB")
        total = 0
        for region in memory.regions:
            name = region.name.text
            self._names.claim(region.name, self._reporter)
            self._size(region.size, name)
            total += region.size.value
            access = self._one_of(region.attributes, ACCESS, "rw")
            for attribute in region.attributes:
                if attribute.text in ACCESS and attribute.text != "rw":
                    why = "the firmware clears and fills it"
                    message = f"memory region `{name}` cannot be `{attribute.text}`: {why}"
                    self._error("T05", attribute.span, message, "leave the word out")
                elif attribute.text == "guarded":
                    self._error("E05", attribute.span, "`guarded` is for image sections")
            e820 = self._one_of(region.attributes, E820, "reserved")
            self.regions.append(MemoryRegion(name, region.size.value, limit.value, e820, region.span, access))
            if total > limit.value - MIB >= total - region.size.value:
                self._error(
                    "T06", region.span, f"the regions do not fit between 1 MiB and {shown(limit.value)}"
                )
        capacity = self._max_regions()
        for region in memory.regions[capacity:]:
            message = f"`{region.name.text}` is one memory region too many, a RAM plan has at most {capacity}"
            self._error("T10", region.name.span, message, "put two of them into one region and slice it")

    def _max_regions(self) -> int:
        ram = self._names.records.get("Ram")
        carved = next((f.type for f in ram.fields if f.name == "carved"), None) if ram else None
        return carved.capacity - CARVED_FOR_FILES if isinstance(carved, ListOf) else 0

    def _one_of(self, attributes: tuple[tree.Name, ...], words: tuple[str, ...], default: str) -> str:
        chosen = [a for a in attributes if a.text in words]
        for extra in chosen[1:]:
            self._error(
                "E05", extra.span, f"`{extra.text}` after `{chosen[0].text}`: only one of {join_words(words)}"
            )
        return chosen[0].text if chosen else default
