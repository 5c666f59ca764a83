"""Is the trust anchor found where td-shim finds it, and nothing taken for one? The C core's volume reader."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha384

import pytest
from ccore import CORE, FFI, LIB, CoreError, check
from hypothesis import given, settings
from hypothesis import strategies as st
from securebytes import ANCHOR_FILE, anchor, file, volume

KEY = bytes(range(96))
ANCHOR = anchor(KEY)
OTHER = bytes(16)


def found(content: bytes) -> bytes:
    """The data of the anchor's file."""
    region = CORE.guarded(len(content))
    FFI.memmove(FFI.cast("void *", region.address), bytes(content), len(content))
    span, out = CORE.span(region.address, len(content)), CORE.ffi.new("struct span *")
    check(LIB.anchor_extent(span, out))
    assert region.address <= CORE.address(out.data) <= region.address + len(content) - out.size
    return CORE.content(out)


def key_hash(data: bytes) -> bytes:
    out = CORE.new("anchor")
    check(LIB.trust_anchor(CORE.span(data), out))
    return bytes(out.key.bytes)


def refused(content: bytes, error: str) -> None:
    with pytest.raises(CoreError, match=f"^{error}$"):
        found(content)


def test_the_worked_example() -> None:
    """Of td-shim's sample key: 0x40000 bytes, checksum 0x4F52, header checksum of the file 0x79."""
    digest = (
        "d7663f4019793d7d3d6be2d4a24db8e7d6c4e9290b3be2f1e323f16d80c93aac4217ddbadfef57b8db4c67d1f2b246e4"
    )
    text = f"""
        00000000000000000000000000000000 7ac07354cb3dca4dbd6f1e9689e7349a 0000040000000000 5f465648 fff60400
        7800 524f 6000 0002 40000000 00100000 0000000000000000
        000000000000000000000000000000000000f0002c000007
        00000000000000000000000000000000 14000000 00000000
        2e74a2774093c94a8f85b7b978580021 79aa010070000007
        a3658fbe3ba85c41a1fbf78e105e824e 01000000 58000000 0100000000000000 0000000000000000
        {digest}"""
    content = bytes.fromhex("".join(text.split()))
    data = found(content + bytes(0x40000 - len(content)))
    assert (len(data), key_hash(data).hex()) == (88, digest)
    assert content[:0x78] == bytes(volume(size=0x40000)[:0x78])  # so our packing is td-shim's


def test_the_anchor_is_found_behind_other_files() -> None:
    names = [file(bytes([n]) * 16, bytes(n)) for n in range(1, 20)]
    assert found(volume(*names, file(ANCHOR_FILE, ANCHOR), size=0x2000)) == ANCHOR
    first = volume(file(ANCHOR_FILE, ANCHOR), file(ANCHOR_FILE, anchor(b"other")))
    assert found(first) == ANCHOR
    assert key_hash(ANCHOR) == sha384(KEY).digest()


def test_padding_of_the_tool_of_2022() -> None:
    padded = ANCHOR + bytes(8)
    assert key_hash(found(volume(file(ANCHOR_FILE, padded)))) == sha384(KEY).digest()
    assert found(volume(file(ANCHOR_FILE, padded))) == padded
    refused(volume(file(ANCHOR_FILE, padded + b"\0")), "anchor_malformed")


def test_a_large_file() -> None:
    assert found(volume(file(ANCHOR_FILE, ANCHOR, large=True))) == ANCHOR
    assert found(volume(file(OTHER, bytes(300), large=True), file(ANCHOR_FILE, ANCHOR))) == ANCHOR
    wrong = bytearray(file(ANCHOR_FILE, ANCHOR, large=True))
    wrong[27] ^= 0x80  # the top byte of its size
    refused(volume(bytes(wrong)), "anchor_missing")


def test_a_large_file_at_the_end() -> None:
    """Its size would lie behind the volume."""
    content = volume()
    head = bytearray(file(ANCHOR_FILE, b"", large=True)[:24])
    content[0x30:0x32] = (0x1000 - 24).to_bytes(2, "little")
    content[0x1000 - 24 :] = head
    refused(summed(content), "anchor_missing")


def summed(content: bytearray) -> bytearray:
    """With the checksum of a volume mended."""
    content[0x32:0x34] = b"\0\0"
    words = sum(int.from_bytes(content[i : i + 2], "little") for i in range(0, 56, 2))
    content[0x32:0x34] = (-words & 0xFFFF).to_bytes(2, "little")
    return content


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\1"),
        (15, b"\1"),
        (0x20, b"\1"),
        (0x21, b"\x20"),
        (0x27, b"\1"),
        (0x28, b"X"),
        (0x2B, b"h"),
        (0x37, b"\1"),
    ],
)
def test_each_field_of_the_volume(at: int, value: bytes) -> None:
    content = volume(file(ANCHOR_FILE, ANCHOR))
    content[at : at + 1] = value
    refused(summed(content), "volume_malformed")


def test_the_checksum_of_the_volume() -> None:
    for at in (0x10, 0x2C, 0x32, 0x33, 0x35):
        content = volume(file(ANCHOR_FILE, ANCHOR))
        content[at] ^= 1
        refused(content, "volume_malformed")
    content = volume(file(ANCHOR_FILE, ANCHOR))
    content[0x38] ^= 1  # the block map has no checksum
    assert found(content) == ANCHOR


def test_the_header_ends_in_the_volume() -> None:
    content = volume(file(ANCHOR_FILE, ANCHOR))
    for end in (0x1000 - 23, 0x1000, 0x1001, 0xFFFF):
        content[0x30:0x32] = end.to_bytes(2, "little")
        refused(summed(content), "anchor_missing")


def test_a_region_that_is_too_small() -> None:
    for size in (0, 1, 71):
        refused(bytes(volume()[:size]), "volume_malformed")


def test_a_broken_first_file_hides_the_others() -> None:
    good = file(ANCHOR_FILE, ANCHOR)
    for at in (0, 16, 17, 19, 23):  # bit 1 of the attributes means nothing
        broken = bytearray(file(OTHER, bytes(8)))
        broken[at] ^= 2
        refused(volume(bytes(broken), good), "anchor_missing")
        assert found(volume(good, bytes(broken))) == ANCHOR


def test_only_a_raw_file_of_that_name() -> None:
    for kind in (0, 2, 5, 0xF0):
        refused(volume(file(ANCHOR_FILE, ANCHOR, kind=kind)), "anchor_missing")
    other = bytearray(ANCHOR_FILE)
    other[15] ^= 1
    refused(volume(file(bytes(other), ANCHOR)), "anchor_missing")
    refused(volume(), "anchor_missing")


@pytest.mark.parametrize("size", [0, 23, 0x1000 - 0x78 + 1, 0xFFFFFF])
def test_a_file_that_does_not_fit(size: int) -> None:
    refused(volume(file(ANCHOR_FILE, ANCHOR, size=size)), "anchor_missing")


def test_a_file_up_to_the_end() -> None:
    rest = 0x1000 - 0x78 - 24
    refused(volume(file(OTHER, bytes(rest))), "anchor_missing")
    filler = file(OTHER, bytes(rest - 24 - 24 - 88))
    assert found(volume(filler, file(ANCHOR_FILE, ANCHOR))) == ANCHOR


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0), (15, 0), (20, 0x57), (20, 0x59), (23, 1), (24, 2), (31, 1)]
)
def test_each_field_of_the_anchor(at: int, value: int) -> None:
    wrong = bytearray(ANCHOR)
    wrong[at] = value
    with pytest.raises(CoreError, match=r"^anchor_malformed$"):
        key_hash(bytes(wrong))


def test_an_anchor_that_is_cut() -> None:
    for size in (0, 39, 40, 87):
        with pytest.raises(CoreError, match=r"^anchor_malformed$"):
            key_hash(ANCHOR[:size])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_give_a_part_or_a_status(data: st.DataObject) -> None:
    content = volume(file(OTHER, b"12345"), file(ANCHOR_FILE, ANCHOR))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 0x180))] = data.draw(st.integers(0, 255))
    content = summed(content) if data.draw(st.booleans()) else content
    with suppress(CoreError):
        assert len(found(content)) <= 96
