"""What does `tdforge check FLOW|IMAGE` do? It names every rule that a flow breaks, and who loads an image."""

import argparse
import json
import sys
from pathlib import Path

from dsl.api import check_file
from formats import igvm
from formats.errors import FormatError
from formats.igvm import is_igvm
from image.check import Finding, check_image
from image.hosts import VMMS, Verdict, verdicts
from image.igvm import NO_IGVM, check_igvm
from tdforge.building import counted, print_diagnostics
from tdforge.command import Command
from tdforge.errors import FAILED, OK, UserError
from tdforge.files import read
from tdforge.flows import SUFFIX, find_flow


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("subject", metavar="FLOW|IMAGE", help="a flow file or name, or an image file")
    parser.add_argument(
        "--for",
        dest="vmms",
        action="append",
        choices=VMMS,
        metavar="VMM",
        help=f"an image for this VMM, may be repeated; known: {', '.join(VMMS)}; default: each of them",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def check(given: argparse.Namespace) -> int:
    """A name that ends in .tdf, or is neither a file nor a device, is a flow: a pipe is one."""
    path = Path(given.subject)
    if len(path.parts) > 1 and path.suffix not in ("", SUFFIX) and not path.exists():
        raise UserError(f"no file {path}")
    if path.suffix == SUFFIX or not (path.is_file() or path.is_char_device() or path.is_block_device()):
        if given.vmms:
            raise UserError("--for is for an image, not for a flow")
        return _check_flow(find_flow(given.subject), given.json)
    return _check_image(path, given.vmms, given.json)


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


def _check_image(path: Path, vmms: list[str] | None, as_json: bool) -> int:
    """A line for each VMM, then what keeps the image from being portable. If none is named, one is enough."""
    image = read(path, "image")
    if is_igvm(image):
        return _check_igvm(image, path, vmms or [], as_json)
    found, findings = verdicts(image, vmms or VMMS), check_image(image, place=str(path))
    if as_json:
        rows = [
            {"vmm": v.vmm, "accepts": v.accepts, "refusals": [vars(refusal) for refusal in v.refusals]}
            for v in found
        ]
        print(json.dumps({"vmms": rows, "portability": [vars(finding) for finding in findings]}, indent=2))
    else:
        for verdict in found:
            print(_line(path, verdict))
        for finding in findings:
            print(f"not portable: {finding.code}: {finding.text}", file=sys.stderr)
    enough = all if vmms else any
    return OK if enough(verdict.accepts for verdict in found) else FAILED


def _check_igvm(data: bytes, path: Path, vmms: list[str], as_json: bool) -> int:
    """By the format's definitions: no VMM of the table loads an IGVM file into a TD."""
    try:
        findings = check_igvm(igvm.read(data, place=str(path)), place=str(path))
    except FormatError as error:
        findings = [
            Finding("igvm", error.place, error.found, error.expected, "microsoft/igvm igvm_defs/src/lib.rs")
        ]
    if as_json:
        rows = [{"vmm": vmm, "accepts": False, "refusals": [{"found": NO_IGVM}]} for vmm in vmms]
        print(json.dumps({"vmms": rows, "findings": [vars(finding) for finding in findings]}, indent=2))
    else:
        for vmm in vmms:
            print(f"{vmm}: refuses {path}: {NO_IGVM}")
        for finding in findings:
            print(f"{finding.code}: {finding.text}", file=sys.stderr)
        if not findings:
            print(f"{path}: an IGVM file for TDX that obeys every rule")
    return FAILED if findings or vmms else OK


def _line(path: Path, verdict: Verdict) -> str:
    if verdict.accepts:
        return f"{verdict.vmm}: loads {path}"
    rest = len(verdict.refusals) - 1
    more = f"; {rest} more, see --json" if rest else ""
    return f"{verdict.vmm}: refuses {path}: {verdict.refusals[0].text}{more}"


COMMAND = Command(
    (
        "tdforge check dsl/flows/linux.tdf",
        "tdforge check build/linux.bin",
        "tdforge check build/linux.igvm",
        "tdforge check OVMF.fd --for qemu",
    ),
    add_options,
    check,
)
