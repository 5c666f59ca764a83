"""Does Debian's kernel, with `console=ttyS0` and no more, bring up four processors, run programs, power off
and reset, by the firmware's own ACPI tables?
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import initrd
import oracle
import pytest
from tdbox import LINUX, MIB, Firmware, asking, made, stopped

from emu.api import RunConfig, run
from tdforge import initramfs
from tdforge.boot import CMDLINE

WORKS = ("page fault", "division by zero", "a child on every processor", "sleep")


def boot(firmware: Firmware, kernel: bytes, archive: bytes, **more: object) -> RunConfig:
    """The shipped image with the default command line."""
    config = replace(firmware.config, kernel=kernel, initrd=archive, cmdline=CMDLINE, memory=256 * MIB)
    return replace(config, until="halt", **more)  # type: ignore[arg-type]


def test_four_processors_user_space_console_and_power_off(
    linux: Firmware, kernel: bytes, tmp_path: Path
) -> None:
    archive = initrd.archive(initrd.program(tmp_path))
    config = boot(linux, kernel, archive, vcpus=4, stdin=b"hello there\n")
    assert CMDLINE == "console=ttyS0"
    whole = run(config)
    assert whole.end["reason"] == "shutdown", whole.end
    assert "tdx: Guest detected" in whole.console
    assert "Brought up 1 node, 4 CPUs" in whole.console
    assert "Memory Encryption Features active: Intel TDX" in whole.console
    assert "init: processors 4" in whole.console
    for what in WORKS:
        assert f"init: works: {what}" in whole.console
    assert "BROKEN" not in whole.console
    assert "you said: hello there" in whole.console.replace("\r", "")
    assert "Power down" in whole.console
    assert not re.search(initrd.COMPLAINTS, whole.console)


# ---- busybox


def test_a_shell_that_one_types_into(linux: Firmware, kernel: bytes) -> None:
    typed = b"echo typed $((6 * 7))\npoweroff\n"
    report = run(boot(linux, kernel, initrd.script(initramfs.SHELL), stdin=typed))
    text = report.console.replace("\r", "")
    assert "/ # echo typed $((6 * 7))\ntyped 42\n" in text
    assert report.end["reason"] == "shutdown", report.end


# Host, more of the command line; what is typed at the end, how the run ends then and what says so.
SPEC, CLOUD = "td-shim-spec", "cloud-hypervisor"
ENDS = (
    (
        SPEC,
        " panic=-1",
        ((b"reboot -f", "reset", "port 0xcf9"), (b"exit 1", "reset", "port 0xcf9")),
    ),
    (
        CLOUD,
        "",
        # Linux takes a hardware-reduced machine for one with EFI; without that it enters real mode, which no
        # TD has.
        ((b"poweroff -f", "shutdown", "port 0x600"), (b"reboot -f", "triple-fault", "#VE")),
    ),
    (CLOUD, " reboot=a", ((b"reboot -f", "reset", "port 0x600"),)),
)


@pytest.mark.parametrize(("vmm", "line", "ends"), ENDS)
def test_power_off_reboot_and_panic(
    linux: Firmware, kernel: bytes, vmm: str, line: str, ends: tuple[tuple[bytes, str, str], ...]
) -> None:
    config = boot(linux, kernel, initrd.asking(), vmm=vmm)
    more = "MCFG " if vmm == CLOUD else ""
    with asking(replace(config, cmdline=f"{CMDLINE} quiet{line}")) as typed:
        for last, reason, detail in ends:
            report = typed(last).report
            text = report.console.replace("\r", "")
            assert f"tour: ACPI tables: APIC CCEL DSDT FACP {more}\n" in text
            assert text.count("tour: done\n") == 1
            assert (report.end["reason"], detail in str(report.end["detail"])) == (reason, True), report.end
            assert ("Attempted to kill init" in text) == (last == b"exit 1")


def test_the_vmms_aml_by_the_flows_choice(tmp_path: Path, kernel: bytes) -> None:
    """The explicit primitive: the DSDT is the VMM's then."""
    flow = tmp_path / "linux.tdf"
    flow.write_text(re.sub(r"\bacpi_tables\(", "acpi_tables_of_vmm(", LINUX.read_text()))
    found: dict[str, bytes] = {}
    for name, made_from in (("own", LINUX), ("theirs", flow)):
        firmware = made(made_from, tmp_path / name, kernel)
        with stopped(firmware.config) as td:
            given = oracle.boot_params(td.read, td.boot_params)
            found[name] = next(t for _, t in oracle.acpi_tables(td.read, given.rsdp) if t[:4] == b"DSDT")
    assert b"\\_SB" not in found["own"]  # Scope, which only the VMM's has
    assert b"\\_SB" in found["theirs"]
    assert b"_S5_" in found["own"]
