"""Do the commands do their work on a real image, and tell mistakes in one line?"""

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import guest
import pytest

from dsl.api import shipped_flows
from formats import eventlog, linux, tdvf
from formats.units import MIB
from gen.link.sample import FORMATS, sample
from image.hosts import VMMS
from tdforge.building import build_flow
from tdforge.cli import main
from tdforge.commands import sample as sample_command
from tdforge.flows import find_flow
from tdforge.tiny import BANNER, tiny_payload

REPORT_KEYS = {"mrtd", "rtmr", "events", "console", "end", "instructions", "tdcalls", "pages", "handoff"}
CMDLINE = "one two"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped image for Linux, built once."""
    return build_flow(find_flow("linux"), tmp_path_factory.mktemp("build")).image


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The tiny payload: a bzImage that prints one line."""
    path = tmp_path / "tiny.bzImage"
    path.write_bytes(tiny_payload())
    return path


def run(image: Path, kernel: Path, *more: str) -> int:
    return main(["run", str(image), "--kernel", str(kernel), "--memory", "256M", "--cmdline", CMDLINE, *more])


def last_line(captured: pytest.CaptureFixture[str]) -> str:
    """The one line that says what went wrong."""
    lines = captured.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("tdforge: ")] == lines[-1:], lines
    return lines[-1]


def test_build_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "linux", "-o", str(tmp_path), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    image = (tmp_path / "linux.bin").read_bytes()
    assert manifest["image"]["sha384"] == hashlib.sha384(image).hexdigest()


def test_check_finds_nothing_in_what_ships(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "linux"]) == 0
    assert main(["check", str(image)]) == 0
    assert capsys.readouterr().err == ""


def test_check_of_what_comes_through_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, shipped_flows()["linux"].read_bytes())
    os.close(writer)
    assert main(["check", f"/dev/fd/{reader}"]) == 0
    assert capsys.readouterr().out == f"/dev/fd/{reader}: obeys every rule\n"
    os.close(reader)


@pytest.mark.parametrize("what", ["file", "device"])
def test_check_of_an_empty_image_is_of_an_image(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Path("/dev/null") if what == "device" else tmp_path / "empty"
    if what == "file":
        image.touch()
    assert main(["check", str(image)]) == 1
    said = capsys.readouterr()
    assert f"qemu: refuses {image}: " in said.out
    assert "firmware" not in said.err


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"/tmp/{'a' * 300}.bin"
    assert main(["check", name]) == 1
    assert capsys.readouterr().err == f"tdforge: {name}: File name too long\n"


@pytest.mark.parametrize("size", [None, MIB + 1, 1 << 40])
def test_what_is_too_large_is_not_read(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device without end too, of which a little more is read than may be."""
    path = Path("/dev/zero") if size is None else tmp_path / "large"
    if size:
        with path.open("wb") as file:
            file.truncate(size)
    monkeypatch.setattr("tdforge.files.MAX_INPUT", MIB)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"tdforge: image {path} is larger than 1 MiB\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_check_of_a_broken_image_fails(
    as_json: bool, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build system looks at nothing but the exit code."""
    broken = tmp_path / "broken.bin"
    broken.write_bytes(image.read_bytes()[:-16] + bytes(16))
    assert main(["check", str(broken), *(["--json"] if as_json else [])]) == 1
    said = capsys.readouterr()
    if as_json:
        facts = json.loads(said.out)
        assert [finding["code"] for finding in facts["portability"]] == ["reset-code"]
        assert not any(row["accepts"] for row in facts["vmms"])
    else:
        assert len(said.out.splitlines()) == len(VMMS)
        assert f"td-shim-spec: refuses {broken}: GPA 0xfffffff0: found 00 in all 16 bytes" in said.out
        assert said.err.startswith(f"not portable: reset-code: {broken} GPA 0xfffffff0")
    assert main(["check", str(image), *(["--json"] if as_json else [])]) == 0


@pytest.fixture(scope="module")
def igvm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pages as an IGVM file, beside the image and its manifest."""
    return build_flow(find_flow("linux"), tmp_path_factory.mktemp("build"), igvm=True).igvm


def test_build_of_an_igvm_file(igvm: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "linux", "-o", str(igvm.parent), "--format", "igvm"]) == 0
    assert "linux.igvm  (" in capsys.readouterr().out
    facts, plain = (json.loads(each.with_suffix(".json").read_bytes()) for each in (igvm, image))
    assert igvm.with_suffix(".bin").read_bytes() == image.read_bytes()
    found = facts.pop("igvm")
    assert facts == plain
    assert found["mrtd"] == facts["mrtd"]["single-pass"]
    assert {name: found[name] for name in facts["launch"]} == facts["launch"]
    data = igvm.read_bytes()
    assert (found["size"], found["sha384"]) == (len(data), hashlib.sha384(data).hexdigest())


def test_inspect_of_an_igvm_file(igvm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mrtd = json.loads(igvm.with_suffix(".json").read_bytes())["mrtd"]["single-pass"]
    assert main(["inspect", str(igvm)]) == 0
    assert mrtd in capsys.readouterr().out
    assert main(["inspect", str(igvm), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mrtd_single_pass"] == mrtd
    cut = tmp_path / "cut.igvm"
    cut.write_bytes(igvm.read_bytes()[:-1])
    assert main(["inspect", str(cut)]) == 1
    assert last_line(capsys).startswith(f"tdforge: {cut}: found ")


def test_check_of_an_igvm_file(igvm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(igvm)]) == 0
    assert capsys.readouterr().out == f"{igvm}: an IGVM file for TDX that obeys every rule\n"
    assert main(["check", str(igvm), "--for", "qemu"]) == 1
    assert f"qemu: refuses {igvm}: it has no loader for" in capsys.readouterr().out
    assert main(["check", str(igvm), "--for", "qemu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["vmms"][0]["vmm"] == "qemu"
    broken = tmp_path / "broken.igvm"
    data = bytearray(igvm.read_bytes())
    data[24 + 8] ^= 1  # the compatibility mask
    broken.write_bytes(data)
    assert main(["check", str(broken)]) == 1
    assert f"igvm: {broken} offset 0x14: found checksum " in capsys.readouterr().err
    assert main(["check", str(broken), "--json"]) == 1
    assert [finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]] == ["igvm"]


def test_run_of_an_igvm_file(
    igvm: Path, kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(igvm, kernel, "--json") == 0
    assert (
        json.loads(capsys.readouterr().out)["mrtd"]
        == json.loads(igvm.with_suffix(".json").read_bytes())["igvm"]["mrtd"]
    )
    assert run(igvm, kernel, "--vmm", "qemu") == 1
    assert "qemu has no loader for an IGVM file for TDX" in last_line(capsys)
    assert main(["launch", str(igvm), "--vmm", "qemu", "--print"]) == 1
    assert last_line(capsys).endswith("is an IGVM file; this takes the TDVF image that was built with it")
    cut = tmp_path / "cut.igvm"
    cut.write_bytes(igvm.read_bytes()[:-1])
    assert run(cut, kernel) == 1
    assert "the total file size" in last_line(capsys)


def test_check_for_a_vmm(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(image), "--for", "td-shim-spec", "--for", "cloud-hypervisor"]) == 0
    assert capsys.readouterr().out == f"td-shim-spec: loads {image}\ncloud-hypervisor: loads {image}\n"
    assert main(["check", str(image), "--for", "td-shim-spec", "--for", "qemu"]) == 1
    assert f"qemu: refuses {image}: section 5 (PayloadParam" in capsys.readouterr().out
    assert main(["check", "linux", "--for", "qemu"]) == 1
    assert "--for is for an image" in capsys.readouterr().err


def test_check_of_a_broken_flow_as_json_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = tmp_path / "wrong.tdf"
    flow.write_text(find_flow("linux").read_text().replace("park aps on wakeup", "park aps on nothing"))
    assert main(["check", str(flow), "--json"]) == 1
    assert any("nothing" in text for text in json.loads(capsys.readouterr().out))


def test_three_mistakes_are_three_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = find_flow("linux").read_text()
    for right, wrong in (
        ("start_log(event_log)?", "begin_log(event_log)?"),
        ("let kernel = parse_linux(image)?", "let kernel = parse_linux(imago)?"),
        ("park aps on wakeup", "park aps on wakeupp"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    flow = tmp_path / "wrong.tdf"
    flow.write_text(text)
    assert main(["check", str(flow)]) == 1
    said = capsys.readouterr().err
    assert said.count("error[") >= 3
    assert all(word in said for word in ("begin_log", "imago", "wakeupp"))
    assert main(["build", str(flow), "-o", str(tmp_path)]) == 1
    assert "nothing was built" in last_line(capsys)
    assert not (tmp_path / "linux.bin").exists()


@pytest.mark.parametrize("command", ["inspect", "run"])
@pytest.mark.parametrize("keep", [16, 1000, 40_000])
def test_truncated_image(
    command: str, keep: int, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(image.read_bytes()[:keep])
    assert main([command, str(short)]) == 1
    assert "is not a TD image, or is cut short" in last_line(capsys)


@pytest.mark.parametrize("missing", [4096, 40_000])
def test_an_image_without_its_start(
    missing: int, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metadata lie at the end, and are whole."""
    short = tmp_path / "short.bin"
    short.write_bytes(image.read_bytes()[missing:])
    assert main(["run", str(short)]) == 1
    assert last_line(capsys).endswith(f"the image ends at {(64 << 10) - missing:#x}; it is cut short")


def test_inspect_tells_both_mrtds(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(image), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["mrtd_single_pass"]) == len(facts["mrtd_two_pass"]) == 96
    assert main(["inspect", str(image)]) == 0
    page = capsys.readouterr().out
    assert facts["mrtd_single_pass"] in page
    assert facts["mrtd_two_pass"] in page


def test_not_a_kernel(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"remember the milk\n" * 100)
    assert run(image, notes) == 1
    assert "not a Linux bzImage" in last_line(capsys)


def test_a_kernel_larger_than_its_section(
    image: Path, kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = tdvf.metadata(image.read_bytes()).sections
    room = next(item.memory_size for item in sections if item.type == tdvf.SectionType.PAYLOAD)
    big = tmp_path / "big"
    big.write_bytes(kernel.read_bytes().ljust(room + 1, b"\0"))
    assert run(image, big) == 1
    said = last_line(capsys)
    assert f"is larger than the image's Payload section ({room:,} bytes, declared in linux.tdf:" in said
    line = int(said.rpartition(":")[2].rstrip(")"))
    assert (
        "Payload " in (Path(__file__).parents[2] / "dsl/flows/linux.tdf").read_text().splitlines()[line - 1]
    )
    other = tmp_path / "other.bin"
    other.write_bytes(image.read_bytes())
    other.with_suffix(".json").write_bytes(b"no manifest")
    assert run(other, big) == 1
    assert last_line(capsys).endswith(f"Payload section ({room:,} bytes)")


def test_only_qemu_takes_a_kernel_for_an_image_without_a_payload_section(
    tmp_path: Path, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(guest.for_qemu(guest.build("main:\n    halt\n").image))
    assert run(image, kernel, "--until", "halt") == 1
    assert "no Payload section" in last_line(capsys)
    assert run(image, kernel, "--until", "halt", "--vmm", "qemu") == 0
    assert run(image, kernel, "--until", "halt", "--vmm", "hostile:1:qemu") == 0


def test_an_initrd_larger_than_its_section(
    image: Path, kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(65 << 20))
    assert run(image, kernel, "--initrd", str(initrd)) == 1
    said = "bytes do not fit into the Payload section (50,331,648 bytes, declared in linux.tdf:"
    assert said in last_line(capsys)


def test_a_command_line_larger_than_its_section(
    image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(image, kernel, "--cmdline", "x" * 4096) == 1
    said = "command line: 4,097 bytes do not fit into the PayloadParam section (4,096 bytes"
    assert said in last_line(capsys)


def test_an_initrd_needs_a_kernel(image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(image), "--initrd", str(kernel)]) == 1
    assert last_line(capsys) == "tdforge: --initrd needs --kernel"


def test_the_report_and_the_log_agree(
    image: Path, kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file, log_file = tmp_path / "out" / "report.json", tmp_path / "out" / "ccel.bin"
    assert run(image, kernel, "--report", str(report_file), "--event-log", str(log_file)) == 0
    report = json.loads(report_file.read_text())
    assert set(report) >= REPORT_KEYS
    registers = [register.hex() for register in eventlog.replay(eventlog.parse(log_file.read_bytes()))]
    assert registers == report["rtmr"]
    digests = [event["digest"] for event in report["events"]]
    data = kernel.read_bytes()
    assert hashlib.sha384(data[: linux.kernel(data).true_length]).hexdigest() in digests
    assert hashlib.sha384(CMDLINE.encode()).hexdigest() in digests
    assert "attest nothing" in capsys.readouterr().err


def test_console_text_ends_a_run(image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(image, kernel, "--until", f"console:{BANNER}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == BANNER


def test_closed_and_full_streams(
    image: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(sys, "stdin", None)
    assert run(image, kernel) == 0
    capsys.readouterr()
    assert run(image, kernel, "--trace", str(full)) == 1
    assert last_line(capsys) == "tdforge: cannot write the output: No space left on device"
    with full.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(image, kernel, "--until", "halt") == 1
        monkeypatch.setattr(sys, "stdout", sys.__stdout__)
        with suppress(OSError):
            stream.close()
    assert last_line(capsys) == "tdforge: cannot write the output: No space left on device"


def test_json_leaves_standard_output_to_the_report(
    image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(image, kernel, "--until", "halt", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["console"].endswith(f"{BANNER}\n")
    assert BANNER in captured.err


def test_a_run_that_ends_too_early(image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(image, kernel, "--until", "console:never said") == 1
    assert last_line(capsys).startswith("tdforge: the run ended before console:never said: halt")


def test_the_same_run_twice(image: Path, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(image, kernel, "--json")
    first = capsys.readouterr().out
    run(image, kernel, "--json")
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("name", [*FORMATS, None])
def test_sample(name: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a format it is ELF."""
    file = tmp_path / "new" / "payload"
    assert main(["sample", *(["--format", name] if name else []), "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}  ({file.stat().st_size:,} bytes)\n"
    assert file.read_bytes() == sample(name or "elf")


def test_sample_has_each_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (*FORMATS,) == sample_command.FORMATS
    assert main(["sample", "-o", str(tmp_path)]) == 1
    assert last_line(capsys) == f"tdforge: cannot write {tmp_path}: Is a directory"


def test_diff_run_of_lists_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text('{"a": ' + "[" * 100_000)
    assert main(["diff-run", str(deep), str(deep)]) == 1
    assert capsys.readouterr().err == f"tdforge: {deep}:1: not a line of a trace\n"
