"""What does `tdforge diff-run A B` do? It shows the first difference of two runs."""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emu.debug import diff
from emu.debug.events import Event
from emu.debug.trace import Trace, text
from emu.signals import EmuError
from formats import tdvf
from formats.errors import FormatError
from tdforge import machine_options, show
from tdforge.command import Command
from tdforge.errors import OK, UserError
from tdforge.running import run_td

DIFFERENT = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    for name in ("a", "b"):
        parser.add_argument(
            name, type=Path, metavar=name.upper(), help="an image, a trace, or a report as JSON"
        )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    both = parser.add_argument_group("options for two images, as in `tdforge run`")
    machine_options.add_options(both, both)


def is_image(path: Path) -> bool:
    """Whether a file is a TD image."""
    try:
        tdvf.metadata(path.read_bytes(), place=str(path))
    except FormatError:
        return False
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return True


def read_report(path: Path) -> Any:
    """The JSON object of a boot report, None if the file is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError):
        return None
    return found if isinstance(found, dict) and "kind" not in found else None


def diff_run(given: argparse.Namespace) -> int:
    """Images are run first."""
    images = [is_image(path) for path in (given.a, given.b)]
    if any(images) and not all(images):
        raise UserError(f"{given.a} and {given.b}: one is an image, the other is not")
    try:
        if all(images):
            with tempfile.TemporaryDirectory() as folder:
                pair = enumerate((given.a, given.b))
                files = [record(given, path, Path(folder) / f"{n}.jsonl") for n, path in pair]
                return report_events(diff.traces(*(diff.read_trace(file) for file in files)), given)
        reports = [read_report(path) for path in (given.a, given.b)]
        if all(report is not None for report in reports):
            return report_values(list(diff.values(*reports)), given)
        return report_events(diff.traces(diff.read_trace(given.a), diff.read_trace(given.b)), given)
    except EmuError as error:
        raise UserError(str(error)) from error


def record(given: argparse.Namespace, image: Path, file: Path) -> Path:
    """Runs an image and leaves its trace."""
    with Trace(file) as trace:
        run_td(machine_options.run_config(given, image), None, observer=trace)
    return file


def report_values(found: list[tuple[str, Any, Any]], given: argparse.Namespace) -> int:
    """Differences of two reports."""
    if given.json:
        values = [dict(zip(("place", "a", "b"), one, strict=True)) for one in found]
        print(json.dumps({"same": not found, "differences": values}, indent=2))
        return DIFFERENT if found else OK
    if not found:
        print("the same: all values of both reports")
        return OK
    place, a, b = found[0]
    print(f"first difference: {place}")
    print(f"  A {given.a}: {show.console_text(str(a))}")
    print(f"  B {given.b}: {show.console_text(str(b))}")
    if len(found) > 1:
        print(f"and {len(found) - 1} more values")
    return DIFFERENT


def line(event: dict[str, Any]) -> str:
    """An event on one line."""
    parts: dict[str, Any] = {"rip": 0, "symbol": "?"} | event
    return show.console_text(text(Event(**parts)))


def report_events(outcome: diff.Outcome, given: argparse.Namespace) -> int:
    """Differences of two traces."""
    if given.json:
        print(json.dumps(asdict(outcome) | {"same": outcome.same}, indent=2))
        return OK if outcome.same else DIFFERENT
    if outcome.same:
        print(f"the same: {outcome.events:,} events")
        return OK
    if outcome.when:
        at = outcome.when
        print(f"first difference in time or place: event {at.number:,} ({', '.join(at.keys)})")
        sides(at, given)
    if outcome.done:
        at = outcome.done
        print(f"first different event: event {at.number:,} ({', '.join(at.keys)})")
        sides(at, given)
    else:
        print(f"the actions are the same: {outcome.events:,} events")
    return DIFFERENT


def sides(found: diff.Difference, given: argparse.Namespace) -> None:
    """Both runs at a difference, with what came before."""
    for event in found.before:
        print(f"    {line(event)}")
    for name, side in (("A", found.first), ("B", found.second)):
        print(f"  {name} {line(side) if side else 'ended before'}")


COMMAND = Command(
    (
        "tdforge diff-run before.jsonl after.jsonl",
        "tdforge diff-run old/linux.bin new/linux.bin --kernel vmlinuz --vcpus 4",
    ),
    add_options,
    diff_run,
)
