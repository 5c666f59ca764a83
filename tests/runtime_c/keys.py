"""How do the tests get keys and signatures? From the openssl command, which shares no code with ours."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from hashlib import sha384
from pathlib import Path

from debian import tool

P384_PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1  # SP 800-186, 3.2.1.4
P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)


def openssl(*words: str) -> bytes:
    """What the command writes to its output."""
    command = [*tool("openssl", "openssl"), *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


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


@dataclass(frozen=True)
class EcKey:
    """A P-384 key in a PEM file."""

    path: Path

    @property
    def public(self) -> bytes:
        """X and Y."""
        return openssl("ec", "-in", str(self.path), "-pubout", "-outform", "DER")[-96:]

    def sign(self, data: bytes) -> bytes:
        """R and S over SHA-384 of `data`."""
        file = self.path.with_suffix(".data")
        file.write_bytes(data)
        r, s = integers(openssl("dgst", "-sha384", "-sign", str(self.path), str(file)))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass(frozen=True)
class RsaKey:
    """An RSA key in a PEM file."""

    path: Path
    size: int

    @property
    def numbers(self) -> list[int]:
        """As RFC 8017, A.1.2: version, modulus, public exponent, private exponent, primes and so on."""
        return integers(openssl("rsa", "-in", str(self.path), "-traditional", "-outform", "DER"))

    @property
    def public(self) -> bytes:
        """The modulus, then 8 bytes of exponent."""
        _, modulus, exponent, *_ = self.numbers
        return modulus.to_bytes(self.size, "big") + exponent.to_bytes(8, "big")

    def sign(self, data: bytes, salt: int = 48) -> bytes:
        """RSASSA-PSS over SHA-384 of `data`."""
        file = self.path.with_suffix(".data")
        file.write_bytes(data)
        options = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", f"rsa_pss_saltlen:{salt}")
        return openssl("dgst", "-sha384", *options, "-sign", str(self.path), str(file))

    def raw(self, message: bytes) -> bytes:
        """The private operation on an encoded message of our own."""
        _, modulus, _, private, *_ = self.numbers
        return pow(int.from_bytes(message, "big"), private, modulus).to_bytes(self.size, "big")


def ec_key(folder: Path, name: str = "ec") -> EcKey:
    """A new key."""
    path = folder / f"{name}.pem"
    openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", str(path))
    return EcKey(path)


def rsa_key(folder: Path, name: str = "rsa", bits: int = 3072, exponent: int = 65537) -> RsaKey:
    """A new key."""
    path = folder / f"{name}.pem"
    options = ("-pkeyopt", f"rsa_keygen_bits:{bits}", "-pkeyopt", f"rsa_keygen_pubexp:{exponent}")
    openssl("genpkey", "-algorithm", "RSA", *options, "-out", str(path))
    return RsaKey(path, bits // 8)


def mask(seed: bytes, size: int) -> bytes:
    """MGF1 with SHA-384. RFC 8017, B.2.1."""
    blocks = (sha384(seed + n.to_bytes(4, "big")).digest() for n in range(-(-size // 48)))
    return b"".join(blocks)[:size]


def encoded(
    digest: bytes,
    size: int = 384,
    *,
    salt: bytes = b"\x5a" * 48,
    padding: bytes | None = None,
    separator: int = 1,
    trailer: int = 0xBC,
    top: int = 0,
) -> bytes:
    """EMSA-PSS with each field as given. RFC 8017, 9.1.1. `padding`: in front of the separator; `top`: ORed
    to the first byte at the end."""
    found = sha384(bytes(8) + digest + salt).digest()
    zeros = bytes(size - 48 - 2 - len(salt)) if padding is None else padding
    data = zeros + bytes([separator]) + salt
    masked = bytearray(a ^ b for a, b in zip(data, mask(found, len(data)), strict=True))
    masked[0] = masked[0] & 0x7F | top
    return bytes(masked) + found + bytes([trailer])
