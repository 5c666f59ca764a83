"""What does `tdforge fmt FLOW...` do? It formats flow files."""

import argparse
import sys

from dsl.api import CheckFailed, format_source
from tdforge.building import print_diagnostics
from tdforge.command import Command
from tdforge.errors import FAILED, OK, UserError
from tdforge.files import read, write
from tdforge.flows import find_flow


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("flows", nargs="+", metavar="FLOW", help="a flow file, or the name of a shipped flow")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if a file would change"
    )


def fmt(given: argparse.Namespace) -> int:
    """Every file that can be formatted is, whatever the others hold."""
    changed = broken = 0
    for flow in [find_flow(name) for name in given.flows]:
        try:
            before = read(flow, "flow").decode()
            after = format_source(before, str(flow))
        except UnicodeDecodeError:
            print(f"{flow}: not UTF-8 text", file=sys.stderr)
            broken += 1
            continue
        except CheckFailed as error:
            print_diagnostics(error.diagnostics)
            broken += 1
            continue
        if after == before:
            continue
        changed += 1
        if not given.check:
            write(flow, after.encode())
        print(f"{flow}: {'is not formatted' if given.check else 'formatted'}")
    if broken:
        raise UserError(f"{broken} of {len(given.flows)} files could not be formatted")
    return FAILED if given.check and changed else OK


COMMAND = Command(("tdforge fmt my.tdf --check",), add_options, fmt)
