"""What does `tdforge check FLOW|IMAGE` do? It names every rule that a flow or an image breaks."""

import argparse
import json
import sys
from pathlib import Path

from dsl.api import check_file
from image.check import check_image
from tdforge.building import counted, print_diagnostics
from tdforge.command import Command
from tdforge.errors import FAILED, OK, UserError
from tdforge.files import read
from tdforge.flows import SUFFIX, find_flow


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("subject", metavar="FLOW|IMAGE", help="a flow file or name, or an image file")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def check(given: argparse.Namespace) -> int:
    """A name that ends in .tdf or is no file is a flow."""
    path = Path(given.subject)
    if len(path.parts) > 1 and path.suffix not in ("", SUFFIX) and not path.exists():
        raise UserError(f"no file {path}")
    if path.suffix == SUFFIX or not path.is_file():
        return _check_flow(find_flow(given.subject), given.json)
    return _check_image(path, given.json)


def _check_flow(flow: Path, as_json: bool) -> int:
    diagnostics = list(check_file(flow).diagnostics)
    if as_json:
        print(json.dumps([diagnostic.render(color=False) for diagnostic in diagnostics], indent=2))
    elif diagnostics:
        print_diagnostics(diagnostics)
        print(f"{flow}: {counted(diagnostics)}", file=sys.stderr)
    else:
        print(f"{flow}: obeys every rule")
    return FAILED if diagnostics else OK


def _check_image(path: Path, as_json: bool) -> int:
    findings = check_image(read(path, "image"), place=str(path))
    if as_json:
        keys = ("code", "place", "found", "expected", "refused_by", "source")
        print(json.dumps([{key: getattr(finding, key) for key in keys} for finding in findings], indent=2))
    elif findings:
        for finding in findings:
            print(f"{finding.code}: {finding.text}", file=sys.stderr)
    else:
        print(f"{path}: obeys every rule of the VMMs that it targets")
    return FAILED if findings else OK


CHECK = Command(
    "check",
    "check a flow, or an image against the rules of the VMMs",
    ("tdforge check dsl/flows/linux.tdf", "tdforge check build/linux.bin"),
    add_options,
    check,
)
