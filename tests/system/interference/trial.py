"""Can two VMMs be told apart by what a flow's payload is shown, and by nothing that a verifier sees?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from vmlinux import vmlinux

from dsl import api
from dsl.model import Firmware, ImageSection
from emu.api import EmuError, RunConfig
from emu.oracle.chosen import Choice, Outcome, run
from emu.oracle.compare import Evidence, differences, is_exempt
from emu.oracle.shown import Range
from emu.oracle.single import Finding
from emu.oracle.witness import Argument
from formats.limits import LEAST_RAM
from formats.registers import RCX, RSI
from formats.units import PAGE
from gen.build import build_model
from gen.errors import BuildError
from interference import given
from interference.choices import BASE, active_choices, obliging_choices, quiet_choices

MIB = 1 << 20
VIRTUAL = 0xFFFFFFFF81000000  # of Linux: __START_KERNEL_map and CONFIG_PHYSICAL_START
MEMORY = LEAST_RAM
MAX_INSTRUCTIONS = 200_000_000
BY_FILES = FILES_BY, FILES_AND_NO_PCI_BY = "qemu", "alioth"  # the VMMs with a fw_cfg device
VMLINUX_BY = "libkrun"  # which adds all low RAM and measures none of it
WINDOW = 16 * MIB  # where distributions link Linux to
LITTLE = 2 * WINDOW  # of RAM, where each page is cleared
TEXT, DATA = bytes(range(1, 256)) * 48, b"data" * 700
VMLINUX = vmlinux([(VIRTUAL, WINDOW, TEXT), (VIRTUAL + 0x5000, WINDOW + 0x5000, DATA)], WINDOW + 0xB53)
FILE_AT = 96 * MIB  # where tests/dsl/flows/elf.tdf takes it as a file
ZEROS = 0x3000
ELF = vmlinux([(VIRTUAL, WINDOW, TEXT)], WINDOW + 0xB53, ZEROS)
GENERATED = "flow"  # the object that differs from flow to flow


@dataclass(frozen=True)
class Built:
    """An image that can be run, and where its log is."""

    config: RunConfig
    log_area: Range | None
    arguments: Mapping[str, Argument]
    window: Range | None = None  # of a vmlinux
    base: Choice = BASE  # the honest VMM
    signed: tuple[RunConfig, ...] = ()  # by Choice.signed, the first of them the one above
    named: bool = False  # a flow names a trust anchor


@dataclass(frozen=True)
class Counterexample:
    """What a flow let a VMM do. `kind`: "interference", or a promise of a single run; `part`: what differs,
    or the promise's words; `other` is None for a single run.
    """

    kind: str
    part: str
    channels: tuple[str, ...]
    one: Choice
    other: Choice | None
    text: str

    @property
    def signature(self) -> tuple[str, ...]:
        """What makes two counterexamples the same fault."""
        return (self.kind, re.sub(r"0x[0-9a-f]+|\d+", "N", self.part), *self.channels)

    def __str__(self) -> str:
        who = ", ".join(self.channels)
        return f"{self.kind}: {self.part}" + (f" | chosen by {who}" if self.other is not None else "")


@dataclass
class Trial:
    """What the runs of one flow came to."""

    runs: int = 0
    handed_over: int = 0
    found: list[Counterexample] = field(default_factory=list)


class Builder:
    """Builds checked flows in one folder, where the C core is compiled once. `kernel`: a bzImage."""

    def __init__(self, folder: Path, kernel: bytes) -> None:
        self.folder, self.kernel = folder, kernel

    def build(self, firmware: Firmware, unchecked: bool = False) -> Built | None:
        """None if no image comes of the flow: its code or stack is too large, say. `unchecked`: without the
        checks of the running firmware on what a step fills.
        """
        if unchecked:
            primitives = {name: replace(p, spans=()) for name, p in firmware.primitives.items()}
            firmware = replace(firmware, primitives=primitives)
        try:
            chosen = given.executable_file(firmware, self.folder)
            result = build_model(replace(firmware, name="x"), self.folder, payload=chosen)
        except (api.CheckFailed, BuildError):
            return None
        finally:
            for path in (self.folder / ".objects").glob(f"{GENERATED}-*"):
                path.unlink()
        places = {s.name: (s.address, s.size) for s in firmware.image if s.address and s.size}
        vmlinux, file = lies_at(firmware, WINDOW), lies_at(firmware, FILE_AT)
        vmm = files_by(firmware) or (VMLINUX_BY if vmlinux else RunConfig.vmm)
        little = vmm == VMLINUX_BY and sum(places["payload"]) < LITTLE
        config = RunConfig(
            result.image.read_bytes(),
            "x.bin",
            vmm=vmm,
            memory=LITTLE if little else MEMORY,
            vcpus=2,
            kernel=self._kernel(firmware, vmm),
            max_instructions=MAX_INSTRUCTIONS,
        )
        arguments = arguments_of(result.map.read_text())
        window = places.get("payload") if vmlinux else (WINDOW, len(TEXT) + ZEROS) if file else None
        # An initrd would have to be signed, too; an executable has none.
        alone = given.wants_signed(firmware) or given.starts_executable(firmware)
        base = replace(BASE, initrd=0) if alone else BASE
        built = Built(config, places.get("event_log"), arguments, window, base)
        anchors = places.get(given.ANCHORS)
        if not given.wants_signed(firmware) or anchors is None or config.kernel is None:
            return built
        signed = [
            replace(config, image=given.enrolled(config.image, key, *anchors), kernel=file)
            for key, file in given.signed(config.kernel)
        ]
        named = "trust_anchor(" in firmware.source
        return replace(built, config=signed[0], signed=tuple(signed), named=named)

    def _kernel(self, firmware: Firmware, vmm: str) -> bytes | None:
        """What the VMM has to give."""
        if vmm not in BY_FILES and not any(by_vmm(section) for section in firmware.image):
            return None
        if lies_at(firmware, WINDOW):
            return VMLINUX
        if lies_at(firmware, FILE_AT):
            return ELF
        if given.starts_executable(firmware):
            return given.executable(firmware)
        least = PAGE if vmm == FILES_AND_NO_PCI_BY else 0  # bytes that it wants of a kernel
        return self.kernel.ljust(least, b"\0")


def by_vmm(section: ImageSection) -> bool:
    """Whether it is a Payload section that the VMM fills."""
    return section.kind == "Payload" and not section.built_in


def files_by(firmware: Firmware) -> str:
    """The VMM for an image to which kernel and command line do not come in sections; empty for others."""
    if any(section.kind == "Payload" or section.chosen for section in firmware.image):
        return ""
    return FILES_AND_NO_PCI_BY if re.search(r"\bacpi_power\(", firmware.source) else FILES_BY


def lies_at(firmware: Firmware, address: int) -> bool:
    """Whether the Payload section does. At `WINDOW`, a kernel lies where it is linked to."""
    return any(s.kind == "Payload" and s.address == address for s in firmware.image)


def arguments_of(link_map: str) -> dict[str, Argument]:
    """Where the C core is given what becomes a part of the hand-over: zero_page.c, place.c, elf.c."""
    found = {}
    for part, (function, register) in {
        "command line": ("zero_page", RCX),
        "initrd": ("place_(?:linux|elf)", RSI),
    }.items():
        if place := re.search(rf"^ *([0-9a-f]+) .* {function}$", link_map, re.M):
            found[part] = Argument(int(place[1], 16), register)
    return found


def outcomes(built: Built, choices: Iterable[Choice]) -> Iterator[Outcome]:
    """A run for each VMM; one that cannot launch this TD at all is left out."""
    for choice in choices:
        config = built.signed[choice.signed % len(built.signed)] if built.signed else built.config
        try:
            outcome = run(config, choice, built.log_area, built.arguments, built.window)
        except EmuError:
            continue
        unsigned = choice.kernel or (built.signed and choice.signed % len(built.signed) in given.UNSIGNED)
        if built.named and unsigned and outcome.shown is not None:
            found = Finding("unsigned", "what was handed over is not signed with the anchor's key")
            outcome = replace(outcome, findings=(*outcome.findings, found))
        yield outcome


def told_apart(one: Outcome, other: Outcome) -> list[tuple[str, str]]:
    """Parts that differ without a trace, with both values as text."""
    if one.shown is None or other.shown is None or one.evidence != other.evidence:
        return []
    return [(d.part, d.text()) for d in differences(one.shown, other.shown)]


def smallest(built: Built, one: Outcome, other: Outcome, part: str) -> Outcome:
    """An outcome that still differs from `one` in the part, with as few other choices as can be."""
    best = other
    for name in sorted(one.choice.channels(other.choice)):
        choice = replace(best.choice, **{name: getattr(one.choice, name)})
        if choice == one.choice:
            continue
        for outcome in outcomes(built, (choice,)):
            if any(p == part for p, _ in told_apart(one, outcome)):
                best = outcome
    return best


def judged(built: Built, all_: Iterable[Outcome]) -> list[Counterexample]:
    """Every counterexample that the outcomes hold, one for each signature."""
    found: dict[tuple[str, ...], Counterexample] = {}
    firsts: dict[Evidence, Outcome] = {}
    for outcome in all_:
        for finding in outcome.findings:
            one = Counterexample(finding.kind, finding.text, (), outcome.choice, None, finding.text)
            found.setdefault(one.signature[:1], one)
        if outcome.shown is None:
            continue
        first = firsts.setdefault(outcome.evidence, outcome)
        for part, _ in told_apart(first, outcome):
            if ("interference", part) in found:
                continue
            other = smallest(built, first, outcome, part)
            channels = first.choice.channels(other.choice)
            if is_exempt(channels, part):
                continue
            text = next((t for p, t in told_apart(first, other) if p == part), "")
            found["interference", part] = Counterexample(
                "interference", part, tuple(sorted(channels)), first.choice, other.choice, text
            )
            break  # what follows from it differs too
    return list(found.values())


def tried(built: Built, text: str, random: Random, quick: bool = False) -> Trial:
    """Runs a flow under many VMMs, a third as many if `quick`, and judges what they were shown."""
    all_ = list(outcomes(built, (built.base,)))
    if all_ and all_[0].shown is None:  # perhaps it wants something of the VMM
        for outcome in outcomes(built, obliging_choices(random, text, all_[0])):
            all_.append(outcome)
            if outcome.shown is not None:
                break
    if not all_ or all_[-1].shown is None:
        return Trial(len(all_), 0, judged(built, all_))
    first = all_[-1]
    by_files = built.config.vmm in (FILES_BY, FILES_AND_NO_PCI_BY)
    rest = [*quiet_choices(random, first.choice, by_files), *active_choices(random, text, first)]
    if quick:
        rest = random.sample(rest, len(rest) // 3)
    if built.config.vmm == VMLINUX_BY:
        rest.append(replace(first.choice, removed=1))
    all_ += outcomes(built, rest)
    return Trial(len(all_), sum(o.shown is not None for o in all_), judged(built, all_))


def still(built: Built, example: Counterexample) -> bool:
    """Whether an image still lets the VMM do the same."""
    pair = list(outcomes(built, (example.one,) if example.other is None else (example.one, example.other)))
    if example.other is None:
        return any(f.kind == example.kind for o in pair for f in o.findings)
    return len(pair) == 2 and any(part == example.part for part, _ in told_apart(*pair))


Accept = Callable[[str], Firmware | None]
Build = Callable[[Firmware], Built | None]
