"""Which keys and signatures do tests take that this project has not made? Those of the openssl command.

Keys are made once for each test process: `p384` and `rsa` sign, `other` is not enrolled, the rest do not fit.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from debian import tool

PSS = ("rsa_padding_mode:pss", "rsa_pss_saltlen:48", "rsa_mgf1_md:sha384")
MADE = {
    "p384": ("EC", "ec_paramgen_curve:P-384"),
    "rsa": ("RSA", "rsa_keygen_bits:3072"),
    "other": ("EC", "ec_paramgen_curve:P-384"),
    "p256": ("EC", "ec_paramgen_curve:P-256"),
    "rsa2048": ("RSA", "rsa_keygen_bits:2048"),
    "ed25519": ("ed25519", ""),
}
SIGNED_GUID = bytes.fromhex("58d5f2fcf59d4d4fb0d73e4b798ab066")


def openssl(*words: str, given: bytes = b"") -> bytes:
    """What an openssl command prints."""
    command = [*tool("openssl", "openssl"), *words]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


@cache
def _folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="tdforge-keys-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def key(name: str, form: str = "pem", public: bool = False) -> Path:
    """The file of a key: PKCS#8, or SubjectPublicKeyInfo if `public`, in `form` pem or der."""
    path = _folder() / f"{name}{'.pub' if public else ''}.{form}"
    if path.exists():
        return path
    if (form, public) == ("pem", False):
        kind, option = MADE[name]
        path.write_bytes(openssl("genpkey", "-algorithm", kind, *(("-pkeyopt", option) if option else ())))
    else:
        words = ("-in", str(key(name)), "-outform", form.upper(), *(("-pubout",) if public else ()))
        path.write_bytes(openssl("pkey", *words))
    return path


@cache
def numbers(name: str) -> bytes:
    """X and Y, or modulus and exponent, as a signed payload has them: cut out of the public key's DER."""
    der = key(name, "der", public=True).read_bytes()
    if name == "rsa":  # ... INTEGER 0 modulus, INTEGER 65537
        assert der.endswith(bytes.fromhex("0203010001"))
        return der[-389:-5] + (65537).to_bytes(8, "big")
    assert der[-97] == 4
    return der[-96:]


def signature(name: str, message: bytes) -> bytes:
    """openssl's signature over a message: two numbers of 48 bytes, or an RSA-PSS block."""
    options = [word for option in PSS for word in ("-sigopt", option)] if name == "rsa" else []
    made = openssl("dgst", "-sha384", "-sign", str(key(name)), *options, given=message)
    if name == "rsa":
        return made
    halves, at = b"", 2  # SEQUENCE of two INTEGERs
    for _ in range(2):
        assert made[at] == 2
        value = made[at + 2 : at + 2 + made[at + 1]]
        halves += value.lstrip(b"\0").rjust(48, b"\0")
        at += 2 + made[at + 1]
    return halves


def verified(name: str, message: bytes, raw: bytes, folder: Path) -> bool:
    """Whether openssl takes a raw signature by the key of that name."""
    if name != "rsa":
        numbers_ = [value.lstrip(b"\0") for value in (raw[:48], raw[48:])]
        items = [(b"\0" if value[0] & 0x80 else b"") + value for value in numbers_]
        body = b"".join(bytes([2, len(item)]) + item for item in items)
        raw = bytes([0x30, len(body)]) + body
    file = folder / "signature"
    file.write_bytes(raw)
    options = [word for option in PSS for word in ("-sigopt", option)] if name == "rsa" else []
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
