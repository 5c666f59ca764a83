"""Which keys and signatures do tests take that this project has not made? Those of the openssl command.

Keys are made once for each test run, whatever its processes: `p384` and `rsa` sign, `other` is not enrolled,
the rest do not fit td-shim's format.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from debian import tool

PSS = "rsa_padding_mode:pss"  # MGF1 with the hash of the message, if nothing else is said
MADE = {  # algorithm and options
    "p384": ("EC", "ec_paramgen_curve:P-384"),
    "rsa": ("RSA", "rsa_keygen_bits:3072"),
    "other": ("EC", "ec_paramgen_curve:P-384"),
    "p256": ("EC", "ec_paramgen_curve:P-256"),
    "rsa2048": ("RSA", "rsa_keygen_bits:2048"),
    "rsa_e3": ("RSA", "rsa_keygen_bits:1024", "rsa_keygen_pubexp:3"),
    "rsa_e17": ("RSA", "rsa_keygen_bits:1024", "rsa_keygen_pubexp:17"),
    "rsa_e33_bits": ("RSA", "rsa_keygen_bits:1024", f"rsa_keygen_pubexp:{2**32 + 1}"),
    "ed25519": ("ed25519",),
}
FOLDER = "TDFORGE_TEST_KEYS"  # of the keys: a process that starts others hands it down to them
SIGNED_GUID = bytes.fromhex("58d5f2fcf59d4d4fb0d73e4b798ab066")


def openssl(*words: str, given: bytes = b"") -> bytes:
    """What an openssl command prints."""
    command = [*tool("openssl", "openssl"), *words]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def folder() -> Path:
    """Where the keys of this run are, until the process that asked first ends."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = made = tempfile.mkdtemp(prefix="tdforge-keys-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(os.environ[FOLDER])


def key(name: str, form: str = "pem", public: bool = False) -> Path:
    """The file of a key: PKCS#8, or SubjectPublicKeyInfo if `public`, in `form` pem or der."""
    path = folder() / f"{name}{'.pub' if public else ''}.{form}"
    if (form, public) == ("pem", False):
        kind, *options = MADE[name]
        words = ["genpkey", "-algorithm", kind, *_each("-pkeyopt", options)]
    else:
        words = ["pkey", "-in", str(key(name)), "-outform", form.upper(), *(("-pubout",) if public else ())]
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes, one makes it
        if not path.exists():
            path.write_bytes(openssl(*words))
    return path


def _each(word: str, values: Iterable[str]) -> list[str]:
    return [part for value in values for part in (word, value)]


def integers(der: bytes) -> list[int]:
    """The numbers of a DER SEQUENCE of INTEGERs. X.690, 8.1.3 and 8.3."""

    def field(at: int) -> tuple[int, int, int]:  # tag, where its content begins and ends
        size, at = der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        return der[at - 2], at, at + size

    found, (_, at, end) = [], field(0)
    while at < end:
        _, start, at = field(at)
        found.append(int.from_bytes(der[start:at], "big"))
    return found


@cache
def numbers(name: str) -> bytes:
    """X and Y, or modulus and exponent, as a signed payload has them: cut out of the public key's DER."""
    der = key(name, "der", public=True).read_bytes()
    if name == "rsa":  # ... INTEGER 0 modulus, INTEGER 65537
        assert der.endswith(bytes.fromhex("0203010001"))
        return der[-389:-5] + (65537).to_bytes(8, "big")
    assert der[-97] == 4
    return der[-96:]


def signature(name: str, message: bytes, salt: int = 48) -> bytes:
    """openssl's signature over a message: two numbers of 48 bytes, or an RSA-PSS block."""
    options = _each("-sigopt", (PSS, f"rsa_pss_saltlen:{salt}")) if name.startswith("rsa") else []
    made = openssl("dgst", "-sha384", "-sign", str(key(name)), *options, given=message)
    if options:
        return made
    return b"".join(number.to_bytes(48, "big") for number in integers(made))


def verified(name: str, message: bytes, raw: bytes, folder: Path) -> bool:
    """Whether openssl takes a raw signature by the key of that name."""
    if name != "rsa":
        numbers_ = [value.lstrip(b"\0") for value in (raw[:48], raw[48:])]
        items = [(b"\0" if value[0] & 0x80 else b"") + value for value in numbers_]
        body = b"".join(bytes([2, len(item)]) + item for item in items)
        raw = bytes([0x30, len(body)]) + body
    file = folder / "signature"
    file.write_bytes(raw)
    options = _each("-sigopt", (PSS, "rsa_pss_saltlen:48")) if name == "rsa" else []
    words = ("dgst", "-sha384", "-verify", str(key(name, public=True)), *options, "-signature", str(file))
    done = subprocess.run(
        [*tool("openssl", "openssl"), *words], input=message, capture_output=True, check=False
    )
    assert (done.returncode == 0) == (b"Verified OK" in done.stdout)
    return done.returncode == 0


def signed_payload(name: str, payload: bytes, version: int = 1, svn: int = 1) -> bytes:
    """A signed payload packed by hand."""
    algorithm = 2 if name == "rsa" else 1
    head = struct.pack("<16sIIQQII", SIGNED_GUID, 1, 48 + len(payload), version, svn, algorithm, 0)
    return head + payload + numbers(name) + signature(name, head + payload)
