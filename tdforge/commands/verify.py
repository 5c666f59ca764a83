"""What does `tdforge verify IMAGE SIGNED` do? It says whether the image may start the payload."""

import argparse
from collections.abc import Mapping
from hashlib import sha384
from pathlib import Path
from typing import Any

from formats import cfv, signed, tdvf
from formats.errors import FormatError
from formats.tdvf import SectionType
from gen.core import hostlib
from gen.errors import BuildError
from image.enroll import content, volume_section
from tdforge.command import Command, Once
from tdforge.commands.enroll import add_cfv
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
        metavar="N",
        help="refuse a lower SVN, as the flow's MINIMUM_SVN does",
    )
    parser.add_argument(
        "--revoked",
        type=_sha384,
        action="append",
        default=[],
        metavar="SHA384",
        help="refuse a key or a payload with this SHA-384, as the flow's lists do; may be repeated",
    )
    add_cfv(parser)


def _sha384(text: str) -> bytes:
    """A digest in hexadecimal."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != sha384().digest_size:
        raise argparse.ArgumentTypeError(f"{text!r} is not 96 hexadecimal digits")
    return digest


def verify(given: argparse.Namespace) -> int:
    """Says by whom a payload is signed; returns the exit code. Raises UserError: the firmware refuses it."""
    image, payload = read_image(given.image), read(given.signed, "signed payload")
    place = str(given.signed)
    try:
        core = hostlib.load()
        anchor = _anchor(core, image, given.cfv, str(given.image))
        _fits(image, payload, place)
        content = _verify(core, payload, anchor, given.minimum_svn or 0, place)
        _not_revoked({"key": bytes(anchor.key.bytes), "payload": sha384(content).digest()}, given, place)
        found = signed.read(payload, place=place)
    except (BuildError, FormatError) as error:
        raise UserError(str(error)) from error
    kind, version = NAMES[found.algorithm], f"version {found.version}, SVN {found.svn}"
    print(f"{place}: signed with the key of the trust anchor ({kind}), {version}")
    unchecked = ["its minimum SVN (--minimum-svn)"] if given.minimum_svn is None else []
    unchecked += [] if given.revoked else ["what it revokes (--revoked)"]
    if unchecked:
        print(f"not checked, as only the flow tells: {' and '.join(unchecked)}")
    return OK


# The C core decides, as in a firmware; what refuses is only looked at again to say why.


def _fits(image: bytes, payload: bytes, place: str) -> None:
    for section in tdvf.metadata(image, place=place).sections:
        if section.type == SectionType.PAYLOAD and len(payload) > section.memory_size:
            expected = f"at most {section.memory_size:,}, the size of the image's Payload section"
            raise UserError(f"{place}: found {len(payload):,} bytes, expected {expected}")


def _not_revoked(digests: Mapping[str, bytes], given: argparse.Namespace, place: str) -> None:
    for what, digest in digests.items():
        if digest in given.revoked:
            raise UserError(f"{place}: the {what} is revoked, its SHA-384 is {digest.hex()}")


def _anchor(core: hostlib.Lib, image: bytes, gpa: int | None, place: str) -> Any:
    section = volume_section(image, gpa=gpa, place=place)
    raw, where = content(image, section), f"{place} CFV, GPA {section.address:#x}"
    file, anchor, region = core.ffi.new("struct span *"), core.new("anchor"), core.span(raw)
    status = core.lib.anchor_extent(region, file) or core.lib.trust_anchor(file, anchor)
    if status == 0:
        return anchor
    data = cfv.read(raw, place=where).find(cfv.ANCHOR_FILE) if any(raw) else None
    if data is None:
        raise UserError(f"{where}: found no trust anchor; enroll a key")
    cfv.read_anchor(data, place=f"{where}, trust anchor")
    raise UserError(f"{where}: {core.text(status)}")


def _verify(core: hostlib.Lib, data: bytes, anchor: Any, minimum_svn: int, place: str) -> bytes:
    """The payload in the file."""
    region, payload = core.span(data), core.ffi.new("struct span *")
    status = core.lib.signed_payload(region, payload)
    status = status or core.lib.verify_signed(payload, region, anchor, minimum_svn)
    if status == 0:
        return bytes(core.ffi.buffer(payload.data, payload.size))
    found = signed.read(data, place=place)
    key, wanted = sha384(found.key).hexdigest(), bytes(anchor.key.bytes).hex()
    why = {
        "payload_other_key": f"its key has SHA-384 {key}, the trust anchor is {wanted}",
        "payload_wrongly_signed": "the signature is not that of the key over header and payload",
        "payload_too_old": f"found SVN {found.svn}, expected at least {minimum_svn}",
    }
    raise UserError(f"{place}: {why.get(core.error(status), core.text(status))}")


COMMAND = Command(
    ("tdforge verify build/enrolled.bin vmlinuz.signed",),
    add_options,
    verify,
)
