"""Does a real gdb see and steer a TD? And does the server answer what no gdb sends?"""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import guest
import pytest
from debian import tool

from emu.api import RunConfig, prepare, run
from emu.debug.gdb import Debugger
from emu.ending import Ending
from emu.signals import EmuError

BODY = """
main:
    movl $0x1234, %ebx
    call work
    call work
    halt
work:
    addl $1, %ebx
    keep 0, %rbx
    ret
.globl main
.globl work
"""


SHOW = r'printf "bx %x\n", $rbx'


class Session:
    """A TD under a debugger, running in a thread of its own."""

    def __init__(self, elf: Path, vcpus: int = 1) -> None:
        built = guest.build(BODY)
        elf.write_bytes(built.elf)
        settings = RunConfig(
            built.image, "guest.bin", memory=guest.MEMORY, until="halt", elf=elf, vcpus=vcpus
        )
        self.machine = prepare(settings)
        self.debugger = Debugger(0, lambda line: None)
        self.ending: Ending | None = None
        self.thread = threading.Thread(target=self.go, daemon=True)
        self.thread.start()

    def go(self) -> None:
        self.machine.observe(self.debugger)
        self.ending = self.machine.run(10_000_000, None)

    def finish(self) -> Ending:
        self.thread.join(60)
        assert self.ending is not None
        self.debugger.close()
        self.machine.close()
        return self.ending


def gdb(session: Session, elf: Path, *commands: str) -> str:
    words = [*tool("gdb", "gdb"), "-nx", "-batch", "-ex", f"file {elf}"]
    for command in (f"target remote 127.0.0.1:{session.debugger.port}", *commands):
        words += ["-ex", command]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


def test_breakpoints_registers_memory_steps(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    session = Session(elf)
    text = gdb(
        session, elf, r'printf "at %x\n", $pc', "break work", "continue", SHOW, "stepi", SHOW,
        "p $pc == (long)&work + 3", "continue", SHOW, "x/1gx 0x810000", "set $rbx = 0x77", "delete",
        "info threads", "continue",
    )  # fmt: skip
    assert "at fffffff0" in text
    assert [line for line in text.splitlines() if line.startswith("bx")] == ["bx 1234", "bx 1235", "bx 1235"]
    assert "$1 = 1" in text
    assert "0x810000:\t0x0000000000001235" in text
    assert "vCPU 0" in text
    assert "exited normally" in text
    assert session.finish().end.reason == "halt"


def test_watchpoints(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    image = guest.build(BODY).image
    plain = run(RunConfig(image, "guest.bin", memory=guest.MEMORY, until="halt"))
    session = Session(elf)
    text = gdb(
        session, elf, "break main", "continue", "watch *(long *)0x810000", "continue", "x/i $pc", "continue",
        "delete", "rwatch -l *(long *)$rsp", "continue", "info symbol $pc",
        "delete", "watch *(char *)0xffff8000000000", "continue", "delete", "continue",
    )  # fmt: skip
    changes = [line.partition(" = ")[2] for line in text.splitlines() if " value = " in line]
    assert changes[:4] == ["0", "4661", "4661", "4662"]
    assert [line.split()[-1] for line in text.splitlines() if "<work+" in line and ">:" in line] == ["ret"]
    assert "main + 15" in text  # behind the call whose return address was read
    assert "exited normally" in text
    count = session.machine.vcpus[0].count
    assert session.finish().end.reason == "halt"
    assert count == plain.instructions


def test_debugged_run_counts_the_same(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    image = guest.build(BODY).image
    plain = run(RunConfig(image, "guest.bin", memory=guest.MEMORY, until="halt"))
    session = Session(elf)
    gdb(session, elf, "break work", "continue", "stepi", "stepi", "continue", "delete", "continue")
    count = session.machine.vcpus[0].count
    session.finish()
    assert count == plain.instructions


def test_vcpus_are_threads_and_detaching_lets_the_guest_run(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    session = Session(elf, vcpus=2)
    text = gdb(session, elf, "break work", "continue", "info threads", "detach")
    assert "vCPU 0" in text
    assert "vCPU 1" in text
    assert session.finish().end.reason == "halt"


def test_kill_ends_the_run(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    session = Session(elf)
    gdb(session, elf, "kill")
    assert session.finish().end.reason == "killed"


@pytest.mark.parametrize(
    "packet",
    [
        "m",
        "mzz,4",
        "m0,-1",
        "p999",
        "Z0,nonsense,1",
        "Hgzz",
        "P1",
        "vCont;s:zz",
        "T0",
        "qXfer:features:read:target.xml:z",
    ],
)
def test_nonsense_is_refused(tmp_path: Path, packet: str) -> None:
    session = Session(tmp_path / "guest.elf")
    with socket.create_connection(("127.0.0.1", session.debugger.port), timeout=60) as line:

        def ask(body: str) -> bytes:
            line.sendall(f"${body}#{sum(body.encode()) & 0xFF:02x}".encode())
            found = b""
            while b"#" not in found or len(found) < found.index(b"#") + 3:
                found += line.recv(4096)
            return found

        assert b"$E" in ask(packet)
        assert b"QC1" in ask("qC")
    assert session.finish().end.reason == "halt"


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EmuError, match="cannot listen"):
        Debugger(taken.getsockname()[1], lambda line: None)
