"""What does `tdforge verify IMAGE SIGNED` do? It says whether the image may start the payload."""

import argparse
from hashlib import sha384
from pathlib import Path
from typing import Any

from dsl.capabilities import prelude
from formats import cfv, signed
from formats.errors import FormatError
from gen.core import hostlib
from gen.errors import BuildError
from image.enroll import content, volume_section
from tdforge.command import Command, Once
from tdforge.commands.sign import NAMES, number
from tdforge.errors import OK, UserError
from tdforge.files import read, read_image


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image that a key was enrolled in")
    parser.add_argument("signed", type=Path, metavar="SIGNED", help="a signed payload")
    parser.add_argument(
        "--minimum-svn",
        type=number,
        action=Once,
        default=0,
        metavar="N",
        help="refuse a lower SVN; default: 0",
    )


def verify(given: argparse.Namespace) -> int:
    """Says by whom a payload is signed; returns the exit code. Raises UserError: the firmware refuses it."""
    image, payload = read_image(given.image), read(given.signed, "signed payload")
    place = str(given.signed)
    try:
        core = hostlib.load()
        anchor = _anchor(core, image, str(given.image))
        _verify(core, payload, anchor, given.minimum_svn, place)
        found = signed.read(payload, place=place)
    except (BuildError, FormatError) as error:
        raise UserError(str(error)) from error
    kind, version = NAMES[found.algorithm], f"version {found.version}, SVN {found.svn}"
    print(f"{place}: signed with the key of the trust anchor ({kind}), {version}")
    return OK


# The C core decides, as in a firmware; what refuses is only looked at again to say why.


def _anchor(core: hostlib.Lib, image: bytes, place: str) -> Any:
    section = volume_section(image, place=place)
    raw, where = content(image, section), f"{place} CFV, GPA {section.address:#x}"
    file, anchor, region = core.ffi.new("struct span *"), core.new("anchor"), core.span(raw)
    status = core.lib.anchor_extent(region, file) or core.lib.trust_anchor(file, anchor)
    if status == 0:
        return anchor
    data = cfv.read(raw, place=where).find(cfv.ANCHOR_FILE) if any(raw) else None
    if data is None:
        raise UserError(f"{where}: found no trust anchor; enroll a key")
    cfv.read_anchor(data, place=f"{where}, trust anchor")
    raise UserError(f"{where}: {_text(core, status)}")


def _verify(core: hostlib.Lib, data: bytes, anchor: Any, minimum_svn: int, place: str) -> None:
    region, payload = core.span(data), core.ffi.new("struct span *")
    status = core.lib.signed_payload(region, payload)
    status = status or core.lib.verify_signed(payload, region, anchor, minimum_svn)
    if status == 0:
        return
    found = signed.read(data, place=place)
    key, wanted = sha384(found.key).hexdigest(), bytes(anchor.key.bytes).hex()
    why = {
        "payload_other_key": f"its key has SHA-384 {key}, the trust anchor is {wanted}",
        "payload_wrongly_signed": "the signature is not that of the key over header and payload",
        "payload_too_old": f"found SVN {found.svn}, expected at least {minimum_svn}",
    }
    raise UserError(f"{place}: {why.get(core.error(status), _text(core, status))}")


def _text(core: hostlib.Lib, status: int) -> str:
    return prelude().errors[core.error(status)].text


COMMAND = Command(
    ("tdforge verify build/enrolled.bin vmlinuz.signed",),
    add_options,
    verify,
)
