"""Is an IGVM file what microsoft/igvm's definitions say, with the pages and the MRTD of the TDVF image?"""

from __future__ import annotations

import hashlib
import json
import struct

import igvmfile
import pytest
from hypothesis import given
from hypothesis import strategies as st
from igvmfile import (
    AREA,
    COMMAND_LINE,
    INSERT,
    PAGE_DATA,
    PLATFORM,
    POLICY,
    REQUIRED,
    changed,
    headers,
    made,
    packed,
)
from refusals import one_line
from tdvfimage import code, image_for_direct_boot, image_for_qemu, patched, records, regions
from test_image_mrtd import by_the_specification

from formats import igvm
from formats.errors import FormatError
from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from image.igvm import check_igvm, write_igvm
from image.inspect_igvm import inspect_igvm
from image.mrtd import igvm_mrtd, mrtd
from image.write import Placed, write_image

IMAGE = image_for_direct_boot()
FILE = write_igvm(IMAGE)
ALL = headers(FILE)
FIRST = next(item for item in ALL if item.type == PAGE_DATA)  # of the BFV
TDX = packed(PLATFORM, 1, 0, 3, 1, 1 << 47)
RULES = packed(POLICY, 2, 1, 0)


def of(kind: int) -> list[igvmfile.Header]:
    return [item for item in ALL if item.type == kind]


def codes(file: bytes) -> set[str]:
    return {finding.code for finding in check_igvm(igvm.read(file))}


def refusal(file: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        igvm.read(file, place="x.igvm")
    assert str(caught.value).startswith("x.igvm")
    return str(caught.value)


# ---- what is written


def test_headers_by_hand() -> None:
    assert [(item["mask"], item["vtl"], item["type"], item["version"]) for item in of(PLATFORM)] == [
        (1, 0, 3, 1)
    ]
    assert of(PLATFORM)[0]["boundary"] == 1 << 47
    assert [item["policy"] for item in of(POLICY)] == [2]
    assert [item.type for item in ALL[:3]] == [PLATFORM, POLICY, PAGE_DATA]
    assert [(item["index"], item["size"], item["file_offset"]) for item in of(AREA)] == [
        (2, 0x1_0000, 0),
        (6, 0x1000, 0),
        (5, 0x2_0000, 0),
    ]
    assert [(item["index"], item["gpa"]) for item in of(INSERT)] == [
        (2, 0x80_0000),
        (6, 0x82_0000),
        (5, 0xA0_0000),
    ]
    assert [(item["index"], item["byte_offset"]) for item in of(COMMAND_LINE)] == [(6, 0)]


# TD_PARAMS with pages of its own, which are no bytes of the BFV.
APART = patched(IMAGE, 3, type=SectionType.TD_PARAMS)
IMAGES = pytest.mark.parametrize(
    "image", [image_for_qemu(), IMAGE, APART], ids=["qemu", "direct-boot", "apart"]
)


@IMAGES
def test_the_pages_are_those_of_the_image(image: bytes) -> None:
    """By a reader of the tests; CFV pages have their data too."""
    expected: list[tuple[int, bytes | None, bool]] = []
    for item in records(image):
        for at in range(0, item.memory_size, 4096):
            data = image[item.data_offset + at :][:4096] if item.raw_size else None
            expected.append((item.address + at, data, bool(item.attributes & 1)))
    assert list(igvmfile.pages(write_igvm(image))) == expected


@IMAGES
def test_mrtd_is_that_of_the_image(image: bytes) -> None:
    file = write_igvm(image)
    measured = igvm_mrtd(igvm.read(file))
    assert measured == mrtd(image)
    pages = [(gpa, data if counts else None) for gpa, data, counts in igvmfile.pages(file)]
    assert by_the_specification(b"", False, pages) == measured.digest.hex()


def test_equal_pages_are_there_once_and_pages_of_zeros_have_data() -> None:
    bfv = bytes(0x2000) + code()
    layout = [Placed("code", SectionType.BFV, FOUR_GIB - len(bfv), len(bfv), 1, bfv), *regions(False)[2:]]
    file = write_igvm(write_image(layout, "qemu"))
    offsets = [item["file_offset"] for item in headers(file) if item.type == PAGE_DATA and not item["flags"]]
    assert len(offsets) == 5
    assert all(offsets)
    assert offsets[0] == offsets[1]
    end = headers(file)[-1]
    assert len(file) == end.offset + 8 + len(end.body) + 4 * 4096


def test_memory_that_the_td_accepts_is_required() -> None:
    """PermMem is not added; a header has 32 bits for a size."""
    image = patched(IMAGE, 5, type=4, attributes=2, memory_size=5 << 30)
    found = [item for item in headers(write_igvm(image)) if item.type == REQUIRED]
    assert [(item["gpa"], item["size"]) for item in found] == [
        (0xA0_0000 + (i << 30), 1 << 30) for i in range(5)
    ]
    assert igvm_mrtd(igvm.read(write_igvm(image))) == mrtd(image)
    assert igvm.read(write_igvm(image)).required[-1] == (0xA0_0000 + (4 << 30), 0xA0_0000 + (5 << 30))
    shown = [text for name, text in inspect_igvm(write_igvm(image)).rows() if name == "required memory"]
    assert (len(shown), shown[0]) == (5, "GPA 0xa00000 to 0x40a00000")


@pytest.mark.parametrize(
    ("section", "fields", "text"),
    [
        (5, {"attributes": 1}, "measured content that the VMM supplies"),
        (3, {"attributes": 1}, "0x0 bytes of data for 0x8000 bytes"),
        (0, {"raw_size": 0x2000}, "0x2000 bytes of data for 0x3000 bytes"),
        (1, {"raw_size": 0x1000}, "0x1000 bytes of data for 0x2000 bytes"),
        (3, {"memory_size": 0x800}, "whole pages"),
        (3, {"address": 0x81_0800}, "whole pages"),
        (3, {"memory_size": 1 << 40}, "at most 1 GiB"),
    ],
)
def test_what_such_a_file_cannot_say_is_refused(section: int, fields: dict[str, int], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        write_igvm(patched(IMAGE, section, **fields))


# ---- what is read


def test_regions_are_pages_that_follow_each_other() -> None:
    found = igvm.read(FILE).regions
    assert [(item.gpa, item.size, item.measured, item.has_data, item.area) for item in found] == [
        (0xFFFF_D000, 0x3000, True, True, None),
        (0xFFFF_B000, 0x2000, False, True, None),
        (0x80_0000, 0x1_0000, False, False, 2),
        (0x81_0000, 0x8000, False, False, None),
        (0x82_0000, 0x1000, False, False, 6),
        (0xA0_0000, 0x2_0000, False, False, 5),
    ]
    assert found[0].content == IMAGE[-0x3000:]
    assert found[4].parameters == ((igvm.HeaderType.COMMAND_LINE, 0),)
    assert found[0].offset == FIRST.offset


def test_pages_that_differ_or_do_not_follow_are_regions_of_their_own() -> None:
    at = 24 + len(TDX) + 32 * 4
    rows = ((0x1000, at, 0), (0x2000, at, 2), (0x3000, 0, 2), (0x5000, 0, 2))
    file = made(TDX, *(packed(PAGE_DATA, gpa, 1, offset, flags, 0, 0) for gpa, offset, flags in rows))
    assert [(item.gpa, item.size) for item in igvm.read(file).regions] == [(gpa, 4096) for gpa, _, _ in rows]


def test_headers_for_another_platform_are_not_ours() -> None:
    """A VP context is, for TDX, an error; here it is for SNP."""
    snp = packed(PLATFORM, 2, 2, 2, 1, 1 << 46)
    page = packed(PAGE_DATA, 0x1000, 2, 0, 0, 0, 0)
    context = struct.pack("<II", 0x304, 20) + struct.pack("<QIIHH", 0, 2, 0, 0, 0) + bytes(4)
    file = made(snp, TDX, packed(POLICY, 0x30000, 2, 0), RULES, page, context)
    read = igvm.read(file)
    assert (read.regions, read.policy, len(read.platforms)) == ((), 2, 2)
    ours = file.replace(struct.pack("<QIIHH", 0, 2, 0, 0, 0), struct.pack("<QIIHH", 0, 3, 0, 0, 0))
    assert "VP_CONTEXT for TDX" in refusal(igvmfile.sealed(ours))


def test_an_optional_header_is_passed_over() -> None:
    unknown = struct.pack("<IIQ", 0x8000_0344, 3, 1)
    assert igvm.read(made(TDX, unknown, RULES)).policy == 2
    assert "header type 0x344" in refusal(made(TDX, struct.pack("<IIQ", 0x344, 3, 1)))


def test_an_area_begins_with_its_data() -> None:
    at = 24 + len(TDX) + 24 * 2
    area = (packed(AREA, 0x1000, 9, at), packed(INSERT, 0x5000, 1, 9))
    (region,) = igvm.read(made(TDX, *area, data=b"\7" * 4096)).regions
    assert (region.area, region.content, region.has_data, region.measured) == (9, b"\7" * 4096, True, False)


AREAS = packed(AREA, 0x1000, 1, 0)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (b"", "offset 0x0: found 0 bytes"),
        (FILE[:23], "offset 0x0: found 23 bytes"),
        (b"X" + FILE[1:], "magic b'XGVM'"),
        (FILE[:4] + b"\2" + FILE[5:], "offset 0x4: found format version 2"),
        (FILE[:-1], f"found {len(FILE) - 1} bytes, expected {len(FILE)}, the total file size"),
        (FILE + b"\0", "offset 0x10: found total file size"),
        (FILE[:8] + b"\x10" + FILE[9:], "offset 0x8: found variable header offset 16"),
        (FILE[:8] + b"\x1c" + FILE[9:], "offset 0x8: found variable header offset 28"),
        (FILE[:14] + b"\xff" + FILE[15:], "offset 0xc: found variable headers to offset"),
        (made(TDX, data=b""), "offset 0xc: found variable headers to offset 0x30"),
        (FILE[:20] + bytes(4) + FILE[24:], "offset 0x14: found checksum 0x00000000"),
        (FILE[:-0x4000] + b"\0" + FILE[-0x3FFF:], ""),
        (made(TDX, bytes(4)), "offset 0x30: found 4 bytes, expected a variable header"),
        (made(TDX, struct.pack("<II", 0x101, 16)), "offset 0x30: found a variable header of 16 bytes"),
        (made(TDX, struct.pack("<IIB", 0x8000_0344, 1, 1)), "offset 0x39: found no padding"),
        (made(TDX, struct.pack("<IIQ", 0x101, 8, 1)), "GUEST_POLICY of 8 bytes, expected 16"),
        (made(TDX, struct.pack("<IIQQQ", 0x101, 24, 2, 1, 0)), "GUEST_POLICY of 24 bytes, expected 16"),
        (made(TDX, RULES, TDX), "type 0x1 behind a later section"),
        (made(TDX, AREAS, RULES), "type 0x101 behind a later section"),
        (made(TDX, TDX), "found 2 platform headers for TDX"),
        (made(packed(PLATFORM, 1, 0, 2, 1, 0)), "found 0 platform headers for TDX"),
        (made(packed(PLATFORM, 3, 0, 3, 1, 0)), "compatibility mask 0x3"),
        (made(packed(PLATFORM, 1, 1, 3, 1, 0)), "highest VTL 1"),
        (made(packed(PLATFORM, 1, 0, 3, 2, 0)), "platform version 2"),
        (made(TDX, RULES, RULES), "offset 0x48: found a second guest policy"),
        (made(TDX, packed(POLICY, 2, 1, 1)), "GUEST_POLICY with a reserved field"),
        (made(TDX, AREAS, AREAS), "offset 0x48: found parameter area 1 again"),
        (made(TDX, AREAS, packed(INSERT, 0, 1, 1), AREAS), "parameter area 1 again"),
        (made(TDX, packed(INSERT, 0, 1, 1)), "parameter area 1, expected one that is declared"),
        (
            made(TDX, AREAS, *[packed(INSERT, 0, 1, 1)] * 2),
            "expected one that is declared and not inserted yet",
        ),
        (made(TDX, AREAS, packed(INSERT, 0, 1, 1), packed(COMMAND_LINE, 1, 0)), "not inserted yet"),
        (made(TDX, AREAS, packed(COMMAND_LINE, 1, 0x1000)), "COMMAND_LINE at byte 0x1000"),
        (made(TDX, packed(AREA, 0x800, 1, 0)), "size 0x800, expected a multiple of 0x1000"),
        (made(TDX, packed(AREA, (1 << 30) + 4096, 1, 0)), "a parameter area of 0x40001000 bytes"),
        (made(TDX, AREAS, packed(INSERT, 0x800, 1, 1)), "GPA 0x800, expected a multiple"),
        (made(TDX, packed(PAGE_DATA, 0x800, 1, 0, 0, 0, 0)), "GPA 0x800, expected a multiple"),
        (made(TDX, packed(PAGE_DATA, 0, 1, 0, 1, 0, 0)), "page flags 0x1"),
        (made(TDX, packed(PAGE_DATA, 0, 1, 0, 4, 0, 0)), "page flags 0x4"),
        (made(TDX, packed(PAGE_DATA, 0, 1, 0, 0, 1, 0)), "data type 1"),
        (made(TDX, packed(PAGE_DATA, 0, 1, 24 + 24 + 31, 0, 0, 0)), "data from offset 0x4f"),
        (made(TDX, packed(PAGE_DATA, 0, 1, 24 + 24 + 33, 0, 0, 0)), "data from offset 0x51 to 0x1051"),
        (made(TDX, AREAS, packed(INSERT, (1 << 64) - 4096, 1, 1)), ""),
        (made(TDX, packed(AREA, 0x2000, 1, 0), packed(INSERT, (1 << 64) - 4096, 1, 1)), "below 2^64"),
    ],
)
def test_what_no_loader_takes_is_refused_with_its_place(file: bytes, text: str) -> None:
    if not text:  # the neighbour that is fine
        assert igvm.read(file)
        return
    assert text in refusal(file)


def test_one_page_more_than_a_gib_is_no_launch() -> None:
    half = 1 << 29
    parts = [
        packed(AREA, half, 1, 0),
        packed(INSERT, 0, 1, 1),
        packed(AREA, half, 2, 0),
        packed(INSERT, half, 1, 2),
    ]
    assert igvm.read(made(TDX, *parts)).regions[1].pages == half // 4096
    assert "at most 1 GiB" in refusal(made(TDX, *parts, packed(PAGE_DATA, 1 << 31, 1, 0, 2, 0, 0)))


@given(st.data())
def test_a_mutated_file_gives_facts_or_one_line(data: st.DataObject) -> None:
    file = bytearray(FILE)
    end = len(FILE) - 0x4000 - 1
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    cut = bytes(
        file[: data.draw(st.sampled_from([len(file), len(file), data.draw(st.integers(0, len(file)))]))]
    )
    with one_line():
        sealed = igvmfile.sealed(cut) if len(cut) >= 24 and data.draw(st.booleans()) else cut
        info = inspect_igvm(sealed)
        assert json.loads(info.to_json())["format"] == "igvm"
        assert info.rows()
        assert info.section_rows()
        check_igvm(igvm.read(sealed))


# ---- what is measured and checked


def test_readers_differ_in_a_measured_page_without_data() -> None:
    """The crate extends zeros, td-shim-tools nothing."""
    file = changed(FILE, FIRST, file_offset=0)
    with pytest.raises(FormatError, match="measured pages without data"):
        igvm_mrtd(igvm.read(file))
    assert "igvm-no-data" in codes(file)
    info = inspect_igvm(file)
    assert (info.mrtd_single_pass, info.chunks_extended) == (None, None)
    assert dict(info.rows())["MRTD"].startswith("unknown: file offset 0x48 (GPA 0xffffd000)")


def test_a_file_of_ours_breaks_no_rule() -> None:
    assert codes(FILE) == set()
    assert codes(changed(FILE, of(PLATFORM)[0], boundary=1 << 51)) == set()
    assert codes(changed(FILE, of(POLICY)[0], policy=6)) == set()


@pytest.mark.parametrize(
    ("header", "fields", "code"),
    [
        (of(PLATFORM)[0], {"vtl": 2}, "igvm-vtl"),
        (of(PLATFORM)[0], {"boundary": 0}, "igvm-boundary"),
        (of(POLICY)[0], {"policy": 0}, "igvm-policy"),
        (of(POLICY)[0], {"policy": 3}, "igvm-policy"),
        (of(POLICY)[0], {"policy": 1 << 28}, "igvm-policy"),
        (of(POLICY)[0], {"mask": 2}, "igvm-policy"),
        (of(INSERT)[2], {"gpa": (1 << 47) - 0x1_F000}, "igvm-private"),
        (of(INSERT)[2], {"gpa": 0x80_F000}, "igvm-twice"),
        (of(PAGE_DATA)[2], {"flags": 2}, "igvm-reset"),
        (of(PAGE_DATA)[2], {"gpa": 0x1000}, "igvm-reset"),
        (of(PAGE_DATA)[2], {"file_offset": of(PAGE_DATA)[3]["file_offset"]}, "igvm-code"),
    ],
)
def test_each_rule(header: igvmfile.Header, fields: dict[str, int], code: str) -> None:
    assert codes(changed(FILE.replace(b"\7" * 4096, bytes(4096)), header, **fields)) == {code}


def test_the_last_private_page_is_private() -> None:
    assert codes(changed(FILE, of(INSERT)[2], gpa=(1 << 47) - 0x2_0000)) == set()


def test_json_and_rows_tell_the_facts() -> None:
    info = inspect_igvm(FILE)
    facts = json.loads(info.to_json())
    assert facts["size"] == len(FILE)
    assert facts["sha384"] == hashlib.sha384(FILE).hexdigest()
    assert facts["sha256"] == hashlib.sha256(FILE).hexdigest()
    assert (facts["platforms"], facts["policy"], facts["shared_gpa_boundary"]) == (["TDX"], 2, 1 << 47)
    assert facts["mrtd_single_pass"] == mrtd(IMAGE).digest.hex()
    assert (facts["pages_added"], facts["chunks_extended"]) == (62, 48)
    assert facts["data_size"] == 4 * 4096  # 3 of code, and 2 that are equal
    assert facts["regions"][4] == {
        "gpa": 0x82_0000,
        "memory_size": 0x1000,
        "pages": 1,
        "header_offset": of(INSERT)[1].offset,
        "has_data": False,
        "measured": False,
        "area": 6,
        "parameters": {"COMMAND_LINE": 0},
    }
    rows = dict(info.rows())
    assert rows["policy"] == "0x2 (SEPT_VE_DISABLE)"
    assert rows["chunks extended"] == "48 of 256 bytes (TDH.MR.EXTEND): 3 pages in MRTD by content"
    table = info.section_rows()
    assert table[1] == (
        "page data",
        "0xffffd000",
        "0x3000",
        "3",
        "0x48",
        "in the file",
        "address and content",
    )
    assert [row[5] for row in table[2:]] == [
        "in the file",
        "the loader's",
        "zero",
        "COMMAND_LINE at 0x0",
        "the loader's",
    ]


@pytest.mark.parametrize(
    ("policy", "text"),
    [(7, "0x7 (DEBUG_ALLOWED, SEPT_VE_DISABLE, MIGRATABLE)"), (8, "0x8 (no bit that is known)")],
)
def test_a_policy_in_words(policy: int, text: str) -> None:
    assert dict(inspect_igvm(changed(FILE, of(POLICY)[0], policy=policy)).rows())["policy"] == text


def test_no_policy_and_a_platform_that_is_new() -> None:
    info = inspect_igvm(made(packed(PLATFORM, 2, 0, 9, 1, 0), TDX))
    assert dict(info.rows())["policy"] == "none"
    assert info.platforms == ("type 0x9", "TDX")
