"""What does the firmware make of an executable that nobody meant? `./run campaign` runs it.

As in payloadcampaign.py one TD is saved before its first instruction; each run resumes there with another
file in the Payload section. It ends in `fatal`, or enters just this file: measured, relocated, and with no
page that is writable and executable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import oracle
from hostilecampaign import ERROR, GOOD, Given, Ledger, Outcome, judge_fatal, what_is_given
from tdbox import EXECUTABLE, Firmware, Stopped, finish, launched, made, print_counts, wanted_runs

from emu.oracle import executable
from emu.oracle.compare import differences
from emu.oracle.single import judge as promises
from emu.snapshot import file as snapshot
from formats import elf, eventlog, pe
from formats.limits import LEAST_RAM
from formats.structs import plain, unpack
from formats.units import PAGE
from gen.link.sample import FORMATS, sample

NUMBERS = (0, 1, 2, 7, 8, 0xFFF, PAGE, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 46, 1 << 63)
Field = tuple[int, int]  # where it lies, and its size


def fields(struct: Any, at: int) -> Iterator[Field]:
    """Those of a structure that lies there."""
    for each in plain(struct).subcons:
        yield at, int(each.sizeof())
        at += int(each.sizeof())


@cache
def places(name: str) -> tuple[Field, ...]:
    """What a loader reads of the sample: headers, tables of parts, relocations."""
    file = sample(name)
    return tuple(_of_pe(file) if name == "pe" else _of_elf(file))


def _of_elf(file: bytes) -> Iterator[Field]:
    yield from fields(elf.HEADER, 0)
    header = unpack(elf.HEADER, file)
    for index in range(header.program_count):
        at = header.program_offset + index * elf.PROGRAM_HEADER.sizeof()
        yield from fields(elf.PROGRAM_HEADER, at)
        part = unpack(elf.PROGRAM_HEADER, file, at)
        if part.type == elf.PT_DYNAMIC:
            for place in range(part.offset, part.offset + part.file_size, elf.DYNAMIC.sizeof()):
                yield from fields(elf.DYNAMIC, place)
                entry = unpack(elf.DYNAMIC, file, place)
                if entry.tag in (
                    elf.DynamicTag.RELA,
                    elf.DynamicTag.RELR,
                ):  # in the first part, as in the file
                    yield from ((entry.value + 8 * n, 8) for n in range(30))


def _of_pe(file: bytes) -> Iterator[Field]:
    yield from fields(pe.DOS_HEADER, 0)
    at = unpack(pe.DOS_HEADER, file).pe_offset
    header = unpack(pe.HEADER, file, at)
    yield from fields(pe.HEADER, at)
    at += pe.HEADER.sizeof()
    yield from fields(pe.OPTIONAL, at)
    for index in pe.Directory:
        yield from fields(pe.DIRECTORY, at + pe.OPTIONAL.sizeof() + index * pe.DIRECTORY.sizeof())
    at += header.optional_size
    for index in range(header.section_count):
        section = unpack(pe.SECTION, file, at + index * pe.SECTION.sizeof())
        yield from fields(pe.SECTION, at + index * pe.SECTION.sizeof())
        if section.name.startswith(b".reloc"):
            yield from fields(pe.BLOCK, section.offset)
            yield from ((section.offset + 8 + 2 * n, 2) for n in range(40))


def payload(source: Random) -> bytes:
    """A sample with a few changes in what a loader reads, or cut short, or with bytes behind it."""
    name = source.choice(tuple(FORMATS))
    data = bytearray(sample(name))
    for _ in range(source.choice((0, 1, 1, 1, 1, 2, 3))):
        at, size = source.choice(places(name))
        old = int.from_bytes(data[at : at + size], "little")
        near = (old + 1, old - 1, old + PAGE, old - PAGE, old ^ 1 << source.randrange(8 * size), old * 2)
        value = source.choice((*near, *near, *NUMBERS, len(data), source.getrandbits(8 * size)))
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    match source.randrange(12):
        case 0:
            del data[source.randrange(len(data)) :]
        case 1:
            data += source.randbytes(source.choice((1, 64, PAGE)))
    return bytes(data)


def measured(firmware: Firmware, td: Stopped, content: bytes) -> list[bytes]:
    """The file as the event log says how long it is: one, if the boot came so far."""
    log = td.read(*firmware.section("event_log"))
    found = []
    for event in eventlog.parse(log):
        if event.type != eventlog.EventType.EFI_PLATFORM_FIRMWARE_BLOB2:
            continue
        at = len(event.data) - eventlog.BLOB2_RANGE.sizeof()
        where = unpack(eventlog.BLOB2_RANGE, event.data, at)
        assert where.base == firmware.section("payload")[0], "measured elsewhere"
        found.append(content[: where.length])
    return found


def judge(firmware: Firmware, td: Stopped, given: Given, seen: Ledger) -> None:
    """A boot that may succeed or be refused. AssertionError."""
    end = td.report.end
    assert end["reason"] in ("handoff", "fatal"), f"{end['reason']}: {end['detail']}"
    files = measured(firmware, td, given.payload)
    if end["reason"] == "fatal":
        assert td.report.rtmr[1] == oracle.extended(*files, ERROR), "measured something else"
        judge_fatal(td, given)
        return
    assert td.report.rtmr[:2] == (given.machine(), oracle.extended(*files, GOOD))
    shown = executable.gather(td.machine)
    broken = promises(td.machine, shown, td.report.aps)
    assert not broken, f"{broken[0].kind}: {broken[0].text}"
    found = oracle.mappings(td.read, td.cr3)
    assert not [each for each in found if each.rights == "rwx"], "a page is writable and executable"
    entry = int(td.machine.vcpus[0].regs.rip)
    assert oracle.rights(found, entry, entry + 1) == "rx", "the entry is no code"
    first = seen.setdefault(tuple(td.report.rtmr), shown)
    apart = differences(first, shown)
    assert not apart, f"no register tells it apart: {apart[0].part}: {apart[0].text()}"


def campaign(firmware: Firmware, runs: int) -> Outcome:
    """The runs 0 to `runs` - 1, the same each time."""
    outcome = Outcome()
    config = replace(firmware.config, memory=LEAST_RAM, cmdline="", max_instructions=1_000_000_000)
    start, size = firmware.section("payload")
    with launched(config) as machine:
        honest = what_is_given(firmware, machine)
        saved = snapshot.save(machine)
        for number in range(runs):
            snapshot.restore(machine, saved)
            content = payload(Random(f"executable {number}"))
            machine.memory.write(start, content.ljust(len(config.kernel or b""), b"\0"))
            given = replace(honest, payload=content.ljust(size, b"\0"))
            td = finish(machine, config)
            outcome.note(f"run {number}", td, partial(judge, firmware, td, given, outcome.seen))
    return outcome


def main(runs: int, out: Path) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    outcome = campaign(made(EXECUTABLE, out, sample("elf")), runs)
    print(f"{outcome.runs} executables")
    print_counts(end=outcome.by_reason, text=outcome.by_detail)
    for failure in outcome.failures[:20]:
        print(f"WRONG {failure}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(wanted_runs("./run campaign", "Boot with N mutated executables.", 2000), Path("build")))
