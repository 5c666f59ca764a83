"""Does Debian's kernel bring up four processors and run a program, and is each run like the one before?"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import initrd
import pytest
from tdbox import LINUX, MIB, Firmware, made

from emu.api import RunConfig, run

CMDLINE = "console=ttyS0 nokaslr no5lvl mce=off pci=off 8250.nr_uarts=1 printk.devkmsg=on"
WORKS = ("page fault", "division by zero", "a child on every processor", "sleep")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory, kernel: bytes) -> Firmware:
    """linux.tdf, but with the ACPI tables of the VMM: they name the serial port's interrupt and power-off."""
    folder = tmp_path_factory.mktemp("tables")
    flow = folder / "linux.tdf"
    flow.write_text(re.sub(r"\bacpi_tables\(", "acpi_tables_of_vmm(", LINUX.read_text()))
    return made(flow, folder / "build", kernel)


def boot(firmware: Firmware, tmp_path: Path, until: str) -> RunConfig:
    """Four processors, an initrd, and somebody who types."""
    return replace(
        firmware.config,
        memory=512 * MIB,
        vcpus=4,
        initrd=initrd.archive(initrd.program(tmp_path, polled=False)),
        cmdline=CMDLINE,
        stdin=b"hello there\n",
        until=until,
    )


def test_four_processors_user_space_console_and_power_off(firmware: Firmware, tmp_path: Path) -> None:
    up = "console:Brought up 1 node, 4 CPUs"
    first = run(boot(firmware, tmp_path, up))
    assert first.met, first.end
    assert "tdx: Guest detected" in first.console

    whole = run(boot(firmware, tmp_path, "halt"))
    assert whole.end["reason"] == "shutdown", whole.end
    assert whole.console.startswith(first.console)  # the same run, further
    assert "Memory Encryption Features active: Intel TDX" in whole.console
    assert "init: processors 4" in whole.console
    for what in WORKS:
        assert f"init: works: {what}" in whole.console
    assert "BROKEN" not in whole.console
    assert "say something: you said: hello there" in whole.console.replace("\r", "").replace(
        "say something: hello there\n", "say something: "
    )
    assert "Power down" in whole.console
    assert not re.search(r"BUG|WARNING|stall|Oops|unchecked MSR", whole.console)


def test_the_serial_port_without_an_interrupt_is_polled(
    linux: Firmware, kernel: bytes, tmp_path: Path
) -> None:
    """linux.tdf's own tables: hardware-reduced, no interrupt for ttyS0; the kernel polls it when told to."""
    config = replace(
        linux.config,
        kernel=kernel,
        initrd=initrd.archive(initrd.program(tmp_path, polled=True)),
        cmdline=CMDLINE + " quiet",
        stdin=b"hello there\n",
        until="console:you said: hello there",
    )
    assert run(config).met
