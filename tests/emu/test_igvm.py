"""Does the emulated VMM launch an IGVM file as it does the TDVF image, and by the format's definitions?"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from igvmfile import AREA, COMMAND_LINE, INSERT, MEMORY_MAP, PAGE_DATA, PLATFORM, headers, made, packed
from tdvfimage import image_for_direct_boot

from emu.api import EmuError, Report, RunConfig, run
from emu.vmm.hostile.memory_map import mutated
from emu.vmm.loader import Launch, prepare
from emu.vmm.presets import PRESETS
from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from gen.build import BuildResult
from gen.link.sample import sample
from image.igvm import write_igvm
from tdforge.building import build_flow
from tdforge.flows import find_flow
from tdforge.tiny import BANNER, tiny_payload

MIB, GIB = 1 << 20, 1 << 30
TDX = packed(PLATFORM, 1, 0, 3, 1, 1 << 47)
VP_COUNT, MADT = 0x307, 0x309
GOOD = "tdforge sample: all good"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "igvm.tdf"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_flow(find_flow("linux"), tmp_path_factory.mktemp("build"), igvm=True)


def config(image: bytes, **settings: object) -> RunConfig:
    facts: dict[str, object] = {"memory": 256 * MIB} | settings
    return RunConfig(image, "x.igvm", **facts)  # type: ignore[arg-type]


def launch(image: bytes, vmm: str = "td-shim-spec", **settings: object) -> Launch:
    return prepare(config(image, **settings), PRESETS[vmm])


@pytest.mark.parametrize("vmm", ["td-shim-spec", "td-shim-spec:legacy"])
def test_it_boots_as_the_image_does(vmm: str, built: BuildResult) -> None:
    """With a kernel in the area of the Payload, and the TD HOB in that of TD_HOB; only its firmware window is
    another: that of a file is whole units of 64 KiB.
    """

    def booted(path: Path) -> Report:
        given = {"vmm": vmm, "kernel": tiny_payload(), "cmdline": "one two", "vcpus": 2}
        return run(config(path.read_bytes(), **given))

    igvm, tdvf = booted(built.igvm), booted(built.image)
    assert igvm.met
    assert igvm.mrtd == tdvf.mrtd
    assert igvm.rtmr[1:] == tdvf.rtmr[1:]
    assert igvm.rtmr[0] != tdvf.rtmr[0]
    assert igvm.to_json()["pages"]["added"] == tdvf.to_json()["pages"]["added"]
    assert igvm.to_json()["handoff"] == tdvf.to_json()["handoff"]


def test_a_flow_that_takes_nothing_from_its_vmm_boots_from_the_memory_that_it_requires(
    tmp_path: Path,
) -> None:
    """No TD HOB, and no map: all registers are those of the TDVF image, and of the manifest."""
    payload = tmp_path / "sample.elf"
    payload.write_bytes(sample("elf"))
    result = build_flow(find_flow("service_td"), tmp_path, igvm=True, payload=payload)
    given = {"until": f"console:{GOOD}", "vcpus": 2}
    igvm, tdvf = (run(config(path.read_bytes(), **given)) for path in (result.igvm, result.image))
    assert igvm.met
    assert (igvm.mrtd, igvm.rtmr) == (tdvf.mrtd, tdvf.rtmr)
    assert list(igvm.rtmr) == json.loads(result.manifest.read_text())["rtmr"]
    assert igvm.to_json()["pages"] == tdvf.to_json()["pages"]
    with pytest.raises(EmuError, match="PermMem section 0x2000000 to 0x6000000 does not lie in the 64 MiB"):
        launch(result.igvm.read_bytes(), memory=64 * MIB)


def test_the_regions_are_added_in_the_order_of_the_headers(built: BuildResult) -> None:
    found = launch(built.igvm.read_bytes())
    same = launch(built.image.read_bytes())
    pages = [
        (gpa, region.measured)
        for region in found.regions
        for gpa in range(region.gpa, region.gpa + region.length, 4096)
    ]
    assert pages == [
        (gpa, region.measured)
        for region in same.regions
        for gpa in range(region.gpa, region.gpa + region.length, 4096)
    ]
    assert found.regions[0].content == same.regions[0].content
    assert found.hob_address == same.hob_address


def area(*parameters: bytes, size: int = 0x1000, index: int = 2) -> bytes:
    return made(
        TDX,
        packed(PAGE_DATA, FOUR_GIB - 4096, 1, 24 + 24 + 32 + 24 + 16 * len(parameters) + 24, 0, 0, 0),
        packed(AREA, size, index, 0),
        *parameters,
        packed(INSERT, 0x80_0000, 1, index),
        data=b"\x90" * 4096,
    )


def test_kinds_of_regions_and_the_window(built: BuildResult) -> None:
    found = launch(built.igvm.read_bytes())
    kinds = [section.type for section in found.sections]
    assert kinds == [
        SectionType.BFV,
        SectionType.TD_HOB,
        SectionType.TEMP_MEM,
        SectionType.PAYLOAD_PARAM,
        SectionType.PAYLOAD,
    ]
    size = len(found.regions[0].content)
    assert struct.pack("<QQ", FOUR_GIB - size, size) in found.hob


def test_the_configuration_volume_keeps_its_data() -> None:
    found = launch(write_igvm(image_for_direct_boot()))
    assert found.sections[1].type == SectionType.CFV
    assert (found.regions[1].content, found.regions[1].measured) == (bytes([7]) * 0x2000, False)


def test_parameters_by_the_definitions() -> None:
    """A memory map of two ranges and an end, the number of vCPUs, a command line that ends with a zero."""
    file = area(
        packed(MEMORY_MAP, 2, 0),
        struct.pack("<II", VP_COUNT, 8) + struct.pack("<II", 2, 0x800),
        packed(COMMAND_LINE, 2, 0x900),
    )
    found = launch(file, memory=4 * GIB, vcpus=3, cmdline="quiet")
    written = found.content(found.sections[1])
    rows = [struct.unpack_from("<QQHHI", written, 24 * i) for i in range(3)]
    assert rows == [(0, 3 * GIB >> 12, 0, 0, 0), (FOUR_GIB >> 12, GIB >> 12, 0, 0, 0), (0, 0, 0, 0, 0)]
    assert written[0x800:0x804] == b"\3\0\0\0"
    assert written[0x900:] == b"quiet\0"
    assert found.hob == written[:72]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """A flow that reads the memory map."""
    return build_flow(EXAMPLE, tmp_path_factory.mktemp("build"), igvm=True)


@pytest.mark.parametrize("memory", [256 * MIB, 4 * GIB])
def test_a_flow_boots_from_the_memory_map_alone(memory: int, mapped: BuildResult) -> None:
    data = mapped.igvm.read_bytes()
    assert [(item["index"], item["byte_offset"]) for item in headers(data) if item.type == MEMORY_MAP] == [
        (2, 0)
    ]
    given = {"kernel": tiny_payload(), "cmdline": "one two", "memory": memory}
    report = run(config(data, **given))
    assert report.met
    assert BANNER in run(config(data, until=f"console:{BANNER}", **given)).to_json()["console"]
    described, *_ = report.to_json()["events"]
    ranges = [(0, 256 * MIB)] if memory < GIB else [(0, 3 * GIB), (FOUR_GIB, GIB)]
    content = b"".join(struct.pack("<QQQ", start >> 12, size >> 12, 0) for start, size in (*ranges, (0, 0)))
    assert hashlib.sha384(content).hexdigest() in json.dumps(described)


@pytest.mark.parametrize("description", [b"", bytes(4096), b"\1" * 4096, struct.pack("<QQQ", 0, 1, 7)])
def test_a_wrong_map_is_refused(description: bytes, mapped: BuildResult) -> None:
    """Also one that says nothing of RAM, and what a VMM writes that knows TD HOBs only."""
    report = run(config(mapped.igvm.read_bytes(), hob=description))
    assert not report.met
    assert report.to_json()["end"]["reason"] == "fatal"


@pytest.mark.parametrize("seed", range(12))
def test_a_hostile_vmm_is_refused_or_without_effect(seed: int, mapped: BuildResult) -> None:
    given = {"kernel": tiny_payload(), "vmm": f"hostile:{seed}:td-shim-spec", "max_instructions": 3_000_000}
    end = run(config(mapped.igvm.read_bytes(), **given)).to_json()["end"]
    assert end["reason"] in ("handoff", "fatal"), end


def test_a_hostile_memory_map_is_another_one() -> None:
    honest = struct.pack("<QQQ", 0, 0x1_0000, 0) + bytes(24)
    lies = [mutated(Random(seed), honest, 1) for seed in range(400)]
    assert all(len(data) % 24 == 0 and len(texts) == 1 for data, texts in lies)
    assert len({data for data, _ in lies} - {honest}) > 25
    assert {len(data) // 24 for data, _ in lies} >= {2, 3, 130, 131, 172}
    assert mutated(Random(3), honest, 2) == mutated(Random(3), honest, 2)


def test_its_tdvf_image_finds_no_map(mapped: BuildResult) -> None:
    """A TD HOB is no map that the image's sections lie in."""
    assert run(config(mapped.image.read_bytes())).to_json()["end"]["reason"] == "fatal"


@pytest.mark.parametrize(
    ("file", "settings", "text"),
    [
        (
            lambda: area(struct.pack("<IIII", MADT, 8, 2, 0)),
            {},
            "parameter MADT: the emulated VMM has nothing",
        ),
        (
            lambda: area(packed(COMMAND_LINE, 2, 0xFFB)),
            {"cmdline": "quiet"},
            "6 bytes do not fit into 5 bytes",
        ),
        (lambda: area(packed(MEMORY_MAP, 2, 0xFD1)), {}, "48 bytes do not fit into 47 bytes"),
        (lambda: area(index=5), {}, "no TD_HOB section"),
        (lambda: area()[:-1], {}, "the total file size"),
        (lambda: area(size=512 * MIB), {}, "does not lie in the 256 MiB"),
    ],
)
def test_what_cannot_be_launched(file: Callable[[], bytes], settings: dict[str, object], text: str) -> None:
    with pytest.raises(EmuError, match=text) as caught:
        launch(file(), **settings)
    assert "\n" not in str(caught.value)


def test_a_memory_map_in_any_area_says_what_ram_is() -> None:
    found = launch(area(packed(MEMORY_MAP, 7, 0), index=7))
    assert [section.type for section in found.sections] == [SectionType.BFV, SectionType.TEMP_MEM]
    assert found.content(found.sections[1]) == struct.pack("<6Q", 0, 256 * MIB >> 12, 0, 0, 0, 0)
    assert (found.hob_address, found.hob) == (0, b"")


def test_parameters_that_just_fit() -> None:
    assert launch(area(packed(COMMAND_LINE, 2, 0xFFA)), cmdline="quiet")
    assert launch(area(packed(MEMORY_MAP, 2, 0xFD0)))


@pytest.mark.parametrize("vmm", [name for name in PRESETS if not name.startswith("td-shim-spec")])
def test_no_other_vmm_takes_one(vmm: str, built: BuildResult) -> None:
    with pytest.raises(EmuError, match=f"x.igvm: {vmm} has no loader for an IGVM file for TDX"):
        launch(built.igvm.read_bytes(), vmm)
