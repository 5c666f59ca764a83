"""How does typed text reach the guest? Bytes of a terminal or pipe, polled while the guest runs and
waited for while it sleeps.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INTERVAL = 0.02  # seconds between two looks while the guest runs
CHUNK = 4096


@dataclass
class Keyboard:
    """A file descriptor that is read without blocking."""

    fd: int
    looked: float = 0.0
    open: bool = True

    def read(self, wait: float | None) -> bytes:
        """What was typed, waiting up to `wait` seconds for it (None: until something comes or the end)."""
        if not self.open or not select.select((self.fd,), (), (), wait)[0]:
            return b""
        try:
            data = os.read(self.fd, CHUNK)
        except OSError:  # the terminal has gone
            data = b""
        self.open = bool(data)
        return data

    def glance(self) -> bytes:
        """The same while the guest runs: now and then."""
        now = time.monotonic()
        if now - self.looked < INTERVAL:
            return b""
        self.looked = now
        return self.read(0)


@contextmanager
def raw_terminal(fd: int) -> Iterator[Keyboard]:
    """The terminal passes each key on at once and unechoed; Ctrl-C still ends the run. Whatever ends it, also
    SIGTERM, the terminal is then as it was.
    """
    before = termios.tcgetattr(fd)
    handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        yield Keyboard(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)
        signal.signal(signal.SIGTERM, handler)
