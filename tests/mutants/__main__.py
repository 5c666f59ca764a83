"""Which mutants do the tests notice? `./run mutants`, or `python -m tests.mutants`.

Exit code 0: at least 95 % are noticed and each survivor is explained in the list; 1: not so; 2: the list is
wrong.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence

from .catalogue import CatalogueError, Mutant, read_catalogue
from .runner import Outcome, Result, run

LEAST = 0.95
WORKERS = 2


def chosen(mutants: Sequence[Mutant], words: Sequence[str]) -> list[Mutant]:
    """Those whose room, file or name is among the words; all if there are none. CatalogueError."""
    if unknown := [w for w in words if not any(w in (m.room, m.path, m.name) for m in mutants)]:
        raise CatalogueError(f"no room, file or mutant is called {', '.join(unknown)}")
    return [m for m in mutants if not words or {m.room, m.path, m.name} & set(words)]


def noticed(results: Sequence[Result]) -> float:
    """The share of the mutants that a test can tell from the original which one does."""
    judged = [result for result in results if result.outcome is not Outcome.EQUIVALENT]
    return sum(result.outcome is Outcome.KILLED for result in judged) / len(judged) if judged else 1.0


def table(results: Sequence[Result]) -> str:
    """The score by room, as a Markdown table."""
    lines = ["| Room | Mutants | Killed | Equivalent | Survived |", "|---|---|---|---|---|"]
    rooms = sorted({result.mutant.room for result in results})
    for room in (*rooms, None):
        count = Counter(r.outcome for r in results if room in (r.mutant.room, None))
        name = f"`{room}`" if room else "**all**"
        numbers = (count[Outcome.KILLED], count[Outcome.EQUIVALENT], count[Outcome.SURVIVED])
        lines.append(f"| {name} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run mutants --", description="Tries small faults on the tests.")
    parser.add_argument("subset", nargs="*", help="rooms, files or names of mutants; default: all")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="default: %(default)s")
    given = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # clears up as Ctrl-C does
    try:
        mutants = chosen(read_catalogue(), given.subset)
        if given.list:
            print("\n".join(f"{m.room:12}  {m.name}" for m in mutants))
            return 0
        done = 0

        def tell(result: Result) -> None:
            nonlocal done
            done += 1
            progress = f"{done:3}/{len(mutants)} {result.outcome:10} {result.mutant.name}: {result.detail}"
            print(progress, file=sys.stderr, flush=True)

        results = run(mutants, max(1, given.workers), tell)
    except CatalogueError as error:
        print(error, file=sys.stderr)
        return 2
    survivors = [result for result in results if result.outcome is Outcome.SURVIVED]
    if given.json:
        keys = ("room", "name", "path", "why", "covers", "equivalent")
        rows = [
            {key: getattr(r.mutant, key) for key in keys} | {"outcome": r.outcome, "detail": r.detail}
            for r in results
        ]
        print(json.dumps(rows, indent=2))
    else:
        print(table(results))
        print(f"\nnoticed: {noticed(results):.1%} of those that a test can tell; wanted: {LEAST:.0%}")
        for result in survivors:
            print(f"survived: {result.mutant.name} ({result.mutant.path}): {result.mutant.why}")
    return 1 if survivors or noticed(results) < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
