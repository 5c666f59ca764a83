"""What does an image do on a real QEMU without TDX, where the CPU starts in 16-bit mode, and in a TD?"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer

import oracle
import pytest
from debian import kernel, new_qemu, qemu
from qemubox import HANGS, TIME, console, initrd
from tdbox import LINUX, MIB, Firmware

from emu import api
from emu.api import RunConfig, run
from emu.oracle.compare import differences
from emu.oracle.shown import Shown, gather
from gen.build import build
from tdforge import initramfs
from tdforge.hosts import Launch

NOT_A_TD = "tdforge: not in a TD: this image needs Intel TDX"


def test_an_ordinary_vm_says_that_it_is_no_td(linux: Firmware, tmp_path: Path) -> None:
    image = tmp_path / "linux.bin"
    image.write_bytes(linux.image)
    command = [*qemu(), "-accel", "tcg", "-m", "64", "-nodefaults"]
    command += ["-display", "none", "-vga", "none", "-serial", "stdio", "-bios", str(image)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().rstrip() == NOT_A_TD
            assert process.poll() is None  # halted, not reset
        finally:
            process.kill()


# ---- an image that runs there


@pytest.fixture(scope="module")
def qemu_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(LINUX.with_name("qemu.tdf"), tmp_path_factory.mktemp("qemu")).image


@pytest.mark.parametrize(
    ("command", "vcpus", "memory"), [(qemu, 1, 512), (qemu, 4, 3072), (new_qemu, 1, 3072), (new_qemu, 4, 512)]
)
def test_debians_kernel_reaches_user_space_on_plain_qemu(
    qemu_image: Path, tmp_path: Path, command: Callable[[], Sequence[str]], vcpus: int, memory: int
) -> None:
    """Half of what docs/hosts.md says was run: each pair of two values once."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(range(256)) * 4096)
    more = ("-drive", f"file={disk},format=raw,if=none,id=disk,readonly=on")
    more += ("-device", "virtio-blk-pci,drive=disk")
    tour = initrd(tmp_path, initramfs.TOUR)
    line = "console=ttyS0 quiet"
    launch = Launch(qemu_image, kernel(), tour, line, memory * MIB, vcpus, more)
    text = console(launch, command())
    assert text.startswith("tdforge: no TDX here: nothing is protected")
    said = re.findall(r"^tour: (.*)$", text, re.MULTILINE)
    assert f"command line: {line}" in said
    assert f"processors: {vcpus}" in said
    assert "ACPI tables: APIC CCEL DSDT FACP MCFG " in said
    assert "event log: 65536 bytes" in said
    assert f"disk vda: {hashlib.sha256(disk.read_bytes()).hexdigest()}" in said
    assert "memory: 0xe0000000 to 0xefffffff: Reserved" in said
    ram = re.findall(r"memory: (\S+) to (\S+): System RAM", "\n".join(said))
    total = sum(int(end, 16) + 1 - int(start, 16) for start, end in ram)
    assert memory * MIB - MIB < total < memory * MIB
    assert said[-1] == "done"
    assert "Power down" in text


@pytest.mark.parametrize("command", [qemu, new_qemu])
def test_six_cpus_of_two_sockets_come_up_by_the_ids_that_qemu_gives(
    qemu_image: Path, tmp_path: Path, command: Callable[[], Sequence[str]]
) -> None:
    """0 1 2 4 5 6: what QEMU numbers by topology has gaps where cores are no power of 2."""
    more = ("-smp", "6,sockets=2,cores=3,threads=1")
    tour = initrd(tmp_path, initramfs.TOUR)
    text = console(Launch(qemu_image, kernel(), tour, "console=ttyS0", 512 * MIB, 6, more), command())
    assert "tour: processors: 6\n" in text
    assert "Allowing 6 present CPUs plus 0 hotplug CPUs" in text
    assert re.search(r"Num. cores per package: +3\s", text)
    assert "Brought up 1 node, 6 CPUs" in text
    assert not re.search(r"Firmware Bug|not the first enumerated", text)


REBOOT = initramfs.TOUR.replace(b"poweroff -f", b"reboot -f")
PANIC = initramfs.TOUR.replace(b"poweroff -f", b"exit 1")


@pytest.mark.parametrize("command", [qemu, new_qemu])
@pytest.mark.parametrize(
    ("script", "cmdline", "last"),
    [
        (REBOOT, "console=ttyS0", "reboot: machine restart"),
        (PANIC, "console=ttyS0 panic=-1", "Attempted to kill init"),
    ],
)
def test_reboot_and_panic_reset_the_machine(
    qemu_image: Path,
    tmp_path: Path,
    command: Callable[[], Sequence[str]],
    script: bytes,
    cmdline: str,
    last: str,
) -> None:
    """QEMU runs with -no-reboot, so that a reset ends it."""
    launch = Launch(qemu_image, kernel(), initrd(tmp_path, script), cmdline, 512 * MIB)
    text = console(launch, command())
    assert "tour: done" in text
    assert last in text


def test_the_command_gives_a_shell_to_type_into(tmp_path: Path) -> None:
    """`./run qemu --shell`, on a QEMU that it finds by its name."""
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\nexec {shlex.join((*qemu(), *TIME))} "$@"\n')
    program.chmod(0o755)
    words = [sys.executable, "-m", "tdforge.qemu", "--shell", "--kernel", str(kernel())]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        watch = Timer(HANGS, process.kill)
        watch.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            text = bytearray()
            while not text.endswith(b"/ # ") and (byte := process.stdout.read(1)):
                text += byte
            process.stdin.write(b"echo typed $((6 * 7))\npoweroff\n")
            process.stdin.flush()
            text += process.stdout.read()
        finally:
            watch.cancel()
            process.kill()
    said = text.replace(b"\r", b"")
    assert b"\ntyped 42\n" in said
    assert b"reboot: Power down" in said
    assert process.returncode == 0


def handed_over(image: bytes, kernel: bytes, line: str) -> tuple[tuple[str, ...], Shown]:
    """RTMRs, and what the payload finds."""
    config = RunConfig(
        image, "qemu.bin", 128 * MIB, vmm="qemu", kernel=kernel, initrd=bytes(5000), cmdline=line
    )
    machine = api.prepare(config)
    try:
        ending = machine.run(config.max_instructions, None)
        assert ending.end.reason == "handoff", ending.end
        return api.report(machine, ending).rtmr, gather(machine)
    finally:
        machine.close()


def test_bytes_that_are_not_measured_move_no_file(qemu_image: Path, tiny: bytes) -> None:
    """Behind the kernel, as a signature lies there, and behind the command line's NUL."""
    honest, shown = handed_over(qemu_image.read_bytes(), tiny, "ro quiet")
    rtmrs, other = handed_over(qemu_image.read_bytes(), tiny + bytes(MIB), "ro quiet\0" + "x" * 5000)
    assert rtmrs == honest
    assert differences(shown, other) == []


@pytest.mark.parametrize("vcpus", [1, 4])
def test_the_same_image_and_files_in_a_td(qemu_image: Path, tmp_path: Path, vcpus: int) -> None:
    """The emulated QEMU's fw_cfg shares no code with the firmware's; digests by the tests' own reader."""
    files = initrd(tmp_path, initramfs.TOUR).read_bytes()
    line = "console=ttyS0 quiet"
    config = RunConfig(
        qemu_image.read_bytes(), "qemu.bin", memory=256 * MIB, vcpus=vcpus, vmm="qemu",
        kernel=kernel().read_bytes(), initrd=files, cmdline=line, until="halt",
    )  # fmt: skip
    report = run(config)
    assert report.end["reason"] == "shutdown", report.end
    said = re.findall(r"^tour: (.*)$", report.console.replace("\r", ""), re.MULTILINE)
    assert f"processors: {vcpus}" in said
    assert said[-1] == "done"
    facts = report.to_json()
    found = oracle.events(oracle.cut(report.event_log))
    assert list(oracle.replay(found)) == facts["rtmr"]
    assert facts["rtmr"][1] == oracle.extended(oracle.kernel_extent(kernel().read_bytes()), bytes(4))
    assert facts["rtmr"][2] == oracle.extended(line.encode(), files)
    assert facts["pages"]["added"] < 100
