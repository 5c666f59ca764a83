"""What does the firmware make of a payload that nobody meant? `python tests/system/payloadcampaign.py 2000`

One TD is launched and saved before its first instruction; each run resumes there with other bytes in the
Payload and PayloadParam sections. It ends in a handoff of just these bytes, measured, or in `fatal` with a
register that stands for no others.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import oracle
from hostilecampaign import ERROR, PAGE, Given, Ledger, Outcome, judge, what_is_given
from tdbox import LINUX, Firmware, Stopped, finish, launched, made, print_counts, wanted_runs

from emu.snapshot import file as snapshot
from formats import bundle, linux
from formats.limits import LEAST_RAM
from formats.structs import offset_of, plain
from tdforge.tiny import tiny_payload

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF, 0x200000, 0x1000000, 0x7FFFFFFF)
NUMBERS += (0x80000000, 0xFFFFF000, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1)


HEADER = linux.SETUP_HEADER
# Where each field of the setup header lies, and its size
FIELDS = [
    (linux.SETUP_HEADER_OFFSET + offset_of(HEADER, each.name), each.sizeof())
    for each in plain(HEADER).subcons
]


def payload(source: Random) -> bytes:
    """A kernel, or a kernel and an initrd, with a few changes in what the firmware reads of them."""
    initrd = source.randbytes(source.choice((1, 4096, 10_000))) if source.random() < 0.6 else b""
    data = bytearray(bundle.write(tiny_payload(), initrd))
    head = -(-len(tiny_payload()) // PAGE) * PAGE
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        match source.randrange(4):
            case 0 | 1:
                at, size = source.choice(FIELDS)
                value = source.choice((*NUMBERS, source.getrandbits(64), len(data), len(data) // 16))
                data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
            case 2:
                at = source.randrange(min(len(data), 0x400))
                data[at] ^= 1 << source.randrange(8)
            case 3 if initrd:  # the header page between kernel and initrd
                size = source.choice((*NUMBERS, len(initrd) + 1, source.getrandbits(24)))
                struct.pack_into("<Q", data, head + 16, size)
                data[head + source.randrange(64)] ^= source.choice((0, 0, 1, 0x80))
    return bytes(data)


def parameters(source: Random, room: int) -> bytes:
    """A command line: none, short, as long as a kernel takes and longer, without an end."""
    length = source.choice((0, 1, *(20,) * 12, 200, 2046, 2047, 2048, room - 1, room))
    line = bytes(source.choice((32, 61, *range(97, 123))) for _ in range(length))
    return (line + b"\0" + source.randbytes(source.choice((0, 100))))[:room]


def judge_payload(firmware: Firmware, td: Stopped, given: Given, seen: Ledger) -> None:
    """As any boot; if it was refused, RTMR[1] stands for the first so many things given, and the error."""
    judge(firmware, td, given, seen)
    if td.report.handoff:
        return
    files = (oracle.kernel_extent(given.payload), given.line, given.initrd)
    permitted = [oracle.extended(*files[:count], ERROR) for count in range(len(files) + 1)]
    assert td.report.rtmr[1] in permitted, "measured something else"


def campaign(firmware: Firmware, runs: int) -> Outcome:
    """The runs 0 to `runs` - 1, the same each time."""
    outcome = Outcome()
    config = replace(firmware.config, memory=LEAST_RAM, max_instructions=1_000_000_000)
    places = [firmware.section(name) for name in ("payload", "parameters")]
    with launched(config) as machine:
        honest = what_is_given(firmware, machine)
        start = snapshot.save(machine)
        for number in range(runs):
            source = Random(number)
            snapshot.restore(machine, start)
            contents = [payload(source), parameters(source, places[1][1])]
            whole = [content.ljust(size, b"\0") for (_, size), content in zip(places, contents, strict=True)]
            for (base, _), content in zip(places, whole, strict=True):
                machine.memory.write(base, content)
            given = replace(honest, payload=whole[0], parameters=whole[1])
            td = finish(machine, config)
            outcome.note(f"run {number}", td, partial(judge_payload, firmware, td, given, outcome.seen))
    return outcome


def main(runs: int, out: Path) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    outcome = campaign(made(LINUX, out, tiny_payload()), runs)
    print(f"{outcome.runs} payloads")
    print_counts(end=outcome.by_reason, text=outcome.by_detail)
    for failure in outcome.failures[:20]:
        print(f"WRONG {failure}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(wanted_runs("./run campaign", "Boot with N mutated payloads.", 2000), Path("build")))
