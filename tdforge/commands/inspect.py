"""What does `tdforge inspect IMAGE` do? It shows layout, metadata and MRTD of an image."""

import argparse
from pathlib import Path

from image.inspect import inspect as facts_of
from tdforge import show
from tdforge.command import Command
from tdforge.errors import OK
from tdforge.files import read_image


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def inspect(given: argparse.Namespace) -> int:
    """Prints the facts of an image; returns the exit code. Raises UserError."""
    info = facts_of(read_image(given.image), place=str(given.image))
    if given.json:
        print(info.to_json(), end="")
        return OK
    console = show.out()
    console.print(show.table(info.rows(), headings=False))
    console.print()
    console.print(show.table(info.section_rows()))
    return OK


INSPECT = Command(
    "inspect",
    "show an image's layout, metadata and MRTD",
    ("tdforge inspect build/linux.bin --json",),
    add_options,
    inspect,
)
