"""What does `tdforge build FLOW` do? A flow becomes a TD image and its manifest."""

import argparse
from pathlib import Path

from tdforge.building import build_flow
from tdforge.command import Command
from tdforge.errors import OK
from tdforge.files import read
from tdforge.flows import find_flow, short

TDVF, IGVM = "tdvf", "igvm"


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("flow", metavar="FLOW", help="a flow file, or the name of a shipped flow")
    parser.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    parser.add_argument(
        "--format", choices=(TDVF, IGVM), default=TDVF,
        help="igvm: an IGVM file of the same pages beside the TDVF image; default: tdvf",
    )  # fmt: skip
    parser.add_argument(
        "--payload", type=Path, metavar="FILE",
        help="the file that becomes part of the image where the flow says `from payload`: ELF, PE or kernel",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the manifest")


def build(given: argparse.Namespace) -> int:
    """Builds a flow, prints what came of it; returns the exit code. Raises UserError."""
    igvm = given.format == IGVM
    result = build_flow(find_flow(given.flow), given.out, igvm=igvm, payload=given.payload)
    if given.json:
        print(read(result.manifest, "manifest").decode(), end="")
    else:
        image = result.igvm if igvm else result.image
        size = image.stat().st_size
        print(f"{short(image)}  ({size:,} bytes; manifest in {short(result.manifest)})")
    return OK


COMMAND = Command(
    (
        "tdforge build linux -o build",
        "tdforge build linux --format igvm",
        "tdforge build payload --payload FILE",
    ),
    add_options,
    build,
)
