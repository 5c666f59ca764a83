"""Is this flow file a firmware? Runs the passes in order: declarations, layout, flows, then the trust
rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsl import model, rules, tree
from dsl.capabilities import names_for
from dsl.declare import LAYOUT, declare
from dsl.diagnostics import Reporter
from dsl.layout import Layout, shown
from dsl.lower import lower_flow
from dsl.lower_sugar import DEFAULT_LEVEL
from dsl.model import Never, RecordRef, Span
from dsl.parse import parse
from dsl.scope import TAKEN, Program, signature
from dsl.tree import walk
from formats.limits import VMLINUX_INITRD, VMLINUX_INITRD_END, VMLINUX_LINE
from formats.units import MIB, PAGE

ENTRY = "boot"
Release = tree.Version | tree.Svn | tree.LogLevel | tree.WithoutTdx
HOB_WITHOUT_TDX = 16 * 1024  # its last page takes what fw_cfg says (gen/boot/ordinary.py)
# What enters a kernel by way of code of its host's, and where that leads the kernel
LED = "place_vmlinux"
LED_TO = ((VMLINUX_LINE, VMLINUX_LINE + PAGE), (VMLINUX_INITRD, VMLINUX_INITRD_END))
INFO_VERSION = (0xFF, 0xFF, 0xFFFF)  # the most that TD_INFO can say: formats/described.py
OF_IMAGE = "image_memory"  # takes its list of memory from the sections
_WORDS = {tree.LogLevel: "log level", tree.WithoutTdx: "runs without TDX"}
MAX_NUMBER = (1 << 32) - 1  # of a version's part and an svn: 32 bits for whoever reads the manifest


def check_text(
    text: str, path: str, reporter: Reporter, disabled: frozenset[str] = frozenset()
) -> model.Firmware | None:
    """The model of `text`, or None if `reporter` has errors afterwards. `disabled`: see dsl.rules.check."""
    file = parse(text, path, reporter)
    names = names_for(file, reporter)
    declare(file.declarations, names, reporter, prelude=False)
    # Where a line is left out, nothing says what the firmware lacks.
    of_firmware = reporter if file.complete else Reporter(text)
    layout = Layout(names, of_firmware)
    firmware = _firmware(file, of_firmware, path, layout)
    flows: list[tree.Flow] = []
    for flow in (d for d in file.declarations if isinstance(d, tree.Flow)):
        names.claim(flow.name, reporter)
        if all(flow.name.text != other.name.text for other in flows):
            flows.append(flow)
        if flow.name.text in TAKEN:
            reporter.error("N02", flow.name.span, f"`{flow.name.text}` is a keyword")
    version = _item(firmware, tree.Version, (0, 0, 0))
    svn = _item(firmware, tree.Svn, 0)
    release = dict(zip(("major", "minor", "patch", "svn"), (*version, svn), strict=True))
    signatures = {f.name.text: signature(f, names, reporter) for f in flows}
    program = Program(
        names=names,
        reporter=reporter,
        sections={s.name: s for s in layout.sections},
        regions={r.name: r for r in layout.regions},
        signatures=signatures,
        release=release,
        log_level=_item(firmware, tree.LogLevel, DEFAULT_LEVEL),
        lost=file.lost,
    )
    _entry(flows, program, path)
    _led_to(flows, layout, of_firmware)
    _of_image(flows, layout, of_firmware)
    _release_of_td_info(firmware, layout, of_firmware)
    recursive = _recursion(flows, program)
    lowered = {f.name.text: lower_flow(f, signatures[f.name.text], program) for f in flows}
    worst = 0
    if not recursive and file.complete:  # of what was left out, nothing is known
        worst = rules.check(program, lowered, ENTRY, disabled)
    if len(reporter) or firmware is None:
        return None
    return model.Firmware(
        name=firmware.name.text,
        version=version,
        svn=svn,
        without_tdx=_item(firmware, tree.WithoutTdx, False),
        image=tuple(layout.sections),
        memory=tuple(layout.regions),
        records=names.records,
        enumerations=names.enumerations,
        errors=tuple(sorted(names.errors.values(), key=lambda e: e.number)),
        constants=names.constants,
        primitives=names.primitives,
        flows=lowered,
        states=tuple((s, r) for s, r in names.states.items() if s != LAYOUT),
        event_log_worst_case=worst,
        path=path,
        source=text,
    )


def _firmware(file: tree.File, reporter: Reporter, path: str, layout: Layout) -> tree.Firmware | None:
    found = [d for d in file.declarations if isinstance(d, tree.Firmware)]
    if not found:
        if not len(reporter):
            start = Span(path, 1, 1, 1, 2)
            reporter.error("E05", start, "the file declares no firmware", "begin it with `firmware NAME { }`")
        return None
    for extra in found[1:]:
        first = f"`{found[0].name.text}` in line {found[0].name.span.line}"
        reporter.error("E05", extra.name.span, f"a second firmware, {first} is the first")
    firmware = found[0]
    seen: dict[type, int] = {}
    for item in firmware.items:
        word = _WORDS.get(type(item)) or type(item).__name__.lower()
        if type(item) in seen:
            reporter.error("E05", item.span, f"`{word}` is declared twice, first in line {seen[type(item)]}")
        seen.setdefault(type(item), item.span.line)
        if isinstance(item, tree.Version) and max(item.value) > MAX_NUMBER:
            reporter.error("E06", item.span, f"a part of a version is at most {MAX_NUMBER}")
        if isinstance(item, tree.Svn) and item.value > MAX_NUMBER:
            reporter.error("E06", item.span, f"an svn is at most {MAX_NUMBER}")
        if isinstance(item, tree.Image):
            layout.image(item)
        elif isinstance(item, tree.Memory):
            layout.memory(item)
    if tree.WithoutTdx in seen and not any(
        s.kind == "TD_HOB" and s.access == "rw" and (s.size or 0) >= HOB_WITHOUT_TDX for s in layout.sections
    ):
        item = next(i for i in firmware.items if isinstance(i, tree.WithoutTdx))
        least = HOB_WITHOUT_TDX // 1024
        message = f"without TDX, the memory map goes to a writable TD_HOB section of at least {least} KiB"
        reporter.error("E05", item.span, message, f"declare one: `hob TD_HOB {least} KiB`")
    for kind, example in ((tree.Version, "version 1.0.0"), (tree.Image, "image below 4 GiB { }")):
        if kind not in seen:
            message = f"firmware `{firmware.name.text}` has no `{kind.__name__.lower()}`"
            reporter.error("E05", firmware.name.span, message, f"add `{example}`")
    return firmware


def _item(firmware: tree.Firmware | None, kind: type[Release], default: Any) -> Any:
    """The value of that item of the firmware."""
    items = firmware.items if firmware is not None else ()
    return next((i.value for i in items if isinstance(i, kind)), default)


def _entry(flows: list[tree.Flow], program: Program, path: str) -> None:
    report = program.reporter.error
    boot = next((f for f in flows if f.name.text == ENTRY), None)
    if boot is None:
        if not len(program.reporter):
            message = "the file has no flow `boot`"
            report("E05", Span(path, 1, 1, 1, 2), message, "add `flow boot(td: VpInfo) -> never { }`")
        return
    known = program.signatures[ENTRY]
    takes_td = [p.type for p in known.parameters] == [RecordRef("VpInfo")]
    if not takes_td or not isinstance(known.result, Never):
        report(
            "E05",
            boot.name.span,
            "the reset code calls `boot` once, with the result of TDG.VP.INFO",
            "declare it `flow boot(td: VpInfo) -> never`",
        )
    if not known.fatal:
        report(
            "T08",
            boot.name.span,
            "`boot` does not say how errors are handled",
            "begin it with `on error fatal`",
        )
        program.signatures[ENTRY] = replace(known, fatal=True)  # said once


def _led_to(flows: list[tree.Flow], layout: Layout, reporter: Reporter) -> None:
    """T06: a host's code in front of a vmlinux finds only what is handed over, or cleared."""
    calls = [n for f in flows for n in walk(f.body) if isinstance(n, tree.Call) and n.callee.text == LED]
    for start, end in LED_TO if calls else ():
        missing = layout.not_cleared(start, end)
        if missing is not None:
            place = f"[{shown(missing[0])}, {shown(missing[1])})"
            message = (
                f"a host's code in front of a vmlinux may lead the kernel to {place}, which nothing clears"
            )
            hint = f"declare a section there that is `ram` to the OS, `at {shown(missing[0])}`"
            reporter.error("T06", calls[0].callee.span, message, hint)


def _of_image(flows: list[tree.Flow], layout: Layout, reporter: Reporter) -> None:
    """T06: memory that the image describes itself. For Linux all of the first MiB: what is no RAM there it
    maps shared with the VMM, and believes it."""
    nodes = [n for f in flows for n in walk(f.body)]
    calls = [n for n in nodes if isinstance(n, tree.Call) and n.callee.text == OF_IMAGE]
    linux = any(isinstance(n, tree.Handoff) and n.call.callee.text == "linux" for n in nodes)
    ram = [(s.address or 0, s.size or 0) for s in layout.sections if s.kind == "PermMem"]
    if calls and not ram:
        message = f"`{OF_IMAGE}` finds no RAM: the image has no PermMem section"
        hint = "declare one: `main PermMem 64 MiB at 0x0200_0000`"
        reporter.error("T06", calls[0].callee.span, message, hint)
    elif calls and linux:
        end = 0
        for start, size in sorted(ram):
            end = max(end, start + size) if start <= end else end
        if end < MIB:
            message = "Linux looks for tables of a BIOS below 1 MiB, and"
            message = f"{message} {shown(end)} is in no PermMem section"
            hint = "declare one: `low PermMem 1 MiB at 0x0000_0000`"
            reporter.error("T06", calls[0].callee.span, message, hint)


def _release_of_td_info(firmware: tree.Firmware | None, layout: Layout, reporter: Reporter) -> None:
    """E06: the firmware's version, as TD_INFO has it."""
    items = firmware.items if firmware is not None else ()
    version = next((i for i in items if isinstance(i, tree.Version)), None)
    described = any(s.kind == "TD_INFO" for s in layout.sections)
    if described and version and any(p > limit for p, limit in zip(version.value, INFO_VERSION, strict=True)):
        message = "TD_INFO has 8 bits for the first two parts of a version, 16 for the last"
        reporter.error("E06", version.span, message)


def _recursion(flows: list[tree.Flow], program: Program) -> bool:
    """Reports each flow that calls itself, directly or through others."""
    calls: dict[str, list[tree.Call]] = {
        f.name.text: [
            n for n in walk(f.body) if isinstance(n, tree.Call) and n.callee.text in program.signatures
        ]
        for f in flows
    }

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for call in calls.get(start, ()):
            name = call.callee.text
            if name == goal or (name not in seen and reaches(name, goal, seen | {name})):
                return True
        return False

    found = False
    for flow in flows:
        for call in calls[flow.name.text]:
            if call.callee.text == flow.name.text or reaches(call.callee.text, flow.name.text, set()):
                message = f"`{flow.name.text}` calls itself through `{call.callee.text}`"
                hint = "stack depth is proven at build time, so flows do not recurse"
                program.reporter.error("E04", call.callee.span, message, hint)
                found = True
                break
    return found
