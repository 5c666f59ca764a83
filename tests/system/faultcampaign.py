"""Does a boot survive an error of any TDCALL? `python tests/system/faultcampaign.py linux --every 10`

Each TDCALL of a boot in turn is not carried out and answers with an error that its leaf may give. The boot
must hand over what it hands over without it, with the same registers, or end in `fatal` with separator 1 in
RTMR[0] and RTMR[1].
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha384
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:3]]

from interference.choices import BASE
from interference.trial import VMLINUX_BY, Built
from interferencecampaign import builder, flow_files

from dsl.api import check_file
from emu.oracle.chosen import ORDERS, Outcome, run
from emu.oracle.compare import differences
from emu.tdx import leaves
from formats import eventlog, ghci
from formats.registers import R10, R11, RAX, Gpr
from formats.tdx import status
from formats.tdx.leaves import LEAF_NAMES, Leaf

ERROR = sha384(b"\x01\0\0\0").digest()  # of the separator that a refused boot measures
FLOWS = ("alioth", "all_vcpus", "elf", "executable", "host_acpi", "kexec", "lazy", "linux", "payload")
FLOWS += ("qemu", "secure_boot", "service_td", "signed_executable", "vmlinux")
BOTH = (0, 1)  # the RTMRs with separators
VMLINUX_HOST = "dragonball"  # adds little, and takes no initrd; each page of libkrun's is a TDCALL
VCPUS = {"all_vcpus": 4}  # of others, vCPU 0 alone makes the calls
SEEDS = 4  # orders of several vCPUs, in turn
MEMORY = 256 << 20  # of which elf.tdf's window has 80 MiB from 96 MiB on

# What a call may answer instead of doing what it does (intel/tdx-module TDX_1.5.01; GHCI 1.5)
INVALID, BUSY = status.OPERAND_INVALID | status.RCX, status.OPERAND_BUSY | status.RCX
ERRORS: dict[int, tuple[int, ...]] = {
    Leaf.VP_INFO: (status.OPERAND_INVALID | status.RAX,),
    Leaf.MR_RTMR_EXTEND: (INVALID, status.OPERAND_INVALID | status.RDX, status.OPERAND_BUSY | status.RTMR),
    Leaf.VP_VEINFO_GET: (status.NO_VALID_VE_INFO,),
    Leaf.MR_REPORT: (INVALID, status.OPERAND_INVALID | status.RDX, status.OPERAND_BUSY | status.RTMR),
    Leaf.MEM_PAGE_ACCEPT: (INVALID, BUSY, status.PAGE_SIZE_MISMATCH),
    Leaf.VM_RD: (status.FIELD_ID_INCORRECT | status.RDX, status.FIELD_NOT_READABLE, BUSY),
    Leaf.VM_WR: (status.FIELD_ID_INCORRECT | status.RDX, status.FIELD_NOT_WRITABLE, BUSY),
    Leaf.VP_VMCALL: (INVALID,),
}
ANSWERS = tuple(s for s in ghci.STATUS_NAMES if s != ghci.SUCCESS)  # R10 of a TDG.VP.VMCALL


@dataclass(frozen=True)
class Call:
    """One TDCALL of a boot, without an error: its leaf, and the function asked of the VMM."""

    leaf: int
    function: int = 0

    def __str__(self) -> str:
        if self.leaf == Leaf.VP_VMCALL:
            return ghci.NAMES.get(self.function, hex(self.function))
        return LEAF_NAMES[self.leaf]

    def errors(self) -> Iterator[Mapping[int, int]]:
        """Registers of each answer that says it was not done."""
        yield from ({RAX: error} for error in ERRORS[self.leaf])
        if self.leaf == Leaf.VP_VMCALL:
            yield from ({RAX: status.SUCCESS, R10: answer} for answer in ANSWERS)


class Seam:
    """Between firmware and module: notes each TDCALL, answers one of them itself."""

    def __init__(self, number: int = -1, answer: Mapping[int, int] | None = None) -> None:
        self.number, self.answer = number, answer or {}
        self.calls: list[Call] = []
        self.module = leaves.tdcall

    def __call__(
        self, module: leaves.TdxModule, vcpu: leaves.VcpuModel, r: Gpr, long_mode_code: bool, cpl: int
    ) -> bool:
        leaf = r[RAX] & 0xFFFF
        self.calls.append(Call(leaf, r[R11] if leaf == Leaf.VP_VMCALL else 0))
        if len(self.calls) - 1 != self.number:
            return self.module(module, vcpu, r, long_mode_code, cpl)
        for register, value in self.answer.items():
            r[register] = value
        return False

    @contextmanager
    def between(self) -> Iterator[None]:
        """While it is there."""
        leaves.tdcall = self  # type: ignore[assignment]
        try:
            yield
        finally:
            leaves.tdcall = self.module


def boot(built: Built, seam: Seam, seed: int = 0) -> Outcome:
    """To the handoff or to an error; with a seed, vCPUs run in odd pieces. EmuError: no host loads it."""
    choice = replace(built.base, seed=seed, order=ORDERS.index("odd pieces") if seed else 0)
    with seam.between():
        return run(built.config, choice, built.log_area, built.arguments, built.window)


@dataclass(frozen=True)
class Honest:
    """A boot without an error: its calls, what it came to, each value of RTMR[0] and RTMR[1] on the way."""

    calls: Sequence[Call]
    outcome: Outcome
    values: tuple[frozenset[bytes], ...]


def honest(built: Built, seed: int = 0) -> Honest:
    seam = Seam()
    outcome = boot(built, seam, seed)
    assert outcome.shown is not None, outcome.detail
    values = []
    for number in BOTH:
        value = bytes(48)
        seen = {value}
        for event in eventlog.parse(outcome.shown.log):
            if event.rtmr == number:
                value = sha384(value + event.digest).digest()
                seen.add(value)
        values.append(frozenset(seen))
    return Honest(seam.calls, outcome, tuple(values))


def wrong(one: Honest, other: Outcome) -> str:
    """What a boot with an error did that it may not; empty if it did as it must."""
    if other.findings:
        return f"{other.findings[0].kind}: {other.findings[0].text}"
    if other.shown is not None:
        assert one.outcome.shown is not None
        if other.evidence != one.outcome.evidence:
            return "handed over with other registers"
        apart = differences(one.outcome.shown, other.shown)
        return f"handed over another {apart[0].part}: {apart[0].text()}" if apart else ""
    if not other.detail.startswith("tdforge: "):
        return f"refused without a word: {other.detail}"
    for number in BOTH:
        refused = {sha384(value + ERROR).hexdigest() for value in one.values[number]}
        if other.evidence[1][number] not in refused:
            return f"refused, and RTMR[{number}] does not end in separator 1"
    return ""


@dataclass
class Figures:
    """What the boots of one flow came to."""

    flow: str
    calls: int = 0
    runs: int = 0
    handed_over: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def built(flow: Path) -> Built:
    """With the smallest payload, on a host that loads it and that leaves a refused call to the firmware."""
    made = builder().build(check_file(flow).require())
    assert made is not None
    config = made.config
    return replace(
        made,
        base=replace(BASE, initrd=0) if config.vmm == VMLINUX_BY else made.base,
        config=replace(
            config,
            vmm=VMLINUX_HOST if config.vmm == VMLINUX_BY else config.vmm,
            memory=MEMORY,
            vcpus=VCPUS.get(flow.stem, config.vcpus),
            td=replace(config.td, choices=replace(config.td.choices, stop_at_refused_vmcall=False)),
        ),
    )


def tried(flow: Path, every: int = 1, first: int = 0) -> Figures:
    """Boots with an error of each `every`-th call from `first` on, once with each of its errors."""
    image = built(flow)
    ones = [honest(image, seed) for seed in range(SEEDS if image.config.vcpus > 1 else 1)]
    figures = Figures(flow.stem, len(ones[0].calls))
    for number in range(first, min(len(one.calls) for one in ones), every):
        seed = number // every % len(ones)
        one = ones[seed]
        call = one.calls[number]
        for answer in call.errors():
            other = boot(image, Seam(number, answer), seed)
            figures.runs += 1
            if other.shown is not None:
                figures.handed_over += 1
            else:
                figures.refused[other.detail] += 1
            if problem := wrong(one, other):
                values = ", ".join(f"{value:#x}" for value in answer.values())
                figures.failures.append(f"{flow.stem}: call {number}, {call}, answers {values}: {problem}")
    return figures


def parser() -> argparse.ArgumentParser:
    """Options of `./run faults`."""
    made = argparse.ArgumentParser(
        prog="./run faults --",
        description=(__doc__ or "").splitlines()[0],
        epilog="example: ./run faults -- linux qemu --every 10",
    )
    made.add_argument("flows", nargs="*", metavar="FLOW", help=f"default: {' '.join(FLOWS)}")
    made.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th call; default: all")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    made.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0: every boot ended as it may; 1: not so."""
    asked = parser()
    given = asked.parse_args(words)
    files = flow_files()
    if unknown := [name for name in given.flows if name not in files]:
        asked.error(f"no flow {unknown[0]}; there are {', '.join(sorted(files))}")
    if given.every < 1 or given.jobs < 1:
        asked.error("--every and --jobs: expected 1 or more")
    names = given.flows or FLOWS
    found: list[Figures] = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for figures in pool.map(tried, [files[name] for name in names], [given.every] * len(names)):
            found.append(figures)
            print(
                f"{figures.flow}: {figures.calls} calls, {figures.runs} boots with an error, "
                f"{figures.handed_over} handed over, {sum(figures.refused.values())} refused, "
                f"{len(figures.failures)} wrong",
                flush=True,
            )
            for line in figures.failures[:20]:
                print(f"WRONG {line}", flush=True)
    if given.json:
        given.json.write_text(json.dumps([vars(figures) for figures in found], indent=1) + "\n")
    return 1 if any(figures.failures for figures in found) else 0


if __name__ == "__main__":
    sys.exit(main())
