"""How does a test boot Debian's kernel on a real QEMU, with an initrd that looks around?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from debian import HOME, qemu

from tdforge import initramfs
from tdforge.hosts import Launch, plain_qemu
from tdforge.kernel import find_kernel, modules
from tdforge.qemu import DISK_MODULES

HANGS = 600  # seconds; a boot takes some
# Of a kernel with several CPUs: each measures the length of a loop by ticks of the first, and on a busy host
# QEMU's translated CPUs may wait for one that never comes. The kernel's own message names this option.
MEASURED_LOOP = "lpj=10000000"


def initrd(folder: Path, script: bytes = initramfs.TOUR) -> Path:
    """Busybox, the modules for a disk, and a script as init."""

    def say(text: str) -> None:
        del text

    package = find_kernel(None, say, cache=HOME).package
    disk = modules(package, DISK_MODULES, say, HOME) if package else {}
    path = folder / "initrd"
    path.write_bytes(initramfs.with_init(script, initramfs.busybox(say, HOME), disk))
    return path


def console(launch: Launch, command: Sequence[str] = ()) -> str:
    """What the guest says until it powers off by itself; `command` starts QEMU, else this release's."""
    words = plain_qemu(launch, command or qemu())
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=HANGS
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return done.stdout.replace("\r", "")


def tour(text: str) -> list[str]:
    """What the script said."""
    return re.findall(r"^tour: (.*)$", text.replace("\r", ""), re.MULTILINE)
