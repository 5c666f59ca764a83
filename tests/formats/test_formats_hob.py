"""Are TD HOB lists written as each VMM writes them, and read as strictly as td-shim reads them?"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from formats import guids, hob
from formats.errors import FieldError, TruncatedError

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
RESOURCES = st.builds(hob.Resource, U32, U64, U64, U32)
EXTENSIONS = st.builds(hob.GuidExtension, st.uuids(), st.binary(max_size=8).map(lambda data: data * 8))
SAMPLE = (
    hob.Resource(hob.ResourceType.UNACCEPTED, 0, 0x4000_0000),
    hob.Resource(hob.ResourceType.MMIO, 0xC000_0000, 0x3EE0_0000, hob.MMIO_ATTRIBUTES),
    hob.acpi_table(b"TABLE" * 9),
    hob.payload_info(hob.PayloadImage.BZIMAGE, 0x90_1000),
)


def by_hand(data: bytes) -> list[tuple[int, int, int]]:
    """Offset, type and length of each HOB, by the PI specification's rules and struct alone."""
    found, offset = [], 0
    while True:
        kind, length = struct.unpack_from("<HH", data, offset)
        assert length >= 8  # a shorter one would be read again and again
        found.append((offset, kind, length))
        offset += (length + 7) & ~7
        if kind == 0xFFFF:
            assert offset == len(data)
            return found


def test_layout_by_hand() -> None:
    data = hob.write(0x80_0000, SAMPLE)
    assert by_hand(data) == [
        (0, 1, 56),
        (56, 3, 48),
        (104, 3, 48),
        (152, 4, 72),  # 24 + 45 bytes, rounded up
        (224, 4, 40),
        (264, 0xFFFF, 8),
    ]
    assert struct.unpack_from("<II", data, 8) == (9, 0)
    assert struct.unpack_from("<4QQ", data, 16) == (0, 0, 0, 0, 0x80_0000 + len(data))
    assert struct.unpack_from("<IIQQ", data, 104 + 24) == (1, 0x403, 0xC000_0000, 0x3EE0_0000)
    assert data[232:248].hex() == "12a46fb91f46e34b8c0dad805a497ac0"
    assert struct.unpack_from("<IIQ", data, 248) == (1, 0, 0x90_1000)


def test_both_payload_infos() -> None:
    wide = hob.write(0, [hob.payload_info(1, 0x1234)])
    packed = hob.write(0, [hob.payload_info_packed(1, 0x1234)])
    assert by_hand(wide)[1][2] == 40
    assert by_hand(packed)[1][2] == 36
    assert hob.read(wide).extensions(guids.HOB_PAYLOAD_INFO) == (struct.pack("<IIQ", 1, 0, 0x1234),)
    assert hob.read(packed).extensions(guids.HOB_PAYLOAD_INFO) == (struct.pack("<IQ", 1, 0x1234),)


@given(st.lists(RESOURCES | EXTENSIONS, max_size=12), st.binary(max_size=40))
def test_round_trip_whatever_follows(hobs: list[hob.Hob], rest: bytes) -> None:
    data = hob.write(0x1000, hobs)
    found = hob.read(data + rest)
    assert found.hobs == tuple(hobs)
    assert found.size == len(data)
    assert found.end_of_hob_list == 0x1000 + len(data)


@given(st.integers(0, 271), st.integers(1, 255))
def test_a_changed_byte_gives_a_list_or_one_clear_line(offset: int, change: int) -> None:
    data = bytearray(hob.write(0x1000, SAMPLE))
    data[offset] ^= change
    with one_line():
        hob.read(bytes(data))


@given(st.integers(0, 271))
def test_a_cut_list_is_refused(length: int) -> None:
    with pytest.raises(TruncatedError):
        hob.read(hob.write(0x1000, SAMPLE)[:length])


def test_what_is_wrong_is_said() -> None:
    data = hob.write(0x1000, SAMPLE)
    with pytest.raises(FieldError, match=r"offset 0x38: found HOB type 0x6, expected 1, 3, 4 or 0xffff"):
        hob.read(data[:56] + b"\x06" + data[57:])
    with pytest.raises(FieldError, match=r"offset 0x38: found a resource HOB of 40 bytes, expected 48 bytes"):
        hob.read(data[:58] + b"\x28" + data[59:])
    with pytest.raises(FieldError, match=r"offset 0x38: found a resource HOB of 49 bytes, expected 48 bytes"):
        hob.read(data[:58] + b"\x31" + data[59:])
    with pytest.raises(FieldError, match=r"offset 0x38 reserved: found 0x1, expected 0"):
        hob.read(data[:60] + b"\x01" + data[61:])
    with pytest.raises(FieldError, match="found type 0x3 length 48, expected PHIT"):
        hob.read(data[56:])
    with pytest.raises(TruncatedError, match="length 4, expected 8 to"):
        hob.read(data[:58] + b"\x04" + data[59:])


def test_a_table_that_does_not_fit_a_hob_is_refused() -> None:
    with pytest.raises(FieldError, match="expected at most 65528"):
        hob.write(0, [hob.acpi_table(bytes(65505))])
    assert hob.read(hob.write(0, [hob.acpi_table(bytes(65504))])).size == 56 + 65528 + 8
