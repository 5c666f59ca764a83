"""How does a payload become a signed payload, whoever holds the key?"""

from __future__ import annotations

from collections.abc import Callable

from formats import signed
from formats.errors import FormatError
from image.keys import PublicKey, algorithm, key_bytes, raw_signature, verifies

# From the bytes to sign to a signature: raw or DER. It may be a program, or a token that keeps its key.
Signer = Callable[[bytes], bytes]


def sign(
    payload: bytes, version: int, svn: int, key: PublicKey, signer: Signer, *, place: str = "payload"
) -> bytes:
    """The signed payload. FormatError: no payload, or a signature that is not the key's."""
    kind = algorithm(key)
    message = signed.covered(payload, kind, version, svn, place=place)
    signature = raw_signature(kind, signer(message), place="the signer's output")
    if not verifies(key, message, signature):
        raise FormatError("the signer's output", "a signature that the key refuses", _EXPECTED[kind])
    return message + key_bytes(key) + signature


_EXPECTED = {
    signed.Algorithm.ECDSA_P384: "ECDSA with SHA-384 by its private part",
    signed.Algorithm.RSA_3072_PSS: "RSA-PSS by its private part: SHA-384 also in MGF1, salt of 48 bytes",
}
