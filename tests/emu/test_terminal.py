"""Is `tdforge run` in a terminal a console? Is a key answered, does Ctrl-C end it, is all as before then?"""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
from pathlib import Path

import guest
import pytest
from interrupts import ECHO, MACROS

from emu.keyboard import Keyboard
from tdforge.show import Terminal

LIMIT = 120  # seconds, of a run that takes two
RUN = ("-m", "tdforge", "run", "--memory", "64M", "--until")


class Session:
    """A command in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            # A job in the background is started with SIGINT ignored, which a program inherits.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(sys.executable, (sys.executable, *words))
        self.seen = b""
        self.before = termios.tcgetattr(self.fd)

    def read(self) -> bool:
        """What comes next; False at the end. A command that says nothing for a long time hangs."""
        if not select.select([self.fd], [], [], LIMIT)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"nothing more for {LIMIT} seconds after {self.seen!r}")
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            data = b""
        self.seen += data
        return bool(data)

    def until(self, text: bytes) -> None:
        """Reads on until the text has appeared."""
        while text not in self.seen:
            assert self.read(), self.seen

    def until_raw(self) -> None:
        """Reads on until keys are passed on at once and unechoed."""
        while termios.tcgetattr(self.fd)[3] & (termios.ECHO | termios.ICANON):
            assert self.read(), self.seen

    def finish(self) -> tuple[int, bool]:
        """Exit code, and whether the terminal is as it was."""
        while self.read():
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, termios.tcgetattr(self.fd) == self.before


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "echo.bin"
    path.write_bytes(guest.build(MACROS + ECHO).image)
    return str(path)


def test_a_line_is_typed_and_answered(image: str) -> None:
    session = Session(*RUN, "halt", image)
    session.until_raw()
    for key in (b"t", b"y", b"p"):
        os.write(session.fd, key)
        session.until(b"typ"[: b"typ".index(key) + 1])
    os.write(session.fd, b"\n")
    code, same = session.finish()
    assert code == 0, session.seen
    assert same
    assert session.seen.count(b"Emulated") == 1


@pytest.mark.parametrize(("how", "expected"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_a_run_ended_from_outside_restores_the_terminal(image: str, how: str, expected: int) -> None:
    session = Session(*RUN, "halt", image)
    session.until_raw()
    os.write(session.fd, b"x")
    session.until(b"x")
    if how == "SIGTERM":
        os.kill(session.pid, signal.SIGTERM)
    else:
        os.write(session.fd, b"\x03")
    code, same = session.finish()
    assert code == expected, session.seen
    assert same
    assert b"Traceback" not in session.seen


def test_ctrl_c_ends_a_run_of_a_job_in_the_background(image: str) -> None:
    """`pytest &`, nohup and some CI ignore SIGINT; the run in its own terminal must not."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        session = Session(*RUN, "halt", image)
    finally:
        signal.signal(signal.SIGINT, before)
    session.until_raw()
    os.write(session.fd, b"\x03")
    code, _ = session.finish()
    assert code == 130, session.seen


def test_a_terminal_that_has_gone_is_an_end_of_input() -> None:
    ours, theirs = os.openpty()
    os.close(ours)
    keyboard = Keyboard(theirs)
    assert keyboard.read(0) == b""
    assert not keyboard.open
    os.close(theirs)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\r\nb\b\t", "a\r\nb\b\t"),
        ("\x1b[2J\x1b[1;31mred\x1b[0m\x1b[K", "\x1b[2J\x1b[1;31mred\x1b[0m\x1b[K"),
        ("\x1b[6n\x1b[c\x1b[>c\x1b[?25h", ""),  # questions that a terminal answers, modes
        ("\x1b]0;title\x07\x1b]52;c;AAAA\x1b\\|", "|"),
        ("\x1bc\x1bPq\x1b\\\x1b(B.", "."),
        ("\x1b\x1b[6n[6n", "[6n"),
        ("\x9b6n\x07\x00", "\ufffd6n\ufffd\ufffd"),
        ("\x1b]" + "x" * 5000, "]" + "x" * 5000),
    ],
)
def test_no_guest_steers_the_terminal(written: str, shown: str) -> None:
    assert Terminal().fit(written) == shown
    terminal = Terminal()
    assert "".join(map(terminal.fit, written)) == shown
