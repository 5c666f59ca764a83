"""What does `nox -s logs -- DIR` do? It replays every event log in a folder against the quotes beside it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from formats.errors import FormatError
from formats.eventlog import PCR_EVENT, RTMR_COUNT, SPEC_ID_SIGNATURE, Event
from formats.units import MIB
from tdforge import evidence, log_verify, show
from tdforge.commands.eventlog import read_log
from tdforge.errors import FAILED, OK, UserError, exit_code
from tdforge.files import read
from tdforge.log_verify import Finding

NO_QUOTE = "no quote beside it"
MAX_EVIDENCE = 64 * MIB  # bytes; more than a report of the longest console


@dataclass(frozen=True)
class Verdict:
    """Of a log and one quote: whether they fit, and in words why not."""

    log: Path
    good: bool
    text: str


def verdicts(folder: Path) -> Iterator[Verdict]:
    """Every log below a folder: the quotes that it fits, else each quote that it does not. UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    logs = [path for path in files if is_log(path)]
    if not logs:
        raise UserError(f"no event log in {folder}")
    for log in logs:
        beside = (path for path in files if path.parent == log.parent and path not in logs)
        yield from _of_log(log, {path: found for path in beside if (found := _evidence(path))})


def is_log(path: Path) -> bool:
    """Whether a file begins as a log does, whatever comes then."""
    head = PCR_EVENT.sizeof() + len(SPEC_ID_SIGNATURE)
    with path.open("rb") as file:
        return file.read(head)[PCR_EVENT.sizeof() :] == SPEC_ID_SIGNATURE


def _evidence(path: Path) -> evidence.Evidence | None:
    """What a file states, None if it is something else."""
    if path.stat().st_size > MAX_EVIDENCE:
        return None
    try:
        return evidence.parse(read(path, "file"), path)
    except FormatError:
        return None


def _of_log(path: Path, stated: dict[Path, evidence.Evidence]) -> Iterator[Verdict]:
    try:
        events = read_log(path)
    except UserError as error:
        yield Verdict(path, False, f"unreadable: {error}")
        return
    count = f"{len(events)} events"
    for wrong in log_verify.own_data(events):
        yield Verdict(path, False, wrong.text)
    if not stated:
        yield Verdict(path, True, f"{count}, {NO_QUOTE}")
    found = {other: list(_misfits(events, each)) for other, each in stated.items()}
    fitting = [other for other, misfits in found.items() if not misfits]
    for other in fitting or found:
        source = f"{other.name} ({stated[other].registers.source})"
        why = "; ".join(f"{each.what}: {each.text}" for each in found[other])
        yield Verdict(path, not why, f"{count}, {source}: {why or 'fits'}")


def _misfits(events: Sequence[Event], stated: evidence.Evidence) -> Iterator[Finding]:
    for each in log_verify.registers(events, stated, range(RTMR_COUNT), {}):
        if not each.fits:
            yield each


def parser() -> argparse.ArgumentParser:
    """Options of `./run logs`."""
    made = argparse.ArgumentParser(
        prog="./run logs --",
        description="Replay every event log below a folder, compare it with the quotes, TDREPORTs and "
        "reports of runs beside it, and print verdicts.",
        epilog="example: ./run logs -- captures",
    )
    made.add_argument("folder", type=Path, metavar="DIR")
    return made


def logs(folder: Path) -> int:
    """0 if each log can be read and fits a quote beside it, if there is one. UserError."""
    found = list(verdicts(folder))
    rows = [(str(each.log), "good" if each.good else "BAD", each.text) for each in found]
    show.out().print(show.table(rows, headings=False))
    return OK if all(each.good for each in found) else FAILED


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = parser().parse_args(words)
    return exit_code(lambda: logs(given.folder))


if __name__ == "__main__":
    sys.exit(main())
