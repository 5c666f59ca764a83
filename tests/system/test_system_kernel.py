"""Does Debian's unmodified kernel come up by the command that a person types, and does the report tell what
happened?
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha384
from pathlib import Path

import oracle
import pytest
from debian import kernel as debian_kernel
from debian import tool
from tdbox import LINUX, Firmware, finish, launched, stopped

from emu.cpu import pagestate
from emu.ending import Until

ROOT = LINUX.parents[2]
# Text from the first instructions on, at addresses that are the same each time.
CMDLINE = "console=ttyS0 earlyprintk=serial,ttyS0,115200 nokaslr"
KEYS = {"mrtd", "rtmr", "events", "console", "end", "instructions", "tdcalls", "pages", "handoff"}


def tdforge(*words: str | Path, seed: int = 0) -> subprocess.CompletedProcess[str]:
    """The command line, in the checkout. `seed`: of Python's hashes."""
    command = [sys.executable, "-m", "tdforge", *map(str, words)]
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def booted(linux: Firmware, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with image, report and event log of a run to the kernel's own banner."""
    folder = tmp_path_factory.mktemp("booted")
    image = folder / "linux.bin"
    image.write_bytes(linux.image)
    shutil.copy(linux.elf, folder / "linux.elf")
    words = ["--kernel", debian_kernel(), "--cmdline", CMDLINE, "--until", "console:Command line:"]
    done = tdforge("run", image, *words, "--report", folder / "report.json", "--event-log", folder / "log")
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def test_the_kernel_knows_that_it_is_a_td(booted: Path) -> None:
    console = json.loads((booted / "report.json").read_text())["console"]
    assert "tdx: Guest detected" in console
    assert "Linux version 6.12" in console
    assert "Linux version 6.12" in (booted / "stdout").read_text()


def test_the_report_has_its_keys(booted: Path) -> None:
    report = json.loads((booted / "report.json").read_text())
    assert report.keys() >= KEYS
    assert len(report["rtmr"]) == 4
    assert all(len(value) == 96 for value in (report["mrtd"], *report["rtmr"]))
    assert report["events"][0].keys() >= {"rtmr", "type", "digest", "description"}
    assert report["end"].keys() >= {"reason", "rip", "symbol"}
    assert report["pages"].keys() >= {"added", "extended", "accepted_4k", "accepted_2m"}
    assert report["handoff"].keys() >= {"entry", "boot_params", "e820"}
    assert report["tdcalls"]["TDG.MR.RTMR.EXTEND"] == 6


def test_the_log_of_the_boot_replays_and_names_what_was_given(booted: Path, kernel: bytes) -> None:
    report = json.loads((booted / "report.json").read_text())
    found = oracle.events(oracle.cut((booted / "log").read_bytes()))
    assert list(oracle.replay(found)) == report["rtmr"]
    assert [event["digest"] for event in report["events"]] == [event.digest.hex() for event in found]
    extent = oracle.kernel_extent(kernel)
    assert 10 << 20 < len(extent) < len(kernel)  # Debian's file goes on with a signature
    assert report["rtmr"][1] == oracle.extended(extent, CMDLINE.encode(), bytes(4))
    assert sha384(extent).hexdigest() in {event["digest"] for event in report["events"]}


def test_tpm2_eventlog_reads_the_log(booted: Path, tmp_path: Path) -> None:
    report = json.loads((booted / "report.json").read_text())
    (tmp_path / "log").write_bytes(oracle.cut((booted / "log").read_bytes()))
    command = [*tool("tpm2_eventlog", "tpm2-tools"), str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert done.stdout.count("- EventNum:") == 1 + len(report["events"])
    for event in report["events"]:
        assert event["digest"] in done.stdout
    # Its own replay: PCR 1 and 2 of the SHA-384 bank are what the log calls registers 1 and 2.
    for value in report["rtmr"][:2]:
        assert value in done.stdout.lower()


def test_a_run_that_fails_says_why_in_one_line(booted: Path) -> None:
    done = tdforge("run", booted / "linux.bin", "--until", "handoff")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "kernel: not a bzImage" in last
    assert "handoff" in last


def test_a_run_repeats_itself_in_another_process(linux: Firmware, tiny: bytes, tmp_path: Path) -> None:
    (tmp_path / "linux.bin").write_bytes(linux.image)
    (tmp_path / "tiny").write_bytes(tiny)
    words = ["--kernel", tmp_path / "tiny", "--vcpus", "3", "--until", "console:started"]
    for seed in (1, 2):
        report = tmp_path / f"{seed}.json"
        done = tdforge("run", tmp_path / "linux.bin", *words, "--report", report, seed=seed)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    facts = json.loads((tmp_path / "1.json").read_text())
    assert facts["instructions"] > 10_000
    assert all(ap["instructions"] > 100 for ap in facts["aps"])


def test_an_initrd_is_measured_and_handed_over(linux: Firmware) -> None:
    initrd = bytes(range(256)) * 1000
    with stopped(replace(linux.config, initrd=initrd)) as td:
        given = oracle.boot_params(td.read, td.boot_params)
        address, size = given.initrd
        assert size == len(initrd)
        assert td.read(address, size) == initrd
        assert any(kind == 1 and start <= address <= end - size for start, end, kind in given.e820)
        found = oracle.events(oracle.cut(td.report.event_log))
        assert oracle.replay(found) == td.report.rtmr
        assert sha384(initrd).digest() in [event.digest for event in found if event.register == 2]


def test_a_kernel_that_finds_memory_not_accepted_dies_and_the_report_names_the_place(
    linux: Firmware, kernel: bytes
) -> None:
    """What would happen if the firmware forgot a page: here one of the kernel's window, behind its image."""
    config = replace(linux.config, kernel=kernel, cmdline=CMDLINE)
    forgotten = 0x1A00000
    with launched(config) as machine:
        assert finish(machine, config).report.met
        machine.memory.set_states(forgotten, 0x1000, pagestate.PENDING)
        machine.console.until = Until("console", b"Linux version")
        end = finish(machine, config).report.end
    assert end["reason"] == "sept-violation"
    assert f"{forgotten >> 12:#x}" in str(end["detail"])
    assert "not accepted" in str(end["detail"])
