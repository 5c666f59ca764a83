"""What does a signed payload look like, as td-shim-sign-payload writes it and td-shim reads it?

Source: td-shim at 125eeab, td-shim-tools/src/signer.rs (writer) and td-shim/src/secure_boot.rs (reader). Its
doc/secure_boot.md numbers the algorithms the other way round. Numbers of keys and signatures are big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

import construct as c
from construct import Bytes, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import pack, unpack

SIGNED_PAYLOAD = UUID("fcf2d558-9df5-4f4d-b0d7-3e4b798ab066")
STRUCTURE_VERSION = 1
MAX_LENGTH = 0xFFFF_FFFF  # of header and payload: four bytes say it
MAX_NUMBER = 0xFFFF_FFFF_FFFF_FFFF  # a version, an SVN

HEADER = (
    "signed_payload_header"
    / c.Struct(
        "type" / Bytes(16),
        "structure_version" / Int32ul,
        "length" / Int32ul,
        "payload_version" / Int64ul,
        "payload_svn" / Int64ul,
        "algorithm" / Int32ul,
        "reserved" / Int32ul,
    )
) * "Header of a signed payload; the payload follows, and behind it key and signature"

ECDSA_KEY = (
    "ecdsa_p384_key" / c.Struct("x" / Bytes(48), "y" / Bytes(48))
) * "Public key of algorithm 1; the signature, R and S, follows"

RSA_KEY = (
    "rsa_3072_key" / c.Struct("modulus" / Bytes(384), "exponent" / Bytes(8))
) * "Public key of algorithm 2; the signature follows"


class Algorithm(IntEnum):
    """How a payload is signed, with SHA-384 in each place; RSA by PSS with a salt of 48 bytes."""

    ECDSA_P384 = 1
    RSA_3072_PSS = 2


KEY_SIZES = {Algorithm.ECDSA_P384: ECDSA_KEY.sizeof(), Algorithm.RSA_3072_PSS: RSA_KEY.sizeof()}
SIGNATURE_SIZES = {Algorithm.ECDSA_P384: 96, Algorithm.RSA_3072_PSS: 384}
SALT_SIZE = 48


@dataclass(frozen=True)
class Signed:
    """A signed payload: `covered` is what is signed, header and payload. Nothing is verified here."""

    algorithm: Algorithm
    version: int
    svn: int
    payload: bytes
    key: bytes
    signature: bytes
    covered: bytes


def covered(payload: bytes, algorithm: Algorithm, version: int, svn: int, *, place: str = "payload") -> bytes:
    """What is to be signed: header and payload. FieldError: no payload, or more than a header can say."""
    length = HEADER.sizeof() + len(payload)
    if not HEADER.sizeof() < length <= MAX_LENGTH:
        raise FieldError(place, f"{len(payload):,} bytes", f"1 to {MAX_LENGTH - HEADER.sizeof():,}")
    head = pack(
        HEADER,
        type=SIGNED_PAYLOAD.bytes_le,
        structure_version=STRUCTURE_VERSION,
        length=length,
        payload_version=version,
        payload_svn=svn,
        algorithm=algorithm,
    )
    return head + payload


def read(data: bytes, *, place: str = "signed payload") -> Signed:
    """The parts of a signed payload, without what follows the signature. FormatError: td-shim refuses it."""
    head = unpack(HEADER, data, place=place)
    if head.type != SIGNED_PAYLOAD.bytes_le:
        raise FieldError(place, f"type {UUID(bytes_le=head.type)}", f"{SIGNED_PAYLOAD}, a signed payload")
    if not HEADER.sizeof() < head.length < len(data):
        expected = f"{HEADER.sizeof() + 1} to {len(data) - 1}, header and payload"
        raise FieldError(f"{place} offset 0x14", f"a length of {head.length}", expected)
    if head.algorithm not in KEY_SIZES:
        expected = " or ".join(f"{each.value} ({each.name})" for each in Algorithm)
        raise FieldError(f"{place} offset 0x28", f"algorithm {head.algorithm}", expected)
    algorithm = Algorithm(head.algorithm)
    signature = head.length + KEY_SIZES[algorithm]
    end = signature + SIGNATURE_SIZES[algorithm]
    if end > len(data):
        raise TruncatedError(
            f"{place} offset {head.length:#x}",
            f"{len(data) - head.length} bytes",
            f"{end - head.length} of key and signature",
        )
    return Signed(
        algorithm,
        head.payload_version,
        head.payload_svn,
        data[HEADER.sizeof() : head.length],
        data[head.length : signature],
        data[signature:end],
        data[: head.length],
    )
