"""What does `tdforge inspect IMAGE` do? It shows layout, metadata and MRTD of an image."""

import argparse
from pathlib import Path

from formats.errors import FormatError
from formats.igvm import is_igvm
from image.inspect import ImageInfo
from image.inspect import inspect as facts_of
from image.inspect_igvm import IgvmInfo, inspect_igvm
from tdforge import show
from tdforge.command import Command
from tdforge.errors import OK, UserError
from tdforge.files import checked, read


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def inspect(given: argparse.Namespace) -> int:
    """Prints the facts of an image; returns the exit code. Raises UserError."""
    info = _facts(given.image)
    if given.json:
        print(info.to_json(), end="")
        return OK
    console = show.out()
    console.print(show.table(info.rows(), headings=False))
    console.print()
    console.print(show.table(info.section_rows()))
    if isinstance(info, ImageInfo) and (rows := info.cfv_rows()):
        console.print()
        console.print(show.table(rows))
    return OK


def _facts(path: Path) -> ImageInfo | IgvmInfo:
    data = read(path, "image")
    if not is_igvm(data):
        return facts_of(checked(data, path), place=str(path))
    try:
        return inspect_igvm(data, place=str(path))
    except FormatError as error:
        raise UserError(str(error)) from error


COMMAND = Command(
    ("tdforge inspect build/linux.bin --json", "tdforge inspect build/linux.igvm"),
    add_options,
    inspect,
)
