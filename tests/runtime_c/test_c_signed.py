"""Is a payload authorised by its key's signature and nothing else? The C core's reader of signed payloads."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha384

import pytest
from ccore import CORE, LIB, CoreError, check
from keys import EcKey, RsaKey
from securebytes import ECDSA, RSA, head

PAYLOAD = b"not a kernel, but signed" * 5
BEHIND = b"what follows belongs to nobody"


@dataclass(frozen=True)
class Made:
    """A signed file, the key in it, and the algorithm that the header states."""

    content: bytes
    key: bytes
    algorithm: int


def make(key: EcKey | RsaKey, payload: bytes = PAYLOAD, svn: int = 3, algorithm: int | None = None) -> Made:
    algorithm = algorithm or (ECDSA if isinstance(key, EcKey) else RSA)
    covered = head(payload, svn, algorithm) + payload
    return Made(covered + key.public + key.sign(covered), key.public, algorithm)


@pytest.fixture(scope="module", params=["ec", "rsa"])
def made(request: pytest.FixtureRequest) -> Made:
    return make(request.getfixturevalue(request.param))


def payload_of(content: bytes) -> bytes:
    out = CORE.ffi.new("struct span *")
    check(LIB.signed_payload(CORE.span(content), out))
    return CORE.content(out)


def svn_of(content: bytes) -> int:
    out = CORE.ffi.new("uint64_t *")
    check(LIB.signed_svn(CORE.span(content), out))
    return int(out[0])


def verify(content: bytes, key: bytes, svn: int = 0, *, first: int = 48, size: int | None = None) -> None:
    """`first` and `size`: where the payload is said to lie. The region ends before a page out of bounds."""
    region = CORE.guarded(len(content))
    CORE.ffi.memmove(CORE.ffi.cast("void *", region.address), content, len(content))
    length = int.from_bytes(content[20:24], "little")
    payload = CORE.span(region.address + first, length - 48 if size is None else size)
    anchor = CORE.new("anchor")
    anchor.key.bytes = sha384(key).digest()
    check(LIB.verify_signed(payload, CORE.span(region.address, len(content)), anchor, svn))


def refused(error: str, content: bytes, key: bytes, svn: int = 0, **where: int) -> None:
    with pytest.raises(CoreError, match=f"^{error}$"):
        verify(content, key, svn, **where)


def changed(content: bytes, at: int, bit: int = 0) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def test_a_signed_payload_is_authorised(made: Made) -> None:
    verify(made.content, made.key)
    verify(made.content + BEHIND, made.key)
    assert payload_of(made.content + BEHIND) == PAYLOAD
    assert svn_of(made.content) == 3


def test_one_byte_is_a_payload(ec: EcKey) -> None:
    one = make(ec, b"x")
    verify(one.content, one.key)
    assert payload_of(one.content) == b"x"


def test_a_flipped_bit_anywhere(made: Made) -> None:
    """In the header of what is no payload, of the key another one, else of what was not signed."""
    length = 48 + len(PAYLOAD)
    for at in range(0, len(made.content), 7 if made.algorithm == ECDSA else 29):
        with pytest.raises(CoreError) as caught:
            verify(changed(made.content, at, at % 8), made.key)
        if at >= length + len(made.key) or 48 <= at < length:
            assert str(caught.value) == "payload_wrongly_signed"
        elif at >= length:
            assert str(caught.value) == "payload_other_key"


@pytest.mark.parametrize("at", [16, 24, 32, 44])
def test_each_field_of_the_header_is_signed(made: Made, at: int) -> None:
    refused("payload_wrongly_signed", changed(made.content, at), made.key)


def test_another_type_is_not_signed(made: Made) -> None:
    for at in (0, 15):
        wrong = changed(made.content, at)
        refused("payload_not_signed", wrong, made.key)
        for read in (payload_of, svn_of):
            with pytest.raises(CoreError, match=r"^payload_not_signed$"):
                read(wrong)


def with_length(content: bytes, length: int) -> bytes:
    return content[:20] + length.to_bytes(4, "little") + content[24:]


def test_lengths(made: Made) -> None:
    size = len(made.content)
    for length in (0, 47, 48, size + 1, 0xFFFFFFFF):
        wrong = with_length(made.content, length)
        for read in (payload_of, svn_of):
            with pytest.raises(CoreError, match=r"^payload_not_signed$"):
                read(wrong)
        refused("payload_not_signed", wrong, made.key, size=max(0, length - 48))
    longer = with_length(made.content, 48 + len(PAYLOAD) + 1)
    refused("payload_not_signed", longer, made.key)  # no room for the signature
    refused("payload_other_key", longer + b"\0", made.key)
    refused("payload_other_key", with_length(made.content, 48 + len(PAYLOAD) - 1), made.key)
    assert payload_of(with_length(made.content, size)) == made.content[48:]


def test_a_file_that_is_cut(made: Made) -> None:
    for size in (0, 47, 48, 48 + len(PAYLOAD), len(made.content) - 1):
        refused("payload_not_signed", made.content[:size], made.key, size=len(PAYLOAD))


@pytest.mark.parametrize("algorithm", [0, 3, 0x101, 0xFFFFFFFF])
def test_algorithms_that_nobody_knows(ec: EcKey, algorithm: int) -> None:
    covered = head(PAYLOAD, 3, algorithm) + PAYLOAD
    refused("payload_not_signed", covered + ec.public + ec.sign(covered) + bytes(1000), ec.public)


def test_an_algorithm_that_is_not_the_keys(ec: EcKey, rsa: RsaKey) -> None:
    as_rsa, as_ecdsa = make(ec, algorithm=RSA), make(rsa, algorithm=ECDSA)
    refused("payload_other_key", as_rsa.content + bytes(1000), as_rsa.key)
    refused("payload_other_key", as_ecdsa.content, as_ecdsa.key)


def test_another_key(ec: EcKey, rsa: RsaKey) -> None:
    """Rightly signed, but the anchor names another key."""
    other = EcKey("other")
    for key, wanted in ((other, ec), (ec, rsa), (rsa, ec)):
        refused("payload_other_key", make(key).content, wanted.public)


def test_the_anchors_key_but_the_signature_of_another(ec: EcKey) -> None:
    covered = head(PAYLOAD, 3, ECDSA) + PAYLOAD
    forged = covered + ec.public + EcKey("other").sign(covered)
    refused("payload_wrongly_signed", forged, ec.public)


def test_the_whole_hash_of_the_key_counts(ec: EcKey) -> None:
    content = make(ec).content
    region = CORE.span(content)
    payload = CORE.span(CORE.address(region.data) + 48, len(PAYLOAD))
    for at in (0, 47):
        anchor = CORE.new("anchor")
        anchor.key.bytes = changed(sha384(ec.public).digest(), at)
        with pytest.raises(CoreError, match=r"^payload_other_key$"):
            check(LIB.verify_signed(payload, region, anchor, 0))


def test_a_minimum_svn(ec: EcKey) -> None:
    content = make(ec, svn=3).content
    for svn in (0, 3):
        verify(content, ec.public, svn)
    for svn in (4, 2**64 - 1):
        refused("payload_too_old", content, ec.public, svn)
    verify(make(ec, svn=2**64 - 1).content, ec.public, 2**64 - 1)


def test_what_is_authorised_is_what_was_signed(ec: EcKey) -> None:
    made = make(ec)
    size = len(PAYLOAD)
    for where in ({"first": 47}, {"first": 49}, {"size": size - 1}, {"size": size + 1}, {"first": 0}):
        refused("payload_not_signed", made.content, ec.public, **where)
