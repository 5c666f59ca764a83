"""What does `tdforge sample` do? It writes a payload that checks how it is handed over to."""

import argparse
from pathlib import Path

from tdforge.command import Command
from tdforge.errors import OK, UserError
from tdforge.files import write
from tdforge.flows import short

FORMATS = ("elf", "elf-relr", "elf-exec", "pe")


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="elf",
        help="elf (the default): ELF64, static-pie, DT_RELA; elf-relr: the same with DT_RELR; "
        "elf-exec: linked to 32 MiB; pe: PE32+ with base relocations",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")


def sample(given: argparse.Namespace) -> int:
    """Builds the sample, writes it; returns the exit code. Raises UserError."""
    from gen.errors import BuildError  # PeachPy: who only runs or checks need not have it
    from gen.link.sample import sample as build

    try:
        data = build(given.format)
    except BuildError as error:
        raise UserError(str(error)) from error
    write(given.out, data)
    print(f"{short(given.out)}  ({len(data):,} bytes)")
    return OK


COMMAND = Command(
    ("tdforge sample --format pe -o build/sample.efi",),
    add_options,
    sample,
)
