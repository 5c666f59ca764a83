"""What does `tdforge enroll IMAGE --key KEY` do? It puts a trust anchor, and files, into the image's CFV."""

import argparse
from pathlib import Path
from uuid import UUID

from formats import cfv
from formats.errors import FormatError
from image.enroll import enroll as enrolled
from image.enroll import volume_section
from image.igvm import write_igvm
from image.keys import key_hash, public_key
from tdforge.command import Command, Once
from tdforge.commands.build import IGVM, TDVF
from tdforge.commands.sign import number
from tdforge.errors import OK, UsageError, UserError
from tdforge.files import read, read_image, write


def named_file(text: str) -> tuple[UUID, Path]:
    """GUID=PATH."""
    name, equals, path = text.partition("=")
    try:
        guid = UUID(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name!r} is no GUID; expected GUID=PATH") from error
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r} names no file; expected GUID=PATH")
    return guid, Path(path)


def add_cfv(parser: argparse.ArgumentParser) -> None:
    """Which CFV of the image."""
    parser.add_argument(
        "--cfv", type=number, action=Once, metavar="GPA",
        help="where the CFV lies, in an image with several: 0xffdc0000",
    )  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--key", type=Path, action=Once, metavar="FILE",
        help="the key that payloads are signed with, public or private, PEM or DER",
    )  # fmt: skip
    parser.add_argument(
        "--file", type=named_file, action="append", default=[], metavar="GUID=PATH", dest="files",
        help="a file for the CFV, may be repeated; behind the anchor, in this order",
    )  # fmt: skip
    add_cfv(parser)
    parser.add_argument(
        "--format", choices=(TDVF, IGVM), default=TDVF, help="igvm: write an IGVM file; default: tdvf"
    )
    parser.add_argument("-o", "--out", type=Path, action=Once, required=True, metavar="FILE")


def enroll(given: argparse.Namespace) -> int:
    """Writes the image with a new volume in its CFV; returns the exit code. Raises UserError."""
    if not given.key and not given.files:
        raise UsageError("expected --key or --file")
    image, place = read_image(given.image), str(given.image)
    files: list[tuple[UUID, bytes]] = []
    try:
        section = volume_section(image, gpa=given.cfv, place=place)
        if given.key:
            key = public_key(read(given.key, "key"), place=str(given.key))
            files.append((cfv.ANCHOR_FILE, cfv.anchor(key_hash(key))))
        files += [(name, read(path, "file")) for name, path in given.files]
        data = enrolled(image, files, gpa=given.cfv, place=place)
        if given.format == IGVM:
            data = write_igvm(data, place=place)
    except FormatError as error:
        raise UserError(str(error)) from error
    write(given.out, data)
    count = f"{len(files)} file" + ("s" if len(files) != 1 else "")
    print(f"{given.out}  ({len(data):,} bytes; {count} in the CFV at GPA {section.address:#x})")
    if given.key:
        print(f"trust anchor: SHA-384 {key_hash(key).hex()}")
    print(
        "MRTD changes: this CFV is measured"
        if section.measured
        else "MRTD does not change: it does not cover what lies in a CFV"
    )
    return OK


COMMAND = Command(
    (
        "tdforge enroll build/my.bin --key key.pem -o build/my.enrolled.bin",
        "tdforge enroll my.bin --file F10E684E-3ABD-20E4-5932-8F973C355E57=test.json -o my.enrolled.bin",
    ),
    add_options,
    enroll,
)
