"""What does the firmware make of a TD HOB that no honest VMM wrote? `python tests/system/hobcampaign.py 2000`

Half of the mutations know the format (other ranges, types, lengths, tables, order, ends), half flip bits.
Each run must end in a handoff or in `fatal`, with the registers that this very list has to leave behind.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import oracle
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tdbox import LINUX, MIB, Firmware, launched, made, print_counts, wanted_runs

from emu.api import run
from emu.vmm import hob as vmm_hob
from emu.vmm.backing import backed
from emu.vmm.presets import PRESETS
from formats.hob import PayloadImage
from formats.tdvf import SectionType

BASES = tuple(PRESETS)  # whose form of the list it is; each VMM that loads this image could write them all
ERROR, GOOD = b"\x01\0\0\0", bytes(4)
PERMITTED = ("handoff", "fatal")
INTERESTING = (
    0,
    1,
    7,
    8,
    0xFFF,
    0x1000,
    0x1001,
    8 * MIB,
    16 * MIB,
    128 * MIB,
    256 * MIB,
    1 << 31,
    0xC0000000,
    1 << 32,
)
INTERESTING += (
    (1 << 32) - 0x9000,
    1 << 47,
    (1 << 47) - 1,
    1 << 48,
    1 << 52,
    1 << 63,
    (1 << 64) - 0x1000,
    (1 << 64) - 1,
)


def honest(firmware: Firmware, vmm: str) -> bytes:
    """The TD HOB that this VMM would write for the firmware's configuration, with a bzImage."""
    with launched(firmware.config) as machine:
        launch, config, preset = machine.launch, firmware.config, PRESETS[vmm]
    payload = next(section for section in launch.sections if section.type == SectionType.PAYLOAD)
    entry = vmm_hob.Payload(PayloadImage.BZIMAGE, payload.address)
    ids, size = launch.topology.ids, len(config.image)
    facts = vmm_hob.Facts(preset.vmm.ram(config.memory), launch.sections, size, ids, entry)
    return vmm_hob.build(facts, preset.hobs, launch.hob_address)


def split(hob: bytes) -> list[bytes]:
    """The single HOBs of a well-formed list, PHIT and END among them."""
    found, at = [], 0
    while at < len(hob):
        kind, length = struct.unpack_from("<HH", hob, at)
        size = -(-length // 8) * 8
        found.append(hob[at : at + size])
        at += size
        if kind == 0xFFFF:
            break
    return found


def joined(parts: list[bytes], base: int, shift: int = 0) -> bytes:
    """A list of HOBs whose EfiEndOfHobList is right, or `shift` bytes off."""
    whole = b"".join(parts)
    return (
        whole[:48] + struct.pack("<Q", (base + len(whole) + shift) % (1 << 64)) + whole[56:]
        if len(whole) >= 56
        else whole
    )


numbers = st.one_of(
    st.sampled_from(INTERESTING),
    st.integers(0, 256).map(lambda n: n * MIB),
    st.integers(0, 1 << 20).map(lambda n: n * 4096),
    st.integers(0, (1 << 64) - 1),
)


def resource(kind: int = 7, attributes: int = 7, start: int = 0, size: int = 0) -> bytes:
    """A resource descriptor HOB."""
    return struct.pack("<HHI16xIIQQ", 3, 48, 0, kind, attributes, start, size)


resources = st.builds(
    resource,
    st.sampled_from((7, 7, 7, 0, 1, 2, 5, 6, 8)),
    st.sampled_from((7, 7, 7, 0x403, 0, 0x07FFFFFF, 0x08000000)),
    numbers,
    numbers,
)


@st.composite
def shaped(draw: st.DrawFn, base: int, hobs: tuple[bytes, ...]) -> bytes:
    """A few changes that keep the form of a list, more or less."""
    first, *parts, last = split(draw(st.sampled_from(hobs)))
    shift = 0
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(parts) - 1)) if parts else 0
        part = bytearray(parts[at]) if parts else bytearray(resource())
        match draw(st.integers(0, 10)):
            case 0 | 1:
                parts.insert(at, draw(resources))
                continue
            case 2 if parts:
                del parts[at]
                continue
            case 3:
                parts.insert(draw(st.integers(0, len(parts))), bytes(part))
                continue
            case 4:
                parts = draw(st.permutations(parts))
                continue
            case 5:
                struct.pack_into("<H", part, 2, draw(st.integers(0, len(part) + 16)))
            case 6 | 7 if len(part) == 48:
                struct.pack_into("<Q", part, draw(st.sampled_from((32, 40))), draw(numbers))
            case 8 if len(part) == 48:
                struct.pack_into(
                    "<I", part, draw(st.sampled_from((24, 28))), draw(st.integers(0, 0xFFFFFFFF))
                )
            case 9 if len(part) > 60:  # an ACPI table: its length or anything behind it
                where = draw(st.sampled_from((28, *range(32, len(part) - 4))))
                struct.pack_into("<I", part, where, draw(st.integers(0, 0xFFFFFFFF)))
            case 10:
                parts[0:0] = [draw(resources)] * draw(st.integers(2, 300))
                continue
            case _:
                shift = draw(st.integers(-64, 64))
                continue
        parts[at : at + 1] = [bytes(part)]
    return joined([first, *parts, last], base, shift)


def flips(hobs: tuple[bytes, ...], seed: int) -> Iterator[bytes]:
    """Honest lists with one to eight flipped bits, evenly spread; without end."""
    source = Random(seed)
    while True:
        hob = bytearray(source.choice(hobs))
        for bit in source.sample(range(8 * len(hob)), source.randint(1, 8)):
            hob[bit // 8] ^= 1 << bit % 8
        yield bytes(hob)


@dataclass
class Outcome:
    """What the runs came to. `wrong` holds lists whose end was none that may be."""

    by_end: Counter[str] = field(default_factory=Counter)
    by_detail: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)
    lists: dict[str, bytes] = field(default_factory=dict)  # by RTMR[0]
    wrong: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many different lists ran."""
        return len(self.seen)


def judge(firmware: Firmware, hob: bytes, outcome: Outcome) -> None:
    """One run. AssertionError when RTMR[0] is not a function of the list alone, or two lists share it."""
    base, size = firmware.section("hob")
    config = replace(firmware.config, hob=hob, max_instructions=50_000_000)
    report = run(config)
    end = str(report.end["reason"])
    outcome.by_end[end] += 1
    outcome.by_detail[f"{report.end['reason']}: {report.end['detail']}"] += 1
    if end not in PERMITTED:
        outcome.wrong.append((f"{report.end['reason']}: {report.end['detail']}", hob))
    if end not in ("handoff", "fatal"):
        return
    if report.handoff:
        table = report.handoff["e820"]
        assert isinstance(table, list)
        assert all(low[0] + low[1] <= high[0] for low, high in pairwise(table))
    elif report.rtmr[0] == oracle.extended(ERROR):
        return  # refused before it was measured, so nothing in it had a say
    measured = oracle.hob_list(hob.ljust(size, b"\0"), base)
    cpus = oracle.cpus(config.vcpus)
    assert report.rtmr[0] == oracle.extended(measured, cpus, GOOD if report.handoff else ERROR), report.end
    assert outcome.lists.setdefault(report.rtmr[0], measured) == measured


def campaign(firmware: Firmware, runs: int) -> Outcome:
    """`runs` different TD HOBs, the same ones each time: half shaped, half with flipped bits.

    The VMM gives the RAM it claims; claims beyond what this machine can back are cut before the run.
    """
    outcome = Outcome()
    hobs = tuple(honest(firmware, vmm) for vmm in BASES)
    base, size = firmware.section("hob")

    @settings(
        max_examples=runs // 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(shaped(base, hobs).map(lambda hob: backed(hob[:size])[0]))
    def each(hob: bytes) -> None:
        assume(hob not in outcome.seen)
        outcome.seen.add(hob)
        judge(firmware, hob, outcome)

    each()
    for hob in (backed(flipped)[0] for flipped in flips(hobs, runs)):
        if outcome.runs >= runs:
            break
        if hob not in outcome.seen:
            outcome.seen.add(hob)
            judge(firmware, hob, outcome)
    return outcome


def main(runs: int, out: Path) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    from tdforge.tiny import tiny_payload

    outcome = campaign(made(LINUX, out, tiny_payload()), runs)
    print(f"{outcome.runs} different TD HOBs; {len(outcome.lists)} were measured, each to its own RTMR[0]")
    print_counts(end=outcome.by_end, text=outcome.by_detail)
    for what, hob in outcome.wrong[:20]:
        print(f"WRONG {what}\n  {hob.hex()}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main(wanted_runs("./run campaign", "Boot with N mutated TD HOBs.", 2000), Path("build")))
