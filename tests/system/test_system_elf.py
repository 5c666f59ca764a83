"""Does a vmlinux that comes as a file boot: measured as the file it is, loaded by its program headers?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import initrd as initrds
import oracle
import pytest
from debian import vmlinux as debian_vmlinux
from tdbox import LINUX, MIB, Firmware, finish, made, stopped
from vmlinux import vmlinux

from emu.api import RunConfig, prepare, run
from emu.signals import EmuError
from emu.tdx.measure import AddedRegion
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy
from formats import elf
from tdforge.cli import main

FLOW = LINUX.parents[2] / "tests/dsl/flows/elf.tdf"
BASE, ENTRY, PAGE = 0x1000000, 0x1000B53, 4096
LINE = b"console=ttyS0 ro"
TEXT, DATA = bytes(range(1, 256)) * 48, b"data" * 700  # 0x2FD0 and 0xAF0 bytes
SEGMENTS = [(0xFFFFFFFF81000000, BASE, TEXT), (0xFFFFFFFF81005000, BASE + 0x5000, DATA)]
KERNEL = vmlinux(SEGMENTS, ENTRY, zeros=0x1800)
LOADED = TEXT.ljust(0x5000, b"\0") + DATA.ljust(0x3000, b"\0")
INITRD = b"an initrd of more than a page " * 200


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return made(FLOW, tmp_path_factory.mktemp("elf"), KERNEL)


@pytest.fixture
def config(image: Firmware) -> RunConfig:
    return replace(image.config, cmdline=LINE.decode())


@pytest.mark.parametrize("initrd", [None, INITRD])
def test_the_file_is_measured_and_its_segments_are_entered(
    image: Firmware, config: RunConfig, initrd: bytes | None
) -> None:
    appended = KERNEL + b"what nobody loads"
    with stopped(replace(config, kernel=appended, initrd=initrd, vcpus=3)) as td:
        assert td.report.met, td.report.end
        given = [KERNEL, LINE, *([initrd] if initrd else [])]
        assert td.report.rtmr[1] == oracle.extended(*given, bytes(4))
        found = oracle.events(oracle.cut(td.report.event_log))
        assert oracle.replay(found) == td.report.rtmr
        assert td.report.handoff is not None
        assert td.report.handoff["entry"] == ENTRY
        assert td.read(BASE, len(LOADED)) == LOADED
        params = oracle.boot_params(td.read, td.boot_params)
        assert td.read(params.command_line, len(LINE) + 1) == LINE + b"\0"
        start, size = params.initrd
        assert size == len(initrd or b"")
        if initrd:  # it stays where the VMM put it
            low, length = image.section("payload")
            assert low < start < start + size <= low + length
            assert td.read(start, size) == initrd
        assert all(ap["parked"] for ap in td.report.aps)


class Dirty(Policy):
    """A VMM that adds pages of its own where the kernel's zeros will be."""

    def launch(self, launch: Launch) -> Launch:
        places = (BASE, BASE + 0x3000, BASE + 0x7000)
        return replace(
            launch, regions=(*launch.regions, *(AddedRegion(at, b"dirt" * 1024, False) for at in places))
        )


def test_what_the_vmm_left_in_the_window_is_gone(config: RunConfig) -> None:
    machine = prepare(config, policy=Dirty())
    try:
        td = finish(machine, config)
        assert td.report.met, td.report.end
        assert td.read(BASE, len(LOADED)) == LOADED
    finally:
        machine.close()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 0x80,)) + data[place + 1 :]


def test_a_flipped_byte_of_any_part_of_the_file_changes_the_register(config: RunConfig) -> None:
    plain = run(config).rtmr
    heads = elf.HEADER.sizeof() + 3 * elf.PROGRAM_HEADER.sizeof()
    for place in (heads, heads + ENTRY - BASE, heads + len(TEXT) - 1, heads + len(TEXT), len(KERNEL) - 1):
        report = run(replace(config, kernel=flipped(KERNEL, place)))
        assert report.met
        assert report.rtmr[1] != plain[1], place
        assert report.rtmr[0] == plain[0]


def test_another_entry_changes_the_register(config: RunConfig) -> None:
    other = run(replace(config, kernel=vmlinux(SEGMENTS, ENTRY + 1, zeros=0x1800)))
    assert other.met
    assert other.rtmr[1] != run(config).rtmr[1]


def test_the_register_does_not_depend_on_the_machine(config: RunConfig) -> None:
    large = run(replace(config, memory=768 * MIB, vcpus=2))
    assert large.rtmr[1] == oracle.extended(KERNEL, LINE, bytes(4))


def refused_kernels() -> Iterator[tuple[bytes, str]]:
    """Files, and what the firmware says of them."""
    yield vmlinux(SEGMENTS, ENTRY, type=3), "kernel: not an ELF file for x86-64"
    yield vmlinux(list(reversed(SEGMENTS)), ENTRY), "kernel: segments out of order or too many"
    yield vmlinux(SEGMENTS, BASE - 1), "kernel: entry outside the measured window"
    for base in (0x1000, 0x800000, 0x6000000):  # low memory, the TD HOB, the file
        segments = [(0, base, TEXT)]
        yield vmlinux(segments, base), "kernel: no room for init_size"


@pytest.mark.parametrize(("kernel", "said"), list(refused_kernels()))
def test_what_is_refused(config: RunConfig, kernel: bytes, said: str) -> None:
    report = run(replace(config, kernel=kernel))
    assert (report.end["reason"], report.end["detail"]) == ("fatal", f"tdforge: {said}")


def test_a_bzimage_is_refused(config: RunConfig, tiny: bytes) -> None:
    report = run(replace(config, kernel=tiny))
    assert report.end["detail"] == "tdforge: kernel: not an ELF file for x86-64"


def test_a_host_that_looks_for_a_bzimage_takes_no_elf_file(config: RunConfig) -> None:
    with pytest.raises(EmuError, match="the mark of a bzImage"):
        run(replace(config, vmm="cloud-hypervisor"))


def test_run_takes_the_file(image: Firmware, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, firmware = tmp_path / "vmlinux", tmp_path / "elf.bin"
    file.write_bytes(KERNEL)
    firmware.write_bytes(image.image)
    words = ["run", str(firmware), "--kernel", str(file), "--until", "handoff", "--memory", "256M"]
    assert main(words) == 0
    assert main([*words, "--vmm", "cloud-hypervisor"]) == 1
    file.write_bytes(KERNEL[:-1])
    assert main(words) == 1
    assert capsys.readouterr().err.count("tdforge: not a Linux bzImage") == 2


# ---- Debian's kernel


def test_debians_kernel_boots_to_user_space(config: RunConfig, tmp_path: Path) -> None:
    kernel = debian_vmlinux()
    archive = initrds.archive(initrds.program(tmp_path))
    given = replace(config, kernel=kernel, initrd=archive, memory=256 * MIB, vcpus=2, cmdline="console=ttyS0")
    report = run(replace(given, stdin=b"hello there\n", until="console:you said: hello there"))
    assert report.met, report.end
    for said in ("Command line: console=ttyS0\r\n", "tdx: Guest detected", "init: processors 2"):
        assert said in report.console
    files = (kernel[: elf.true_length(kernel)], b"console=ttyS0", archive)
    digests = [e["digest"] for e in report.events if e["rtmr"] == 1][:3]
    assert digests == [hashlib.sha384(each).hexdigest() for each in files]
