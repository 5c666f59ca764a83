"""What does the firmware make of a TD HOB that no honest VMM wrote? `python tests/system/hobcampaign.py 2000`

Half of the mutations know the format (other ranges, types, lengths, tables, order, ends), half flip bits.
Each run must end in a handoff or in `fatal`, with the registers that this very list has to leave behind.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import judges
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tdbox import LINUX, MIB, PRESETS, Firmware, launched, made

from emu.api import run

BASES = PRESETS
ERROR, GOOD = b"\x01\0\0\0", bytes(4)
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
    """The TD HOB that this VMM would write for the firmware's configuration."""
    with launched(replace(firmware.config, vmm=vmm)) as machine:
        return machine.launch.hob


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
resources = st.builds(
    lambda length, kind, attributes, start, size: struct.pack(
        "<HHI16xIIQQ", 3, length, 0, kind, attributes, start, size
    ),
    st.just(48),
    st.sampled_from((0, 1, 2, 5, 6, 7, 7, 7, 8)),
    st.sampled_from((7, 7, 7, 0x403, 0, 0x07FFFFFF, 0x08000000)),
    numbers,
    numbers,
)


@st.composite
def shaped(draw: st.DrawFn, base: int, hobs: tuple[bytes, ...]) -> bytes:
    """A few changes that keep the form of a list, more or less."""
    parts = split(draw(st.sampled_from(hobs)))
    shift = 0
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        part = bytearray(parts[at])
        match draw(st.integers(0, 9)):
            case 0:
                parts.insert(draw(st.integers(1, len(parts))), draw(resources))
            case 1 if len(parts) > 1:
                del parts[at]
            case 2:
                parts.insert(draw(st.integers(0, len(parts))), parts[at])
            case 3:
                parts = [parts[0], *draw(st.permutations(parts[1:]))]
            case 4:
                struct.pack_into("<H", part, 2, draw(st.integers(0, 0xFFFF)))
                parts[at] = bytes(part)
            case 5 if len(part) == 48:
                struct.pack_into("<Q", part, draw(st.sampled_from((32, 40))), draw(numbers))
                parts[at] = bytes(part)
            case 6 if len(part) == 48:
                struct.pack_into(
                    "<I", part, draw(st.sampled_from((24, 28))), draw(st.integers(0, 0xFFFFFFFF))
                )
                parts[at] = bytes(part)
            case 7 if len(part) > 60:  # an ACPI table: its length, its signature, its content, its sum
                where = draw(st.integers(24, len(part) - 4))
                struct.pack_into(
                    "<I", part, draw(st.sampled_from((28, where))), draw(st.integers(0, 0xFFFFFFFF))
                )
                parts[at] = bytes(part)
            case 8:
                parts[1:1] = [draw(resources)] * draw(st.integers(2, 300))
            case _:
                shift = draw(st.integers(-64, 64))
    return joined(parts, base, shift)


@st.composite
def flipped(draw: st.DrawFn, hobs: tuple[bytes, ...]) -> bytes:
    """One to eight flipped bits, anywhere in an honest list."""
    hob = bytearray(draw(st.sampled_from(hobs)))
    for bit in draw(st.lists(st.integers(0, 8 * len(hob) - 1), min_size=1, max_size=8, unique=True)):
        hob[bit // 8] ^= 1 << bit % 8
    return bytes(hob)


@dataclass
class Outcome:
    """What the runs came to; `examples` holds lists whose end was neither handoff nor `fatal`."""

    runs: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    by_detail: Counter[str] = field(default_factory=Counter)
    registers: dict[str, bytes] = field(default_factory=dict)
    lists: int = 0
    examples: list[tuple[str, str, str]] = field(default_factory=list)


def judge(firmware: Firmware, hob: bytes, outcome: Outcome) -> None:
    """One run. AssertionError when RTMR[0] is not a function of the list alone, or two lists share it."""
    base, size = firmware.section("hob")
    padded = hob[:size].ljust(size, b"\0")
    report = run(replace(firmware.config, hob=hob[:size], max_instructions=50_000_000))
    reason = str(report.end["reason"])
    outcome.runs += 1
    outcome.by_reason[reason] += 1
    outcome.by_detail[f"{reason} {report.end['detail']}"] += 1
    if reason not in ("handoff", "fatal"):
        outcome.examples.append((reason, str(report.end["detail"]), hob.hex()))
        return
    last = GOOD if reason == "handoff" else ERROR
    measured = judges.hob_list(padded, base)
    unread = judges.extended(last)
    if reason == "fatal" and report.rtmr[0] == unread:
        return  # refused before it was measured, so nothing in it had a say
    assert report.rtmr[0] == judges.extended(measured, last), report.end
    assert outcome.registers.setdefault(report.rtmr[0], measured) == measured
    outcome.lists = len(outcome.registers)


def campaign(firmware: Firmware, runs: int) -> Outcome:
    """`runs` mutated TD HOBs, the same ones each time."""
    outcome = Outcome()
    hobs = tuple(honest(firmware, vmm) for vmm in BASES)
    base, _ = firmware.section("hob")

    @settings(
        max_examples=runs,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(shaped(base, hobs), flipped(hobs)))
    def each(hob: bytes) -> None:
        judge(firmware, hob, outcome)

    each()
    return outcome


def main(runs: int, out: Path) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    from tdforge.tiny import tiny_payload

    outcome = campaign(made(LINUX, out, tiny_payload()), runs)
    print(f"{outcome.runs} runs; {outcome.lists} lists measured, each with an RTMR[0] of its own")
    for reason, count in outcome.by_reason.most_common():
        print(f"  {count:5} {reason}")
    print("by text:")
    for detail, count in outcome.by_detail.most_common():
        print(f"  {count:5} {detail}")
    for reason, detail, data in outcome.examples[:20]:
        print(f"{reason}: {detail}\n  {data}")
    return 1 if outcome.examples else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, Path("build")))
