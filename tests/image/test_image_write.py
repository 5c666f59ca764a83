"""Does an image lie where VMMs and firmware tools look for it, byte for byte?"""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tdvfimage import code, firmware, image_for_direct_boot, image_for_qemu, records, regions, section

from formats import fv, tdvf
from formats.errors import FormatError
from formats.limits import MAX_SECTIONS
from formats.tdvf import SectionType
from formats.units import FOUR_GIB, MIB
from gen.sections import mapped_regions, placed_sections
from image.check import check_image
from image.mrtd import mrtd
from image.write import METADATA_DISTANCE, TABLE_DISTANCE, ImageRefused, Placed, write_image


def test_fixed_positions_by_hand() -> None:
    image = image_for_direct_boot()
    assert len(image) == 0x1_0000
    assert image[-0x400:-0x3F0].hex() == "f3f9eae98e16d544a8eb7f4d8738f6ae"
    assert struct.unpack_from("<4sIII", image, len(image) - 0x3F0) == (b"TDVF", 16 + 32 * 6, 1, 6)
    assert struct.unpack_from("<I", image, len(image) - 0x20) == (len(image) - 0x3F0,)
    table = image[-0x48:-0x20]
    assert struct.unpack_from("<IH", table) == (0x3F0, 22)
    assert table[6:22].hex() == "35657ae44a989847865e4685a7bf8ec2"
    assert struct.unpack_from("<H", table, 22) == (40,)
    assert table[24:].hex() == "de82b596b21ff745baeaa366c55a082d"
    assert image[-0x10:] == code()[-0x10:]
    assert image[-0x3000:-0x400] == code()[:-0x400]
    assert image[-0x5000:-0x3000] == bytes([7]) * 0x2000


def test_records_by_hand() -> None:
    found = records(image_for_direct_boot())
    assert [(r.type, r.address, r.memory_size, r.attributes) for r in found] == [
        (0, 0xFFFF_D000, 0x3000, 1),
        (1, 0xFFFF_B000, 0x2000, 0),
        (2, 0x80_0000, 0x1_0000, 0),
        (3, 0x81_0000, 0x8000, 0),
        (6, 0x82_0000, 0x1000, 0),
        (5, 0xA0_0000, 0x2_0000, 0),
    ]
    assert [(r.data_offset, r.raw_size) for r in found] == [(0xD000, 0x3000), (0xB000, 0x2000), *[(0, 0)] * 4]


def test_virt_fw_dump_reads_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(image_for_direct_boot())
    command = [sys.executable, "-m", "virt.firmware.dump", "-i", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ERROR" not in done.stdout + done.stderr
    for line in (
        "volume=guid:Ffs offset=0x0 size=0x10000",
        "guid:TdxMetadataOffset size=0x16 data=f0030000",
        "header size=0xd0 version=1 entries=6",
        "mbase=0xffffd000 msize=0x3000 type=BFV (code) fbase=0xd000 fsize=0x3000 flags=0x1",
        "mbase=0xffffb000 msize=0x2000 type=CFV (vars) fbase=0xb000 fsize=0x2000",
        "mbase=0x800000 msize=0x10000 type=TD Hob",
        "mbase=0x810000 msize=0x8000 type=MEM",
        "mbase=0x820000 msize=0x1000 type=6",
        "mbase=0xa00000 msize=0x20000 type=5",
    ):
        assert line in done.stdout


def test_volume_head_by_hand() -> None:
    head = fv.volume_head(0x1_0000)
    assert struct.unpack_from("<Q4s", head, 32) == (0x1_0000, b"_FVH")
    words = struct.unpack_from("<36H", head)
    assert sum(words) & 0xFFFF == 0
    file = head[72:]
    assert len(file) == 24
    assert int.from_bytes(file[20:23], "little") == 0x1_0000 - 72
    assert sum(file[:17] + file[18:23]) & 0xFF == 0
    with pytest.raises(FormatError, match="below 16 MiB"):
        fv.volume_head((16 << 20) + 0x1000)


@pytest.mark.parametrize("size", [0x1000, 0x5000, 0xF000, 0x1_0000, 0x1_1000, 0x10_0000])
def test_file_size_follows_the_code(size: int) -> None:
    bfv = code(size)
    image = write_image([*regions(direct=False, bfv=bfv)[:1], *regions(direct=False)[2:]])
    assert len(image) % 0x1_0000 == 0
    assert len(image) - size < 0x1_0000 + 0x60
    assert image[-size:-0x400] == bfv[:-0x400]
    assert check_image(image, "qemu") == []


def test_the_same_regions_give_the_same_bytes() -> None:
    assert image_for_qemu() == image_for_qemu()
    assert image_for_qemu() != image_for_direct_boot()


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 8), st.booleans())
def test_whatever_the_sizes_the_rules_hold(bfv: int, hob: int, temps: int, direct: bool) -> None:
    found = [*regions(direct, bfv=code(bfv * 0x1000))]
    found[2] = Placed("hob", SectionType.TD_HOB, 0x100_0000, hob * 0x1000)
    found += [Placed(f"t{i}", SectionType.TEMP_MEM, 0x200_0000 + i * 0x4000, 0x3000) for i in range(temps)]
    profile = "direct-boot" if direct else "qemu"
    assert check_image(write_image(found, profile), profile) == []


def test_sections_of_a_flow() -> None:
    flow = firmware(
        section("code", "BFV", None, None),
        section("config", "CFV", FOUR_GIB - 0x8000, 0x1000),
        section("hob", "TD_HOB", 0x80_0000, 0x1000),
    )
    bfv = code()[0x234:]
    found = placed_sections(flow, bfv, {"config": b"abc"})
    assert [(r.name, r.type, r.address, r.size, r.attributes) for r in found] == [
        ("code", SectionType.BFV, FOUR_GIB - 0x3000, 0x3000, 1),
        ("config", SectionType.CFV, FOUR_GIB - 0x8000, 0x1000, 0),
        ("hob", SectionType.TD_HOB, 0x80_0000, 0x1000, 0),
    ]
    assert found[0].data == bytes(0x234) + bfv
    assert found[1].data == b"abc".ljust(0x1000, b"\0")
    assert check_image(write_image(found), "qemu") == []
    with pytest.raises(FormatError, match="section hob: found no address or no size"):
        placed_sections(firmware(section("hob", "TD_HOB", None, 0x1000)), bfv)


def test_permmem_is_left_for_the_td_to_accept() -> None:
    flow = firmware(
        section("code", "BFV", None, None),
        section("paging", "TempMem", 0x80_0000, 0x1000),
        section("main", "PermMem", 0x1_0000_0000, 0x1_0000_0000),
    )
    found = placed_sections(flow, code())
    assert (found[2].type, found[2].attributes, found[2].data) == (SectionType.PERM_MEM, 2, b"")
    assert [region.name for region in mapped_regions(flow)] == ["paging"]
    assert mrtd(write_image(found, "direct-boot")).pages_added == len(code()) // 0x1000 + 1


def test_what_cannot_be_laid_out_is_told() -> None:
    bfv = code()
    with pytest.raises(FormatError, match="expected a BFV that ends at 4 GiB"):
        write_image(regions(direct=False)[2:])
    with pytest.raises(FormatError, match=r"image GPA 0xfffffd00: found byte 0x01, expected zeros"):
        write_image(regions(direct=False, bfv=bfv[:-0x300] + b"\x01" + bfv[-0x2FF:]))
    many = [
        Placed(f"t{i}", SectionType.TEMP_MEM, 0x100_0000 + i * 0x1000, 0x1000) for i in range(MAX_SECTIONS)
    ]
    with pytest.raises(FormatError, match=f"expected at most {MAX_SECTIONS}"):
        write_image([*regions(direct=False), *many])
    limit = MAX_SECTIONS - 4
    assert check_image(write_image([*regions(direct=False), *many[:limit]])) == []
    with pytest.raises(FormatError, match=f"found {MAX_SECTIONS + 1} sections, expected at most"):
        write_image([*regions(direct=False), *many[: limit + 1]])
    with pytest.raises(FormatError, match="as many bytes as memory, below 4 GiB"):
        write_image([Placed("code", SectionType.BFV, FOUR_GIB - 0x2000, 0x3000, 1, bfv)])
    with pytest.raises(FormatError, match="as many bytes as memory"):
        write_image([Placed("code", SectionType.BFV, FOUR_GIB - 0x4000, 0x4000, 1, bfv)])
    with pytest.raises(FormatError, match="at most 16 MiB"):
        write_image(regions(direct=False, bfv=bytes(16 << 20)))


def test_an_image_that_breaks_rules_is_not_written() -> None:
    with pytest.raises(ImageRefused) as caught:
        write_image(regions(direct=True), "qemu")
    assert {finding.code for finding in caught.value.findings} == {"type"}
    assert len(str(caught.value).splitlines()) == 2
    overlap = [*regions(direct=False), Placed("again", SectionType.TEMP_MEM, 0x80_8000, 0x1000)]
    with pytest.raises(
        ImageRefused, match=r"sections 2 \(TD_HOB\) and 4 \(TempMem\): found both at GPA 0x808000"
    ):
        write_image(overlap)


def test_the_limit_of_sections_is_what_fits_before_the_table() -> None:
    room = METADATA_DISTANCE - tdvf.GUID_SIZE - tdvf.DESCRIPTOR.sizeof() - TABLE_DISTANCE
    assert room // tdvf.SECTION.sizeof() == MAX_SECTIONS


def test_a_payload_in_the_file_lies_in_front_of_what_is_mapped() -> None:
    content = bytes(range(256)) * 32
    placed = [
        Placed("code", SectionType.BFV, 0xFFFF_D000, 0x3000, 1, code()),
        Placed("hob", SectionType.TD_HOB, 0x80_0000, 0x1_0000),
        Placed("payload", SectionType.PAYLOAD, 0xA0_0000, len(content), 1, content),
    ]
    image = write_image(placed, "direct-boot")
    assert len(image) == 0x2_0000
    record = records(image)[2]
    assert (record.data_offset, record.raw_size, record.memory_size) == (0, 0x2000, 0x2000)
    assert image[:0x2000] == content
    assert image[0x1_0000:] == write_image(placed[:2])[:0xFC00] + image[-0x400:]
    other = write_image([*placed[:2], replace(placed[2], data=content[::-1])], "direct-boot")
    assert mrtd(image).digest != mrtd(other).digest
    large = replace(placed[2], size=16 * MIB, data=bytes(16 * MIB))
    assert len(write_image([*placed[:2], large], "direct-boot")) == 16 * MIB + 0x1_0000
    param = Placed("param", SectionType.PAYLOAD_PARAM, 0x82_0000, 0x1000)
    assert not check_image(write_image([*placed, param], "direct-boot"), "direct-boot")
