"""Which options look into a run, and what do they show? Trace, profile, timeline, gdb, snapshot, diff-run."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emu.api import RunConfig
from emu.debug import diff, kernelsyms
from emu.debug.gdb import Debugger
from emu.debug.profile import Profile
from emu.debug.timeline import Timeline
from emu.debug.trace import JSON_SUFFIX, Trace, text
from emu.observe import Observer, Several
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.snapshot.file import Snapshot
from formats import tdvf
from formats.errors import FormatError
from tdforge import show
from tdforge.errors import UserError
from tdforge.launch import launch

OK, DIFFERENT = 0, 1
ROWS = 40  # of a printed profile
MAX_PORT = 65535


def port(word: str) -> int:
    """argparse type: a TCP port, 0 for any that is free."""
    if not word.isascii() or not word.isdigit() or int(word) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{word!r} is not a port from 0 to {MAX_PORT}")
    return int(word)


def add_options(run: argparse.ArgumentParser) -> None:
    """What `tdforge run` offers to look into a run."""
    look = run.add_argument_group("looking into the run (what is not asked for costs nothing)")
    look.add_argument(
        "--trace", type=Path, metavar="FILE",
        help=f"TDCALLs, VMCALLs, exceptions, page states, mode switches; JSON if FILE ends in {JSON_SUFFIX}",
    )  # fmt: skip
    look.add_argument(
        "--profile", action="store_true", help="count instructions by symbol, exactly; the report has it too"
    )
    look.add_argument("--timeline", type=Path, metavar="FILE.html", help="one page: what happened when")
    look.add_argument(
        "--gdb", type=port, metavar="PORT", help="wait for a gdb on 127.0.0.1 before the first instruction"
    )
    look.add_argument(
        "--symbols", type=Path, metavar="FILE", help="the kernel's symbols: a System.map or a vmlinux"
    )
    points = run.add_argument_group("snapshots")
    points.add_argument("--save", type=Path, metavar="FILE", help="save the run when --until comes to pass")
    points.add_argument("--resume", type=Path, metavar="FILE", help="go on from a saved point; no IMAGE then")


def add_diff_options(two: argparse.ArgumentParser, machine: Sequence[argparse.Action]) -> None:
    """What `tdforge diff-run` takes: two subjects, and the machine's options for both of two images."""
    for name in ("a", "b"):
        two.add_argument(name, type=Path, metavar=name.upper(), help="an image, a trace, or a report as JSON")
    two.add_argument("--json", action="store_true", help="print what was found as JSON")
    both = two.add_argument_group("for two images, as in `tdforge run`")
    for action in machine:
        both._add_action(action)


def resumed(given: argparse.Namespace) -> tuple[RunConfig, Snapshot]:
    """The run of a snapshot file. UserError, also for options that the snapshot has already settled."""
    for name, default in given.machine.items():
        if name != "until" and getattr(given, name) != default:
            option = "IMAGE" if name == "image" else f"--{name.replace('_', '-')}"
            raise UserError(f"{option} cannot be given with --resume: the snapshot holds it")
    try:
        config, point = snapshot.read(given.resume)
    except EmuError as error:
        raise UserError(str(error)) from error
    if point.handed_over and given.until == "handoff":
        raise UserError(f"{given.resume} lies behind the handoff: give another --until")
    return replace(config, until=given.until), point


@dataclass
class Looking:
    """The observers of one run."""

    observer: Observer | None
    profile: Profile | None

    def facts(self) -> dict[str, Any]:
        """What goes into the report."""
        if not self.profile:
            return {}
        return {"profile": {row.name: row.instructions for row in self.profile.rows}}

    def show(self) -> None:
        """What goes to standard error once the run is over."""
        if self.profile:
            print_profile(self.profile)


@contextmanager
def looking(given: argparse.Namespace, title: str) -> Iterator[Looking]:
    """The observers that the options ask for; files are complete when the block ends. UserError."""
    try:
        kernel = kernelsyms.read(given.symbols) if given.symbols else None
        with ExitStack() as stack:
            found: list[Observer] = []
            profile = Profile(kernel) if given.profile else None
            if profile:
                found.append(profile)
            if given.trace:
                found.append(stack.enter_context(Trace(given.trace, kernel)))
            if given.timeline:
                given.timeline.touch()
                timeline = Timeline(title, kernel)
                found.append(timeline)
                stack.callback(timeline.write, given.timeline)
            if given.gdb is not None:
                debugger = Debugger(given.gdb, print_line)
                stack.callback(debugger.close)
                found.append(debugger)
            yield Looking(Several(tuple(found)) if found else None, profile)
    except EmuError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        if error.filename is None:  # a stream that was open already
            raise
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error


def print_line(line: str) -> None:
    """A line for the person, on standard error."""
    show.err().print(line)


def print_profile(profile: Profile) -> None:
    """The table of a profile."""
    rows = [("instructions", "share", "symbol")]
    rows += [(f"{row.instructions:,}", f"{row.share:.2%}", row.name) for row in profile.rows[:ROWS]]
    rest = profile.rows[ROWS:]
    if rest:
        total, share = sum(row.instructions for row in rest), sum(row.share for row in rest)
        rows.append((f"{total:,}", f"{share:.2%}", f"({len(rest)} more)"))
    everything = sum(row.instructions for row in profile.rows)
    rows.append((f"{everything:,}", "", "all"))
    number, share_width = (max(len(row[at]) for row in rows) for at in (0, 1))
    aligned = [(row[0].rjust(number), row[1].rjust(share_width), row[2]) for row in rows]
    console = show.err()
    console.print()
    console.print(show.table(aligned))


# -- tdforge diff-run


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
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) and "kind" not in found else None


def diff_run(given: argparse.Namespace) -> int:
    """`tdforge diff-run A B`: images are run first."""
    images = [is_image(path) for path in (given.a, given.b)]
    if any(images) and not all(images):
        raise UserError(f"{given.a} and {given.b}: one is an image, the other is not")
    try:
        if all(images):
            with tempfile.TemporaryDirectory() as folder:
                pair = enumerate((given.a, given.b))
                files = [record(given, path, Path(folder) / f"{n}.jsonl") for n, path in pair]
                return tell(diff.traces(*(diff.read_trace(file) for file in files)), given)
        reports = [read_report(path) for path in (given.a, given.b)]
        if all(report is not None for report in reports):
            return tell_values(list(diff.values(*reports)), given)
        return tell(diff.traces(diff.read_trace(given.a), diff.read_trace(given.b)), given)
    except EmuError as error:
        raise UserError(str(error)) from error


def record(given: argparse.Namespace, image: Path, file: Path) -> Path:
    """Runs an image and leaves its trace."""
    from tdforge.commands import wanted

    one = argparse.Namespace(**(vars(given) | {"image": image, "resume": None}))
    with Trace(file) as trace:
        launch(wanted(one), None, observer=trace)
    return file


def tell_values(found: list[tuple[str, Any, Any]], given: argparse.Namespace) -> int:
    """Differences of two reports."""
    if given.json:
        values = [dict(zip(("place", "a", "b"), one, strict=True)) for one in found]
        print(json.dumps({"same": not found, "differences": values}, indent=2))
        return DIFFERENT if found else OK
    if not found:
        print("the same: every value of both reports")
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
    from emu.debug.events import Event

    parts: dict[str, Any] = {"rip": 0, "symbol": "?"} | event
    return show.console_text(text(Event(**parts)))


def tell(outcome: diff.Outcome, given: argparse.Namespace) -> int:
    """Differences of two traces."""
    if given.json:
        print(json.dumps(asdict(outcome) | {"same": outcome.same}, indent=2))
        return OK if outcome.same else DIFFERENT
    if outcome.same:
        print(f"the same: {outcome.events:,} events")
        return OK
    if outcome.when:
        at = outcome.when
        print(f"first at another time or place: event {at.number:,} ({', '.join(at.keys)})")
        sides(at, given)
    if outcome.done:
        at = outcome.done
        print(f"first other event: event {at.number:,} ({', '.join(at.keys)})")
        sides(at, given)
    else:
        print(f"what was done is the same: {outcome.events:,} events")
    return DIFFERENT


def sides(found: diff.Difference, given: argparse.Namespace) -> None:
    """Both runs at a difference, with what came before."""
    for event in found.before:
        print(f"    {line(event)}")
    for name, side in (("A", found.first), ("B", found.second)):
        print(f"  {name} {line(side) if side else 'ended before'}")
