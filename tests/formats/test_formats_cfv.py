"""Is a CFV written byte for byte as td-shim-enroll writes it, and read by the rules of td-shim's reader?"""

from __future__ import annotations

import struct
from uuid import UUID

import cfvbyhand as hand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import one_line
from virt.firmware.dump import Edk2FfsFile, Edk2Volume

from formats import cfv
from formats.errors import FieldError, FormatError

A, B = UUID("f10e684e-3abd-20e4-5932-8f973c355e57"), UUID(int=7)
HASH = bytes(range(48))
SIZE = 0x4_0000
SMALL = 0x1000
# Of td-shim's data/sample-keys/ecdsa-p384-public.der: the key's hash, and the volume that it is enrolled in.
SAMPLE_HASH = bytes.fromhex(
    "d7663f4019793d7d3d6be2d4a24db8e7d6c4e9290b3be2f1e323f16d80c93aac4217ddbadfef57b8db4c67d1f2b246e4"
)
SAMPLE = bytes.fromhex(
    "00000000000000000000000000000000 7ac07354cb3dca4dbd6f1e9689e7349a"
    "0000040000000000 5f465648 fff60400 7800 524f 6000 0002 4000000000100000 0000000000000000"
    "000000000000000000000000000000000000 f0002c000007"
    "00000000000000000000000000000000 14000000 00000000"
    "2e74a2774093c94a8f85b7b978580021 79aa010070000007"
    "a3658fbe3ba85c41a1fbf78e105e824e 01000000 58000000 0100000000000000 0000000000000000"
)


def test_the_worked_example_byte_for_byte() -> None:
    volume = cfv.write(SIZE, [(cfv.ANCHOR_FILE, cfv.anchor(SAMPLE_HASH))])
    assert volume == (SAMPLE + SAMPLE_HASH).ljust(SIZE, b"\0")
    found = cfv.read(volume)
    assert [(file.name, file.type, file.offset, file.size) for file in found.files] == [
        (cfv.ANCHOR_FILE, 1, 0x78, 0x70)
    ]
    assert found.end == 0xE8
    assert cfv.read_anchor(found.find(cfv.ANCHOR_FILE) or b"") == SAMPLE_HASH


@given(st.lists(st.tuples(st.uuids(), st.binary(max_size=40)), max_size=5), st.integers(1, 3))
def test_what_is_written_is_what_a_hand_packs(files: list[tuple[UUID, bytes]], pages: int) -> None:
    volume = cfv.write(pages * 0x1000, files)
    assert volume == hand.volume(pages * 0x1000, *(hand.file(*each) for each in files))
    assert list(hand.files(volume)) == [(name, 1, data) for name, data in files]
    assert [(file.name, file.data) for file in cfv.read(volume).files] == files


def test_virt_firmware_reads_the_files() -> None:
    """It knows FFS2 only and goes on over zeros, so it is given the files' bytes."""
    volume = cfv.write(SIZE, [(cfv.ANCHOR_FILE, cfv.anchor(HASH)), (A, b"{}"), (B, bytes(5000))])
    read = Edk2Volume(data=volume)
    assert (read.tlen, read.hlen, read.xoff, read.rev, read.blocks * read.bsize) == (
        SIZE,
        0x78,
        0x60,
        2,
        SIZE,
    )
    read.parse_ffs(volume[read.hlen : cfv.read(volume).end])
    assert all(isinstance(file, Edk2FfsFile) for file in read)
    assert [(str(file.guid), file.fmt_type(), file.tlen) for file in read] == [
        (str(cfv.ANCHOR_FILE), "raw", 24 + 88),
        (str(A), "raw", 24 + 2),
        (str(B), "raw", 24 + 5000),
    ]


def test_what_does_not_fit_is_refused_with_both_sizes() -> None:
    room = SMALL - 0x78 - 24
    assert len(cfv.write(SMALL, [(A, bytes([1]) * room)])) == SMALL
    with pytest.raises(
        FieldError, match=rf"CFV file {A}: found {room + 1:,} bytes, expected at most {room:,}"
    ):
        cfv.write(SMALL, [(A, bytes(room + 1))])
    # Of the second file, the padding before it counts: 0x78 + 24 + 1 is rounded up.
    rest = SMALL - 0x98 - 24
    assert cfv.read(cfv.write(SMALL, [(A, b"x"), (B, bytes(rest))])).files[1].offset == 0x98
    with pytest.raises(FieldError, match=rf"file {B}: found {rest + 1:,} bytes, expected at most {rest:,}"):
        cfv.write(SMALL, [(A, b"x"), (B, bytes(rest + 1))])
    with pytest.raises(FieldError, match="expected at most 0, the rest"):
        cfv.write(SMALL, [(A, bytes(room)), (B, b"")])
    with pytest.raises(FieldError, match="expected at most 16,777,190"):  # 24 bits of size
        cfv.write(32 << 20, [(A, bytes((1 << 24) - 1 - 24))])
    for size in (0, 0x1800):
        with pytest.raises(FieldError, match="expected whole pages"):
            cfv.write(size, [])


GOOD = hand.volume(SMALL, hand.file(A, b"first"), hand.file(B, b"second"))


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def summed(data: bytes) -> bytes:
    """With a checksum that is right again."""
    blank = changed(data, 0x32, bytes(2))
    return changed(blank, 0x32, struct.pack("<H", -sum(struct.unpack_from("<28H", blank)) & 0xFFFF))


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        (b"", "found 0 bytes, expected 72"),
        (GOOD[:71], "found 71 bytes, expected 72"),
        (GOOD[:-8], "offset 0x20: found a volume of 0x1000 bytes, expected 0xff8"),
        (GOOD + bytes(8), "offset 0x20: found a volume of 0x1000 bytes, expected 0x1008"),
        (summed(changed(GOOD, 15, b"\1")), "zero vector"),
        (summed(changed(GOOD, 0x28, b"X")), "offset 0x28: found signature b'XFVH', expected b'_FVH'"),
        (
            changed(GOOD, 0x2C, b"\1"),
            r"offset 0x32: found 16-bit words that add up to 0x\w+ up to offset 0x38",
        ),
        (changed(GOOD, 0x37, b"\3"), "add up to"),
        (summed(changed(GOOD, 0x37, b"\3")), "offset 0x37: found revision 3, expected 2"),
        (
            summed(changed(GOOD, 0x30, b"\1\x10")),
            "offset 0x30: found a header of 0x1001 bytes, expected at most",
        ),
    ],
)
def test_a_header_that_td_shim_refuses(volume: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        cfv.read(volume)


@pytest.mark.parametrize(
    "offset", [0x10, 0x2C, 0x34, 0x38, 0x48, 0x60, 0x77], ids=lambda offset: f"{offset:#x}"
)
def test_what_td_shim_does_not_look_at(offset: int) -> None:
    """File system, attributes, extended header, block map, pad file."""
    assert cfv.read(summed(changed(GOOD, offset, b"\x5a"))).find(A) == b"first"


def test_the_walk_begins_where_the_header_says() -> None:
    assert cfv.read(summed(changed(GOOD, 0x30, b"\x98\0"))).find(A) is None
    assert cfv.read(summed(changed(GOOD, 0x30, b"\x98\0"))).find(B) == b"second"
    whole = cfv.read(summed(changed(GOOD, 0x30, b"\0\x10")))
    assert (whole.files, whole.end, whole.because) == ((), SMALL, "no room for another file")


def test_the_first_file_of_a_name_counts() -> None:
    volume = hand.volume(
        SMALL, hand.file(A, b"other", kind=2), hand.file(A, b"first"), hand.file(A, b"again")
    )
    assert cfv.read(volume).find(A) == b"first"
    assert cfv.read(volume).find(B) is None


@pytest.mark.parametrize("offset", range(24))
def test_a_broken_header_ends_the_search(offset: int) -> None:
    """Even for a good match behind it; one before it counts."""
    broken = bytearray(hand.file(A, b"x"))
    broken[offset] ^= 0x10
    found = cfv.read(hand.volume(SMALL, hand.file(B, b"before"), bytes(broken), hand.file(A, b"behind")))
    assert (found.find(B), found.find(A), found.end) == (b"before", None, 0x98)


def test_a_broken_header_is_named() -> None:
    bad = changed(GOOD, 0x78 + 23, b"\6")
    assert cfv.read(bad).because == "a file header whose bytes add up to 0xb0, not 0xb1"
    assert cfv.read(changed(GOOD, 0x78 + 20, b"\x17")).because == "a file of 0x17 bytes, where 0xf88 are left"
    assert cfv.read(hand.volume(SMALL)).because == "a file of 0x0 bytes, where 0xf88 are left"


def test_a_file_ends_with_the_volume_or_before() -> None:
    rest = SMALL - 0x78
    assert cfv.read(hand.volume(SMALL, hand.file(A, bytes(rest - 24)))).find(A) == bytes(rest - 24)
    longer = hand.file(A, bytes(rest + 1 - 24))[:rest]
    assert cfv.read(hand.volume(SMALL, longer)).because == "a file of 0xf89 bytes, where 0xf88 are left"


def test_large_files() -> None:
    """td-shim's: a size of four bytes behind a header of 24."""
    volume = hand.volume(SMALL, hand.large_file(A, b"large"), hand.file(B, b"small"))
    found = cfv.read(volume)
    assert (found.find(A), found.find(B)) == (b"large", b"small")
    assert cfv.read(changed(volume, 0x78 + 24, b"\x1b\0\0\0")).files == ()
    filled = hand.volume(SMALL, hand.file(B, bytes(SMALL - 0x78 - 24 - 24)), bytes(19) + b"\1" + bytes(4))
    assert cfv.read(filled).because == "no room for another file"


def test_anchors() -> None:
    data = cfv.anchor(HASH)
    assert data == hand.anchor(HASH)
    assert cfv.read_anchor(data) == HASH
    assert cfv.read_anchor(data + bytes(8)) == HASH  # as the tool of 2022 wrote it
    for wrong, says in (
        (data[:39], "found 39 bytes, expected 40"),
        (b"\0" + data[1:], "found type be8f6500-.* expected be8f65a3"),
        (data[:87], "found a length of 88, expected at most 87"),
        (hand.anchor(b""), "found a length of 40, expected 88"),
        (hand.anchor(HASH + b"x"), "found a length of 89, expected 88"),
        (data[:24] + b"\2" + data[25:], "offset 0x18: found hash algorithm 0x2, expected 1, SHA-384"),
        (data + bytes(9), "found a file of 97 bytes, expected at most 96"),
    ):
        with pytest.raises(FormatError, match=says):
            cfv.read_anchor(wrong)


@settings(max_examples=1000)
@given(st.data())
def test_a_mutated_volume_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    volume = bytearray(
        hand.volume(SMALL, hand.file(cfv.ANCHOR_FILE, hand.anchor(HASH)), hand.large_file(B, b"x"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        volume[data.draw(st.integers(0, 0x140))] = data.draw(st.integers(0, 255))
    mutated = bytes(volume)
    if data.draw(st.booleans()):
        mutated = summed(mutated)
    with one_line():
        found = cfv.read(mutated[: data.draw(st.one_of(st.just(SMALL), st.integers(0, SMALL)))])
        assert all(
            mutated[file.offset + file.size - len(file.data) :].startswith(file.data) for file in found.files
        )
        if (anchor := found.find(cfv.ANCHOR_FILE)) is not None:
            assert cfv.read_anchor(anchor) in mutated
