"""Which commands are there, and what becomes of a command line? The work is in tdforge/commands/.

Exit codes: 0 done, 1 could not be done (one sentence on standard error), 2 wrong usage.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module

from tdforge import __version__
from tdforge.command import Command
from tdforge.errors import UsageError, exit_code

# Each command's summary; its module is imported when it is called.
COMMANDS = {
    "build": "build a TD image from a flow",
    "check": "check a flow, or an image against the rules of the VMMs",
    "fmt": "format flow files",
    "inspect": "show an image's layout, metadata and MRTD",
    "sign": "sign a payload",
    "enroll": "put a trust anchor and files into an image's CFV",
    "verify": "verify a signed payload as the firmware of an image does",
    "run": "start an image in the emulated TD (no TDX hardware is used or needed)",
    "launch": "start an image on QEMU without TDX, or print how a host with TDX starts it",
    "eventlog": "show an event log, replay it, or compare it with a quote and files",
    "diff-run": "compare two runs: two images, traces or reports",
    "sample": "write a payload that checks how it is handed over to",
}


def command(name: str) -> Command:
    """A command's options and work. Its module takes longest of all that a short command does."""
    module = import_module(f"tdforge.commands.{name.replace('-', '_')}")
    found: Command = module.COMMAND
    return found


class CommandParser(argparse.ArgumentParser):
    """The words of a command. `name`: whose options it has as soon as words are given to it."""

    name = ""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """What ArgumentParser makes of the words."""
        if self.name:
            named, self.name = command(self.name), ""
            self.epilog = "\n".join(f"example: {example}" for example in named.examples)
            named.add_options(self)
            self.set_defaults(work=named.work)
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="tdforge",
        description="Intel TDX virtual firmware, generated from a boot flow.",
        epilog="example: tdforge build linux && tdforge run build/linux.bin --kernel vmlinuz",
    )
    top.add_argument("--version", action="version", version=f"tdforge {__version__}")
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, summary in COMMANDS.items():
        sub = subs.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.name = name
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
