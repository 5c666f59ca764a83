"""Does openssl take our signatures, do we take openssl's, and which keys are refused?"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opensslkeys import key, numbers, openssl, signature, signed_payload, verified
from refusals import one_line

from formats import signed
from formats.errors import FormatError
from formats.signed import Algorithm
from image import keys
from image.sign import sign

FORMS = [("pem", False), ("der", False), ("pem", True), ("der", True)]
KINDS = {"p384": Algorithm.ECDSA_P384, "rsa": Algorithm.RSA_3072_PSS}
PAYLOAD = bytes(range(256)) * 5


def private(name: str) -> keys.PrivateKey:
    return keys.private_key(key(name).read_bytes(), place="key")


@pytest.mark.parametrize("name", KINDS)
def test_openssl_takes_our_signatures(name: str, tmp_path: Path) -> None:
    mine = private(name)
    whole = sign(PAYLOAD, 7, 1 << 63, mine.public_key(), lambda message: keys.signature_with(mine, message))
    size = 48 + len(PAYLOAD)
    assert struct.unpack_from("<IIQQII", whole, 16) == (1, size, 7, 1 << 63, KINDS[name], 0)
    assert whole[48:size] == PAYLOAD
    assert whole[size:].startswith(numbers(name))
    raw = whole[size + len(numbers(name)) :]
    assert verified(name, whole[:size], raw, tmp_path)
    assert not verified(name, whole[: size - 1], raw, tmp_path)
    found = signed.read(whole)
    assert (found.key, found.signature, found.covered) == (numbers(name), raw, whole[:size])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_made_by_hand_is_read_and_verified(name: str) -> None:
    found = signed.read(signed_payload(name, PAYLOAD, 3, 4))
    assert (found.algorithm, found.version, found.svn, found.payload) == (KINDS[name], 3, 4, PAYLOAD)
    mine = private(name).public_key()
    assert keys.verifies(mine, found.covered, found.signature)
    assert not keys.verifies(mine, found.covered + b"x", found.signature)
    assert not keys.verifies(mine, found.covered, bytes(len(found.signature)))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("form", "public"), FORMS)
def test_keys_in_each_form(name: str, form: str, public: bool) -> None:
    data = key(name, form, public).read_bytes()
    read = keys.public_key(data, place="key")
    assert keys.key_bytes(read) == numbers(name)
    assert keys.key_hash(read) == hashlib.sha384(numbers(name)).digest()
    assert keys.algorithm(read) is KINDS[name]
    if public:
        with pytest.raises(FormatError, match="key: found a public key, expected a private key"):
            keys.private_key(data, place="key")
    else:
        assert keys.key_bytes(keys.private_key(data, place="key").public_key()) == numbers(name)


def test_older_forms() -> None:
    """SEC 1 behind its parameters, PKCS#1."""
    for words in (("ec", "-param_enc", "named_curve"), ("rsa", "-traditional")):
        name = "p384" if words[0] == "ec" else "rsa"
        data = openssl(*words, "-in", str(key(name)))
        assert keys.key_bytes(keys.public_key(data, place="key")) == numbers(name)
    sec1 = openssl("ecparam", "-name", "secp384r1", "-genkey")
    assert b"EC PARAMETERS" in sec1
    assert keys.algorithm(keys.private_key(sec1, place="key").public_key()) is Algorithm.ECDSA_P384


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "p256",
            "found a key on the curve secp256r1, expected a key for ECDSA on P-384 or RSA of 3,072 bits",
        ),
        ("rsa2048", "found an RSA key of 2,048 bits, expected a key for"),
        ("ed25519", "found a key of another kind, expected a key for"),
    ],
)
@pytest.mark.parametrize("public", [False, True])
def test_a_key_of_another_kind(name: str, says: str, public: bool) -> None:
    with pytest.raises(FormatError, match=f"k.pem: {says}"):
        keys.public_key(key(name, "pem", public).read_bytes(), place="k.pem")


def test_a_long_exponent_does_not_fit() -> None:
    """Of nine bytes, where a signed payload has eight."""
    big = keys.rsa.RSAPublicNumbers(2**64 + 1, int.from_bytes(numbers("rsa")[:384], "big")).public_key()
    with pytest.raises(FormatError, match="found an RSA exponent of 65 bits, expected at most 64 bits"):
        keys.fitting(big, place="key")
    fits = keys.rsa.RSAPublicNumbers(2**64 - 1, int.from_bytes(numbers("rsa")[:384], "big")).public_key()
    assert keys.key_bytes(keys.public_part(keys.fitting(fits, place="key")))[384:] == b"\xff" * 8


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_an_encrypted_key(form: str) -> None:
    data = openssl("pkcs8", "-topk8", "-passout", "pass:x", "-outform", form, "-in", str(key("p384")))
    with pytest.raises(
        FormatError, match="found an encrypted private key, expected one without a passphrase"
    ):
        keys.private_key(data, place="key")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"-----BEGIN PRIVATE KEY-----\nAA\n", b"remember the milk"]
)
def test_what_is_no_key(data: bytes) -> None:
    with pytest.raises(FormatError, match=f"milk.txt: found no key in {len(data)} bytes, expected a key for"):
        keys.public_key(data, place="milk.txt")


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_key_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    name, (form, public) = data.draw(st.sampled_from([*KINDS, "p256"])), data.draw(st.sampled_from(FORMS))
    raw = bytearray(key(name, form, public).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    with one_line():
        assert len(keys.key_bytes(keys.public_key(mutated, place="key"))) in (96, 392)


def test_a_signer_may_answer_in_der() -> None:
    """As openssl does, and raw as a token does; numbers that begin with zeros too."""
    kind = Algorithm.ECDSA_P384
    for _ in range(3):
        der = openssl("dgst", "-sha384", "-sign", str(key("p384")), given=b"message")
        raw = keys.raw_signature(kind, der, place="signer")
        assert len(raw) == 96
        assert keys.verifies(private("p384").public_key(), b"message", raw)
    small = bytes.fromhex("3006020101020102")
    assert keys.raw_signature(kind, small, place="signer") == bytes(47) + b"\1" + bytes(47) + b"\2"
    assert keys.raw_signature(kind, bytes(96), place="signer") == bytes(96)


@pytest.mark.parametrize(
    ("kind", "answer", "says"),
    [
        ("p384", b"", "found 0 bytes, expected a signature of 96 bytes, or the same in DER"),
        ("p384", b"x" * 95, "found 95 bytes"),
        ("p384", bytes.fromhex("3036 0231 01") + bytes(48) + bytes.fromhex("020101"), "found 56 bytes"),
        ("rsa", b"", "found 0 bytes, expected a signature of 384 bytes$"),
        ("rsa", bytes.fromhex("3006020101020102"), "found 8 bytes"),
        ("p384", bytes(96), "found a signature that the key refuses, expected ECDSA with SHA-384"),
        ("rsa", bytes(384), "found a signature that the key refuses, expected RSA-PSS .*salt of 48 bytes"),
    ],
)
def test_a_signer_that_answers_something_else(kind: str, answer: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=f"the signer's output: {says}"):
        sign(PAYLOAD, 1, 1, private(kind).public_key(), lambda message: answer)


@pytest.mark.parametrize("salt", [0, 32, 64, 318])
def test_a_signer_with_another_salt(salt: int) -> None:
    """td-shim takes 48 bytes only."""
    words = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", f"rsa_pss_saltlen:{salt}")
    with pytest.raises(FormatError, match="a signature that the key refuses"):
        sign(
            PAYLOAD, 1, 1, private("rsa").public_key(),
            lambda message: openssl("dgst", "-sha384", "-sign", str(key("rsa")), *words, given=message),
        )  # fmt: skip


def test_a_signer_with_another_key() -> None:
    with pytest.raises(FormatError, match="a signature that the key refuses"):
        sign(PAYLOAD, 1, 1, private("p384").public_key(), lambda message: signature("other", message))
