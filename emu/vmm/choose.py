"""Whose VMM launches the TD? The preset and the policy behind the name that `--vmm` takes."""

from __future__ import annotations

from emu.signals import EmuError
from emu.vmm.hostile.policy import Hostile
from emu.vmm.policy import Policy
from emu.vmm.presets import PRESETS, RENAMED, TAKE_SECTION, Preset

HOSTILE = "hostile"


def parse(vmm: str) -> tuple[Preset, Policy]:
    """A preset's name, or hostile:SEED or hostile:SEED:PRESET. Without a preset, the seed chooses one that
    takes a bzImage in a section. EmuError.
    """
    kind, _, rest = vmm.partition(":")
    if kind != HOSTILE:
        return _preset(
            vmm, f"expected one of {', '.join(PRESETS)}, or {HOSTILE}:SEED, {HOSTILE}:SEED:PRESET"
        ), Policy()

    seed, _, name = rest.partition(":")
    form = f"expected {HOSTILE}:SEED or {HOSTILE}:SEED:PRESET, SEED a whole number"
    if not (seed.isascii() and seed.isdigit()):
        raise EmuError(f"vmm {vmm!r}: {form}")
    number = int(seed)
    chosen = _preset(name or TAKE_SECTION[number % len(TAKE_SECTION)], form)
    return chosen, Hostile(number)


def _preset(name: str, expected: str) -> Preset:
    if name in RENAMED:
        raise EmuError(f"vmm {name!r}: it is called {RENAMED[name]} now")
    if name not in PRESETS:
        raise EmuError(f"vmm {name!r}: {expected}")
    return PRESETS[name]
