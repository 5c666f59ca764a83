"""What does `tdforge launch IMAGE` do? It starts QEMU without TDX, or prints how a host with TDX starts."""

import argparse
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from formats.units import MIB
from image.hosts import READERS
from tdforge import show
from tdforge.apt import Say
from tdforge.command import Command
from tdforge.errors import OK, UserError
from tdforge.files import read_image
from tdforge.hosts import CMDLINE, Launch, alioth, libvirt, plain_qemu, tdx_qemu
from tdforge.kata import dragonball, kata
from tdforge.krun import libkrun
from tdforge.machine_options import check_host, memory, size, vcpus
from tdforge.tools import tool

PLAIN = "qemu-plain"
OWN_KERNEL = ("kata", "dragonball", "libkrun")  # which have one if none is given, or say why they take none


@dataclass(frozen=True)
class Host:
    """A host with TDX: what to print, whose loader takes the image, and what the text is derived from."""

    text: Callable[[Launch], str]
    vmm: str
    source: str


HOSTS = {
    "qemu": Host(tdx_qemu, "qemu", "QEMU's docs/system/i386/tdx.rst"),
    "libvirt": Host(libvirt, "qemu", "libvirt's tests/qemuxmlconfdata/launch-security-tdx.xml"),
    "kata": Host(kata, "qemu", "Kata's configuration-qemu-tdx.toml"),
    "dragonball": Host(dragonball, "dragonball", "the source of Kata and its pull request 13659"),
    "libkrun": Host(libkrun, "libkrun", "the source of libkrun 2.0"),
    "alioth": Host(alioth, "alioth", "Alioth's docs/coco.md"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The host and what it is to start."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    names = (PLAIN, *HOSTS)
    parser.add_argument(
        "--vmm",
        choices=names,
        default=PLAIN,
        help=f"default: {PLAIN}, QEMU without TDX, which is started here",
    )
    parser.add_argument("--kernel", type=Path, metavar="FILE")
    parser.add_argument("--initrd", type=Path, metavar="FILE")
    parser.add_argument(
        "--cmdline", metavar="TEXT", help=f"default: {CMDLINE}, for Kata what its configuration has"
    )
    parser.add_argument("--memory", type=memory, default=size("2G"), metavar="SIZE", help="default: 2G")
    parser.add_argument("--vcpus", type=vcpus, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--print", action="store_true", dest="only", help="print what starts it; start nothing"
    )


def launch(given: argparse.Namespace) -> int:
    """Runs QEMU, or prints. UserError: a host that would refuse the image, or cannot start this."""
    vmm = "qemu" if given.vmm == PLAIN else HOSTS[given.vmm].vmm
    image = read_image(given.image, READERS[vmm][0].metadata)
    for name in ("kernel", "initrd"):
        path = getattr(given, name)
        if path is not None and not path.is_file():
            raise UserError(f"no {name} {path}")
    for name in ("initrd", "cmdline") if given.vmm not in OWN_KERNEL else ():
        if getattr(given, name) is not None and not given.kernel:
            raise UserError(f"--{name} needs --kernel")
    if given.memory % MIB:
        raise UserError(f"--memory: {given.memory} bytes, and a host takes whole MiB")
    if not (given.cmdline or "").isprintable():
        raise UserError("--cmdline: a command line has no control characters")
    what = Launch(
        given.image.absolute(),
        given.kernel and given.kernel.absolute(),
        given.initrd and given.initrd.absolute(),
        given.cmdline,
        given.memory,
        given.vcpus,
    )
    if given.vmm == PLAIN:
        check_host(image, str(given.image), vmm)
    else:
        host = HOSTS[given.vmm]
        if not given.only:
            raise UserError(f"{given.vmm} needs a host with TDX: add --print to see how it is started there")
        check_host(image, str(given.image), vmm, given.memory)
        print(host.text(what), end="")
        show.err().print(f"tdforge: derived from {host.source}, not run here")
        return OK
    if given.only:
        print(shlex.join(plain_qemu(what, ["qemu-system-x86_64"])))
        return OK
    return run_qemu(what, lambda text: show.err().print(f"tdforge: {text}"))


def run_qemu(what: Launch, say: Say) -> int:
    """Runs QEMU, Debian's if none is installed, on this terminal. UserError if it fails."""
    command = plain_qemu(what, tool("qemu-system-x86_64", "qemu-system-x86", say))
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UserError(f"QEMU ended with exit code {done.returncode}")
    return OK


COMMAND = Command(
    (
        "tdforge launch build/qemu.bin --kernel vmlinuz --initrd initrd",
        "tdforge launch build/qemu.bin --kernel vmlinuz --vmm qemu --print",
        "tdforge launch build/qemu.bin --kernel vmlinuz --vmm libvirt --print",
        "tdforge launch build/vmlinux.bin --kernel vmlinux --vmm dragonball --print",
        "tdforge launch build/vmlinux.bin --vmm libkrun --print",
        "tdforge launch build/alioth.bin --kernel vmlinuz --vmm alioth --print",
    ),
    add_options,
    launch,
)
