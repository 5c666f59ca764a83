"""Does each ability of the language work in a TD? Every flow of `flows` boots the small payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha384
from pathlib import Path

import pytest
from tdbox import MIB, Firmware, made, stopped

from dsl.api import check_file, check_source
from emu.api import Report, run
from emu.vmm.quote import TEXT
from formats.described import read_td_params
from formats.errors import FormatError
from formats.igvm import read
from gen.errors import BuildError
from gen.predict import registers
from image.check import check_image
from image.igvm import write_igvm
from image.inspect import inspect
from image.mrtd import igvm_mrtd

FLOWS = sorted((Path(__file__).parent / "flows").glob("*.tdf"))
STARTED = "tdforge tiny payload: started\n"

Build = Callable[[str], Firmware]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Build:
    """The image of a flow, built once."""
    folder, built = tmp_path_factory.mktemp("abilities"), dict[str, Firmware]()

    def of(name: str) -> Firmware:
        if name not in built:
            flow = next(path for path in FLOWS if path.stem == name)
            built[name] = made(flow, folder / name, tiny)
        return built[name]

    return of


def started(firmware: Firmware) -> Report:
    report = run(replace(firmware.config, until=f"console:{STARTED}"))
    assert str(report.console).endswith(STARTED), report.end
    return report


def digests(report: Report) -> dict[str, str]:
    return {str(event["description"]): str(event["digest"]) for event in report.events}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_boots(build: Build, flow: Path) -> None:
    assert started(build(flow.stem)).handoff is not None


def test_a_kernel_that_is_not_on_the_list_is_refused(build: Build, tiny: bytes) -> None:
    other = tiny[:-1] + bytes([tiny[-1] ^ 1])
    report = run(replace(build("allow_list").config, kernel=other))
    assert report.end["reason"] == "fatal"
    assert "kernel: none that this firmware starts" in str(report.end["detail"])


def test_a_cfv_is_in_the_log(build: Build) -> None:
    firmware, content = build("measure_a_cfv"), (FLOWS[0].parent / "note.txt").read_bytes()
    assert digests(started(firmware))["config"] == sha384(content.ljust(4096, b"\0")).hexdigest()
    (section,) = (s for s in firmware.manifest["sections"] if s["name"] == "config")
    assert section["file"] == {
        "name": "note.txt",
        "size": len(content),
        "sha384": sha384(content).hexdigest(),
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read note.txt: No such file"), (bytes(4097), "note.txt has 4097 bytes")],
)
def test_a_file_that_does_not_fill_its_section(tmp_path: Path, content: bytes | None, says: str) -> None:
    flow = tmp_path / "flow.tdf"
    flow.write_text((FLOWS[0].parent / "measure_a_cfv.tdf").read_text())
    if content is not None:
        (tmp_path / "note.txt").write_bytes(content)
    with pytest.raises(BuildError, match=rf"flow.tdf:\d+:9: {says}"):
        made(flow, tmp_path, b"")


def test_a_measured_number_decides(build: Build) -> None:
    report = started(build("measure_a_number"))
    assert str(report.console).startswith("another key\n")
    assert digests(report)["key"] in {
        sha384(bytes([n]) + bytes(7)).hexdigest() for n in range(256) if n != 27
    }


def test_a_number_is_printed(build: Build) -> None:
    assert str(started(build("print_hex")).console).startswith("attributes 0x10000000\n")


@pytest.mark.parametrize(("allowed", "boots"), [(0, True), (2, True), (1, False)])
def test_a_number_of_the_configuration_decides(build: Build, allowed: int, boots: bool) -> None:
    firmware = build("read_config_value")
    gpa, _ = firmware.section("config")
    image = bytearray(firmware.image)
    image[gpa - (1 << 32) + len(image)] = allowed
    report = run(replace(firmware.config, image=bytes(image), vcpus=2, until=f"console:{STARTED}"))
    assert str(report.console).endswith(STARTED) is boots
    assert boots or "more CPUs than the configuration allows" in str(report.end["detail"])


def test_a_firmware_below_its_minimum_svn_is_not_built() -> None:
    flow = next(path for path in FLOWS if path.stem == "minimum_svn").read_text()
    (found,) = check_source(flow.replace("svn 3", "svn 2")).diagnostics
    assert (found.code, found.hint) == ("E08", "this firmware's svn is 2")


def test_the_command_line_of_the_image_is_what_the_kernel_gets(build: Build) -> None:
    with stopped(replace(build("built_in_command_line").config, until="handoff")) as td:
        pointer = int.from_bytes(td.read(td.boot_params + 0x228, 4), "little")
        assert td.read(pointer, 17) == b"console=ttyS0 ro\0"


@pytest.mark.parametrize(("given", "got"), [("ro quiet", b"ro quiet\0"), ("ro", b"console=ttyS0 ro\0")])
def test_the_command_line_is_chosen(build: Build, given: str, got: bytes) -> None:
    with stopped(replace(build("choose_bytes").config, cmdline=given, until="handoff")) as td:
        pointer = int.from_bytes(td.read(td.boot_params + 0x228, 4), "little")
        assert td.read(pointer, len(got)) == got


def test_a_quote_is_asked_for_over_the_kernels_digest(build: Build, tiny: bytes) -> None:
    data = sha384(tiny).digest() + bytes(16)
    assert (
        digests(started(build("get_quote")))["quote"]
        == sha384(TEXT + data.hex().encode() + b"\n").hexdigest()
    )


def test_without_a_list_memory_is_what_the_image_says(build: Build) -> None:
    """Each page of PermMem is accepted, no other; of the machine, RTMR[0] holds nothing."""
    firmware = build("no_td_hob")
    for vcpus in (1, 4):
        report = run(replace(firmware.config, vcpus=vcpus))
        assert report.met, report.end
        kinds = [(s["gpa"], s["size"]) for s in firmware.manifest["sections"] if s["type"] == "PermMem"]
        assert report.pages["accepted_4k"] * 4096 + report.pages["accepted_2m"] * 2 * MIB == sum(
            size for _, size in kinds
        )
        assert report.rtmr[0] == sha384(bytes(48) + sha384(bytes(4)).digest()).hexdigest()
        assert report.handoff is not None
        ram = [(start, start + size) for start, size, kind in report.handoff["e820"] if kind == 1]
        sections = {(s["gpa"], s["gpa"] + s["size"]) for s in firmware.manifest["sections"]}
        assert all(any(low <= start and end <= high for low, high in joined(sections)) for start, end in ram)


def test_the_registers_are_those_that_are_predicted(build: Build, tiny: bytes) -> None:
    firmware, flow = build("no_td_hob"), next(path for path in FLOWS if path.stem == "no_td_hob")
    payload = tiny.ljust(firmware.section("payload")[1], b"\0")
    predicted = registers(check_file(flow).require(), {"payload": payload})
    assert [register.hex() for register in predicted] == list(run(firmware.config).rtmr)
    assert "rtmr" not in firmware.manifest  # the payload is the VMM's


def test_a_kernel_in_the_image_leaves_nothing_to_find_out(tmp_path: Path, tiny: bytes) -> None:
    """MRTD and all RTMRs are in the manifest."""
    text = next(path for path in FLOWS if path.stem == "no_td_hob").read_text()
    lines = [line for line in text.splitlines() if "PayloadParam" not in line]
    kernel = '        payload CFV 64 KiB at 0xFFDF_0000 from "kernel"'
    flow = tmp_path / "flow.tdf"
    flow.write_text("\n".join(kernel if " Payload " in line else line for line in lines) + "\n")
    (tmp_path / "kernel").write_bytes(tiny)
    firmware = made(flow, tmp_path, b"")
    report = started(replace(firmware, config=replace(firmware.config, kernel=None, vcpus=2)))
    assert firmware.manifest["rtmr"] == list(report.rtmr)
    assert firmware.manifest["mrtd"]["single-pass"] == report.mrtd


def test_what_tools_read_lies_in_the_bfv(tmp_path: Path, tiny: bytes) -> None:
    """TD_INFO and TD_PARAMS: in MRTD with the BFV, shown by name, in the way of nobody."""
    text = next(path for path in FLOWS if path.stem == "no_td_hob").read_text()
    info = 'info TD_INFO guid "00112233-4455-6677-8899-aabbccddeeff" from "info"'
    lines = [
        line.replace("code ", f'{info}\n params TD_PARAMS from "params.json"\n code ')
        for line in text.splitlines()
    ]
    flow = tmp_path / "flow.tdf"
    flow.write_text("\n".join(lines) + "\n")
    (tmp_path / "info").write_bytes(b"abc")
    fields = read_td_params(bytes(range(1, 21)) + bytes(4) + bytes(1000))
    assert fields is not None
    (tmp_path / "params.json").write_text(json.dumps(fields))
    firmware = made(flow, tmp_path, tiny)
    found = inspect(firmware.image)
    assert found.td_params == fields
    assert found.td_info is not None
    assert (found.td_info.version, found.td_info.svn, found.td_info.data) == ((1, 0, 0), 3, b"abc".hex())
    assert check_image(firmware.image) == []
    assert started(firmware).mrtd == firmware.manifest["mrtd"]["single-pass"]
    igvm = read(write_igvm(firmware.image))
    assert igvm_mrtd(igvm).digest.hex() == firmware.manifest["mrtd"]["single-pass"]
    (tmp_path / "params.json").write_text(json.dumps(fields | {"xfam": None}))
    with pytest.raises(FormatError, match=r"params\.json: xfam: found null, expected a number of 8 bytes"):
        made(flow, tmp_path, tiny)
    (tmp_path / "params.json").write_bytes(b"\xff")
    with pytest.raises(BuildError, match=r"params\.json is no text: byte 0"):
        made(flow, tmp_path, tiny)


def joined(ranges: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that touch are one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def test_a_hostile_vmm_has_no_list_to_lie_with(build: Build) -> None:
    firmware = build("no_td_hob")
    for seed in range(4):
        report = run(replace(firmware.config, vmm=f"hostile:{seed}:td-shim-spec"))
        assert not any(line.startswith("HOB") for line in report.hostile)
        assert report.end["reason"] in ("handoff", "fatal"), report.end


def test_ram_between_the_ranges_is_left_out(build: Build) -> None:
    handoff = started(build("accept_ranges")).handoff
    assert handoff is not None
    ram = [(start, start + size) for start, size, kind in handoff["e820"] if kind == 1]
    left_out, rest = (64 * MIB, 96 * MIB), (96 * MIB, 100 * MIB)
    assert not any(start < left_out[1] and left_out[0] < end for start, end in ram)
    assert any(start <= rest[0] and rest[1] <= end for start, end in ram)
