"""Would the firmware start the file that its image gets? The C core says it, on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from dsl import model
from dsl.model import Firmware
from dsl.tree import walk
from formats.units import GIB, MIB
from gen.core import hostlib
from gen.errors import BuildError

EXECUTABLE, SIGNED = "executable_extent", "signed_payload"
MAPPED = 512 * GIB  # of RAM, as far as a payload has it mapped: docs/decisions/0028
MOST_RELOCATED = GIB  # of an image whose relocations are tried


def check_payloads(firmware: Firmware, contents: Mapping[str, tuple[str, bytes]]) -> None:
    """Those that a flow takes as an executable, or as signed, by the section's name or a `let` of it;
    `contents`: name of a file and bytes, by section. BuildError: no machine would start it.
    """
    for callee, (refused, expected) in {
        EXECUTABLE: (refusal, "an ELF64 or PE32+ executable"),
        SIGNED: (not_signed, "a signed payload"),
    }.items():
        taken = _taken(firmware, callee)
        for section in firmware.image:
            if section.name in taken and section.name in contents:
                name, data = contents[section.name]
                if found := refused(data):
                    message = f"{name}: found what ends the boot with `{found}`, expected {expected}"
                    raise BuildError(message, section.span)


def _taken(firmware: Firmware, callee: str) -> set[str]:
    """The sections that a call of `callee` names."""
    taken = set()
    for flow in firmware.flows.values():
        bound = {node.variable.id: node.value for node in walk(flow.body) if isinstance(node, model.Let)}
        for call in walk(flow.body):
            if isinstance(call, model.Call) and call.callee == callee:
                given: model.Expression | None = call.arguments[0]
                while isinstance(given, model.Variable):
                    given = bound.get(given.id)
                if isinstance(given, model.RegionOf):
                    taken.add(given.name)
    return taken


def not_signed(file: bytes) -> str:
    """The error that ends its boot before any signature is looked at; empty if it is a signed payload."""
    core = hostlib.load()
    return core.text(core.lib.signed_payload(core.span(file), core.new("span")))


def refusal(file: bytes) -> str:
    """The error that ends its boot, wherever there is RAM; empty if it starts."""
    core = hostlib.load()
    given, extent, placed, ram = core.span(file), core.new("span"), core.new("executable"), core.new("ram")
    free = ram.ranges.items[0]
    free.start, free.end, free.e820, ram.ranges.count = MIB, MAPPED, 1, 1
    status = core.lib.executable_extent(given, extent) or core.lib.place_executable(extent, ram, placed)
    if not status and placed.size <= MOST_RELOCATED:
        image = core.guarded(placed.size)
        status = core.lib.relocate_executable(core.span(image.address, image.size), placed)
    return core.text(status)
