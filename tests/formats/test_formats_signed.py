"""Is a signed payload framed byte for byte as td-shim-sign-payload does, and read by td-shim's rules?"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import one_line

from formats import signed
from formats.errors import FormatError
from formats.signed import Algorithm

GUID = bytes.fromhex("58d5f2fcf59d4d4fb0d73e4b798ab066")
TAILS = {Algorithm.ECDSA_P384: (96, 96), Algorithm.RSA_3072_PSS: (392, 384)}


def by_hand(payload: bytes, algorithm: int, version: int = 1, svn: int = 2) -> bytes:
    head = struct.pack("<16sIIQQII", GUID, 1, 48 + len(payload), version, svn, algorithm, 0)
    return head + payload + bytes(i % 251 for i in range(sum(TAILS[Algorithm(algorithm)])))


@pytest.mark.parametrize("kind", Algorithm)
@given(
    payload=st.binary(min_size=1, max_size=99),
    version=st.integers(0, 2**64 - 1),
    svn=st.integers(0, 2**64 - 1),
)
def test_frame(kind: Algorithm, payload: bytes, version: int, svn: int) -> None:
    whole = by_hand(payload, kind, version, svn)
    assert signed.covered(payload, kind, version, svn) == whole[: 48 + len(payload)]
    key, _ = TAILS[kind]
    for behind in (b"", b"behind"):
        found = signed.read(whole + behind)
        assert (found.algorithm, found.version, found.svn, found.payload) == (kind, version, svn, payload)
        assert found.covered + found.key + found.signature == whole
        assert len(found.key) == key


def test_algorithms_have_the_numbers_of_the_code() -> None:
    """Not those of upstream's document."""
    assert [(each.value, each.name) for each in Algorithm] == [(1, "ECDSA_P384"), (2, "RSA_3072_PSS")]


GOOD = by_hand(b"payload", 1)


def changed(offset: int, form: str, value: int) -> bytes:
    raw = bytearray(GOOD)
    struct.pack_into(form, raw, offset, value)
    return bytes(raw)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "found 0 bytes, expected 48"),
        (GOOD[:47], "found 47 bytes, expected 48"),
        (changed(0, "<B", 0), "found type fcf2d500-.* expected fcf2d558-.*, a signed payload"),
        (changed(20, "<I", 48), "offset 0x14: found a length of 48, expected 49 to 246, header and payload"),
        (changed(20, "<I", len(GOOD)), "offset 0x14: found a length of 247, expected 49 to 246"),
        (
            changed(40, "<I", 0),
            r"offset 0x28: found algorithm 0, expected 1 \(ECDSA_P384\) or 2 \(RSA_3072_PSS\)",
        ),
        (changed(40, "<I", 3), "found algorithm 3"),
        (changed(40, "<I", 2), "offset 0x37: found 192 bytes, expected 776 of key and signature"),
        (GOOD[:-1], "offset 0x37: found 191 bytes, expected 192 of key and signature"),
        (changed(20, "<I", 56), "offset 0x38: found 191 bytes, expected 192 of key and signature"),
    ],
)
def test_what_td_shim_refuses(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        signed.read(data)


@pytest.mark.parametrize("offset", [16, 44])
def test_what_td_shim_does_not_look_at(offset: int) -> None:
    """Structure version and reserved bytes: they are signed."""
    assert signed.read(changed(offset, "<I", 0xFFFF_FFFF)).payload == b"payload"


def test_a_payload_is_at_least_a_byte_and_has_a_length_of_four() -> None:
    with pytest.raises(FormatError, match="kernel: found 0 bytes, expected 1 to 4,294,967,247"):
        signed.covered(b"", Algorithm.ECDSA_P384, 1, 1, place="kernel")


@settings(max_examples=1000)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    raw = bytearray(by_hand(b"payload", data.draw(st.sampled_from([1, 2]))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    mutated = bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    with one_line():
        found = signed.read(mutated)
        assert mutated.startswith(found.covered + found.key + found.signature)
        assert found.covered[48:] == found.payload != b""
