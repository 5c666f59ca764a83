"""What do tests take from Debian without root: foreign firmware, a kernel, tools as judges.
The caches they fill are the user's own, so that a second run fetches nothing.
"""

from __future__ import annotations

import os
import shlex
from functools import cache
from pathlib import Path

from host.cache import cache_dir
from tdforge import tools
from tdforge.apt import Apt, Suite, alone
from tdforge.kernel import find_kernel
from tdforge.kernel import vmlinux as unpacked

HOME = cache_dir()  # read before any test moves it
# ovmf 2025.02-8+deb13u1, by tdforge.apt.files_digest
NEW_OVMF = "a3caec81a1f15712131c8203cf945aaf9803ab0abed9a2f14a80a58a43293825"


def _quiet(text: str) -> None:
    del text


@cache
def ovmf() -> Path:
    """Debian's OVMF.fd: `$TDFORGE_OVMF`, else out of package ovmf, fetched once into the cache."""
    if named := os.environ.get("TDFORGE_OVMF"):
        return Path(named)
    path = HOME / "ovmf" / "usr/share/ovmf/OVMF.fd"
    with alone(HOME):
        if not path.is_file():
            Apt(HOME, _quiet).unpack(["ovmf"], HOME / "ovmf", only=("usr/share/ovmf/",))
    return path


@cache
def new_ovmf() -> Path:
    """OVMF.fd of Debian 13, 2025.02, whatever release the machine runs; fetched once into the cache."""
    path = HOME / "ovmf-trixie" / "usr/share/ovmf/OVMF.fd"
    with alone(HOME):
        if not path.is_file():
            apt = Apt(HOME, _quiet, Suite("trixie"))
            apt.unpack(["ovmf"], HOME / "ovmf-trixie", only=("usr/share/ovmf/",), digest=NEW_OVMF)
    return path


@cache
def qemu() -> tuple[str, ...]:
    """The command of this release's QEMU: the installed one, else Debian's; 7.2 in release 12."""
    return tool("qemu-system-x86_64", "qemu-system-x86")


@cache
def new_qemu() -> tuple[str, ...]:
    """The command of Debian 13's QEMU, 10.0: `$TDFORGE_NEW_QEMU`, else fetched once into the cache.

    It runs with its own release's loader and C library, and so does not find its data by itself. Its 90
    packages are signed by Debian and not pinned: one of them changes every few weeks.
    """
    if named := os.environ.get("TDFORGE_NEW_QEMU"):
        return tuple(shlex.split(named))
    place = HOME / "qemu-trixie"
    with alone(HOME):
        if not place.is_dir():
            apt = Apt(HOME, _quiet, Suite("trixie"))
            only = ("usr/bin/qemu", "usr/lib/x86_64-linux-gnu/", "usr/share/qemu/", "usr/share/seabios/")
            apt.unpack(apt.missing("qemu-system-x86"), place, only, pinned=False)
    lib = place / "usr/lib/x86_64-linux-gnu"
    program = place / "usr/bin/qemu-system-x86_64"
    loader = (str(lib / "ld-linux-x86-64.so.2"), "--library-path", str(lib))
    data = [word for name in ("qemu", "seabios") for word in ("-L", str(place / "usr/share" / name))]
    return ("env", f"QEMU_MODULE_DIR={lib / 'qemu'}", *loader, str(program), *data)


@cache
def kernel() -> Path:
    """Debian's TDX-enabled kernel: `$TDFORGE_KERNEL`, else the one `tdforge run` takes by itself."""
    if named := os.environ.get("TDFORGE_KERNEL"):
        return Path(named)
    return find_kernel(None, _quiet, cache=HOME).path


@cache
def vmlinux() -> bytes:
    """The ELF file in that kernel's bzImage."""
    return unpacked(kernel().read_bytes(), _quiet, HOME)


@cache
def tool(name: str, package: str) -> tuple[str, ...]:
    """The command that runs a tool: the installed one, else out of `package`, with its libraries."""
    return tools.tool(name, package, _quiet, HOME)
