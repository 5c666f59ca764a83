"""How does a test ask a real QEMU what its devices answer? Debian's own, stopped before the first
instruction, through the qtest protocol (docs/devel/testing/qtest.rst).
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

import guest
import pytest
from debian import qemu
from qemuguest import BUFFER, DESCRIPTOR, INITRD, KERNEL, LINE, SHARED, image

from emu.machine import Machine
from formats import acpi, fw_cfg
from formats.fw_cfg import Control, Key
from formats.registers import R10, R11, R12, R13, RCX
from formats.units import GIB, MIB, PAGE

# The machine that `--vmm qemu` is (docs/emulator.md)
LEAN = "q35,smm=off,pic=off,hpet=off,pit=off,sata=off,smbus=off,i8042=off,vmport=off,usb=off"
MADT_HEAD = acpi.MADT.sizeof()


class RealQemu:
    """A stopped machine."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def ask(self, *words: str) -> list[str]:
        """One command; the words of its answer."""
        self.stream.write(" ".join(words) + "\n")
        self.stream.flush()
        while line := self.stream.readline():
            if not line.startswith("IRQ"):
                return line.split()
        raise EOFError

    def out(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self.ask(f"out{' bw l'[size]}", hex(port), hex(value))

    def inp(self, port: int, size: int) -> int:
        """IN."""
        return int(self.ask(f"in{' bw l'[size]}", hex(port))[1], 0)

    def read(self, gpa: int, size: int) -> bytes:
        """Memory."""
        return bytes.fromhex(self.ask("read", hex(gpa), hex(size))[1][2:]) if size else b""

    def write(self, gpa: int, data: bytes) -> None:
        """Memory."""
        self.ask("write", hex(gpa), hex(len(data)), f"0x{data.hex()}")

    def dma(self, control: int, length: int, address: int) -> int:
        """A transfer; the control field afterwards."""
        self.write(DESCRIPTOR, struct.pack(">IIQ", control, length, address))
        self.out(0x518, 4, int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little"))
        return int.from_bytes(self.read(DESCRIPTOR, 4), "big")

    def item(self, key: int, size: int) -> bytes:
        """Bytes of an item."""
        assert self.dma(key << 16 | Control.SELECT | Control.READ, size, BUFFER) == 0
        return self.read(BUFFER, size)

    def files(self) -> dict[str, tuple[int, int]]:
        """The directory."""
        return fw_cfg.read_directory(self.item(Key.FILE_DIR, 4096))

    def file(self, name: str) -> bytes:
        """A file."""
        key, size = self.files()[name]
        return self.item(key, size)


@cache
def version() -> tuple[int, ...]:
    """Of Debian's QEMU: (7, 2) in release 12, (10, 0) in 13."""
    text = subprocess.run([*command(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    assert found
    return tuple(map(int, found.groups()))


def before_10() -> bool:
    """No etc/boot/kernel; a MADT whose flags ignore pic=off; traces of SMM in spite of smm=off."""
    return version() < (10, 0)


def strict() -> bool:
    """Alignment of port accesses matters; short ECAM windows are right."""
    return version() >= (11, 0)


def command() -> list[str]:
    """How it is started: `$TDFORGE_QEMU`, else Debian's."""
    if named := os.environ.get("TDFORGE_QEMU"):
        return shlex.split(named)
    return list(qemu())


def accepted(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """QEMU's connection, unless it has given up."""
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            assert process.poll() is None, "QEMU did not start"
            continue
        connection.settimeout(None)
        return connection


@contextmanager
def real(*options: str, machine: str = LEAN) -> Iterator[RealQemu]:
    """A machine with more options."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        place = Path(folder) / "qtest"
        listener.bind(str(place))
        listener.listen(1)
        listener.settimeout(1)
        words: Sequence[str] = (
            *(*command(), "-accel", "tcg", "-S", "-machine", machine, "-nodefaults", "-display", "none"),
            *("-serial", "null", "-qtest", f"unix:{place}", "-qtest-log", os.devnull, *options),
        )
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
            try:
                connection = accepted(listener, process)
                with connection, connection.makefile("rw") as stream:
                    yield RealQemu(stream)
            finally:
                process.kill()


class Emulated:
    """The same questions to a TD's VMM."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.ports = machine, machine.vmm.ports
        for page in (BUFFER, DESCRIPTOR):
            r = [0] * 16
            r[RCX], r[R11], r[R12], r[R13] = 0xFC00, 0x10001, page | SHARED, PAGE
            machine.vmm.handle(0, r)
            assert r[R10] == 0

    def out(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self.ports.write(port, size, value)

    def inp(self, port: int, size: int) -> int:
        """IN."""
        return self.ports.read(port, size)

    def read(self, gpa: int, size: int) -> bytes:
        """What the host sees: shared memory, else a device."""
        if gpa < guest.MEMORY:
            return self.machine.memory.read(gpa, size, shared=True)
        return self.ports.read_memory(gpa, size).to_bytes(size, "little")

    def write(self, gpa: int, data: bytes) -> None:
        """Shared memory."""
        self.machine.memory.write(gpa, data, shared=True)

    dma, item, files, file = RealQemu.dma, RealQemu.item, RealQemu.files, RealQemu.file


@contextmanager
def both(
    folder: Path | None = None, memory: int = guest.MEMORY, vcpus: int = 1
) -> Iterator[tuple[RealQemu, Emulated]]:
    """Two machines; with a folder both have the payload. MANY vCPUs are as many as the real one can have."""
    if vcpus == MANY and before_10():
        vcpus = MANY_WITHOUT_X2APIC
    settings: dict[str, object] = {"memory": memory, "vcpus": vcpus}
    options = ("-m", f"{memory // MIB}M", "-smp", f"{vcpus},sockets={vcpus}", "-cpu", "max")
    if folder:
        for name, content in (("kernel", KERNEL), ("initrd", INITRD)):
            (folder / name).write_bytes(content)
        options += ("-kernel", str(folder / "kernel"), "-initrd", str(folder / "initrd"), "-append", LINE)
        settings |= {"kernel": KERNEL, "initrd": INITRD, "cmdline": LINE}
    with real(*options) as stopped, guest.machine(image(), vmm="qemu", **settings) as td:
        yield stopped, Emulated(td)


def program(machine: RealQemu | Emulated, base: int = 0xB0000000) -> None:
    """As firmware does."""
    for at, size, value in ((0x60, 4, 0), (0x64, 4, 0), (0x60, 4, base | 1)):
        machine.out(0xCF8, 4, 0x80000000 | at)
        machine.out(0xCFC, size, value)
    for at, size, value in ((0x40, 4, 0x601), (0x44, 1, 0x80)):
        machine.out(0xCF8, 4, 0x8000F800 | at)
        machine.out(0xCFC, size, value)


MANY, MANY_WITHOUT_X2APIC = 300, 250  # the emulation of QEMU 7.2 has no x2APIC
MACHINES = pytest.mark.parametrize(
    ("memory", "vcpus"),
    [(guest.MEMORY, 1), (3 * GIB, 12), (2815 * MIB, MANY)],
    ids=["64M-1", "3G-12", "2815M-many"],
)
