"""Is TDVF metadata found as tolerant VMMs find it, in a foreign image too?"""

from __future__ import annotations

import struct

import pytest
from debian import ovmf
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from formats import guids, tdvf
from formats.errors import FormatError

SECTIONS = st.lists(
    st.builds(
        tdvf.Section,
        data_offset=st.integers(0, 2**32 - 1),
        raw_size=st.integers(0, 2**32 - 1),
        address=st.integers(0, 2**64 - 1),
        memory_size=st.integers(0, 2**64 - 1),
        type=st.integers(0, 2**32 - 1),
        attributes=st.integers(0, 2**32 - 1),
    ),
    max_size=8,
)


def by_hand(image: bytes) -> list[tuple[int, ...]]:
    """Sections by struct alone, through the GUID table: the TDX entry is searched by its GUID's bytes."""
    at = image.rindex(bytes.fromhex("35657ae44a989847865e4685a7bf8ec2"))
    (distance,) = struct.unpack_from("<I", image, at - 6)
    start = len(image) - distance
    signature, length, version, count = struct.unpack_from("<4sIII", image, start)
    assert (signature, length, version) == (b"TDVF", 16 + 32 * count, 1)
    return [struct.unpack_from("<IIQQII", image, start + 16 + 32 * i) for i in range(count)]


def test_ovmf_has_what_a_reader_by_hand_finds() -> None:
    image = ovmf().read_bytes()
    found = tdvf.metadata(image)
    assert [
        (s.data_offset, s.raw_size, s.address, s.memory_size, s.type, s.attributes) for s in found.sections
    ] == by_hand(image)
    assert {s.type_name for s in found.sections} >= {"BFV", "CFV", "TD_HOB", "TempMem"}
    names = [guids.name(entry.guid) for entry in tdvf.table_entries(image)]
    assert any("SEV-ES reset block" in name for name in names)


@given(SECTIONS)
def test_both_pointers_lead_to_the_sections(sections: list[tdvf.Section]) -> None:
    block = tdvf.descriptor(sections)
    table = tdvf.guid_table(0x400 - 16)
    end = bytearray(0x400)
    end[: len(block)] = block
    end[-0x48:-0x20] = table
    image = bytes(0x1000) + bytes(end)
    assert tdvf.offset_by_table(image) == 0x1010
    assert tdvf.metadata(image) == tdvf.Metadata(0x1010, tuple(sections))
    end[-0x48:-0x20] = bytes(40)
    end[-0x20:-0x1C] = struct.pack("<I", 0x1010)
    image = bytes(0x1000) + bytes(end)
    assert tdvf.offset_by_table(image) is None
    assert tdvf.metadata(image) == tdvf.Metadata(0x1010, tuple(sections))


def entry(guid: bytes, data: bytes, length: int | None = None) -> bytes:
    """An entry of a GUID table, whose length may lie."""
    return data + struct.pack("<H", len(data) + 18 if length is None else length) + guid


TDX = guids.TDX_METADATA_OFFSET.bytes_le
TDX_ENTRY = entry(TDX, struct.pack("<I", 0x400 - 16))


def with_table(entries: bytes, length: int | None = None) -> bytes:
    """1 KiB with one BFV in its metadata, and this GUID table; `length`: what its footer says."""
    block = tdvf.descriptor([tdvf.Section(0, 0x1000, 0xFFFFF000, 0x1000, 0, 1)])
    table = entry(guids.TABLE_FOOTER.bytes_le, entries)
    if length is not None:
        table = table[:-18] + struct.pack("<H", length) + table[-16:]
    return (block.ljust(0x400 - 0x20 - len(table), b"\0") + table).ljust(0x400, b"\0")


def test_a_table_by_hand_leads_to_the_section() -> None:
    for entries in (TDX_ENTRY, entry(bytes(16), b"other") + TDX_ENTRY, TDX_ENTRY + entry(bytes(16), b"")):
        assert tdvf.metadata(with_table(entries)).sections[0].type_name == "BFV"


@pytest.mark.parametrize(
    ("entries", "length", "says"),
    [
        (TDX_ENTRY, 17, "GUID table length 17"),
        (TDX_ENTRY, 0x3E1, "GUID table length 993"),
        (entry(TDX, b"", 17), None, "GUID table entry of length 17"),
        (entry(TDX, b"\x10\0\0\0", 23), None, "GUID table entry of length 23"),
        (entry(TDX, bytes(3)), None, "TDX entry with 3 bytes"),
        (entry(TDX, bytes(8)), None, "TDX entry with 8 bytes"),
    ],
)
def test_a_broken_table_is_named(entries: bytes, length: int | None, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        tdvf.metadata(with_table(entries, length))


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (0, b"TDVX", "signature b'TDVX'"),
        (4, struct.pack("<I", 47), "length 47, expected 48 for 1 section"),
        (4, struct.pack("<I", 49), "length 49, expected 48 for 1 section"),
        (8, struct.pack("<I", 2), "TDVF version 2"),
        (8, struct.pack("<I", 0), "TDVF version 0"),
        (4, struct.pack("<III", 16 + 32 * 32, 1, 32), "1008 bytes, expected 1040 bytes of TDVF metadata"),
    ],
)
def test_a_broken_descriptor_is_named(offset: int, value: bytes, says: str) -> None:
    image = bytearray(with_table(TDX_ENTRY))
    image[16 + offset : 16 + offset + len(value)] = value
    with pytest.raises(FormatError, match=says):
        tdvf.metadata(bytes(image))


@given(st.binary(max_size=300))
def test_garbage_gives_one_clear_line(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        tdvf.metadata(data, place="file.bin")
    assert str(caught.value).startswith("file.bin")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_changed_end_of_ovmf_gives_no_traceback(data: st.DataObject) -> None:
    image = bytearray(ovmf().read_bytes()[-0x2000:])
    for _ in range(data.draw(st.integers(1, 4))):
        image[-data.draw(st.integers(1, 0xC00))] = data.draw(st.integers(0, 255))
    with one_line():
        assert tdvf.metadata(bytes(image)).sections
        tuple(tdvf.table_entries(bytes(image)))
