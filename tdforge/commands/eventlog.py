"""What does `tdforge eventlog show|replay|verify LOG` do? It reads an event log, whoever wrote it."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from formats import eventlog
from formats.errors import FieldError, FormatError
from formats.eventlog import RTMR_COUNT, Event
from tdforge import evidence, log_files, log_verify, show
from tdforge.command import Command, Once
from tdforge.errors import FAILED, OK, UsageError, UserError
from tdforge.files import read
from tdforge.log_verify import Finding

CONSISTENT = {True: "of the event data", False: "NOT of the event data", None: ""}


def add_options(parser: argparse.ArgumentParser) -> None:
    """This command's arguments."""
    parser.add_argument(
        "what",
        choices=WORK,
        metavar="show|replay|verify",
        help="print the events; print the RTMRs that they give; compare with registers and files",
    )
    parser.add_argument(
        "log", type=Path, metavar="LOG", help="a log area, as /sys/firmware/acpi/tables/data/CCEL has it"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    checks = parser.add_argument_group("options of verify")
    checks.add_argument(
        "--against",
        type=Path,
        action=Once,
        metavar="FILE",
        help="a quote (version 4 or 5), a TDREPORT, or what `tdforge run --report` wrote; nothing here "
        "verifies signatures",
    )
    checks.add_argument(
        "--rtmr",
        type=int,
        choices=range(RTMR_COUNT),
        action="append",
        help="compare these registers only; default: all four",
    )
    checks.add_argument("--kernel", type=Path, action=Once, metavar="FILE", help="the kernel of this boot")
    checks.add_argument("--initrd", type=Path, action=Once, metavar="FILE", help="its initrd")
    checks.add_argument("--cmdline", action=Once, metavar="TEXT", help="its command line")


def read_log(path: Path) -> list[Event]:
    """The events of a log file. UserError: it is none."""
    return parse_log(read(path, "event log"), path)


def parse_log(data: bytes, path: Path) -> list[Event]:
    """The events of a log file's content. UserError: it is none."""
    try:
        if data.startswith(b"CCEL"):
            raise FieldError(f"{path} offset 0x0", "the ACPI table CCEL", "the log area that it names")
        return eventlog.parse(data, place=str(path))
    except FormatError as error:
        raise UserError(str(error)) from error


def _show(given: argparse.Namespace) -> int:
    events = read_log(given.log)
    if given.json:
        print(json.dumps([_fields(number, event) for number, event in enumerate(events)], indent=2))
        return OK
    rows = [("event", "register", "type, what was measured, and the digest")]
    for number, event in enumerate(events):
        register = "none" if event.rtmr is None or not event.extended else f"RTMR[{event.rtmr}]"
        text = log_files.logged_text(event)
        words = (event.type_name, event.description, f'"{text}"' if text is not None else "")
        rows.append((str(number), register, " ".join(filter(None, words))))
        if event.digest:
            rows.append(("", "", f"{event.digest.hex()} {CONSISTENT[event.consistent]}"))
    show.out().print(show.table(rows))
    return OK


def _fields(number: int, event: Event) -> dict[str, Any]:
    return {
        "event": number,
        "offset": event.offset,
        "mr_index": event.mr_index,
        "rtmr": event.rtmr,
        "extended": event.extended,
        "type": event.type,
        "type_name": event.type_name,
        "description": event.description,
        "digest": event.digest.hex(),
        "digest_of_data": event.consistent,
        "data": event.data.hex(),
    }


def _replay(given: argparse.Namespace) -> int:
    events = read_log(given.log)
    values = [value.hex() for value in eventlog.replay(events)]
    if given.json:
        print(json.dumps({"rtmr": values}, indent=2))
        return OK
    counts = [sum(each.extended and each.rtmr == index for each in events) for index in range(RTMR_COUNT)]
    rows = [("register", "events", "value")]
    rows += [(f"RTMR[{index}]", str(counts[index]), value) for index, value in enumerate(values)]
    show.out().print(show.table(rows))
    return OK


def _verify(given: argparse.Namespace) -> int:
    files = list(_files(given))
    if given.against is None and not files:
        raise UsageError("verify needs --against, --kernel, --initrd or --cmdline")
    if given.rtmr and given.against is None:
        raise UsageError("--rtmr needs --against")
    events = read_log(given.log)
    found = list(log_verify.own_data(events))
    source = ""
    if given.against is not None:
        stated = read_evidence(given.against)
        source = stated.registers.source
        numbers = sorted(set(given.rtmr or range(RTMR_COUNT)))
        found += log_verify.registers(events, stated, numbers, log_files.alternatives(events, files))
    found += log_files.find(events, files)
    if given.kernel is not None:
        found += log_files.entries(events, files[0].data, given.kernel)
    fits = all(each.fits for each in found)
    if given.json:
        values = {"fits": fits, "against": source, "findings": [asdict(each) for each in found]}
        print(json.dumps(values, indent=2))
    else:
        show.out().print(show.table([verdict(each) for each in found], headings=False))
    return OK if fits else FAILED


def verdict(found: Finding) -> tuple[str, str, str]:
    """A finding as a row of a table."""
    return (found.what, "fits" if found.fits else "does not fit", found.text)


def read_evidence(path: Path) -> evidence.Evidence:
    """What a file says of registers. UserError: nothing."""
    try:
        return evidence.parse(read(path, "quote or report"), path)
    except FormatError as error:
        raise UserError(str(error)) from error


def _files(given: argparse.Namespace) -> Iterator[log_files.Given]:
    kernel = b"" if given.kernel is None else read(given.kernel, "kernel")
    initrd = b"" if given.initrd is None else read(given.initrd, "initrd")
    both = log_files.both(kernel, initrd) if kernel and initrd else []
    if given.kernel is not None:
        yield log_files.kernel(kernel, given.kernel, both)
    if given.initrd is not None:
        yield log_files.initrd(initrd, given.initrd, both)
    if given.cmdline is not None:
        yield log_files.command_line(given.cmdline)


WORK = {"show": _show, "replay": _replay, "verify": _verify}


def work(given: argparse.Namespace) -> int:
    """Returns the exit code. Raises UserError."""
    if given.what != "verify" and _verify_options(given):
        raise UsageError(f"{given.what} takes LOG and --json alone")
    return WORK[given.what](given)


def _verify_options(given: argparse.Namespace) -> bool:
    names = ("against", "rtmr", "kernel", "initrd", "cmdline")
    return any(getattr(given, name) is not None for name in names)


COMMAND = Command(
    (
        "tdforge eventlog show /sys/firmware/acpi/tables/data/CCEL",
        "tdforge eventlog verify log --against quote.bin --kernel vmlinuz --cmdline 'console=ttyS0'",
    ),
    add_options,
    work,
)
