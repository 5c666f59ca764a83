"""How does a test boot Debian's kernel on a real QEMU, with an initrd that looks around?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Timer

from debian import HOME, qemu

from tdforge import initramfs
from tdforge.hosts import Launch, plain_qemu
from tdforge.kernel import find_kernel, modules
from tdforge.qemu import DISK_MODULES

HANGS = 600  # seconds; a boot takes ten
# Time by instructions, 8 ns for each. By the host's clock Linux compares one timer of QEMU with another while
# a busy host takes the CPU away in between: 26 MHz for 2.6 GHz were seen, and then boots without an end.
TIME = ("-icount", "shift=3,sleep=off")


def _quiet(text: str) -> None:
    del text


@cache
def _disk() -> dict[str, bytes]:
    """The modules for a disk, of the kernel that boots; apt takes a second to say which that is."""
    package = find_kernel(None, _quiet, cache=HOME).package
    return modules(package, DISK_MODULES, _quiet, HOME) if package else {}


def initrd(folder: Path, script: bytes = initramfs.TOUR) -> Path:
    """Busybox, the modules for a disk, and a script as init."""
    path = folder / "initrd"
    path.write_bytes(initramfs.with_init(script, initramfs.busybox(_quiet, HOME), _disk()))
    return path


def console(launch: Launch, command: Sequence[str] = ()) -> str:
    """What the guest says until it powers off by itself; `command` starts QEMU, else this release's."""
    words = plain_qemu(launch, (*(command or qemu()), *TIME))
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watch = Timer(HANGS, process.kill)
        watch.start()
        said, _ = process.communicate()
        watch.cancel()
    assert process.returncode == 0, said[-2000:]
    return said.replace("\r", "")


def tour(text: str) -> list[str]:
    """What the script said."""
    return re.findall(r"^tour: (.*)$", text.replace("\r", ""), re.MULTILINE)
