"""What does each command do? Thin over dsl, gen and emu; every failure is a UserError of one sentence."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.status import Status

from dsl.diagnostics import Diagnostic
from formats import linux, tdvf
from formats.errors import FormatError
from image.check import check_image
from image.inspect import inspect as inspect_image
from tdforge import show
from tdforge.errors import UserError
from tdforge.flows import SUFFIX, find_flow, short

if TYPE_CHECKING:
    from emu.api import RunConfig
    from emu.keyboard import Keyboard
    from gen.build import BuildResult

OK, FAILED = 0, 1
MAX_INPUT = 1 << 30  # bytes; more than any image, kernel or initrd that a TD below 4 GiB can take


def read(path: Path, what: str) -> bytes:
    """The content of `path`. Raises UserError that calls it `what`."""
    try:
        if path.stat().st_size > MAX_INPUT:
            raise UserError(f"{what} {path} is larger than {MAX_INPUT >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error


def write(path: Path, data: bytes) -> None:
    """Write an output file, making its folder. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_image(path: Path) -> bytes:
    """An image file with TDVF metadata. Raises UserError."""
    data = read(path, "image")
    try:
        tdvf.metadata(data, place=str(path))
    except FormatError as error:
        raise UserError(f"{path} is not a TD image, or is cut short: {error}") from error
    return data


def build(given: argparse.Namespace) -> int:
    """`tdforge build FLOW`."""
    result = build_flow(find_flow(given.flow), given.out)
    if given.json:
        print(read(result.manifest, "manifest").decode(), end="")
    else:
        size = result.image.stat().st_size
        print(f"{short(result.image)}  ({size:,} bytes; facts in {short(result.manifest)})")
    return OK


def build_flow(flow: Path, out: Path) -> "BuildResult":
    """Build `flow` into folder `out`; a spinner on standard error while it lasts. Raises UserError."""
    from dsl.api import CheckFailed
    from gen.build import build as build_image
    from gen.errors import BuildError

    with Status(f"building {flow.stem}", console=show.err()) as status:
        try:
            out.mkdir(parents=True, exist_ok=True)
            return build_image(
                flow, out.absolute(), lambda text: status.update(f"building {flow.stem}: {text}")
            )
        except CheckFailed as error:
            status.stop()
            print_diagnostics(error.diagnostics)
            raise UserError(f"{flow}: {errors(error.diagnostics)}; nothing was built") from error
        except (BuildError, FormatError) as error:
            raise UserError(f"{flow}: {error}") from error
        except OSError as error:
            raise UserError(f"cannot build in {out}: {error.strerror}") from error


def errors(diagnostics: Sequence[Diagnostic]) -> str:
    """How many: "1 error", "3 errors"."""
    return f"{len(diagnostics)} error{'' if len(diagnostics) == 1 else 's'}"


def print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Diagnostics with caret and hint on standard error, in colour on a terminal."""
    for diagnostic in diagnostics:
        print(diagnostic.render(color=sys.stderr.isatty()), file=sys.stderr)


def check(given: argparse.Namespace) -> int:
    """`tdforge check FLOW|IMAGE`: a name that ends in .tdf or is no file is a flow."""
    path = Path(given.subject)
    if path.suffix == SUFFIX or not path.is_file():
        return _check_flow(given)
    return _check_image(path, given.json)


def _check_flow(given: argparse.Namespace) -> int:
    flow = find_flow(given.subject)
    from dsl.api import check_file

    diagnostics = list(check_file(flow).diagnostics)
    if given.json:
        print(json.dumps([diagnostic.render(color=False) for diagnostic in diagnostics], indent=2))
    elif diagnostics:
        print_diagnostics(diagnostics)
        print(f"{flow}: {errors(diagnostics)}", file=sys.stderr)
    else:
        print(f"{flow}: obeys every rule")
    return FAILED if diagnostics else OK


def _check_image(path: Path, as_json: bool) -> int:
    findings = check_image(read(path, "image"), place=str(path))
    if as_json:
        keys = ("code", "place", "found", "expected", "refused_by", "source")
        print(json.dumps([{key: getattr(finding, key) for key in keys} for finding in findings], indent=2))
    elif findings:
        for finding in findings:
            print(f"{finding.code}: {finding.text}", file=sys.stderr)
    else:
        print(f"{path}: keeps every rule of the VMMs it is made for")
    return FAILED if findings else OK


def fmt(given: argparse.Namespace) -> int:
    """`tdforge fmt FLOW...`: every file that can be formatted is, whatever the others hold."""
    from dsl.api import CheckFailed, format_source

    changed = broken = 0
    for flow in [find_flow(name) for name in given.flows]:
        try:
            before = read(flow, "flow").decode()
            after = format_source(before, str(flow))
        except UnicodeDecodeError:
            print(f"{flow}: not UTF-8 text", file=sys.stderr)
            broken += 1
            continue
        except CheckFailed as error:
            print_diagnostics(error.diagnostics)
            broken += 1
            continue
        if after == before:
            continue
        changed += 1
        if not given.check:
            write(flow, after.encode())
        print(f"{flow}: {'is not formatted' if given.check else 'formatted'}")
    if broken:
        raise UserError(f"{broken} of {len(given.flows)} files could not be formatted")
    return FAILED if given.check and changed else OK


def inspect(given: argparse.Namespace) -> int:
    """`tdforge inspect IMAGE`."""
    info = inspect_image(read_image(given.image), place=str(given.image))
    if given.json:
        print(info.to_json(), end="")
        return OK
    console = show.out()
    console.print(show.table(info.rows(), headings=False))
    console.print()
    console.print(show.table(info.section_rows()))
    return OK


def check_payload(image: bytes, kernel: bytes, name: str) -> None:
    """The VMM's look at what it is to load: is it a bzImage, is there a section, does it fit? UserError."""
    sections = tdvf.metadata(image).sections
    payload = next((item for item in sections if item.type == tdvf.SectionType.PAYLOAD), None)
    if payload is None:
        raise UserError("this image has no Payload section, so it takes no --kernel")
    try:
        linux.kernel(kernel, place=name)
    except FormatError as error:
        raise UserError(f"not a Linux bzImage: {error}") from error
    if len(kernel) > payload.memory_size:
        raise UserError(
            f"{name} ({len(kernel):,} bytes) is larger than the image's Payload section "
            f"({payload.memory_size:,} bytes)"
        )


def wanted(given: argparse.Namespace) -> "RunConfig":
    """What the options of `tdforge run` ask for. UserError."""
    image = read_image(given.image)
    kernel = read(given.kernel, "kernel") if given.kernel else None
    if kernel is not None:
        check_payload(image, kernel, str(given.kernel))
    initrd = read(given.initrd, "initrd") if given.initrd else None
    if initrd is not None and kernel is None:
        raise UserError("--initrd needs --kernel")
    from emu.api import RunConfig
    from tdforge.launch import symbols_of
    from tdforge.td import parameters

    return RunConfig(
        image=image,
        image_name=str(given.image),
        elf=symbols_of(given.image),
        kernel=kernel,
        initrd=initrd,
        cmdline=given.cmdline,
        memory=given.memory,
        vcpus=given.vcpus,
        vmm=given.vmm,
        script=given.script,
        seed=given.seed,
        rtc=given.rtc,
        stdin=read(given.stdin, "input") if given.stdin else b"",
        until=given.until,
        max_instructions=given.max_instructions,
        td=parameters(given),
        mrtd_order=given.mrtd_order,
        host_page_size=given.host_page_size,
        map_gpa_retry=given.map_gpa_retry,
    )


@contextmanager
def typing(given: argparse.Namespace) -> Iterator["Keyboard | None"]:
    """The terminal as the guest's keyboard, if there is one and no --stdin."""
    from emu.keyboard import raw_terminal

    if given.stdin or sys.stdin is None or not sys.stdin.isatty():  # None: closed by the caller
        yield None
        return
    with raw_terminal(sys.stdin.fileno()) as keyboard:
        yield keyboard


def run(given: argparse.Namespace) -> int:
    """`tdforge run IMAGE`."""
    from tdforge import sight
    from tdforge.launch import launch

    config, point = sight.resumed(given) if given.resume else (wanted(given), None)
    stream = sys.stderr if given.json else sys.stdout
    with sight.looking(given, Path(config.image_name).name) as look, typing(given) as keyboard:
        report = launch(
            config,
            lambda text: print(text, end="", file=stream, flush=True),
            look.observer,
            point,
            given.save,
            keyboard,
        )
    facts = report.to_json() | look.facts()
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    if not facts["console"].endswith("\n"):
        print(file=stream, flush=True)
    if given.report:
        write(given.report, text.encode())
    if given.event_log:
        write(given.event_log, report.event_log)
    if given.json:
        print(text, end="")
    else:
        summary = show.err()
        summary.print()
        show.print_measurements(summary, facts)
        summary.print()
        show.print_run(summary, facts)
        summary.print(f"\n{show.NOT_REAL}")
    look.show()
    if report.met:
        return OK
    lack = "" if given.kernel else " (no --kernel was given)"
    raise UserError(
        f"--until {given.until} did not come to pass; the run ended with {show.end_line(facts['end'])}{lack}"
    )
