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
from pathlib import Path
from typing import TextIO

from debian import tool

from formats import fw_cfg
from formats.fw_cfg import Control, Key

# The machine that `--vmm qemu` is (docs/emulator.md)
LEAN = "q35,smm=off,pic=off,hpet=off,pit=off,sata=off,smbus=off,i8042=off,vmport=off,usb=off"
DESCRIPTOR, BUFFER = 0x910000, 0x900000


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


def version() -> tuple[int, ...]:
    """Of Debian's QEMU: (7, 2) in release 12, (10, 0) in 13."""
    text = subprocess.run([*command(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    assert found
    return tuple(map(int, found.groups()))


def command() -> list[str]:
    """How it is started: `$TDFORGE_QEMU`, else Debian's."""
    if named := os.environ.get("TDFORGE_QEMU"):
        return shlex.split(named)
    return list(tool("qemu-system-x86_64", "qemu-system-x86"))


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
