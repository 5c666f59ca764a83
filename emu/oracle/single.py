"""What must one run show that handed over? The log stands for the registers, and what the payload got is what
was measured, lies in RAM of its own, and nobody else runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from emu.oracle.executable import is_measured
from emu.oracle.shown import Range, Shown, madt
from formats import acpi, eventlog, linux
from formats.errors import FormatError
from formats.limits import SEARCHED
from formats.structs import unpack
from formats.units import MIB, PAGE

if TYPE_CHECKING:
    from emu.machine import Machine

GOOD = bytes(4)  # the data of a separator before a hand-over: TCG PFP, EV_SEPARATOR
FIRMWARE_RTMRS = (0, 1)  # with separators; a flow may measure into RTMR[2] too
OS_RTMR = 3
SETUP_SECTOR = 512
PRIVATE = (linux.E820Type.RAM, linux.E820Type.ACPI, linux.E820Type.NVS)  # to an OS in a TD
# What the loader of the 64-bit boot protocol leaves as the kernel file has it
KEPT = (
    *("setup_sects", "syssize", "boot_flag", "header", "version", "kernel_version", "initrd_addr_max"),
    *("kernel_alignment", "relocatable_kernel", "min_alignment", "xloadflags", "cmdline_size"),
    *("payload_offset", "payload_length", "pref_address", "init_size"),
)
CPU_ENTRIES = (acpi.MadtType.LAPIC, acpi.MadtType.X2APIC)


@dataclass(frozen=True)
class Finding:
    """A promise that was not kept: one of KINDS, and what was found."""

    kind: str
    text: str


KINDS = {
    "end": "a run that hands nothing over ends in the report of an error, never by an exception",
    "log": "the event log replays to the RTMRs",
    "separator": "RTMR[0] and RTMR[1] end in the separator of a good boot, which each has once",
    "registers": "RTMR[2] and RTMR[3] are as the TD was launched: they are the OS's",
    "aps": "every other vCPU waits in its park loop",
    "pointers": "each pointer that is handed over leads to what it promises",
    "place": "what is handed over lies in RAM that was accepted, and in memory that the OS leaves alone",
    "overlap": "nothing that is handed over overlaps",
    "e820": "the map is sorted, disjoint, and calls RAM, ACPI or NVS only private RAM, accepted or left",
    "unasked": "nothing lies where an OS looks without being given an address",
    "cpus": "the MADT lists each vCPU of the TD once, in order, by ids that a register records",
    "attribution": "kernel, initrd and command line are bytes that were measured; so is an executable's file",
    "passed on": "what the firmware's own code was given is what the payload gets",
}


def judge(
    machine: Machine,
    shown: Shown,
    aps: Sequence[Mapping[str, object]],
    given: Mapping[str, Sequence[bytes]] = MappingProxyType({}),
) -> list[Finding]:
    """Every promise that a run did not keep. `aps`: where the other vCPUs are, as a report has it. `given`:
    what the firmware's code was given for a part, call by call (emu.oracle.witness).
    """
    found = [Finding("pointers", text) for text in shown.broken]
    found += [
        Finding("aps", f"vCPU {ap['index']} is not parked: {ap['end']}") for ap in aps if not ap["parked"]
    ]
    found += _map(machine, shown)
    found += _unasked(machine)
    found += _places(machine, shown)
    found += _overlaps(shown)
    found += _passed_on(shown, given)
    if any(machine.module.rtmr[OS_RTMR]):
        found.append(Finding("registers", f"RTMR[{OS_RTMR}] was extended"))
    try:
        events = eventlog.parse(shown.log) if shown.log else []
    except FormatError as error:
        return [*found, Finding("log", str(error))]
    found += _cpus(shown, len(machine.vcpus), events)
    if events:
        found += _registers(events, machine.module.rtmr)
        found += _attribution(machine, shown, events, given)
    return found


def _registers(events: Sequence[eventlog.Event], rtmr: Sequence[bytes]) -> Iterable[Finding]:
    if eventlog.replay(events) != tuple(rtmr):
        yield Finding("log", "the event log does not replay to the RTMRs")
    for number in FIRMWARE_RTMRS:
        mine = [e for e in events if e.rtmr == number]
        separators = [e for e in mine if e.type == eventlog.EventType.SEPARATOR]
        good = len(separators) == 1 and separators[0].digest == hashlib.sha384(GOOD).digest()
        if not good or mine[-1] is not separators[0]:
            yield Finding(
                "separator", f"RTMR[{number}] has {len(separators)} separators among {len(mine)} events"
            )


# ---- memory


def inside(piece: Range, ranges: Iterable[Range]) -> bool:
    """Whether the ranges together cover the piece."""
    at = piece[0]
    for start, end in sorted(ranges):
        if start <= at < end:
            at = end
    return at >= piece[1]


def without(piece: Range, holes: Iterable[Range]) -> Iterable[Range]:
    """What of the piece lies in none of the holes."""
    at = piece[0]
    for start, end in sorted(holes):
        if at < start < piece[1]:
            yield at, start
        if start < piece[1] and end > at:
            at = end
    if at < piece[1]:
        yield at, piece[1]


def _map(machine: Machine, shown: Shown) -> Iterable[Finding]:
    e820 = shown.e820
    if any(start >= end for start, end, _ in e820) or any(a[1] > b[0] for a, b in pairwise(e820)):
        yield Finding("e820", f"entries are empty, unsorted or overlap: {e820}")
    for start, end, kind in e820:
        for piece in without((start, end), shown.lazy.left) if kind in PRIVATE else ():
            if not _accepted(machine, piece):
                text = f"{piece[0]:#x}-{piece[1]:#x} has type {kind} and is not private, accepted RAM"
                yield Finding("e820", text)
    for start, end in shown.lazy.left:
        ours = end <= machine.memory.span and inside((start, end), machine.launch.ram)
        if not ours or not machine.memory.is_pending(start, end - start):
            yield Finding(
                "e820", f"{start:#x}-{end:#x} is left to the OS and is not RAM that waits to be accepted"
            )


def _unasked(machine: Machine) -> Iterable[Finding]:
    content = machine.read_guest(SEARCHED, MIB - SEARCHED)
    if any(content):
        first = SEARCHED + len(content) - len(content.lstrip(b"\0"))
        yield Finding("unasked", f"bytes at {first:#x}, where an OS looks for tables of a BIOS")


def _accepted(machine: Machine, piece: Range) -> bool:
    """Whether all of it is RAM that the VMM gave and the TD accepted, or had from the launch."""
    start, end = piece[0] // PAGE * PAGE, -(-piece[1] // PAGE) * PAGE
    if start >= end:
        return True
    memory = machine.memory
    if end > memory.span or not inside((start, end), machine.launch.ram):
        return False
    return memory.is_accepted(start, end - start)


def _places(machine: Machine, shown: Shown) -> Iterable[Finding]:
    free = [(start, end) for start, end, kind in shown.e820 if kind == linux.E820Type.RAM]
    kept = [(start, end) for start, end, kind in shown.e820 if kind in PRIVATE[1:]]
    reserved = [(start, end) for start, end, kind in shown.e820 if kind == linux.E820Type.RESERVED]
    for name, piece in shown.ranges.items():
        if piece[0] == piece[1]:
            continue
        if not _accepted(machine, piece):
            yield Finding("place", f"{name} at {piece[0]:#x}-{piece[1]:#x} is not in accepted RAM")
        elif name in ("kernel", "window", "initrd"):
            if not inside(piece, free):
                yield Finding("place", f"{name} at {piece[0]:#x}-{piece[1]:#x} is not RAM in the memory map")
        elif name == "image":
            if not inside(piece, reserved):
                yield Finding("place", f"image at {piece[0]:#x}-{piece[1]:#x} is not reserved memory")
        elif name not in ("boot_params", "command line") and not inside(piece, kept):
            yield Finding("place", f"{name} at {piece[0]:#x}-{piece[1]:#x} is neither ACPI nor NVS memory")


def _overlaps(shown: Shown) -> Iterable[Finding]:
    pieces = [(name, piece) for name, piece in shown.ranges.items() if piece[0] < piece[1]]
    for (one, a), (other, b) in combinations(pieces, 2):
        if a[0] < b[1] and b[0] < a[1] and {one, other} != {"kernel", "window"}:
            yield Finding("overlap", f"{one} at {a[0]:#x} and {other} at {b[0]:#x} overlap")


def _cpus(shown: Shown, vcpus: int, events: Sequence[eventlog.Event]) -> Iterable[Finding]:
    """Which ids they have is what the VMM says, so it has to be recorded: with their number, in the MADT's
    order.
    """
    if not any(table[:4] == b"APIC" for _, table in shown.tables):
        return
    entries = [entry for kind, entry in madt(shown.tables) if kind in CPU_ENTRIES]
    ids = [int(entry.get("apic_id", entry.get("x2apic_id", -1))) for entry in entries]
    if len(ids) != vcpus or len(set(ids)) != vcpus or ids[1:] != sorted(ids[1:]):
        yield Finding("cpus", f"the MADT lists CPUs {ids} of a TD with {vcpus}")
    told = b"".join(number.to_bytes(4, "little") for number in (len(ids), *ids))
    if events and all(event.digest != hashlib.sha384(told).digest() for event in events):
        yield Finding("cpus", f"no event records that the CPUs are {ids}")


# ---- attribution


def measured_bytes(machine: Machine, events: Iterable[eventlog.Event]) -> list[bytes]:
    """What the events were made of, as far as it can still be found: in the event itself, or at the address
    it names, now or at launch.
    """
    found = []
    for event in events:
        if event.rtmr is None or event.type == eventlog.EventType.SEPARATOR:
            continue
        candidates = [event.data, event.data[eventlog.PLATFORM_CONFIG.sizeof() :]]
        if event.type == eventlog.EventType.EFI_PLATFORM_FIRMWARE_BLOB2:
            where = unpack(eventlog.BLOB2_RANGE, event.data, len(event.data) - eventlog.BLOB2_RANGE.sizeof())
            candidates += [machine.read_guest(where.base, where.length)]
            candidates += [_at_launch(machine, where.base, where.length)]
        found += [c for c in candidates if hashlib.sha384(c).digest() == event.digest][:1]
    return found


def _at_launch(machine: Machine, base: int, length: int) -> bytes:
    for region in machine.launch.regions:
        if region.gpa <= base and base + length <= region.gpa + region.length:
            at = base - region.gpa
            return region.content[at : at + length].ljust(length, b"\0")
    return b""


def _became(name: str, shown: Shown, given: Sequence[bytes]) -> list[bytes]:
    """What of that which the code was given is now a part of the hand-over."""
    if name == "command line":
        return [data for data in given if data.partition(b"\0")[0] == shown.line]
    return [data for data in given if data == shown.initrd]


def _passed_on(shown: Shown, given: Mapping[str, Sequence[bytes]]) -> Iterable[Finding]:
    if shown.image[1]:  # a flow may have filled boot_params, too
        return
    for name, calls in given.items():
        if not _became(name, shown, calls):
            text = f"the {name} that is handed over is not what the firmware's code was given"
            yield Finding("passed on", text)


def _attribution(
    machine: Machine,
    shown: Shown,
    events: Sequence[eventlog.Event],
    given: Mapping[str, Sequence[bytes]],
) -> Iterable[Finding]:
    # What MRTD covers needs no event: the image itself, and a payload that is measured at launch.
    known = [region.content for region in machine.launch.regions if region.measured]
    known += measured_bytes(machine, events)
    if shown.image[1]:
        if not is_measured(shown.image, known):
            yield Finding("attribution", "the image that is entered is no file that was measured")
        return
    digests = {event.digest for event in events}  # of bytes that the firmware has cleared since, too
    known += [d for calls in given.values() for d in calls if hashlib.sha384(d).digest() in digests]
    parts = {"kernel": shown.kernel, "initrd": shown.initrd, "command line": shown.line}
    parts |= {name: data for name, calls in given.items() for data in _became(name, shown, calls)}
    for name, data in parts.items():
        if any(data) and not any(data in one for one in known):  # memory that was cleared says nothing
            yield Finding("attribution", f"the {name} that is handed over was never measured")
    if not shown.in_window and not any(_is_header_of(one, shown) for one in known):
        yield Finding("attribution", "boot_params hold the setup header of another kernel")


def _is_header_of(image: bytes, shown: Shown) -> bool:
    """Whether `image` holds the loaded kernel behind the setup part that boot_params repeat."""
    at = image.find(shown.kernel)
    while at >= 0 and shown.kernel:
        start = at - ((shown.header["setup_sects"] or linux.DEFAULT_SETUP_SECTS) + 1) * SETUP_SECTOR
        if start >= 0 and len(image) >= start + linux.SETUP_HEADER_OFFSET + linux.SETUP_HEADER.sizeof():
            own = linux.SETUP_HEADER.parse(image[start + linux.SETUP_HEADER_OFFSET :])
            if all(own[name] == shown.header[name] for name in KEPT):
                return True
        at = image.find(shown.kernel, at + 1)
    return False
