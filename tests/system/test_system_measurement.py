"""Do the registers hold what the specifications say, and is the image the same wherever it is built?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha384
from pathlib import Path

import oracle
import pytest
from tdbox import GIB, LINUX, MIB, Firmware, made, stopped

from emu.api import run
from emu.tdx.params import CONFIG_GPAW52, CONFIG_NO_RBP_MOD, TdParams
from emu.vmm.presets import TAKE_SECTION

ROOT = LINUX.parents[2]


@pytest.mark.parametrize("order", ["single-pass", "two-pass"])
def test_mrtd_is_what_the_specification_computes(linux: Firmware, order: str) -> None:
    expected = oracle.mrtd(linux.image, two_pass=order == "two-pass")
    assert linux.manifest["mrtd"][order] == expected
    assert run(replace(linux.config, mrtd_order=order)).mrtd == expected


def test_the_orders_differ_and_nothing_else_changes_mrtd(linux: Firmware, tiny: bytes) -> None:
    assert oracle.mrtd(linux.image, two_pass=True) != oracle.mrtd(linux.image, two_pass=False)
    variants = [
        replace(linux.config, memory=512 * MIB, vcpus=4, vmm="cloud-hypervisor", cmdline="other"),
        replace(linux.config, kernel=tiny + bytes(16), initrd=b"initrd"),
        replace(linux.config, td=TdParams(config_flags=CONFIG_GPAW52 | CONFIG_NO_RBP_MOD, mrowner=b"o" * 48)),
    ]
    assert {run(config).mrtd for config in variants} == {oracle.mrtd(linux.image, two_pass=False)}


@pytest.mark.parametrize("vmm", TAKE_SECTION)
def test_the_log_replays_to_the_registers(linux: Firmware, tiny: bytes, vmm: str) -> None:
    with stopped(replace(linux.config, vmm=vmm, vcpus=2, cmdline="root=/dev/vda ro")) as td:
        base, size = linux.section("hob")
        vmm_hob = oracle.hob_list(td.machine.launch.hob.ljust(size, b"\0"), base)
        found = oracle.events(oracle.cut(td.report.event_log))
    assert oracle.replay(found) == td.report.rtmr
    assert td.report.rtmr[0] == oracle.extended(vmm_hob, oracle.cpus(2), bytes(4))
    assert td.report.rtmr[1] == oracle.extended(oracle.kernel_extent(tiny), b"root=/dev/vda ro", bytes(4))
    assert td.report.rtmr[2:] == (bytes(48).hex(),) * 2
    # (register, type) in order, and the data as docs/event-log.md has it
    kinds = [(1, 0xA), (1, 0xA), (2, 0x8000000A), (2, 0xA), (1, 4), (2, 4)]
    assert [(event.register, event.type) for event in found] == kinds
    assert found[0].information() == ("td_hob", vmm_hob)
    payload, _ = linux.section("payload")
    assert found[1].information() == ("td_cpus", oracle.cpus(2))
    assert found[2].blob() == ("td_payload", payload, len(oracle.kernel_extent(tiny)))
    assert found[3].information() == ("td_payload_info", b"root=/dev/vda ro")
    assert [event.data for event in found[4:]] == [bytes(4)] * 2
    configs = (found[0], found[1], found[3])
    assert all(event.digest == sha384(event.information()[1]).digest() for event in configs)


def test_the_number_of_cpus_is_recorded(qemu: Firmware) -> None:
    """Under QEMU nothing else in RTMR[0] tells it, and the MADT names them."""
    registers = [run(replace(qemu.config, vcpus=count)).rtmr for count in (1, 2, 3)]
    assert len({rtmr[0] for rtmr in registers}) == 3
    assert len({rtmr[1] for rtmr in registers}) == 1


def test_the_payloads_register_does_not_depend_on_the_machine(linux: Firmware) -> None:
    reports = [
        run(replace(linux.config, vmm=vmm, memory=memory))
        for vmm, memory in (("cloud-hypervisor", GIB), ("td-shim-spec:legacy", 4 * GIB))
    ]
    first, second = (report.rtmr for report in reports)
    assert first[1] == second[1]
    assert first[0] != second[0]


def test_the_kernel_is_given_no_more_of_the_command_line_than_was_measured(
    tiny: bytes, tmp_path: Path
) -> None:
    """A flow that measures a part of the parameters and passes that on: in the section no NUL ends it."""
    flow = tmp_path / "part.tdf"
    flow.write_text(LINUX.read_text().replace("text_extent(parameters)?", "parameters[0 .. 7]"))
    with stopped(made(flow, tmp_path / "out", tiny).config) as td:
        place = oracle.boot_params(td.read, td.boot_params).command_line
        assert td.report.rtmr[1] == oracle.extended(oracle.kernel_extent(tiny), b"console", bytes(4))
        assert oracle.text_at(td.read, place) == "console"


def test_two_builds_in_two_checkouts_give_the_same_bytes(linux: Firmware, tmp_path: Path) -> None:
    """Another checkout, another home, another temporary folder, no cache."""
    checkout = tmp_path / "elsewhere" / "checkout"
    for room in ("dsl", "formats", "gen", "host", "emu", "image", "tdforge", "runtime-c"):
        shutil.copytree(ROOT / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    places = {name: str(tmp_path / name.lower()) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        Path(place).mkdir()
    environment = {**os.environ, **places, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "7"}
    environment.pop("TDFORGE_CACHE", None)
    command = [sys.executable, "-m", "tdforge", "build", "dsl/flows/linux.tdf", "-o", "out"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (checkout / "out" / "linux.bin").read_bytes() == linux.image
    assert (checkout / "out" / "linux.json").read_bytes() == linux.elf.with_suffix(".json").read_bytes()
    assert (checkout / "out" / "linux.elf").read_bytes() == linux.elf.read_bytes()
