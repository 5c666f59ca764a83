"""Does an executable, ELF or PE, get the machine as the specification says, and what of it is measured?"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import oracle
import pytest
from elftools.elf.elffile import ELFFile
from opensslkeys import signed_payload
from tdbox import GIB, HASHING, LINUX, MIB, Firmware, finish, stopped
from vmlinux import vmlinux

from emu.api import RunConfig, prepare, run
from emu.signals import EmuError
from emu.tdx.measure import AddedRegion
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy
from formats import elf, guids, hob
from formats.hob import HobType
from formats.registers import RDI, RSP
from formats.structs import offset_of
from formats.units import PAGE, align_up
from gen.build import build
from gen.core.payload import refusal
from gen.errors import BuildError
from gen.link.sample import FORMATS, sample
from image.mrtd import mrtd
from tdforge.cli import main

PAYLOAD = LINUX.with_name("payload.tdf")
GOOD = "tdforge sample: all good"
LOAD = MIB  # the lowest free RAM
RESERVED = 2
REFUSED = (
    "payload.tdf:15:9: text: found what ends the boot with `payload: no ELF64 or PE32+ file for x86-64`, "
    "expected an ELF64 or PE32+ executable"
)


@pytest.fixture
def config(executable: Firmware) -> RunConfig:
    return replace(executable.config, cmdline="")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("vcpus", [1, 4])
def test_the_sample_finds_everything_as_it_should(config: RunConfig, name: str, vcpus: int) -> None:
    given = replace(config, kernel=sample(name), vcpus=vcpus, until=f"console:{GOOD}")
    report = run(given)
    assert report.met, report.console
    assert "FAILED" not in report.console
    assert all(ap["parked"] for ap in report.aps)


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_the_sample_on_many_cpus_and_much_memory(config: RunConfig, name: str) -> None:
    report = run(replace(config, kernel=sample(name), vcpus=64, memory=16 * GIB, until=f"console:{GOOD}"))
    assert report.met, report.console
    assert "e820 0x100000000 0x440000000 1\r\n" in report.console.replace("\n", "\r\n").replace("\r\r", "\r")


@pytest.mark.parametrize("vmm", ["td-shim-spec", "td-shim-spec:legacy"])
def test_the_file_is_measured_and_nothing_behind_it(config: RunConfig, vmm: str) -> None:
    file = sample("elf")
    report = run(replace(config, kernel=file + b"what nobody loads", vmm=vmm, vcpus=3))
    assert report.met, report.end
    assert report.rtmr[1] == oracle.extended(file, bytes(4))
    assert report.handoff is not None
    assert report.handoff["entry"] == LOAD + ELFFile(io.BytesIO(file))["e_entry"]


def test_each_page_has_its_right_at_the_handoff(executable: Firmware, config: RunConfig) -> None:
    """By the page tables: the image's parts as its program headers say, RAM and regions writable, no more."""
    file = sample("elf")
    with stopped(replace(config, kernel=file, memory=5 * GIB)) as td:
        found = oracle.mappings(td.read, td.cr3)
        assert [each for each in found if each.rights == "rwx"] == []
        assert oracle.rights(found, 0, PAGE) == "none"
        wanted: dict[int, str] = {}
        for part in ELFFile(io.BytesIO(file)).iter_segments():
            start, end = part["p_vaddr"], part["p_vaddr"] + part["p_memsz"]
            if part["p_type"] == "PT_LOAD":
                right = "rw" if part["p_flags"] & 2 else "rx" if part["p_flags"] & 1 else "r"
                wanted |= dict.fromkeys(range(start // PAGE * PAGE, align_up(end, PAGE), PAGE), right)
            elif part["p_type"] == "PT_GNU_RELRO":
                wanted |= dict.fromkeys(range(align_up(start, PAGE), end // PAGE * PAGE, PAGE), "r")
        assert set(wanted.values()) == {"r", "rx", "rw"}
        for at, right in wanted.items():
            assert oracle.rights(found, LOAD + at, LOAD + at + PAGE) == right
        assert [m for m in found if m.executable and m.end <= 3 * GIB] == [
            m for m in found if m.executable and LOAD <= m.start < m.end <= LOAD + max(wanted) + PAGE
        ]
        listed = hob_list(td.read, int(td.machine.vcpus[0].regs.gpr[RDI]))
        guard = executable.section("stack")[0]
        for start, end, kind in e820(listed):
            pieces = (
                [(start, guard), (guard + PAGE, end)] if start <= guard < end else [(max(start, PAGE), end)]
            )
            for low, high in pieces:
                if kind == 1 and low < high:
                    assert oracle.rights(found, low, high) == "rw", hex(low)
        top = int(td.machine.vcpus[0].regs.gpr[RSP]) + 40
        assert oracle.rights(found, top - 60 * 1024, top) == "rw"
        assert oracle.rights(found, top - 64 * 1024, top - 60 * 1024) == "none"


def hob_list(read: oracle.Read, base: int) -> list[tuple[int, bytes]]:
    """Type and body of each HOB."""
    found, at = [], base
    while not found or found[-1][0] != HobType.END:
        head = hob.HEADER.parse(read(at, 8))
        found.append((int(head.type), read(at + 8, head.length - 8)))
        at += head.length
    return found


def e820(hobs: list[tuple[int, bytes]]) -> list[tuple[int, int, int]]:
    (table,) = [body[16:] for _, body in hobs if body[:16] == guids.HOB_E820_TABLE.bytes_le]
    words = [table[i : i + 20] for i in range(0, len(table) - 19, 20)]
    each = [(int.from_bytes(w[:8], "little"), int.from_bytes(w[8:16], "little"), w[16]) for w in words]
    return [(start, start + size, kind) for start, size, kind in each]


def test_what_is_told_is_what_there_is(executable: Firmware, config: RunConfig) -> None:
    with stopped(replace(config, vcpus=4)) as td:
        assert td.report.met
        hobs = hob_list(td.read, int(td.machine.vcpus[0].regs.gpr[RDI]))
        start, size = executable.section("payload")
        assert hobs[2] == (HobType.FIRMWARE_VOLUME, start.to_bytes(8, "little") + size.to_bytes(8, "little"))
        tables = [body[16:] for _, body in hobs if body[:16] == guids.HOB_ACPI_TABLE.bytes_le]
        assert [table[:4] for table in tables] == [b"FACP", b"DSDT", b"APIC", b"CCEL"]
        log = int.from_bytes(tables[3][48:56], "little")
        found = oracle.events(oracle.cut(td.read(log, int.from_bytes(tables[3][40:48], "little"))))
        assert oracle.replay(found) == td.report.rtmr
        ids = [entry[3] for entry in oracle.madt_entries(tables[2]) if entry[0] == 0]
        assert ids == [0, 1, 2, 3]
        (wakeup,) = [entry for entry in oracle.madt_entries(tables[2]) if entry[0] == 0x10]
        ranges = e820(hobs)
        mailbox = int.from_bytes(wakeup[8:16], "little")
        assert any(low <= mailbox < high and kind == 4 for low, high, kind in ranges)
        for name in ("paging", "code"):
            low, length = executable.section(name)
            assert any(a <= low and low + length <= b and kind == RESERVED for a, b, kind in ranges), name


class Dirty(Policy):
    """A VMM that adds pages of its own where the image will have zeros."""

    def launch(self, launch: Launch) -> Launch:
        places = (LOAD, LOAD + 0x8000, LOAD + 0x200000)
        return replace(
            launch, regions=(*launch.regions, *(AddedRegion(at, b"dirt" * 1024, False) for at in places))
        )


def test_what_the_vmm_left_there_is_gone(config: RunConfig) -> None:
    machine = prepare(replace(config, until=f"console:{GOOD}"), policy=Dirty())
    try:
        td = finish(machine, config)
        assert td.report.met, td.report.console
    finally:
        machine.close()


def changed(file: bytes, at: int, *values: int) -> bytes:
    return file[:at] + bytes(values) + file[at + len(values) :]


def of_segment(file: bytes, kind: str, name: str) -> int:
    """Where a field of the last program header of a type lies in the file."""
    headers = list(ELFFile(io.BytesIO(file)).iter_segments())
    index = [part["p_type"] for part in headers].index(kind)
    return elf.HEADER.sizeof() + index * elf.PROGRAM_HEADER.sizeof() + offset_of(elf.PROGRAM_HEADER, name)


def refused() -> Iterator[tuple[str, bytes]]:
    file, windows = sample("elf"), sample("pe")
    yield "no ELF64 or PE32+ file for x86-64", changed(file, 18, 0xB7)
    yield "no ELF64 or PE32+ file for x86-64", b"a text"
    yield "cut short", changed(file, of_segment(file, "PT_DYNAMIC", "offset") + 3, 2)
    yield (
        "parts overlap, wrap or are too many",
        changed(file, of_segment(file, "PT_LOAD", "virtual") + 1, 0x20),
    )
    yield "a part is writable and executable", changed(file, of_segment(file, "PT_LOAD", "flags"), 7)
    yield "wants an interpreter or a library", changed(file, of_segment(file, "PT_DYNAMIC", "type"), 3)
    yield "entry outside of its code", changed(file, 24, 0, 0)
    yield "unknown or misplaced relocation", file.replace(b"\x08".ljust(8, b"\0"), b"\x25".ljust(8, b"\0"), 4)
    at = windows.index(b"PE\0\0")
    fixed = changed(windows, at + 22, windows[at + 22] | 1)
    yield "no free RAM where it can run", fixed
    yield "malformed header", changed(windows, at + 24 + 32, 0, 2)


@pytest.mark.parametrize(
    ("said", "file"), list(refused()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_refused(config: RunConfig, said: str, file: bytes) -> None:
    machine = prepare(config)
    try:
        payload = next(s for s in machine.launch.sections if s.type == 5)
        machine.memory.write(payload.address, file.ljust(len(sample("elf")), b"\0"))
        td = finish(machine, config)
    finally:
        machine.close()
    assert (td.report.end["reason"], td.report.end["detail"]) == ("fatal", f"tdforge: payload: {said}")


@pytest.mark.parametrize(
    ("said", "file"), list(refused()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_build_refuses_what_no_boot_takes(said: str, file: bytes) -> None:
    """Where it would lie is for the machine to say: there may be RAM."""
    assert refusal(file) == ("" if said.startswith("no free RAM") else f"payload: {said}")


@pytest.mark.parametrize("name", FORMATS)
def test_a_build_takes_what_starts(name: str) -> None:
    assert refusal(sample(name)) == ""


def test_a_vmlinux_is_none(config: RunConfig) -> None:
    kernel = vmlinux([(0xFFFF_FFFF_8100_0000, 0x100_0000, b"\x90" * 4096)], 0x100_0000)
    report = run(replace(config, kernel=kernel))
    assert report.end["detail"] == "tdforge: payload: parts overlap, wrap or are too many"


def test_a_host_that_looks_for_a_bzimage_takes_no_executable(config: RunConfig) -> None:
    with pytest.raises(EmuError, match="the mark of a bzImage"):
        run(replace(config, vmm="cloud-hypervisor"))


def test_the_kind_that_the_host_tells(config: RunConfig) -> None:
    kinds = {}
    for name, file in (
        ("elf", sample("elf")),
        ("pe", sample("pe")),
        ("vmlinux", vmlinux([(1 << 63, 0, b"1")], 0)),
    ):
        machine = prepare(replace(config, kernel=file))
        (info,) = hob.read(machine.launch.hob).extensions(guids.HOB_PAYLOAD_INFO)
        kinds[name] = info[0]
        machine.close()
    assert kinds == {"elf": 0, "pe": 0, "vmlinux": 2}


def test_run_takes_the_file(executable: Firmware, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "firmware.bin").write_bytes(executable.image)
    (tmp_path / "payload.efi").write_bytes(sample("pe"))
    words = ["run", str(tmp_path / "firmware.bin"), "--kernel", str(tmp_path / "payload.efi")]
    assert main([*words, "--memory", "256M", "--until", f"console:{GOOD}"]) == 0
    digest = hashlib.sha384(sample("pe")).hexdigest()
    assert re.search(rf"RTMR\[1\]\s+td_payload.*\n\s+{digest}", capsys.readouterr().err)


# ---- built into the image


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The images of payload.tdf around the sample, by its format."""
    folder = tmp_path_factory.mktemp("payload")
    images = {}
    for name in FORMATS:
        (folder / name).write_bytes(sample(name))
        out = folder / f"out-{name}"
        images[name] = build(PAYLOAD, out, payload=folder / name).image
    return images


@pytest.mark.parametrize(
    ("name", "vcpus"),
    [("elf", 1), ("elf", 64), ("elf-relr", 4), ("elf-exec", 4), ("pe", 1), ("pe", 64)],
)
def test_a_payload_of_the_image_is_in_mrtd_and_needs_no_event(
    built: dict[str, Path], name: str, vcpus: int
) -> None:
    """Not every product: the format of the file decides nothing about the CPUs."""
    image = built[name].read_bytes()
    config = RunConfig(image, name, memory=256 * MIB, vcpus=vcpus, skip_count=HASHING)
    report = run(replace(config, until=f"console:{GOOD}"))
    assert report.met, report.console
    assert report.rtmr[1] == oracle.extended(bytes(4))
    assert report.mrtd == oracle.mrtd(image, two_pass=False) == mrtd(image).digest.hex()
    facts = json.loads(built[name].with_suffix(".json").read_text())
    (section,) = [s for s in facts["sections"] if s["type"] == "Payload"]
    assert section["file"]["sha384"] == hashlib.sha384(sample(name)).hexdigest()


def test_another_payload_is_another_mrtd(built: dict[str, Path]) -> None:
    assert len({mrtd(image.read_bytes()).digest for image in built.values()}) == len(FORMATS)


def test_a_payload_in_a_cfv_is_measured_by_the_flow(tmp_path: Path) -> None:
    """On hosts that know no Payload section, too; its bytes are not in MRTD."""
    text = re.sub(r"Payload( +4 MiB +at) 0x00A0_0000", r"CFV\1 0xFF80_0000", PAYLOAD.read_text())
    measure = 'measure payload into RTMR[1] as blob("td_payload")'
    text = text.replace("    // The file is", f"    {measure}\n    // The file is")
    (tmp_path / "payload.tdf").write_text(text)
    (tmp_path / "sample").write_bytes(sample("pe"))
    image = build(tmp_path / "payload.tdf", tmp_path, payload=tmp_path / "sample").image.read_bytes()
    content = sample("pe").ljust(4 * MIB, b"\0")
    for vmm in ("td-shim-spec", "qemu", "cloud-hypervisor"):
        config = RunConfig(image, "payload", memory=256 * MIB, vmm=vmm, until=f"console:{GOOD}")
        report = run(replace(config, skip_count=HASHING))
        assert report.met, (vmm, report.end, report.console)
        assert report.rtmr[1] == oracle.extended(content, bytes(4))


def test_the_command_takes_a_payload_where_the_flow_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").write_bytes(bytes(5 * MIB))
    (tmp_path / "text").write_text("no program")
    words = ["build", str(PAYLOAD), "-o", str(tmp_path)]
    for more, said in (
        ([], "section `payload` is filled when the image is built: name a file, --payload FILE"),
        (["--payload", str(tmp_path / "absent")], "cannot read absent: No such file or directory"),
        (["--payload", str(tmp_path / "text")], REFUSED),
        (["--payload", str(tmp_path / "large")], "large has 5242880 bytes, section `payload` has 4194304"),
    ):
        assert main([*words, *more]) == 1
        assert said in capsys.readouterr().err
    assert main(["build", str(LINUX), "-o", str(tmp_path), "--payload", str(tmp_path / "large")]) == 1
    assert "no section of this flow is `from payload`, so it takes no large" in capsys.readouterr().err


TAKES = "    let file = executable_extent(payload)?\n"
SERVICE_TD = LINUX.with_name("service_td.tdf")


@pytest.mark.parametrize(
    ("takes", "file", "says"),
    [
        (
            "    let same = payload\n    let again = same\n    let file = executable_extent(again)?\n",
            b"no program",
            "`payload: no ELF64 or PE32+ file for x86-64`, expected an ELF64 or PE32+ executable",
        ),
        (
            "    let file = signed_payload(payload)?\n",
            b"no program",
            "`secure boot: the payload is not signed`, expected a signed payload",
        ),
        ("    let file = executable_extent(payload[0 .. 0x1000])?\n", b"no program", None),
        ("    let file = signed_payload(payload)?\n", signed_payload("p384", b"any"), None),
    ],
    ids=["let", "signed", "part", "signature"],
)
def test_a_build_looks_at_what_a_flow_takes(
    takes: str, file: bytes, says: str | None, tmp_path: Path
) -> None:
    flow, given = tmp_path / "a.tdf", tmp_path / "file"
    text = SERVICE_TD.read_text()
    assert TAKES in text
    flow.write_text(text.replace(TAKES, takes).replace("uses executable", "uses secure_boot, executable"))
    given.write_bytes(file)
    if says is None:
        build(flow, tmp_path / "out", payload=given)
        return
    with pytest.raises(BuildError, match=re.escape(says)):
        build(flow, tmp_path / "out", payload=given)
