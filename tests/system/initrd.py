"""How does a test make an initrd? A static program as /init in a cpio archive of its own writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "init.c"
DIRECTORY, CHARACTER, PROGRAM = 0o40755, 0o20600, 0o100755  # st_mode
FLAGS = ("-target", "x86_64-linux-musl", "-mcpu=x86_64", "-O1", "-static", "-nostdlib", "-ffreestanding")
STRICT = ("-fno-stack-protector", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")


def program(folder: Path, polled: bool) -> bytes:
    """init.c; `polled` makes it take the serial port's interrupt away."""
    out = folder / "init"
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *STRICT, f"-DIRQ0={int(polled)}"]
    done = subprocess.run(
        [*command, str(SOURCE), "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def _entry(number: int, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One file of a newc archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(init: bytes) -> bytes:
    """/dev/console and /init."""
    return (
        _entry(1, "dev", DIRECTORY)
        + _entry(2, "dev/console", CHARACTER, device=(5, 1))
        + _entry(3, "init", PROGRAM, init)
        + _entry(0, "TRAILER!!!", 0)
    )
