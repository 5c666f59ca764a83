"""What does `./run boot` do? Builds linux.tdf, boots a kernel in the emulated TD, shows what was measured."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from emu.config import RunConfig
from tdforge import initramfs, show
from tdforge.apt import Say
from tdforge.building import build_flow
from tdforge.errors import UserError, exit_code
from tdforge.files import read, write
from tdforge.flows import find_flow, short
from tdforge.kernel import Kernel, find_kernel
from tdforge.machine_options import check_payload, memory, size, until, vcpus
from tdforge.running import run_td, symbols_of, typed_keys
from tdforge.sizes import show_size
from tdforge.tiny import BANNER

FLOW = "linux"
OUT = Path("build")
KERNEL = OUT / "vmlinuz"
INITRD = OUT / "initrd"
CMDLINE = "console=ttyS0"
# Where a kernel without a root file system ends, and the line after its banner.
LAST_WORDS = "Unable to mount root fs"
AFTER_BANNER = "Command line:"
EXPECTED = ("tdx: Guest detected", "Linux version ")


def parser() -> argparse.ArgumentParser:
    """Options of `./run boot`."""
    made = argparse.ArgumentParser(
        prog="./run boot",
        description="Build linux.tdf and boot a kernel with it in the emulated TD.",
        epilog="examples: ./run boot --kernel /boot/vmlinuz --memory 512M; ./run boot --shell --vcpus 2",
    )
    made.add_argument(
        "--kernel", type=Path, metavar="FILE", help="default: Debian's current 6.12 cloud kernel"
    )
    made.add_argument("--initrd", type=Path, metavar="FILE")
    made.add_argument("--shell", action="store_true", help="busybox with a shell; `poweroff` ends it")
    made.add_argument("--cmdline", default=CMDLINE, metavar="TEXT", help=f"default: {CMDLINE}")
    made.add_argument("--memory", type=memory, default=size("2G"), metavar="SIZE", help="default: 2G")
    made.add_argument("--vcpus", type=vcpus, default=1, metavar="N", help="default: 1")
    made.add_argument(
        "--until",
        type=until,
        metavar="CONDITION",
        help=f"default: console:{LAST_WORDS}, or shutdown with an initrd",
    )
    return made


def boot(given: argparse.Namespace) -> int:
    """Build, boot, show. Returns 0 when the kernel's banner was seen; raises UserError."""
    page = show.out()

    def say(text: str) -> None:
        page.print(f"tdforge: {text}")

    image_path, image = build_image()
    say(f"built {short(image_path)} from {FLOW}.tdf ({show_size(len(image))})")
    kernel = find_kernel(given.kernel, say)
    if given.kernel is None:
        link(KERNEL, kernel.path)
        say(f"kernel: {kernel.origin}; {KERNEL} links to it")
    else:
        say(f"kernel: {kernel.path}")
    say(f"starting it in an emulated TD with {show_size(given.memory)}, vCPUs: {given.vcpus}")
    data = read(kernel.path, "kernel")
    initrd = _initrd(given, say)
    check_payload(image, image_path, data, str(kernel.path), initrd)
    config = RunConfig(
        image=image,
        image_name=str(image_path),
        elf=symbols_of(image_path),
        kernel=data,
        initrd=initrd,
        cmdline=given.cmdline,
        memory=given.memory,
        vcpus=given.vcpus,
    )
    _show_handoff(page, config)
    page.print(f"\n{show.NOT_REAL}\n\nThe guest's console:\n")
    ending = BANNER if kernel.tiny else LAST_WORDS
    condition = given.until or ("shutdown" if initrd else f"console:{ending}")
    with typed_keys(initrd is not None) as keyboard:
        report = run_td(
            replace(config, until=condition),
            lambda text: print(text, end="", flush=True),
            keyboard=keyboard,
        )
    print(flush=True)
    end = show.end_line(report.end)
    missing = [text for text in _expected(kernel) if text not in report.console]
    if missing and given.until is None:
        raise UserError(f"the console never showed {missing[0]!r}; the run ended with {end}")
    if not report.met:
        raise UserError(f"the run ended before {condition}: {end}")
    say(f"done: {report.end['detail'] or report.end['reason']}")
    return 0


def build_image() -> tuple[Path, bytes]:
    """Build the flow into `OUT`: the image's path and content. Raises UserError."""
    path = build_flow(find_flow(FLOW), OUT).image
    return path, read(path, "image")


def link(name: Path, target: Path) -> None:
    """Make `name` a symbolic link to `target`, whatever it was before."""
    partial = name.with_name(f".{name.name}.{os.getpid()}")
    partial.symlink_to(target.absolute())
    partial.replace(name)


def _initrd(given: argparse.Namespace, say: Say) -> bytes | None:
    """The initrd that the options ask for, if any. UserError."""
    if given.shell and given.initrd:
        raise UserError("--shell makes an initrd: give it or --initrd, not both")
    if given.shell:
        write(INITRD, initramfs.with_init(initramfs.SHELL, initramfs.busybox(say)))
    named = INITRD if given.shell else given.initrd
    return read(named, "initrd") if named else None


def _show_handoff(page: Console, config: RunConfig) -> None:
    """A run of its own to the hand-over, so that the summary comes before the kernel's text.

    The emulated TD is deterministic: the run that goes on to the kernel measures the same.
    """
    report = run_td(config, console=None)
    facts = report.to_json()
    if not report.met:
        page.print(show.console_text(report.console))
        raise UserError(f"the run ended before the handoff: {show.end_line(facts['end'])}")
    page.print()
    show.print_measurements(page, facts)
    page.print()
    show.print_run(page, facts)


def _expected(kernel: Kernel) -> tuple[str, ...]:
    return (BANNER,) if kernel.tiny else EXPECTED


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 with one line on standard error."""
    given = parser().parse_args(words)
    return exit_code(lambda: boot(given))


if __name__ == "__main__":
    sys.exit(main())
