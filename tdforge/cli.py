"""Which commands and options are there? Parsing and exit codes; the work is in tdforge.commands.

Exit codes: 0 done, 1 could not be done (one sentence on standard error), 2 wrong usage.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from emu.config import MAX_VCPUS, RunConfig, check_memory, check_vcpus
from emu.ending import UNTIL_REASONS, Until
from emu.signals import EmuError
from emu.vmm.choose import parse as parse_vmm
from emu.vmm.devices import EPOCH, parse_time
from emu.vmm.presets import PRESETS
from tdforge import __version__, commands, sight, td
from tdforge.errors import UserError
from tdforge.sizes import parse_size

FAILED, INTERRUPTED = 1, 130
T = TypeVar("T")


def size(text: str) -> int:
    """argparse type: a number of bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def memory(text: str) -> int:
    """argparse type: how much memory a TD gets, in bytes."""
    bytes_wanted = size(text)
    _told(lambda: check_memory(bytes_wanted))
    return bytes_wanted


def positive(text: str) -> int:
    """argparse type: a whole number from 1."""
    return natural(text, 1)


def vcpus(text: str) -> int:
    """argparse type: how many vCPUs a TD gets."""
    number = positive(text)
    _told(lambda: check_vcpus(number))
    return number


def natural(text: str, least: int = 0) -> int:
    """argparse type: a whole number from `least`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def moment(text: str) -> str:
    """argparse type: a date and time."""
    return _told(lambda: parse_time(text)).isoformat()


def vmm(text: str) -> str:
    """argparse type: a preset or a hostile VMM."""
    _told(lambda: parse_vmm(text))
    return text


def until(text: str) -> str:
    """argparse type: the condition that ends a run."""
    _told(lambda: Until.parse(text))
    return text


def _told(work: Callable[[], T]) -> T:
    """What `work` returns; an EmuError becomes argparse's."""
    try:
        return work()
    except EmuError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="tdforge",
        description="Intel TDX virtual firmware, written as a boot flow and generated.",
        epilog="example: tdforge build linux && tdforge run build/linux.bin --kernel vmlinuz",
    )
    top.add_argument("--version", action="version", version=f"tdforge {__version__}")
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    build = _command(
        subs, "build", commands.build, "make a TD image from a flow", "tdforge build linux -o build"
    )
    build.add_argument("flow", metavar="FLOW", help="a flow file, or the name of a shipped flow")
    build.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    build.add_argument("--json", action="store_true", help="print the manifest")

    check = _command(
        subs, "check", commands.check, "check a flow, or an image against the rules of the VMMs",
        "tdforge check dsl/flows/linux.tdf",
    )  # fmt: skip
    check.add_argument("subject", metavar="FLOW|IMAGE", help="a flow file or name, or an image file")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")

    fmt = _command(
        subs, "fmt", commands.fmt, "write flows in the one way they are written", "tdforge fmt my.tdf --check"
    )
    fmt.add_argument("flows", nargs="+", metavar="FLOW", help="a flow file, or the name of a shipped flow")
    fmt.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if a file would change"
    )

    inspect = _command(
        subs, "inspect", commands.inspect, "show an image's layout, metadata and MRTD",
        "tdforge inspect build/linux.bin --json",
    )  # fmt: skip
    inspect.add_argument("image", type=Path, metavar="IMAGE")
    inspect.add_argument("--json", action="store_true", help="print everything as JSON")

    run = _command(
        subs, "run", commands.run, "start an image in the emulated TD (no TDX hardware is used or needed)",
        "tdforge run build/linux.bin --kernel vmlinuz --cmdline console=ttyS0 --until console:Linux",
        "tdforge run build/linux.bin --kernel vmlinuz --vcpus 4 --seed 7 --json --report boot.json",
        "tdforge run build/linux.bin --kernel vmlinuz --initrd initrd --until shutdown",
        "tdforge run build/linux.bin --kernel vmlinuz --vmm hostile:7 --trace boot.txt --timeline boot.html",
        "tdforge run build/linux.bin --kernel vmlinuz --script docs/examples/deny_large_pages.py --profile",
        "tdforge run build/linux.bin --kernel vmlinuz --gdb 1234",
        "tdforge run build/linux.bin --kernel vmlinuz --save point; tdforge run --resume point --until halt",
        "tdforge run OVMF.fd --vmm qemu --rbp-mod --until halt --max-instructions 449000000",
    )  # fmt: skip
    run.add_argument("image", type=Path, nargs="?", metavar="IMAGE")
    run.add_argument("--kernel", type=Path, metavar="FILE", help="payload the VMM loads: a Linux bzImage")
    run.add_argument("--initrd", type=Path, metavar="FILE")
    run.add_argument("--cmdline", default="", metavar="TEXT", help="kernel command line")
    run.add_argument("--memory", type=memory, default=size("2G"), metavar="SIZE", help="default: 2G")
    run.add_argument(
        "--vcpus", type=vcpus, default=1, metavar="N", help=f"up to {MAX_VCPUS}; default: 1"
    )  # fmt: skip
    run.add_argument(
        "--vmm", type=vmm, default="td-shim", metavar="WHOSE",
        help=f"whose TD HOB and memory map: {', '.join(PRESETS)}, or hostile:SEED, hostile:SEED:WHOSE for "
        "one that attacks the guest; default: td-shim",
    )  # fmt: skip
    run.add_argument(
        "--script", type=Path, metavar="FILE.py", help="functions that watch or change what the VMM does"
    )
    run.add_argument(
        "--until", type=until, default="handoff", metavar="WHAT",
        help=f"{', '.join(UNTIL_REASONS)}, or console:TEXT: exit code 0 then; default: %(default)s",
    )  # fmt: skip
    run.add_argument(
        "--max-instructions", type=positive, default=RunConfig.max_instructions, metavar="N",
        help="after so many on one vCPU the run is over; default: %(default)s",
    )  # fmt: skip
    run.add_argument(
        "--stdin", type=Path, metavar="FILE",
        help="what the serial port receives; without it, what is typed when standard input is a terminal",
    )  # fmt: skip
    run.add_argument("--seed", type=natural, default=0, metavar="N", help="order of the vCPUs; default: 0")
    run.add_argument(
        "--rtc", type=moment, default=EPOCH.isoformat(), metavar="TIME",
        help="what the clock shows at the start, in UTC; default: %(default)s",
    )  # fmt: skip
    td.add_options(run)
    machine = [action for action in run._actions if action.dest != "help"]  # so far: what makes the run
    run.set_defaults(machine={action.dest: action.default for action in machine})
    run.add_argument("--report", type=Path, metavar="FILE", help="write the boot report as JSON")
    run.add_argument("--event-log", type=Path, metavar="FILE", help="write the CC event log")
    run.add_argument(
        "--json", action="store_true", help="print the report; console text goes to standard error"
    )
    sight.add_options(run)

    two = _command(
        subs, "diff-run", sight.diff_run, "compare two runs: two images, traces or reports",
        "tdforge diff-run before.jsonl after.jsonl",
        "tdforge diff-run old/linux.bin new/linux.bin --kernel vmlinuz --vcpus 4",
    )  # fmt: skip
    sight.add_diff_options(two, [action for action in machine if action.dest != "image"])
    return top


def _command(
    subs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    work: Callable[[argparse.Namespace], int],
    summary: str,
    *examples: str,
) -> argparse.ArgumentParser:
    sub = subs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n".join(f"example: {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(work=work)
    return sub


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    top = parser()
    given = top.parse_args(words)
    if given.command == "run" and not (given.image or given.resume):
        top.error("run: an IMAGE is needed, or --resume FILE")
    return exit_code(lambda: int(given.work(given)))


def exit_code(work: Callable[[], int]) -> int:
    """What `work` returns, or the exit code of what stopped it; never a traceback for what a person did."""
    try:
        return work()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to be said to it
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # files are told by those who open them
        print(f"tdforge: cannot write the output: {error.strerror}", file=sys.stderr)
        return FAILED
    except UserError as error:
        print(f"tdforge: {error}", file=sys.stderr)
        return FAILED
