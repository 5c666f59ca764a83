"""Which keys can sign a payload, and how does a signed payload carry them?

A key is a file in PEM or DER: PKCS#8, SubjectPublicKeyInfo, or the older SEC 1 and PKCS#1. Two kinds fit
td-shim's format: ECDSA on P-384, and RSA of 3,072 bits.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from formats.errors import FieldError, FormatError
from formats.signed import SALT_SIZE, SIGNATURE_SIZES, Algorithm

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

RSA_BITS, EXPONENT_SIZE, NUMBER_SIZE = 3072, 8, 48
KINDS = "a key for ECDSA on P-384 or RSA of 3,072 bits"
PSS = padding.PSS(padding.MGF1(SHA384()), SALT_SIZE)


def private_key(data: bytes, *, place: str) -> PrivateKey:
    """The private key in a file. FormatError: there is none, or none of the two kinds."""
    key = fitting(_loaded(data, place), place=place)
    if not isinstance(key, PrivateKey):
        raise FieldError(place, "a public key", "a private key")
    return key


def public_key(data: bytes, *, place: str) -> PublicKey:
    """The public key in a file, or that of the private key in it. FormatError: as above."""
    return public_part(fitting(_loaded(data, place), place=place))


def public_part(key: PrivateKey | PublicKey) -> PublicKey:
    """A key without its private part."""
    return key.public_key() if isinstance(key, PrivateKey) else key


def algorithm(key: PublicKey) -> Algorithm:
    """The one algorithm that a key fits."""
    return Algorithm.RSA_3072_PSS if isinstance(key, rsa.RSAPublicKey) else Algorithm.ECDSA_P384


def key_bytes(key: PublicKey) -> bytes:
    """The key as a signed payload carries it: X and Y, or modulus and exponent."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return numbers.n.to_bytes(RSA_BITS // 8, "big") + numbers.e.to_bytes(EXPONENT_SIZE, "big")
    point = key.public_numbers()
    return point.x.to_bytes(NUMBER_SIZE, "big") + point.y.to_bytes(NUMBER_SIZE, "big")


def key_hash(key: PublicKey) -> bytes:
    """What a trust anchor holds of the key."""
    return hashlib.sha384(key_bytes(key)).digest()


def signature_with(key: PrivateKey, message: bytes) -> bytes:
    """A signature over `message`, as this library writes it: DER for ECDSA."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, PSS, SHA384())
    return key.sign(message, ec.ECDSA(SHA384()))


def raw_signature(kind: Algorithm, signature: bytes, *, place: str) -> bytes:
    """A signature as a signed payload carries it, from that form or from DER. FormatError: it is neither."""
    size = SIGNATURE_SIZES[kind]
    if len(signature) == size:
        return signature
    try:
        if kind is not Algorithm.ECDSA_P384:
            raise ValueError
        return b"".join(number.to_bytes(size // 2, "big") for number in decode_dss_signature(signature))
    except (ValueError, OverflowError) as error:
        form = f"{size} bytes" + (", or the same in DER" if kind is Algorithm.ECDSA_P384 else "")
        raise FormatError(place, f"{len(signature)} bytes", f"a signature of {form}") from error


def verifies(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether a signature in the signed payload's form is the key's over `message`."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, PSS, SHA384())
        else:
            half = len(signature) // 2
            numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(*numbers), message, ec.ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True


def fitting(key: object, *, place: str) -> PrivateKey | PublicKey:
    """The key itself, if payloads can be signed with it. FieldError."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        if key.key_size != RSA_BITS:
            raise FieldError(place, f"an RSA key of {key.key_size:,} bits", KINDS)
        numbers = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
        if (exponent := numbers.public_numbers().e) >> 8 * EXPONENT_SIZE:
            found = f"an RSA exponent of {exponent.bit_length()} bits"
            raise FieldError(place, found, f"at most {8 * EXPONENT_SIZE} bits")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP384R1):
            raise FieldError(place, f"a key on the curve {key.curve.name}", KINDS)
        return key
    raise FieldError(place, "a key of another kind", KINDS)


def _loaded(data: bytes, place: str) -> object:
    pem = b"-----BEGIN" in data
    try:
        if pem:
            return serialization.load_pem_private_key(data, None)
        return serialization.load_der_private_key(data, None)
    except TypeError as error:  # a password is lacking
        expected = "one without a passphrase, or --signer with --public-key"
        raise FieldError(place, "an encrypted private key", expected) from error
    except (ValueError, UnsupportedAlgorithm):
        pass
    try:
        if pem:
            return serialization.load_pem_public_key(data)
        return serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(place, f"no key in {len(data):,} bytes", f"{KINDS}, in PEM or DER") from error
