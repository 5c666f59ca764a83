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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

from interference.generator import Generator, check
from interference.shrink import shrunk
from interference.trial import Builder, Counterexample, tried

from dsl.api import shipped_flows
from dsl.rules import RULES
from tdforge.tiny import tiny_payload

ALL_RULES: frozenset[str] = frozenset()
WALKS = 5  # flows made for each that may be tried: few break just one rule
# A rule that another stands behind: what it lets pass, the other refuses
BEHIND = {"recorded size": ("measured argument",), "recorded place": ("measured argument",)}
# Rules whose absence no run shows, and why
UNNOTICED: dict[str, str] = {}


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


def one(
    seed: str,
    bases: tuple[str, ...],
    number: int,
    disabled: frozenset[str] = ALL_RULES,
    quick: bool = False,
) -> Result:
    """The flow of a number: generated, built and tried. With rules taken out, one that they refuse."""
    start = time.process_time()
    result = Result(number)
    generator = Generator(f"{seed}/{number}", disabled)
    base = generator.random.choice(bases)
    flows = []
    for text, firmware in generator.flows(base):
        if not disabled or check(text, ALL_RULES).firmware is None:
            flows.append((text, firmware))
    result.checks, result.accepted = generator.checks, bool(flows)
    for text, firmware in (flows[-1:] + flows[len(flows) // 2 : -1][:1]) if flows else ():
        image = builder().build(firmware)
        result.built = result.built or image is not None
        if image is None:
            continue
        trial = tried(image, text, Random(f"{seed}/{number} vmm"), quick)
        result.text, result.found = text, trial.found
        result.runs, result.handed_over = result.runs + trial.runs, trial.handed_over
        if trial.handed_over or trial.found:
            break  # otherwise an earlier one may show more
    result.seconds = time.process_time() - start
    return result


def campaign(
    seed: str,
    numbers: range,
    jobs: int = 1,
    disabled: frozenset[str] = ALL_RULES,
    quick: bool = False,
) -> Iterator[Result]:
    """The results of the numbers, in order."""
    bases = tuple(path.read_text() for path in shipped_flows().values())
    work = partial(one, seed, bases, disabled=disabled, quick=quick)
    if jobs == 1:
        yield from map(work, numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, numbers, chunksize=2)


def small(result: Result, example: Counterexample, disabled: frozenset[str] = ALL_RULES) -> str:
    """The flow of a counterexample without what it does not need, with the two VMMs in front."""
    text = shrunk(result.text, example, builder(), lambda t: check(t, disabled).firmware)
    head = [f"// {example}", f"// VMM a: {example.one}"]
    if example.other is not None:
        head.append(f"// VMM b: {example.other}   (equal MRTD and RTMRs)")
    return "\n".join([*head, f"// {example.text[:300]}", text])


def without(rule: str) -> frozenset[str]:
    """What is taken out to see what a rule is for: it, and what would refuse the same flows for it."""
    return frozenset({rule, *BEHIND.get(rule, ())})


def broken_without(
    rule: str, seed: str, limit: int, jobs: int = 1
) -> tuple[int, Result | None, Counterexample | None]:
    """How many flows that only this rule refuses were tried until one showed what it is for, and that one."""
    tried_ = 0
    for result in campaign(f"{seed} {rule}", range(limit * WALKS), jobs, without(rule)):
        tried_ += result.built
        if result.found:
            return tried_, result, result.found[0]
        if tried_ >= limit:
            break
    return tried_, None, None


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


def prove(
    rules: list[str], seed: str, limit: int, jobs: int, save: Path | None
) -> dict[str, dict[str, object]]:
    """Takes out each rule alone; says after how many flows the campaign noticed."""
    figures: dict[str, dict[str, object]] = {}
    for rule in rules:
        count, result, example = broken_without(rule, seed, limit, jobs)
        if result is not None and example is not None:
            print(f"{rule}: noticed after {count}: {example}", flush=True)
            if save:
                keep(save, f"without-{rule}", seed, result, example, without(rule))
        else:
            known = UNNOTICED.get(rule)
            print(f"{rule}: not noticed in {count} flows" + (f" ({known})" if known else ""), flush=True)
        figures[rule] = {"flows": count, "found": str(example) if example else None}
    return figures


def keep(
    folder: Path, kind: str, seed: str, result: Result, example: Counterexample, disabled: frozenset[str]
) -> None:
    """Writes a counterexample, made small."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{kind} {' '.join(example.signature)}".lower()).strip("-")[:70]
    (folder / f"{name}-s{seed}n{result.number}.tdf").write_text(small(result, example, disabled))


def main(words: list[str]) -> int:
    """The command line; 1 if there is a counterexample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("flows", nargs="?", type=int, default=500, help="accepted flows to try (default 500)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--save", type=Path, help="folder for counterexamples, made small")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument(
        "--prove", action="store_true", help="take out one rule of the compiler after the other"
    )
    parser.add_argument("--rule", action="append", help="with --prove: only this one; may be repeated")
    parser.add_argument(
        "--limit", type=int, default=150, help="with --prove: flows for each rule (default 150)"
    )
    args = parser.parse_args(words)
    if args.prove:
        figures = prove(args.rule or list(RULES), args.seed, args.limit, args.jobs, args.save)
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1) + "\n")
        missed = [r for r, f in figures.items() if not f["found"] and r not in UNNOTICED]
        return 1 if missed else 0
    summary = Summary()
    for result in campaign(args.seed, range(args.flows * 3), args.jobs):
        for example in summary.add(result):
            print(f"{result.number}: {example}", flush=True)
            if args.save:
                keep(args.save, "", args.seed, result, example, ALL_RULES)
        if summary.flows % 50 == 0:
            print(f"... {summary.accepted} accepted of {summary.flows}", file=sys.stderr, flush=True)
        if summary.accepted >= args.flows:
            break
    print("\n".join(summary.lines()))
    if args.json:
        figures = {k: v for k, v in vars(summary).items() if k != "first"}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if summary.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
