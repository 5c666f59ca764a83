"""What does a caller need to run an image? RunConfig in, Report out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emu.config import RunConfig
from emu.keyboard import Keyboard
from emu.machine import Machine, create
from emu.observe import Observer
from emu.report import Report, report
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.snapshot.file import Snapshot
from emu.symbols import read
from emu.tdx.params import TdParams
from emu.vmm import choose, loader
from emu.vmm.policy import Policy
from emu.vmm.script import Script

__all__ = ["EmuError", "Machine", "Report", "RunConfig", "TdParams", "prepare", "report", "run"]


def prepare(
    config: RunConfig, console: Callable[[bytes], None] | None = None, policy: Policy | None = None
) -> Machine:
    """The launched TD of a configuration, before its first instruction. `policy` replaces that of the VMM."""
    config.check()
    preset, honest_or_hostile = choose.parse(config.vmm)
    policy = policy or honest_or_hostile
    if config.script:
        policy = Script(config.script, policy)
    launch = policy.launch(loader.prepare(config, preset))
    return create(config, launch, policy.params(config.params), policy, read(config.elf), console)


def run(
    config: RunConfig,
    console: Callable[[bytes], None] | None = None,
    progress: Callable[[int], None] | None = None,
    observer: Observer | None = None,
    resume: Snapshot | None = None,
    save: Path | None = None,
    keyboard: Keyboard | None = None,
) -> Report:
    """Runs an image until its end, or on from a snapshot. `console` gets the guest's output, `progress` the
    instruction count now and then, `save` the snapshot of a run that met its end condition. EmuError: a
    user's mistake, in one line.
    """
    if save:
        snapshot.check(config)
    machine = prepare(config, console)
    try:
        if resume:
            snapshot.restore(machine, resume)
        machine.keyboard = keyboard
        if observer:
            machine.observe(observer)
        ending = machine.run(config.max_instructions, progress)
        if save and ending.meets(machine.console.until):
            snapshot.write(save, config, snapshot.save(machine))
        return report(machine, ending)
    finally:
        machine.close()
