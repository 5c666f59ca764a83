"""How does a test make an initrd? A static program as /init in a cpio archive of its own writing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from debian import HOME
from tdbox import ASKS

from tdforge.initramfs import TOUR, busybox, with_init

SOURCE = Path(__file__).parent / "init.c"
FLAGS = ("-target", "x86_64-linux-musl", "-mcpu=x86_64", "-O1", "-static", "-nostdlib", "-ffreestanding")
STRICT = ("-fno-stack-protector", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")

# What a kernel says that met something wrong.
COMPLAINTS = r"BUG|WARNING|stall|Oops|unchecked MSR|ACPI (Bios )?(Error|Warning)"


def program(folder: Path, source: Path = SOURCE) -> bytes:
    """init.c, or another."""
    out = folder / "init"
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *STRICT]
    done = subprocess.run(
        [*command, str(source), "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def _say(text: str) -> None:
    del text


def script(text: bytes) -> bytes:
    """A shell script as /init, and busybox."""
    return with_init(text, busybox(_say, HOME))


def asking() -> bytes:
    """The tour, which does at its end what is typed then."""
    return script(TOUR.replace(b"poweroff -f", f"echo '{ASKS}'; read last; $last".encode()))


def archive(init: bytes, files: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """/dev/console, /init, and files in the root."""
    return with_init(init, files=files)
