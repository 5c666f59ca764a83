"""Whose VMM launches the TD? The preset and the policy behind the name that `--vmm` takes."""

from __future__ import annotations

from emu.signals import EmuError
from emu.vmm.hostile.policy import Hostile
from emu.vmm.policy import Policy
from emu.vmm.presets import PRESETS, Preset

HOSTILE = "hostile"


def parse(vmm: str) -> tuple[Preset, Policy]:
    """A preset's name, or hostile:SEED or hostile:SEED:PRESET. EmuError."""
    kind, _, rest = vmm.partition(":")
    if kind != HOSTILE:
        if vmm not in PRESETS:
            names = ", ".join(PRESETS)
            raise EmuError(f"vmm {vmm!r}: expected one of {names}, or {HOSTILE}:SEED, {HOSTILE}:SEED:PRESET")
        return PRESETS[vmm], Policy()

    seed, _, name = rest.partition(":")
    if not (seed.isascii() and seed.isdigit()) or (name and name not in PRESETS):
        raise EmuError(f"vmm {vmm!r}: expected {HOSTILE}:SEED or {HOSTILE}:SEED:PRESET, SEED a whole number")
    number = int(seed)
    preset = PRESETS[name] if name else tuple(PRESETS.values())[number % len(PRESETS)]
    return preset, Hostile(number)
