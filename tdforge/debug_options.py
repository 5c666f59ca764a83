"""Which options look into a run, and what do they show? Trace, profile, timeline, gdb."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.debug import kernelsyms
from emu.debug.gdb import Debugger
from emu.debug.profile import Profile
from emu.debug.timeline import Timeline
from emu.debug.trace import JSON_SUFFIX, Trace
from emu.observe import Observer, Several
from emu.signals import EmuError
from tdforge import show
from tdforge.errors import UserError

ROWS = 40  # of a printed profile
MAX_PORT = 65535


def port(word: str) -> int:
    """argparse type: a TCP port, 0 for any that is free."""
    if not word.isascii() or not word.isdigit() or int(word) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{word!r} is not a port from 0 to {MAX_PORT}")
    return int(word)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `tdforge run` offers to look into a run."""
    look = parser.add_argument_group("observing the run (unused options cost nothing)")
    look.add_argument(
        "--trace", type=Path, metavar="FILE",
        help=f"TDCALLs, VMCALLs, exceptions, page states, mode switches; JSON if FILE ends in {JSON_SUFFIX}",
    )  # fmt: skip
    look.add_argument(
        "--profile", action="store_true", help="count instructions by symbol, exactly; also in the report"
    )
    look.add_argument(
        "--timeline", type=Path, metavar="FILE.html", help="one page with a timeline of the run"
    )
    look.add_argument(
        "--gdb", type=port, metavar="PORT", help="wait for gdb on 127.0.0.1 before the first instruction"
    )
    look.add_argument(
        "--symbols", type=Path, metavar="FILE", help="the kernel's symbols: a System.map or a vmlinux"
    )


@dataclass
class Observers:
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
def observers(given: argparse.Namespace, title: str) -> Iterator[Observers]:
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
            yield Observers(Several(tuple(found)) if found else None, profile)
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
