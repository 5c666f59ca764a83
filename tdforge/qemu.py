"""What does `./run qemu` do? Boots Debian's kernel with qemu.tdf to user space, on QEMU without TDX."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tdforge import initramfs, show
from tdforge.boot import INITRD, OUT
from tdforge.building import build_flow
from tdforge.commands.launch import run_qemu
from tdforge.errors import exit_code
from tdforge.files import write
from tdforge.flows import find_flow, short
from tdforge.hosts import Launch
from tdforge.kernel import find_kernel, modules
from tdforge.machine_options import memory, size, vcpus

FLOW = "qemu"
DISK_MODULES = ("drivers/block/virtio_blk.ko",)


def parser() -> argparse.ArgumentParser:
    """Options of `./run qemu`."""
    made = argparse.ArgumentParser(
        prog="./run qemu",
        description="Build qemu.tdf and boot a kernel with it on QEMU without TDX. Nothing is protected.",
        epilog="example: ./run qemu --shell --vcpus 4",
    )
    made.add_argument(
        "--kernel", type=Path, metavar="FILE", help="default: Debian's current 6.12 cloud kernel"
    )
    made.add_argument("--initrd", type=Path, metavar="FILE", help="default: busybox with a short tour")
    made.add_argument("--shell", action="store_true", help="busybox with a shell; `poweroff` ends it")
    made.add_argument("--cmdline", default="console=ttyS0", metavar="TEXT", help="default: console=ttyS0")
    made.add_argument("--memory", type=memory, default=size("512M"), metavar="SIZE", help="default: 512M")
    made.add_argument("--disk", type=Path, metavar="FILE", help="a virtio disk with these bytes")
    made.add_argument("--vcpus", type=vcpus, default=1, metavar="N", help="default: 1")
    return made


def qemu(given: argparse.Namespace) -> int:
    """Build and boot. UserError."""
    page = show.err()

    def say(text: str) -> None:
        page.print(f"tdforge: {text}")

    image = build_flow(find_flow(FLOW), OUT).image
    say(f"built {short(image)} from {FLOW}.tdf")
    kernel = find_kernel(given.kernel, say)
    say(f"kernel: {kernel.path}")
    initrd = given.initrd
    if initrd is None:
        script = initramfs.SHELL if given.shell else initramfs.TOUR
        found = modules(kernel.package, DISK_MODULES, say) if kernel.package else {}
        write(INITRD, initramfs.with_init(script, initramfs.busybox(say), found))
        initrd = INITRD
    more = []
    if given.disk:
        more = ["-drive", f"file={given.disk},format=raw,if=none,id=disk,readonly=on"]
        more += ["-device", "virtio-blk-pci,drive=disk"]
    what = Launch(image, kernel.path, initrd, given.cmdline, given.memory, given.vcpus, more)
    return run_qemu(what, say)


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 with one line on standard error."""
    given = parser().parse_args(words)
    return exit_code(lambda: qemu(given))


if __name__ == "__main__":
    sys.exit(main())
