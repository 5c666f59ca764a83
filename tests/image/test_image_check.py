"""Does every rule find the image that breaks it, and no other?"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from debian import ovmf
from hypothesis import given
from hypothesis import strategies as st
from tdvfimage import (
    descriptor_offset,
    image_for_direct_boot,
    image_for_qemu,
    overwritten,
    patched,
    without_last_section,
)

from formats.tdvf import metadata
from image.check import Profile, check_image, profile_for

BFV, CFV, HOB, TEMP, PARAM, PAYLOAD = range(6)  # sections of the sample
GOOD = image_for_direct_boot()

Broken = tuple[str, Callable[[], bytes], str, str]


def described(kind: int, **fields: int) -> bytes:
    """The sample with TD_INFO or TD_PARAMS in place of its TempMem: 1 KiB of the BFV."""
    wanted = {"address": 0, "memory_size": 0, "data_offset": 0xE000, "raw_size": 0x400}
    return patched(GOOD, TEMP, type=kind, **wanted | fields)


def two_td_params() -> bytes:
    return patched(described(8), HOB, type=8, address=0, memory_size=0, data_offset=0xE400, raw_size=0x400)


def info(length: int) -> bytes:
    return bytes(range(1, 17)) + struct.pack("<III", length, 0x01020003, 4)


def filled(kind: int, data: bytes, raw_size: int = 0x400) -> bytes:
    """The same, with these bytes in it and zeros behind them."""
    image = described(kind, raw_size=raw_size)
    return overwritten(image, len(image) - 0xE000, data.ljust(raw_size, b"\0"))


CASES: tuple[Broken, ...] = (
    ("file-size", lambda: bytes(0x1000) + GOOD, "0x11000 bytes", "a multiple of 64 KiB"),
    ("file-size", lambda: bytes(0x8000) + GOOD, "0x18000 bytes", "a multiple of 64 KiB"),
    ("file-too-large", lambda: bytes(16 << 20) + GOOD, "0x1010000 bytes", "at most 16 MiB"),
    ("file-too-large", lambda: bytes(17 << 20) + GOOD, "0x1110000 bytes", "at most 16 MiB"),
    ("guid-table", lambda: overwritten(GOOD, 0x30, b"\0"), "no GUID table with a TDX entry", "one"),
    ("guid-table", lambda: overwritten(GOOD, 0x48 - 6, b"\0"), "no GUID table with a TDX entry", "one"),
    (
        "pointer",
        lambda: overwritten(GOOD, 0x20, b"\x14"),
        "descriptor pointer 0xfc14",
        "0xfc10, as the GUID table",
    ),
    ("pointer", lambda: overwritten(GOOD, 0x20, b"\x0c"), "descriptor pointer 0xfc0c", "0xfc10, as the"),
    ("metadata-guid", lambda: overwritten(GOOD, 0x400, b"\0"), "00f9eae9", "GUID e9eaf9f3"),
    ("metadata-guid", lambda: overwritten(GOOD, 0x3F1, b"\0"), "00 before the descriptor", "GUID e9eaf9f3"),
    (
        "type",
        lambda: patched(GOOD, TEMP, type=9),
        "type 0x9",
        "one of BFV CFV TD_HOB TempMem PermMem Payload",
    ),
    ("type", lambda: patched(GOOD, TEMP, type=0xFFFF_FFFF), "type 0xffffffff", "one of BFV"),
    ("address", lambda: patched(GOOD, TEMP, address=0x81_0800), "address 0x810800", "a multiple of 0x1000"),
    (
        "memory-size",
        lambda: patched(GOOD, TEMP, memory_size=0x7800),
        "memory size 0x7800",
        "multiple of 0x1000",
    ),
    ("empty", lambda: patched(GOOD, TEMP, memory_size=0), "memory size 0", "at least one page"),
    ("placement", lambda: patched(GOOD, TEMP, address=0x7FF_F000), "end 0x8007000", "below 0x8000000"),
    ("placement", lambda: patched(GOOD, HOB, address=0xC000_0000), "end 0xc0010000", "below 0x8000000"),
    ("placement", lambda: patched(GOOD, PAYLOAD, address=0x7FFF_0000), "end 0x80010000", "below 0x80000000"),
    ("placement", lambda: patched(GOOD, PARAM, address=1 << 47), "end 0x800000001000", "below 0x80000000"),
    ("placement", lambda: patched(GOOD, CFV, address=0xFFFF_F000), "end 0x100001000", "below 4 GiB"),
    ("raw-size", lambda: patched(GOOD, HOB, raw_size=0x1000), "raw size 0x1000", "0: no data in the file"),
    ("raw-size", lambda: patched(GOOD, CFV, raw_size=0), "raw size 0", "its data in the file"),
    (
        "data-offset",
        lambda: patched(GOOD, HOB, data_offset=0x1000),
        "data offset 0x1000",
        "0, as there is no data",
    ),
    (
        "raw-differs",
        lambda: patched(GOOD, CFV, raw_size=0x1000),
        "raw size 0x1000, memory size 0x2000",
        "equal",
    ),
    (
        "raw-differs",
        lambda: patched(GOOD, CFV, raw_size=0x3000),
        "raw size 0x3000, memory size 0x2000",
        "equal",
    ),
    (
        "data-alignment",
        lambda: patched(GOOD, CFV, data_offset=0xA800),
        "data offset 0xa800",
        "multiple of 0x1000",
    ),
    (
        "data-outside",
        lambda: patched(GOOD, CFV, data_offset=0xF000),
        "data to offset 0x11000",
        "file of 0x10000",
    ),
    (
        "data-outside",
        lambda: patched(GOOD, CFV, data_offset=0xE000, memory_size=0x3000),
        "data to offset 0x11000",
        "file of 0x10000",
    ),
    (
        "mapping",
        lambda: patched(GOOD, CFV, address=0xFFFF_A000),
        "for data offset 0xb000",
        "0xffffb000, where",
    ),
    ("attributes", lambda: patched(GOOD, BFV, attributes=0), "attributes 0x0", "0x1"),
    ("attributes", lambda: patched(GOOD, BFV, attributes=3), "attributes 0x3", "0x1"),
    ("attributes", lambda: patched(GOOD, CFV, attributes=1), "attributes 0x1", "0x0"),
    ("attributes", lambda: patched(GOOD, TEMP, attributes=2), "attributes 0x2", "0x0"),
    ("attributes", lambda: patched(GOOD, PAYLOAD, attributes=2), "attributes 0x2", "0x0 or 0x1"),
    ("section-count", lambda: without_last_section(GOOD, 5), "1 sections", "at least 2"),
    ("bfv-count", lambda: patched(GOOD, BFV, type=1, attributes=0), "no BFV section", "at least one"),
    ("hob-count", lambda: patched(GOOD, TEMP, type=2), "2 TD_HOB sections", "at most one"),
    ("hob-count", lambda: patched(GOOD, HOB, type=3), "no TD_HOB section", "one, or PermMem sections"),
    ("attributes", lambda: patched(GOOD, TEMP, type=4), "attributes 0x0", "0x2"),
    ("placement", lambda: patched(GOOD, TEMP, type=4, address=1 << 47), "end 0x800000008000", "private"),
    ("described", lambda: patched(GOOD, TEMP, type=7), "address 0x810000, memory size 0x8000", "0 and 0"),
    ("described", lambda: described(7, data_offset=0, raw_size=0), "offset 0x0 to 0x0", "0xd000 to 0x10000"),
    ("described", lambda: described(7, address=0x1000), "address 0x1000, memory size 0x0", "0 and 0"),
    ("described", lambda: described(7, memory_size=0x1000), "address 0x0, memory size 0x1000", "0 and 0"),
    ("described", lambda: described(7, raw_size=0), "offset 0xe000 to 0xe000", "0xd000 to 0x10000"),
    ("described", lambda: described(8, data_offset=0xCFFF), "from offset 0xcfff to 0xd3ff", "last BFV"),
    ("described", lambda: described(8, data_offset=0xFC01), "from offset 0xfc01 to 0x10001", "last BFV"),
    ("described", lambda: two_td_params(), "2 TD_PARAMS sections", "at most one"),
    ("td-info", lambda: filled(7, info(27)), "27", "28 to 1024, the section's size"),
    ("td-info", lambda: filled(7, info(1025)), "1025", "28 to 1024"),
    ("td-info", lambda: filled(7, info(28)[:27], raw_size=27), "27 bytes", "28 bytes of td_info"),
    ("td-params", lambda: filled(8, b"\1", raw_size=1023), "1023 bytes", "1024 bytes of td_params"),
    ("td-params", lambda: filled(8, bytes(20) + b"\1"), "01000000", "zeros"),
    ("td-params", lambda: filled(8, bytes(255) + b"\1"), "00" * 19 + "01", "zeros"),
    ("payload-count", lambda: patched(GOOD, TEMP, type=5), "2 Payload sections", "at most one"),
    ("payload-count", lambda: patched(GOOD, TEMP, type=6), "2 PayloadParam sections", "at most one"),
    ("payload-pair", lambda: patched(GOOD, PARAM, type=3), "only one of Payload and PayloadParam", "both or"),
    ("payload-pair", lambda: without_last_section(GOOD), "only one of Payload and PayloadParam", "both or"),
    (
        "overlap",
        lambda: patched(GOOD, TEMP, address=0x80_F000),
        "both at GPA 0x80f000",
        "memory of their own",
    ),
    ("overlap", lambda: patched(GOOD, PAYLOAD, address=0x80_1000), "both at GPA 0x801000", "memory of their"),
    ("overlap", lambda: patched(GOOD, PAYLOAD, address=0x7E_1000), "both at GPA 0x800000", "memory of their"),
    (
        "data-overlap",
        lambda: patched(GOOD, CFV, data_offset=0xD000),
        "both at file offset 0xd000",
        "data of their",
    ),
    ("data-overlap", lambda: patched(GOOD, CFV, data_offset=0xC000), "both at file offset 0xd000", "data of"),
    ("reset-vector", lambda: patched(GOOD, BFV, attributes=0), "the reset vector in BFV", "a measured BFV"),
    ("reset-vector", lambda: patched(GOOD, BFV, memory_size=0x2000), "no section", "a measured BFV"),
    ("reset-vector", lambda: patched(GOOD, BFV, type=1), "the reset vector in CFV", "a measured BFV"),
    ("reset-code", lambda: overwritten(GOOD, 0x10, bytes(16)), "00 in all 16 bytes", "instructions"),
    ("reset-code", lambda: overwritten(GOOD, 0x10, b"\xff" * 16), "ff in all 16 bytes", "instructions"),
)


@pytest.mark.parametrize(
    ("code", "broken", "found", "expected"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_each_rule_finds_its_broken_image(
    code: str, broken: Callable[[], bytes], found: str, expected: str
) -> None:
    findings = [finding for finding in check_image(broken(), "direct-boot") if finding.code == code]
    assert findings, f"{code} was not found"
    finding = findings[0]
    assert found in finding.found
    assert expected in finding.expected
    assert finding.source
    assert finding.place.startswith("image")
    assert "\n" not in finding.text


def test_good_images_have_no_finding() -> None:
    assert check_image(GOOD, "direct-boot") == []
    assert check_image(image_for_qemu(), "qemu") == []
    assert check_image(image_for_qemu(), "direct-boot") == []


@pytest.mark.parametrize(
    ("code", "image"),
    [
        ("td-info", filled(7, b"")),
        ("td-info", filled(7, info(28))),
        ("td-info", filled(7, info(1024))),
        ("td-info", filled(7, info(28), raw_size=28)),
        ("td-params", filled(8, b"")),
        ("td-params", filled(8, b"\1" * 20)),
        ("td-params", filled(8, b"", raw_size=8)),
        ("file-too-large", bytes((16 << 20) - len(GOOD)) + GOOD),
        ("placement", patched(GOOD, TEMP, address=0x7FF_8000)),
        ("placement", patched(GOOD, HOB, address=0x7FF_0000)),
        ("placement", patched(GOOD, PAYLOAD, address=0x7FFE_0000)),
        ("placement", patched(GOOD, TEMP, type=4, attributes=2, address=(1 << 47) - 0x8000)),
        ("described", described(7, data_offset=0xD000)),
        ("described", described(8, data_offset=0xFC00)),
        ("section-count", without_last_section(GOOD, 4)),
        ("overlap", patched(GOOD, PAYLOAD, address=0x7E_0000)),
        ("data-overlap", GOOD),
        ("data-outside", GOOD),
    ],
)
def test_what_ends_exactly_at_its_limit_is_right(code: str, image: bytes) -> None:
    assert code not in {finding.code for finding in check_image(image, "direct-boot")}


def test_ram_is_said_by_a_td_hob_or_by_permmem() -> None:
    """td-shim wants one or the other; QEMU knows no PermMem."""
    image = patched(GOOD, HOB, type=4, attributes=2)
    assert check_image(image) == []
    assert [f.code for f in check_image(image, "qemu")] == ["type", "type", "type", "hob-count"]


def test_qemu_refuses_payload_sections() -> None:
    findings = check_image(GOOD, Profile.QEMU)
    assert [finding.code for finding in findings] == ["type"] * 2
    assert "section 5 (Payload, GPA 0xa00000): found type 0x5" in findings[1].text


def test_the_profile_follows_the_sections() -> None:
    assert profile_for(metadata(GOOD).sections) is Profile.DIRECT_BOOT
    assert profile_for(metadata(image_for_qemu()).sections) is Profile.QEMU
    assert check_image(GOOD) == []
    with pytest.raises(ValueError, match="xen"):
        check_image(GOOD, "xen")


def test_a_sentence_for_people() -> None:
    (finding,) = check_image(patched(GOOD, TEMP, memory_size=0x7800), "direct-boot", place="linux.bin")
    assert finding.text == (
        "linux.bin section 3 (TempMem, GPA 0x810000): found memory size 0x7800, expected a multiple of "
        "0x1000 (QEMU hw/i386/tdvf.c tdvf_parse_and_check_section_entry)"
    )


def test_a_foreign_image() -> None:
    """OVMF sets no pointer below its end; everything else the rules accept."""
    findings = check_image(ovmf().read_bytes(), "qemu")
    assert [finding.code for finding in findings] == ["pointer"]


@pytest.mark.parametrize("length", [0, 1, 31, 0x20, 0x48, 0x400, 0x8000, len(GOOD) - 1])
def test_a_truncated_image_is_one_line(length: int) -> None:
    (finding,) = check_image(GOOD[:length], "direct-boot", place="linux.bin")
    assert finding.code == "no-metadata"
    assert finding.place.startswith("linux.bin")
    assert "\n" not in finding.text


def test_a_broken_descriptor_is_one_line() -> None:
    start = len(GOOD) - descriptor_offset(GOOD)
    for distance, data, found in (
        (start, b"_NRX", "signature b'_NRX'"),
        (start - 4, b"\0", "length 0"),
        (start - 8, b"\2", "version 2"),
        (start - 12, b"\xff\xff\xff\xff", "length 208"),
        (0x48, struct.pack("<I", 0), "0 bytes"),
        (0x48, struct.pack("<I", 0xFFFF_FFFF), "an offset 0xfffeffff before the start"),
        (0x48 - 4, struct.pack("<H", 21), "TDX entry with 3 bytes"),
        (0x48 - 4, struct.pack("<H", 17), "GUID table entry of length 17"),
        (0x32, struct.pack("<H", 0xFFFF), "GUID table length 65535"),
    ):
        (finding,) = check_image(overwritten(GOOD, distance, data), "direct-boot")
        assert finding.code == "no-metadata"
        assert found in finding.found, (finding.found, found)


@given(st.data())
def test_a_mutated_image_gives_findings_never_a_traceback(data: st.DataObject) -> None:
    image = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        image[-data.draw(st.integers(1, 0x400))] = data.draw(st.integers(0, 255))
    for finding in check_image(bytes(image)):
        assert "\n" not in finding.text


@given(st.binary(max_size=0x200))
def test_garbage_is_one_line(data: bytes) -> None:
    assert [finding.code for finding in check_image(data)] == ["no-metadata"]
