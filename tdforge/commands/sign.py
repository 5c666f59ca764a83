"""What does `tdforge sign PAYLOAD --key KEY` do? It makes a signed payload, as td-shim takes them."""

import argparse
import hashlib
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from formats.errors import FormatError
from formats.signed import MAX_NUMBER, Algorithm
from image.keys import PublicKey, algorithm, key_hash, private_key, public_key, signature_with
from image.sign import Signer
from image.sign import sign as signed_payload
from tdforge.command import Command, Once
from tdforge.errors import OK, UsageError, UserError
from tdforge.files import read, write
from tdforge.pkcs11 import SCHEME, token

ALGORITHMS = {
    "ecdsa-p384-sha384": Algorithm.ECDSA_P384,
    "rsa-3072-pss-sha384": Algorithm.RSA_3072_PSS,
}
MAX_SIGNATURE = 2000  # bytes that a signer may print: any signature, and a line of text in its place
NAMES = {kind: name for name, kind in ALGORITHMS.items()}


def number(text: str) -> int:
    """A version or an SVN, 64 bits, decimal or 0x; argparse makes a usage error of a ValueError."""
    value = int(text, 0)
    if not 0 <= value <= MAX_NUMBER:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 2^64 - 1")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("payload", type=Path, metavar="PAYLOAD", help="what the firmware is to start")
    parser.add_argument(
        "--key", action=Once, metavar="FILE|URI",
        help="the private key, PEM or DER, P-384 or RSA 3072; or pkcs11:... for a key on a token",
    )  # fmt: skip
    parser.add_argument(
        "--signer", action=Once, metavar="COMMAND",
        help="a command that signs: it reads the bytes and prints the signature, raw or DER",
    )  # fmt: skip
    parser.add_argument(
        "--digest", action="store_true", help="give the signer the SHA-384 of the bytes, not the bytes"
    )
    parser.add_argument(
        "--public-key",
        type=Path,
        action=Once,
        metavar="FILE",
        help="the signer's key, or that of a token which lacks it",
    )
    parser.add_argument(
        "--algorithm",
        choices=tuple(ALGORITHMS),
        action=Once,
        help="refuse a key of another; it follows the key",
    )
    for name, what in (("version", "of the payload"), ("svn", "security version number of the payload")):
        parser.add_argument(
            f"--{name}", type=number, action=Once, required=True, metavar="N", help=f"{what}, 64 bits"
        )
    parser.add_argument("-o", "--out", type=Path, action=Once, required=True, metavar="FILE")


def sign(given: argparse.Namespace) -> int:
    """Signs a payload, checks the signature, writes the file; returns the exit code. Raises UserError."""
    payload = read(given.payload, "payload")
    try:
        with _holder(given) as (key, signer):
            kind = algorithm(key)
            if given.algorithm and ALGORITHMS[given.algorithm] is not kind:
                raise UserError(f"--algorithm is {given.algorithm}, the key is for {NAMES[kind]}")
            data = signed_payload(payload, given.version, given.svn, key, signer, place=str(given.payload))
    except FormatError as error:
        raise UserError(str(error)) from error
    write(given.out, data)
    print(f"{given.out}  ({len(data):,} bytes; {NAMES[kind]}, version {given.version}, SVN {given.svn})")
    print(f"key: SHA-384 {key_hash(key).hex()}, as a trust anchor has it")
    return OK


@contextmanager
def _holder(given: argparse.Namespace) -> Iterator[tuple[PublicKey, Signer]]:
    """The public key, and what signs with its private part."""
    if bool(given.key) == bool(given.signer) or (given.signer and not given.public_key):
        raise UsageError("expected --key, or --signer with --public-key")
    if given.digest and not given.signer:
        raise UsageError("--digest is for --signer")
    on_token = given.key and given.key.startswith(SCHEME)
    if given.public_key and not given.signer and not on_token:
        raise UsageError("--public-key is for --signer and for a key on a token")
    known = None
    if given.public_key:
        known = public_key(read(given.public_key, "public key"), place=str(given.public_key))
    if known and given.signer:
        yield known, lambda message: _external(given.signer, message, given.digest)
    elif on_token:
        with token(given.key) as opened:
            key = known or opened.public_key()
            yield key, lambda message: opened.sign(message, key)
    else:
        private = private_key(read(Path(given.key), "key"), place=given.key)
        yield private.public_key(), lambda message: signature_with(private, message)


def _external(command: str, message: bytes, digest: bool) -> bytes:
    """What the command prints. Raises UserError."""
    try:
        words = shlex.split(command)
        if not words:
            raise ValueError("it names no program")
        with TemporaryFile() as file:  # not a pipe: a signer that prints without reading must not block
            file.write(hashlib.sha384(message).digest() if digest else message)
            file.seek(0)
            signer = subprocess.Popen(words, stdin=file, stdout=subprocess.PIPE)
        with signer:
            assert signer.stdout is not None
            signature = signer.stdout.read(MAX_SIGNATURE + 1)
            if len(signature) > MAX_SIGNATURE:
                signer.kill()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot run the signer {command!r}: {error}") from error
    if len(signature) > MAX_SIGNATURE:
        raise UserError(f"the signer {command!r} printed over {MAX_SIGNATURE} bytes, expected a signature")
    if signer.returncode:
        raise UserError(f"the signer {command!r} ended with exit code {signer.returncode}")
    return signature


COMMAND = Command(
    (
        "tdforge sign --key key.pem vmlinuz --version 1 --svn 1 -o vmlinuz.signed",
        "tdforge sign --signer ./ask-hsm --public-key pub.pem vmlinuz --version 1 --svn 1 -o signed.bin",
    ),
    add_options,
    sign,
)
