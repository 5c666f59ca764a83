"""Would the firmware start the file that its image gets? The C core says it, on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from dsl import model
from dsl.capabilities import prelude
from dsl.model import Firmware
from dsl.tree import walk
from formats.units import GIB, MIB
from gen.core import hostlib
from gen.errors import BuildError

TAKES = "executable_extent"
MAPPED = 512 * GIB  # of RAM, as far as a payload has it mapped: docs/decisions/0028
MOST_RELOCATED = GIB  # of an image whose relocations are tried


def check_executables(firmware: Firmware, contents: Mapping[str, tuple[str, bytes]]) -> None:
    """Those that a flow takes as an executable; `contents`: name of a file and bytes, by section. BuildError:
    no machine would start it.
    """
    taken = {
        call.arguments[0].name
        for flow in firmware.flows.values()
        for call in walk(flow.body)
        if isinstance(call, model.Call) and call.callee == TAKES
        if isinstance(call.arguments[0], model.RegionOf)
    }
    for section in firmware.image:
        if section.name in taken and section.name in contents:
            name, data = contents[section.name]
            if found := refusal(data):
                message = (
                    f"{name}: found what ends the boot with `{found}`, expected an ELF64 or PE32+ executable"
                )
                raise BuildError(message, section.span)


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
    error = core.error(status)
    return prelude().errors[error].text if status else ""
