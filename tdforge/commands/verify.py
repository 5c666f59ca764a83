"""What does `tdforge verify IMAGE SIGNED` do? It says whether the image may start the payload."""

import argparse
from pathlib import Path

from formats import cfv, signed
from formats.errors import FormatError
from formats.signed import KEY_SIZES, Algorithm, Signed
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
        anchor = _anchor(image, str(given.image))
        found = signed.read(payload, place=place)
    except FormatError as error:
        raise UserError(str(error)) from error
    try:
        core = hostlib.load()
    except BuildError as error:
        raise UserError(str(error)) from error
    key = _digest(core, found.key)
    if key != anchor:
        raise UserError(f"{place}: its key has SHA-384 {key.hex()}, the trust anchor is {anchor.hex()}")
    if not _signature_right(core, found):
        raise UserError(f"{place}: the signature is not that of the key over header and payload")
    if found.svn < given.minimum_svn:
        raise UserError(f"{place}: found SVN {found.svn}, expected at least {given.minimum_svn}")
    kind, version = NAMES[found.algorithm], f"version {found.version}, SVN {found.svn}"
    print(f"{place}: signed with the key of the trust anchor ({kind}), {version}")
    return OK


def _anchor(image: bytes, place: str) -> bytes:
    section = volume_section(image, place=place)
    where = f"{place} CFV, GPA {section.address:#x}"
    raw = content(image, section)
    data = cfv.read(raw, place=where).find(cfv.ANCHOR_FILE) if any(raw) else None
    if data is None:
        raise UserError(f"{where}: found no trust anchor; enroll a key")
    return cfv.read_anchor(data, place=f"{where}, trust anchor")


def _digest(core: hostlib.Lib, data: bytes) -> bytes:
    digest = core.ffi.new("uint8_t[]", signed.SALT_SIZE)
    core.lib.sha384(core.span(data), digest)
    return bytes(digest)


def _signature_right(core: hostlib.Lib, found: Signed) -> bool:
    """By the object code that a firmware verifies with."""
    digest = _digest(core, found.covered)
    if found.algorithm is Algorithm.ECDSA_P384:
        return bool(core.lib.p384_verify(found.key, digest, found.signature))
    size = KEY_SIZES[found.algorithm] - 8
    modulus, exponent = found.key[:size], found.key[size:]
    return bool(core.lib.rsa_pss_verify(modulus, exponent, found.signature, size // 8, digest))


COMMAND = Command(
    ("tdforge verify build/enrolled.bin vmlinuz.signed",),
    add_options,
    verify,
)
