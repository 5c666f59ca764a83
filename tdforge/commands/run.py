"""What does `tdforge run IMAGE` do? It starts an image in the emulated TD and reports how the run went."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from emu.api import Report
from emu.config import RunConfig
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.snapshot.file import Snapshot
from tdforge import debug_options, machine_options, show
from tdforge.command import Command
from tdforge.errors import OK, UsageError, UserError
from tdforge.files import write
from tdforge.running import run_td, typed_keys


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE")
    of_td = parser.add_argument_group("the TD as its host creates it (Base specification, TD_PARAMS)")
    machine_options.add_options(parser, of_td)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the boot report as JSON")
    parser.add_argument("--event-log", type=Path, metavar="FILE", help="write the CC event log")
    parser.add_argument(
        "--json", action="store_true", help="print the report; console text goes to standard error"
    )
    debug_options.add_options(parser)
    points = parser.add_argument_group("snapshots")
    points.add_argument("--save", type=Path, metavar="FILE", help="save the run when it reaches --until")
    points.add_argument(
        "--resume", type=Path, metavar="FILE", help="resume from a saved point; takes no IMAGE"
    )


def run(given: argparse.Namespace) -> int:
    """Runs an image or a saved run, prints the report; returns the exit code. Raises UserError."""
    config, point = _described(given)
    stream = sys.stderr if given.json else sys.stdout
    with (
        debug_options.observers(given, Path(config.image_name).name) as seen,
        typed_keys(given.stdin is None) as keyboard,
    ):
        report = run_td(
            config,
            lambda text: print(text, end="", file=stream, flush=True),
            seen.observer,
            point,
            given.save,
            keyboard,
        )
    _publish(report, seen, given)
    seen.show()
    if report.met:
        return OK
    lack = "" if config.kernel else " (no --kernel was given)"
    raise UserError(f"the run ended before {config.until}: {show.end_line(report.to_json()['end'])}{lack}")


def _described(given: argparse.Namespace) -> tuple[RunConfig, Snapshot | None]:
    """The run that the options describe, and the point to go on from. UserError."""
    if given.resume:
        return _resumed(given)
    if given.image is None:
        raise UsageError("run: an IMAGE is needed, or --resume FILE")
    return machine_options.run_config(given, given.image), None


def _resumed(given: argparse.Namespace) -> tuple[RunConfig, Snapshot]:
    """The run of a snapshot file. UserError, also for options that the snapshot already holds."""
    for name, default in {"image": None, **machine_options.defaults()}.items():
        if name != "until" and getattr(given, name) != default:
            option = "IMAGE" if name == "image" else f"--{name.replace('_', '-')}"
            raise UserError(f"{option} cannot be given with --resume: the snapshot holds it")
    try:
        config, point = snapshot.read(given.resume)
    except EmuError as error:
        raise UserError(str(error)) from error
    if point.handed_over and given.until == "handoff":
        raise UserError(f"{given.resume} was saved after the handoff: give another --until")
    return replace(config, until=given.until), point


def _publish(report: Report, seen: debug_options.Observers, given: argparse.Namespace) -> None:
    """The report and the event log, to where the options want them."""
    facts = report.to_json() | seen.facts()
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    if not facts["console"].endswith("\n"):
        print(file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.report:
        write(given.report, text.encode())
    if given.event_log:
        write(given.event_log, report.event_log)
        if report.event_log_missing:
            show.err().print(f"{given.event_log} is empty: {report.event_log_missing}")
    if given.json:
        print(text, end="")
    else:
        summary = show.err()
        summary.print()
        show.print_measurements(summary, facts)
        summary.print()
        show.print_run(summary, facts)
        summary.print(f"\n{show.NOT_REAL}")


COMMAND = Command(
    (
        "tdforge run build/linux.bin --kernel vmlinuz --cmdline console=ttyS0 --until console:Linux",
        "tdforge run build/linux.bin --kernel vmlinuz --vcpus 4 --seed 7 --json --report boot.json",
        "tdforge run build/linux.bin --kernel vmlinuz --initrd initrd --until shutdown",
        "tdforge run build/linux.bin --kernel vmlinuz --vmm hostile:7 --trace boot.txt --timeline boot.html",
        "tdforge run build/linux.bin --kernel vmlinuz --script docs/examples/deny_large_pages.py --profile",
        "tdforge run build/linux.bin --kernel vmlinuz --gdb 1234",
        "tdforge run build/linux.bin --kernel vmlinuz --save point; tdforge run --resume point --until halt",
        "tdforge run OVMF.fd --vmm qemu --rbp-mod --memory 256M --until halt --max-instructions 455000000",
    ),
    add_options,
    run,
)
