"""Does the firmware survive a hostile VMM? `python tests/system/hostilecampaign.py 500`

Each seed boots to the handoff. It must get there with the registers that the bytes really given stand for,
the memory map within the RAM really given and a kernel window in it, or end in `fatal`; never otherwise.
"""

from __future__ import annotations

import re
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha384
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import oracle
from tdbox import LINUX, MIB, Firmware, Stopped, finish, launched, made, print_counts, wanted_runs

from emu.api import RunConfig
from emu.machine import Machine
from emu.observe import Observer
from emu.oracle.compare import differences
from emu.oracle.shown import Shown, gather
from emu.oracle.single import inside
from emu.oracle.single import judge as promises
from emu.tdx.measure import AddedRegion
from emu.tdx.params import CONFIG_GPAW52, CONFIG_NO_RBP_MOD, TdParams
from emu.view import Vcpu
from formats.registers import Gpr

BUNDLE = bytes.fromhex("523c1b7da4860f4e9d3a5c1fe2b0a764")  # docs/decisions/0007, in the order of its bytes
ERROR, GOOD = b"\x01\0\0\0", bytes(4)
RAM, RESERVED, PAGE = 1, 2, 4096
# What the firmware calls: to find its CPUs, and to end
CALLS = frozenset(("Instruction.RDMSR", "Instruction.CPUID", "ReportFatalError", "Instruction.HLT"))
UNMAPPED, MAPPED, STATE = 0, 2, 3  # page states, emu/cpu/native/api.h
Range = tuple[int, int]
Ledger = dict[tuple[str, ...], Shown]  # what a payload was shown, by MRTD and RTMRs


class Told(Observer):
    """Which APIC ids the VMM told the vCPUs that asked: the answer to RDMSR, else to CPUID leaf 0xB."""

    def __init__(self, vcpus: int) -> None:
        self.ids = list(range(vcpus))

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        if given is result or given[0] or given[10] or result[0] or result[10]:
            return
        if (given[11], given[12]) == (31, 0x802):
            self.ids[vcpu.index] = result[11] & 0xFFFFFFFF
        elif (given[11], given[12]) == (10, 0xB) and any(result[12:16]):
            self.ids[vcpu.index] = result[15] & 0xFFFFFFFF


@dataclass(frozen=True)
class Given:
    """What the VMM had put into the TD when it started: the sections it fills, and MRTD for all its pages."""

    base: int
    hob: bytes
    payload: bytes
    parameters: bytes
    told: Told
    mrtd: str
    calls: frozenset[str] = CALLS  # that the firmware makes
    reserved: tuple[Range, ...] = ()  # what it knows of the chipset's addresses
    more: tuple[bytes, ...] = ()  # what it measures of the machine behind the CPUs

    @property
    def line(self) -> bytes:
        """The command line."""
        return self.parameters.split(b"\0", 1)[0]

    @property
    def initrd(self) -> bytes:
        """What lies behind the kernel if a bundle header is there."""
        head = -(-len(oracle.kernel_extent(self.payload)) // PAGE) * PAGE
        if self.payload[head : head + 16] != BUNDLE:
            return b""
        (size,) = struct.unpack_from("<Q", self.payload, head + 16)
        return self.payload[head + PAGE : head + PAGE + size]

    def machine(self) -> str:
        """RTMR[0] of a good boot (docs/event-log.md)."""
        machine = oracle.hob_list(self.hob, self.base), oracle.cpus(self.told.ids), *self.more
        return oracle.extended(*machine, GOOD)

    def registers(self) -> tuple[str, ...]:
        """All RTMRs of a good boot."""
        files = [oracle.kernel_extent(self.payload), self.line, *([self.initrd] if self.initrd else [])]
        return self.machine(), oracle.extended(*files, GOOD), bytes(48).hex(), bytes(48).hex()


def mrtd(regions: Iterable[AddedRegion]) -> str:
    """MRTD page by page over the pages that the VMM added, those that no section asked for among them."""
    total = sha384()
    for region in regions:
        for at in range(0, region.length, PAGE):
            page = region.content[at : at + PAGE].ljust(PAGE, b"\0")
            total.update(b"MEM.PAGE.ADD" + bytes(4) + struct.pack("<Q", region.gpa + at) + bytes(104))
            for chunk in range(0, PAGE, 256) if region.measured else ():
                total.update(
                    b"MR.EXTEND" + bytes(7) + struct.pack("<Q", region.gpa + at + chunk) + bytes(104)
                )
                total.update(page[chunk : chunk + 256])
    return total.hexdigest()


def claims(hob: bytes) -> list[tuple[int, Range]]:
    """Type and range of each resource in a list that the firmware took."""
    found: list[tuple[int, Range]] = []
    at = 0
    while True:
        kind, length = struct.unpack_from("<HH", hob, at)
        if kind == 0xFFFF:
            return found
        if kind == 3:
            resource, _, start, size = struct.unpack_from("<IIQQ", hob, at + 24)
            found.append((resource, (start, start + size)))
        at += -(-length // 8) * 8


def judge_map(firmware: Firmware, td: Stopped, given: Given, e820: list[tuple[int, int, int]]) -> None:
    """The memory map: sorted, disjoint, RAM only where the VMM gave RAM, nothing of the firmware's in it."""
    told = claims(given.hob)
    ram = [span for kind, span in told if kind in (0, 5, 7)]
    lent = [span for kind, span in told if kind in (0, 5)]  # said to be added: never accepted, maybe untrue
    assert all(low[1] <= high[0] for low, high in pairwise(e820)), e820
    memory = td.machine.memory
    log, size = firmware.section("event_log")
    bfv = next(s for s in oracle.sections(firmware.image) if s.type == 0)
    for start, end, kind in e820:
        assert start < end, e820
        assert end <= 1 << 47, e820
        window = start >= bfv.address and end <= 1 << 32
        window |= kind == RESERVED and (start, end) in given.reserved
        assert inside((start, end), ram) or window, f"{start:#x}-{end:#x} of type {kind} is no RAM"
        if kind != RAM:
            continue
        assert not any(kind == 1 and low < end and start < high for kind, (low, high) in told), (
            "RAM over MMIO"
        )
        assert end <= log or log + size <= start, "the event log is RAM in the memory map"
        assert end <= bfv.address or start >= 1 << 32, "the firmware is RAM in the memory map"
        assert end <= memory.span
        states = {state & STATE for state in set(memory.states(start, end - start))}
        assert UNMAPPED not in states
        if not any(low < end and start < high for low, high in lent):
            assert states == {MAPPED}, f"{start:#x}-{end:#x} was not accepted"


def judge_promises(td: Stopped, seen: Ledger | None) -> None:
    """What any firmware has to keep (emu.oracle), and that runs with equal registers show the same."""
    shown = gather(td.machine)
    # of the map, judge_map knows better: a list may call RAM what the VMM withholds
    broken = [f for f in promises(td.machine, shown, td.report.aps) if f.kind != "e820"]
    assert not broken, f"{broken[0].kind}: {broken[0].text}"
    first = (seen if seen is not None else {}).setdefault((td.report.mrtd, *td.report.rtmr), shown)
    apart = differences(first, shown)
    assert not apart, f"no register tells it apart: {apart[0].part}: {apart[0].text()}"


def judge_handoff(firmware: Firmware, td: Stopped, given: Given, seen: Ledger | None = None) -> None:
    """A boot that succeeded: as that of any firmware, and with what was really given."""
    report = td.report
    assert report.met
    judge_promises(td, seen)
    assert report.rtmr == given.registers()
    log = report.event_log.rstrip(
        b"\xff"
    )  # the VMM's own bytes in it may look like the fill; the last event does not
    assert oracle.replay(oracle.events(log)) == report.rtmr
    page = oracle.boot_params(td.read, td.boot_params)
    judge_map(firmware, td, given, page.e820)
    assert td.read(page.command_line, len(given.line) + 1) == given.line + b"\0"
    setup = ((given.payload[0x1F1] or 4) + 1) * 512
    protected = oracle.kernel_extent(given.payload)[setup:]
    assert report.handoff is not None
    assert td.read(int(str(report.handoff["entry"])) - 0x200, len(protected)) == protected
    place, size = page.initrd
    assert td.read(place, size) == given.initrd


def judge_fatal(td: Stopped, given: Given) -> None:
    """A boot that was refused: in words, without a handoff, and forever."""
    report = td.report
    assert report.handoff is None
    assert report.vmcalls.keys() <= given.calls, report.vmcalls
    assert str(report.end["detail"]).startswith("tdforge: ")
    nmi = any(line.startswith("NMI") for line in report.hostile)
    assert report.end["fault"] is None or (nmi and "#NI" in str(report.end["detail"])), report.end
    whole = len(given.hob) >= 56 and given.base <= struct.unpack_from("<Q", given.hob, 48)[0]
    lists = [oracle.hob_list(given.hob, given.base)] if whole else []
    cpus = oracle.cpus(given.told.ids)
    good = {oracle.extended(*lists, cpus, *given.more, GOOD), oracle.extended(*lists, GOOD)}
    assert report.rtmr[0] not in good | {oracle.extended(GOOD)}
    if not nmi:
        parts = [*lists, cpus, *given.more] if lists else []
        measured = [parts[:count] for count in range(len(parts) + 1)]
        assert report.rtmr[0] in [end for some in measured for end in refused(td, *some)]


def refused(td: Stopped, *measured: bytes) -> list[str]:
    """What a register may hold after a refusal: the separator may be missing if a VMM holds its lock longer
    than the firmware tries.
    """
    ends = [oracle.extended(*measured, ERROR)]
    if any("registers locked" in line for line in td.report.hostile):
        ends.append(oracle.extended(*measured) if measured else bytes(48).hex())
    return ends


@dataclass
class Outcome:
    """What the runs came to; `failures` holds a line for each that ended otherwise than it may."""

    runs: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    by_detail: Counter[str] = field(default_factory=Counter)
    by_attack: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seen: Ledger = field(default_factory=dict)

    def note(self, name: str, td: Stopped, verdict: Callable[[], None]) -> None:
        """One run, with a line in `failures` if the verdict on it is an AssertionError."""
        told, end = td.report.hostile, td.report.end
        self.runs += 1
        self.by_reason[str(end["reason"])] += 1
        self.by_detail[f"{end['reason']} {str(end['detail']).split('(')[0]}"] += 1
        self.by_attack.update({re.sub(r"\b(0x[0-9a-f]+|[0-9]+)\b", "N", line) for line in told})
        try:
            verdict()
        except AssertionError as error:
            what = str(error).splitlines()[0] if str(error) else f"line {error_line(error)}"
            self.failures.append(f"{name}: {what}\n  {'; '.join(told)}")

    def tell(self) -> None:
        """Prints the counts, and the first failures."""
        print(f"{self.runs} seeds")
        print_counts(end=self.by_reason, text=self.by_detail, attack=self.by_attack)
        for failure in self.failures[:20]:
            print(f"WRONG {failure}")
        print(f"{len(self.failures)} ended otherwise than they may")


def configuration(firmware: Firmware, seed: int) -> RunConfig:
    """The run of a seed: one to three vCPUs, with and without an initrd, both GPA widths."""
    return replace(
        firmware.config,
        vmm=f"hostile:{seed}",
        memory=(64, 64, 128)[seed % 3] * MIB,
        vcpus=1 + seed // 2 % 3,
        initrd=b"initrd" * 1000 if seed % 2 else None,
        td=TdParams(config_flags=CONFIG_NO_RBP_MOD | (CONFIG_GPAW52 if seed % 5 == 0 else 0)),
        max_instructions=1_000_000_000,
    )


def what_is_given(firmware: Firmware, machine: Machine) -> Given:
    """Read from the TD's memory before its first instruction."""

    def section(name: str) -> bytes:
        return machine.read_guest(*firmware.section(name))

    pages = mrtd(machine.launch.regions)
    told = Told(len(machine.vcpus))
    machine.observe(told)
    return Given(
        firmware.section("hob")[0],
        section("hob"),
        section("payload"),
        section("parameters"),
        told,
        pages,
    )


def error_line(error: AssertionError) -> int:
    """Where in this file an assertion without words failed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    return int(lines[-1] or 0)


def judge(firmware: Firmware, td: Stopped, given: Given, seen: Ledger | None = None) -> None:
    """A boot that may succeed or be refused. AssertionError."""
    end = td.report.end
    assert end["reason"] in ("handoff", "fatal"), f"{end['reason']}: {end['detail']}"
    assert td.report.mrtd == given.mrtd
    if end["reason"] == "handoff":
        judge_handoff(firmware, td, given, seen)
    else:
        judge_fatal(td, given)


def campaign(firmware: Firmware, seeds: Iterable[int]) -> Outcome:
    """A run for each seed."""
    outcome = Outcome()
    for seed in seeds:
        config = configuration(firmware, seed)
        with launched(config) as machine:
            given = what_is_given(firmware, machine)
            td = finish(machine, config)
            outcome.note(f"hostile:{seed}", td, partial(judge, firmware, td, given, outcome.seen))
    return outcome


def main(runs: int, out: Path) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    from tdforge.tiny import tiny_payload

    outcome = campaign(made(LINUX, out, tiny_payload()), range(runs))
    outcome.tell()
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(wanted_runs("./run hostile", "Boot under N hostile VMMs.", 500), Path("build")))
