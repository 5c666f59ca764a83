"""How do the tests get keys and signatures? From the openssl command, which shares no code with ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha384

from opensslkeys import integers, key, numbers, openssl, signature

P384_PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1  # SP 800-186, 3.2.1.4
P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)


@dataclass(frozen=True)
class EcKey:
    """A P-384 key by its name in tests/opensslkeys.py."""

    name: str

    @property
    def public(self) -> bytes:
        """X and Y."""
        return numbers(self.name)

    def sign(self, data: bytes) -> bytes:
        """R and S over SHA-384 of `data`."""
        return signature(self.name, data)


@dataclass(frozen=True)
class RsaKey:
    """An RSA key by its name in tests/opensslkeys.py."""

    name: str

    @cached_property
    def numbers(self) -> list[int]:
        """As RFC 8017, A.1.2: version, modulus, public exponent, private exponent, primes and so on."""
        return integers(openssl("rsa", "-in", str(key(self.name)), "-traditional", "-outform", "DER"))

    @property
    def size(self) -> int:
        """Of the modulus, in bytes."""
        return self.numbers[1].bit_length() // 8

    @property
    def public(self) -> bytes:
        """The modulus, then 8 bytes of exponent."""
        _, modulus, exponent, *_ = self.numbers
        return modulus.to_bytes(self.size, "big") + exponent.to_bytes(8, "big")

    def sign(self, data: bytes, salt: int = 48) -> bytes:
        """RSASSA-PSS over SHA-384 of `data`."""
        return signature(self.name, data, salt)

    def raw(self, message: bytes) -> bytes:
        """The private operation on an encoded message of our own. RFC 8017, 5.2.1, 2b."""
        *_, p, q, exponent_p, exponent_q, coefficient = self.numbers
        number = int.from_bytes(message, "big")
        at_q = pow(number, exponent_q, q)
        above = (pow(number, exponent_p, p) - at_q) * coefficient % p
        return (at_q + q * above).to_bytes(self.size, "big")


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
