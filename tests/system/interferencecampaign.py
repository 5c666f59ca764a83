"""Does the compiler's claim hold? `python tests/system/interferencecampaign.py 500 --seed 1 --json OUT`

Generated flows that the compiler accepts run under VMMs that differ only in what a VMM may choose. Two runs
that a verifier cannot tell apart must show the payload the same. `--prove` takes out one rule of the compiler
after the other: the campaign must then find what that rule was for.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:3]]

from interference.generator import Generator, check
from interference.proof import CHECKED_AT_RUN_TIME, PAGE, UNNOTICED, Proof, with_table, without
from interference.shrink import shrunk
from interference.trial import VMLINUX_BY, Builder, Counterexample, tried

from dsl.api import shipped_flows
from dsl.rules import RULES
from tdforge.tiny import tiny_payload

ALL_RULES: frozenset[str] = frozenset()
WALKS = 5  # flows made for each that may be tried: few break just one rule
FLOWS, LIMIT = 500, 30
# The flows that are changed, one as often as it stands here
BASES = (*("linux",) * 7, *("qemu",) * 4, *("host_acpi",) * 2, "alioth", "vmlinux", "elf", "kexec")
BASES += (*("executable", "secure_boot") * 2, "payload", "service_td", "signed_executable")
FLOWS_OF_TESTS = Path(__file__).resolve().parents[1] / "dsl" / "flows"


@dataclass
class Result:
    """What one flow came to."""

    number: int
    text: str = ""
    accepted: bool = False
    built: bool = False
    runs: int = 0
    handed_over: int = 0
    checks: int = 0
    seconds: float = 0
    found: list[Counterexample] = field(default_factory=list)


@cache
def builder() -> Builder:
    """One for each process; its folder goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="interference-")
    made = Builder(Path(folder.name), tiny_payload())
    made.keep = folder  # type: ignore[attr-defined]
    return made


def one(seed: str, bases: tuple[str, ...], number: int, rule: str = "", quick: bool = False) -> Result:
    """The flow of a number: generated, built and tried. With a rule taken out, one that this rule refuses."""
    start = time.process_time()
    result = Result(number)
    generator = Generator(f"{seed}/{number}", rule)
    base = generator.random.choice(bases)
    flows = []
    for text, firmware in generator.flows(base):
        if not rule or check(text, without(rule) - {rule}).firmware is None:
            flows.append((text, firmware))
    result.checks, result.accepted = generator.checks, bool(flows)
    for text, firmware in (flows[-1:] + flows[len(flows) // 2 : -1][:1]) if flows else ():
        image = builder().build(firmware, rule in CHECKED_AT_RUN_TIME)
        result.built = result.built or image is not None
        if image is None:
            continue
        slow = image.config.vmm == VMLINUX_BY  # which adds all low RAM, page by page
        trial = tried(image, text, Random(f"{seed}/{number} vmm"), quick or slow)
        result.text, result.found = text, trial.found
        result.runs, result.handed_over = result.runs + trial.runs, trial.handed_over
        if trial.handed_over or trial.found:
            break  # otherwise an earlier one may show more
    result.seconds = time.process_time() - start
    return result


def flow_files() -> dict[str, Path]:
    """The flows to begin with, by name."""
    return {file.stem: file for file in FLOWS_OF_TESTS.glob("*.tdf")} | shipped_flows()


def campaign(
    seed: str,
    numbers: range,
    jobs: int = 1,
    rule: str = "",
    quick: bool = False,
    begin: Sequence[str] = BASES,
) -> Iterator[Result]:
    """The results of the numbers, in order."""
    files = flow_files()
    bases = tuple(files[name].read_text() for name in begin)
    work = partial(one, seed, bases, rule=rule, quick=quick)
    if jobs == 1:
        yield from map(work, numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, numbers, chunksize=2)


def small(result: Result, example: Counterexample, rule: str = "") -> str:
    """The flow of a counterexample without what it does not need, with the two VMMs in front."""
    text = shrunk(
        result.text,
        example,
        partial(builder().build, unchecked=rule in CHECKED_AT_RUN_TIME),
        lambda t: check(t, without(rule)).firmware,
    )
    head = [f"// {example}", f"// VMM a: {example.one}"]
    if example.other is not None:
        head.append(f"// VMM b: {example.other}   (equal MRTD and RTMRs)")
    return "\n".join([*head, f"// {example.text[:300]}", text])


def broken_without(
    rule: str, seed: str, limit: int, jobs: int = 1
) -> tuple[Proof, Result | None, Counterexample | None]:
    """Flows that only this rule refuses are tried until one shows what it is for."""
    count, start = 0, time.process_time()
    for result in campaign(f"{seed} {rule}", range(limit * WALKS), jobs, rule):
        count += result.built
        if result.found:
            seconds = time.process_time() - start
            return Proof(rule, count, str(result.found[0]), seconds), result, result.found[0]
        if count >= limit:
            break
    return Proof(rule, count, "", time.process_time() - start), None, None


@dataclass
class Summary:
    """What a campaign came to."""

    flows: int = 0
    accepted: int = 0
    unbuilt: int = 0
    silent: int = 0  # accepted, but no run hands over
    runs: int = 0
    checks: int = 0
    seconds: float = 0
    kinds: Counter[str] = field(default_factory=Counter)  # flows by what was found in them
    broken: int = 0  # flows with a counterexample
    first: dict[tuple[str, ...], tuple[Result, Counterexample]] = field(default_factory=dict)

    def add(self, result: Result) -> list[Counterexample]:
        """Counts a flow; the counterexamples that are new."""
        self.flows += 1
        self.accepted += result.accepted
        self.unbuilt += result.accepted and not result.built
        self.silent += result.built and not result.handed_over
        self.runs += result.runs
        self.checks += result.checks
        self.seconds += result.seconds
        self.broken += bool(result.found)
        self.kinds.update({" ".join(e.signature) for e in result.found})
        new = [e for e in result.found if e.signature not in self.first]
        self.first |= {e.signature: (result, e) for e in new}
        return new

    def lines(self) -> list[str]:
        """For a reader."""
        head = f"{self.flows} flows made, {self.accepted} accepted, {self.unbuilt} too large to build, "
        head += f"{self.silent} never hand over; "
        head += f"{self.runs} runs, {self.checks} checks, {self.seconds:.0f} s of CPU"
        return [head, f"{self.broken} flows let a VMM do something:"] + [
            f"  {count:5} {kind}" for kind, count in self.kinds.most_common()
        ]


def prove(rules: list[str], seed: str, limit: int, jobs: int, save: Path | None) -> list[Proof]:
    """Takes out each rule alone; says after how many flows the campaign noticed."""
    proofs = []
    for number, rule in enumerate(rules, 1):
        proof, result, example = broken_without(rule, seed, limit, jobs)
        proofs.append(proof)
        seen = f"noticed after {proof.flows}: {proof.found}"
        if not proof.found:
            seen = f"not noticed in {proof.flows} flows: {UNNOTICED.get(rule, 'NOT EXPLAINED')}"
        print(f"{number}/{len(rules)} {rule}: {seen} ({proof.seconds:.0f} s)", flush=True)
        if save and result is not None and example is not None:
            keep(save, f"without-{rule}", seed, result, example, rule)
    return proofs


def keep(folder: Path, kind: str, seed: str, result: Result, example: Counterexample, rule: str = "") -> None:
    """Writes a counterexample, made small."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{kind} {' '.join(example.signature)}".lower()).strip("-")[:70]
    (folder / f"{name}-s{seed}n{result.number}.tdf").write_text(small(result, example, rule))


def search(flows: int, seed: str, jobs: int, save: Path | None, begin: Sequence[str] = BASES) -> Summary:
    """The campaign itself: as many accepted flows, and what they let a VMM do."""
    summary = Summary()
    for result in campaign(seed, range(flows * 3), jobs, begin=begin):
        for example in summary.add(result):
            print(f"{result.number}: {example}", flush=True)
            if save:
                keep(save, "", seed, result, example)
        if summary.flows % 50 == 0:
            print(f"... {summary.accepted} accepted of {summary.flows}", file=sys.stderr, flush=True)
        if summary.accepted >= flows:
            break
    print("\n".join(summary.lines()))
    return summary


def parser() -> argparse.ArgumentParser:
    """The options."""
    about = "Do two VMMs that a verifier cannot tell apart show the payload the same?"
    example = "./run interference -- 100 --seed 7 --save found"
    made = argparse.ArgumentParser(
        prog="./run interference --", description=about, epilog=f"Example: {example}"
    )
    made.add_argument("flows", nargs="?", type=int, help=f"accepted flows to try (default {FLOWS})")
    made.add_argument(
        "--begin",
        action="append",
        choices=sorted(set(BASES)),
        metavar="FLOW",
        help="begin only with this flow; repeat",
    )
    made.add_argument("--seed", default="1")
    made.add_argument("--jobs", type=int, default=1)
    made.add_argument("--save", type=Path, help="folder for counterexamples, made small")
    made.add_argument("--json", type=Path, help="file for the figures")
    made.add_argument("--prove", action="store_true", help="take out rules, one by one")
    made.add_argument("--rule", action="append", choices=RULES, metavar="RULE", help="only these rules")
    made.add_argument("--limit", type=int, default=LIMIT, help=f"flows for each (default {LIMIT})")
    made.add_argument("--table", action="store_true", help=f"write the table into {PAGE}")
    return made


def main(words: list[str]) -> int:
    """The command line; 1 if an accepted flow lets a VMM do something, or nobody knows what a rule is for."""
    args = parser().parse_args(words)
    summary = None
    figures: dict[str, object] = {"seed": args.seed}
    wrong = False
    if args.flows or not args.prove:
        summary = search(args.flows or FLOWS, args.seed, args.jobs, args.save, args.begin or BASES)
        figures |= {k: v for k, v in vars(summary).items() if k != "first"}
        wrong = bool(summary.broken)
    if args.prove:
        proofs = prove(args.rule or list(RULES), args.seed, args.limit, args.jobs, args.save)
        unknown = [p.rule for p in proofs if not p.explained]
        noticed = sum(bool(p.found) for p in proofs)
        print(
            f"{noticed} of {len(proofs)} noticed within {args.limit} flows each, {len(unknown)} not explained"
        )
        figures |= {"limit": args.limit, "rules": {p.rule: p.figures() for p in proofs}}
        wrong = wrong or bool(unknown)
        if args.table:
            page = Path(__file__).parents[2] / PAGE
            page.write_text(with_table(page.read_text(), proofs))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
