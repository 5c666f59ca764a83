"""Which commands are there, and what becomes of a command line? The work is in tdforge/commands/.

Exit codes: 0 done, 1 could not be done (one sentence on standard error), 2 wrong usage.
"""

import argparse
import io
import sys
from collections.abc import Sequence

from tdforge import __version__
from tdforge.commands.build import BUILD
from tdforge.commands.check import CHECK
from tdforge.commands.diff_run import DIFF_RUN
from tdforge.commands.enroll import ENROLL
from tdforge.commands.fmt import FMT
from tdforge.commands.inspect import INSPECT
from tdforge.commands.launch import LAUNCH
from tdforge.commands.run import RUN
from tdforge.commands.sample import SAMPLE
from tdforge.commands.sign import SIGN
from tdforge.commands.verify import VERIFY
from tdforge.errors import UsageError, exit_code

COMMANDS = (BUILD, CHECK, FMT, INSPECT, SIGN, ENROLL, VERIFY, RUN, LAUNCH, DIFF_RUN, SAMPLE)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="tdforge",
        description="Intel TDX virtual firmware, generated from a boot flow.",
        epilog="example: tdforge build linux && tdforge run build/linux.bin --kernel vmlinuz",
    )
    top.add_argument("--version", action="version", version=f"tdforge {__version__}")
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = subs.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog="\n".join(f"example: {example}" for example in command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(sub)
        sub.set_defaults(work=command.work)
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # of a file name, bytes that are no text pass as they are
        sys.stdout.reconfigure(errors="surrogateescape")
    top = parser()
    given = top.parse_args(words)
    try:
        return exit_code(lambda: int(given.work(given)))
    except UsageError as error:
        top.error(str(error))
