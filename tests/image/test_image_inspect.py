"""Do inspection and manifest tell the facts, in bytes that never change for the same image?"""

from __future__ import annotations

import hashlib
import json
import struct
from uuid import UUID

import pytest
from debian import ovmf
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from tdvfimage import image_for_direct_boot, overwritten, patched, regions

from formats.errors import FormatError
from formats.tdvf import SectionType
from image.inspect import inspect
from image.manifest import manifest, manifest_bytes, tool_versions
from image.mrtd import Order, mrtd

IMAGE = image_for_direct_boot()


def test_json_tells_the_facts() -> None:
    facts = json.loads(inspect(IMAGE).to_json())
    assert facts["size"] == 0x1_0000
    assert facts["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    assert facts["sha384"] == hashlib.sha384(IMAGE).hexdigest()
    assert facts["profile"] == "direct-boot"
    assert facts["descriptor_offset"] == facts["offset_by_guid_table"] == facts["offset_by_pointer"] == 0xFC10
    assert facts["mrtd_single_pass"] == mrtd(IMAGE).digest.hex()
    assert facts["mrtd_two_pass"] == mrtd(IMAGE, Order.TWO_PASS).digest.hex()
    assert (facts["pages_added"], facts["chunks_extended"]) == (3 + 2 + 16 + 8 + 1 + 32, 48)
    assert facts["sections"][0] == {
        "type": "BFV",
        "gpa": 0xFFFF_D000,
        "memory_size": 0x3000,
        "data_offset": 0xD000,
        "raw_size": 0x3000,
        "attributes": 1,
        "measured": True,
        "pages": 3,
    }
    assert inspect(IMAGE).to_json() == inspect(IMAGE).to_json()


def test_rows_for_people() -> None:
    info = inspect(IMAGE)
    rows = dict(info.rows())
    assert rows["file size"] == "65536 bytes (64 KiB)"
    assert rows["MRTD"].startswith(mrtd(IMAGE).digest.hex())
    assert rows["pages added"] == "62 (TDH.MEM.PAGE.ADD), all in MRTD by address"
    assert rows["chunks extended"] == "48 of 256 bytes (TDH.MR.EXTEND): 3 pages in MRTD by content"
    assert "TDX metadata offset" in rows["GUID table"]
    table = info.section_rows()
    assert table[0][:2] == ("type", "GPA")
    assert table[1] == ("BFV", "0xffffd000", "0x3000", "3", "0xd000", "0x1", "address and content")
    assert table[3] == ("TD_HOB", "0x800000", "0x10000", "16", "-", "0x0", "address")


def test_pages_that_are_not_added_at_launch() -> None:
    info = inspect(patched(IMAGE, 5, type=4, attributes=2, memory_size=1 << 40))
    assert info.pages_added == 62 - 32
    assert (info.sections[5].pages, info.sections[5].measured) == (0, False)
    assert info.section_rows()[6] == ("PermMem", "0xa00000", "0x10000000000", "0", "-", "0x2", "nothing")
    assert dict(info.rows())["pages added"].startswith("30 ")


def within_bfv(kind: int, data: bytes) -> bytes:
    """The sample with such a section, which names these bytes of the BFV."""
    image = patched(IMAGE, 3, type=kind, address=0, memory_size=0, data_offset=0xE000, raw_size=len(data))
    return overwritten(image, len(image) - 0xE000, data)


def test_td_info_is_shown() -> None:
    guid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    data = guid.bytes_le + struct.pack("<III", 31, 0x01020003, 4) + b"abc" + bytes(5)
    info = inspect(within_bfv(7, data))
    assert dict(info.rows())["TD_INFO"] == f"{guid}, version 1.2.3, SVN 4, 3 bytes of data"
    shown = {"guid": str(guid), "version": [1, 2, 3], "svn": 4, "data": b"abc".hex()}
    assert json.loads(info.to_json())["td_info"] == shown
    assert info.section_rows()[4][-1] == "with BFV"
    assert inspect(within_bfv(7, bytes(40))).td_info is None


def test_td_params_are_shown() -> None:
    data = struct.pack("<QQHBB4xQQH38x48s48s48sQHH20x768s", *range(1, 9), *[b"\7" * 48] * 3, 9, 10, 11, b"\0")
    assert len(data) == 1024
    rows = dict(inspect(within_bfv(8, data)).rows())
    names = ("attributes", "xfam", "maxvcpus", "numl2vms", "msrconfigctls", "eptpcontrols", "configflags")
    shown = [rows[f"TD_PARAMS {name}"] for name in names]
    assert shown == [hex(n) for n in range(1, 8)]
    assert rows["TD_PARAMS tscfrequency"] == "0x8"
    assert rows["TD_PARAMS mrowner"] == "07" * 48
    late = ("ia32archcapabilitiesconfig", "mrconfigsvn", "mrownerconfigsvn")
    assert [rows[f"TD_PARAMS {name}"] for name in late] == ["0x9", "0xa", "0xb"]
    assert rows["TD_PARAMS cpuid_config"] == "zeros"
    assert inspect(within_bfv(8, bytes(1024))).td_params is None
    assert inspect(within_bfv(8, b"\1" * 1024)).td_params is None  # reserved bytes: the checker says so


def test_a_foreign_image() -> None:
    info = inspect(ovmf().read_bytes())
    assert info.profile == "qemu"
    assert info.offset_by_guid_table != info.offset_by_pointer
    assert info.mrtd_unknown_because is None
    assert any("SEV metadata" in name for name in info.guid_table)


def test_an_mrtd_that_cannot_be_known_has_a_reason() -> None:
    info = inspect(patched(IMAGE, 5, attributes=1))
    assert info.mrtd_single_pass is None
    assert info.chunks_extended is None
    assert "the VMM supplies" in dict(info.rows())["MRTD"]
    assert json.loads(info.to_json())["mrtd_two_pass"] is None


def test_an_image_without_a_guid_table() -> None:
    assert dict(inspect(overwritten(IMAGE, 0x30, b"\0")).rows())["by GUID table"] == "none"


@pytest.mark.parametrize("image", [b"", b"x", IMAGE[:-1], bytes(0x1_0000), b"\xff" * 0x1000])
def test_what_is_no_image_is_one_line(image: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        inspect(image, place="file.bin")
    assert str(caught.value).startswith("file.bin")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_mutated_image_gives_facts_or_one_line(data: st.DataObject) -> None:
    image = bytearray(IMAGE)
    for _ in range(data.draw(st.integers(1, 4))):
        image[-data.draw(st.integers(1, 0x400))] = data.draw(st.integers(0, 255))
    with one_line():
        info = inspect(bytes(image))
        json.loads(info.to_json())
        assert info.rows()
        assert info.section_rows()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"address": 0, "memory_size": 0, "data_offset": 0xE000, "raw_size": 0x400}, "with BFV"),
        ({"raw_size": 0, "data_offset": 0}, "address"),
        ({"address": 0, "memory_size": 0, "raw_size": 0, "data_offset": 0}, "nothing"),
    ],
)
def test_where_td_params_is_measured(fields: dict[str, int], says: str) -> None:
    """One with pages of its own is no part of the BFV."""
    rows = inspect(patched(IMAGE, 3, type=SectionType.TD_PARAMS, **fields)).section_rows()
    assert (rows[4][0], rows[4][-1]) == ("TD_PARAMS", says)


def test_manifest_tells_the_facts() -> None:
    tools = {"ziglang": "0.17.1"}
    raw = manifest_bytes(
        manifest("linux", (1, 0, 2), 3, IMAGE, regions(direct=True), bfv_used=9000, tools=tools)
    )
    assert raw.endswith(b"}\n")
    facts = json.loads(raw)
    assert raw.decode() == json.dumps(facts, indent=2, sort_keys=True) + "\n"
    assert (facts["name"], facts["version"], facts["svn"], facts["bfv_used"]) == ("linux", "1.0.2", 3, 9000)
    assert facts["tools"] == {"ziglang": "0.17.1"}
    assert facts["mrtd"] == {
        "single-pass": mrtd(IMAGE).digest.hex(),
        "two-pass": mrtd(IMAGE, Order.TWO_PASS).digest.hex(),
    }
    assert facts["image"]["sha384"] == hashlib.sha384(IMAGE).hexdigest()
    assert facts["launch"] == {"pages_added": 62, "chunks_extended": 48}
    assert [(item["name"], item["type"], item["gpa"]) for item in facts["sections"]][4:] == [
        ("parameters", "PayloadParam", 0x82_0000),
        ("payload", "Payload", 0xA0_0000),
    ]


def test_tool_versions_name_the_compiler() -> None:
    assert "ziglang" in tool_versions()
