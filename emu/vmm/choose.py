"""Whose VMM launches the TD? The preset and the policy behind the name that `--vmm` takes."""

from __future__ import annotations

from emu.signals import EmuError
from emu.vmm.hostile.fw_cfg import HostileFwCfg
from emu.vmm.hostile.policy import Hostile
from emu.vmm.policy import Policy
from emu.vmm.presets import PRESETS, RENAMED, TAKE_SECTION, Preset

HOSTILE, HOSTILE_FW_CFG = "hostile", "hostile-fw_cfg"
FORMS = f"{HOSTILE}:SEED, {HOSTILE}:SEED:PRESET or {HOSTILE_FW_CFG}:SEED"
Q35 = PRESETS["qemu"]


def parse(vmm: str) -> tuple[Preset, Policy]:
    """A preset's name, or a hostile one by its seed (FORMS). Without a preset, the seed chooses one that
    takes a bzImage in a section. EmuError.
    """
    kind, _, rest = vmm.partition(":")
    if kind not in (HOSTILE, HOSTILE_FW_CFG):
        return _preset(vmm, f"expected one of {', '.join(PRESETS)}, or {FORMS}"), Policy()

    seed, separator, name = rest.partition(":")
    form = f"expected {FORMS}, SEED a whole number"
    if not (seed.isascii() and seed.isdigit()) or (kind == HOSTILE_FW_CFG and separator):
        raise EmuError(f"vmm {vmm!r}: {form}")
    number = int(seed)
    if kind == HOSTILE_FW_CFG:
        return Q35, HostileFwCfg(number)
    chosen = _preset(name or TAKE_SECTION[number % len(TAKE_SECTION)], form)
    return chosen, Hostile(number)


def _preset(name: str, expected: str) -> Preset:
    if name in RENAMED:
        raise EmuError(f"vmm {name!r}: it is called {RENAMED[name]} now")
    if name not in PRESETS:
        raise EmuError(f"vmm {name!r}: {expected}")
    return PRESETS[name]
