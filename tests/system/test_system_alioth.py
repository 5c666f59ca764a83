"""Does alioth.tdf boot what Alioth gives, to user space and to power-off, and measure what it runs?"""

from __future__ import annotations

import re
import struct
from dataclasses import replace

import initrd as initrds
import oracle
import pytest
from tdbox import LINUX, MIB, Firmware, asking, made, stopped

from emu.api import RunConfig, run
from image.hosts import verdicts

PAGE, GOOD = 4096, bytes(4)
LINE = "console=ttyS0"


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    image = made(LINUX.with_name("alioth.tdf"), tmp_path_factory.mktemp("alioth"), tiny)
    return replace(image, config=replace(image.config, vmm="alioth"))


def measured(file: bytes) -> bytes:
    """What docs/event-log.md says of the kernel: its first 4096 bytes, zeros, all behind the setup part."""
    setup = oracle.setup_size(file)
    first = oracle.unwritten(file[:PAGE])
    return first[:setup].ljust(setup, b"\0") + file[setup : len(oracle.kernel_extent(file))]


def test_debians_kernel_to_user_space(firmware: Firmware, kernel: bytes) -> None:
    archive, ids = initrds.asking(), (4, 0, 2)
    line = f"{LINE} reboot=a"  # docs/hosts.md says why
    config = replace(
        firmware.config, kernel=kernel, initrd=archive, cmdline=line, memory=256 * MIB, vcpus=len(ids),
        apic_ids=",".join(map(str, ids)), until="halt",
    )  # fmt: skip
    with asking(config) as typed:
        for last, reason, detail in (
            (b"poweroff -f", "shutdown", "port 0x600"),
            (b"reboot -f", "reset", "port 0x604"),
        ):
            td = typed(last)
            report = td.report
            assert (report.end["reason"], detail in str(report.end["detail"])) == (reason, True), report.end
            said = re.findall(r"^tour: (.*)$", report.console.replace("\r", ""), re.MULTILINE)
            assert f"command line: {line}" in said
            assert f"processors: {len(ids)}" in said
            assert "ACPI tables: APIC CCEL DSDT FACP " in said
            assert "event log: 65536 bytes" in said
            assert said.count("done") == 1
            assert not re.search(initrds.COMPLAINTS, report.console)
        hob = oracle.hob_list(td.machine.launch.hob, firmware.section("hob")[0])
    assert report.rtmr == (
        oracle.extended(hob, oracle.cpus(ids), GOOD),
        oracle.extended(measured(kernel), GOOD),
        oracle.extended(line.encode(), archive),
        bytes(48).hex(),
    )


@pytest.mark.parametrize("sectors", [1, 7, 8, 60])
def test_a_kernel_runs_as_it_is_whatever_its_setup_part_is(
    firmware: Firmware, tiny: bytes, sectors: int
) -> None:
    """A setup part below 4096 bytes comes with a piece of the rest, one above comes cut."""
    start = (tiny[0x1F1] + 1) * 512
    setup = bytearray(tiny[:start].ljust((sectors + 1) * 512, b"\xee")[: (sectors + 1) * 512])
    setup[0x1F1] = sectors
    body = tiny[start:].ljust(PAGE, b"\0")
    struct.pack_into("<I", setup, 0x1F4, len(body) // 16)
    file = bytes(setup) + body + b"\xee" * PAGE  # what is behind the kernel is not measured
    with stopped(replace(firmware.config, kernel=file, until="handoff")) as td:
        assert td.report.met, td.report.end
        assert td.report.rtmr[1] == oracle.extended(measured(file), GOOD)
        found = oracle.boot_params(td.read, td.boot_params)
        assert found.rsdp
        entry = int(str((td.report.handoff or {})["entry"]))
        assert td.read(entry - 0x200, len(body)) == body


def test_without_a_kernel_it_says_so(firmware: Firmware) -> None:
    report = run(RunConfig(firmware.image, "alioth", vmm="alioth", memory=128 * MIB))
    assert report.end["detail"] == "tdforge: fw_cfg: the kernel is no whole bzImage"


def test_alioth_takes_the_image(firmware: Firmware) -> None:
    assert {each.vmm for each in verdicts(firmware.image) if each.accepts} >= {"alioth"}
