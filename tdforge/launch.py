"""How does a command start an image in the emulated TD, and what does the person see meanwhile?"""

import codecs
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.status import Status

from emu.api import EmuError, Report, RunConfig, run
from emu.keyboard import Keyboard
from emu.observe import Observer
from emu.sight.snapshot import Snapshot
from emu.vmm.devices import EPOCH
from tdforge import show
from tdforge.errors import UserError


@dataclass(frozen=True)
class Launch:
    """What the VMM is told; `memory` in bytes. `image_path` names the image and its symbols (.elf)."""

    image: bytes
    image_path: Path
    kernel: bytes | None
    initrd: bytes | None = None
    cmdline: str = ""
    memory: int = 2 << 30
    vcpus: int = 1
    vmm: str = "td-shim"
    script: Path | None = None
    seed: int = 0
    rtc: str = EPOCH.isoformat()
    stdin: bytes | None = None
    until: str = "handoff"
    resumed: tuple[RunConfig, Snapshot] | None = None  # settles all the above but `until`
    skip_count: tuple[str, ...] = ()


def launch(
    wanted: Launch,
    console: Callable[[str], None] | None,
    observer: Observer | None = None,
    save: Path | None = None,
    keyboard: Keyboard | None = None,
) -> Report:
    """Run until the condition or the end; `console` gets the guest's text as it comes, `save` the
    snapshot. UserError.
    """
    elf = wanted.image_path.with_suffix(".elf")
    config = RunConfig(
        image=wanted.image,
        image_name=str(wanted.image_path),
        memory=wanted.memory,
        vcpus=wanted.vcpus,
        vmm=wanted.vmm,
        script=wanted.script,
        seed=wanted.seed,
        rtc=wanted.rtc,
        stdin=wanted.stdin or b"",
        kernel=wanted.kernel,
        initrd=wanted.initrd,
        cmdline=wanted.cmdline,
        until=wanted.until,
        elf=elf if elf.is_file() else None,
        skip_count=wanted.skip_count,
    )
    point = None
    if wanted.resumed:
        config, point = replace(wanted.resumed[0], until=wanted.until), wanted.resumed[1]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with Status("the emulated TD starts", console=show.err()) as status:

        def on_console(data: bytes) -> None:
            if console is not None:
                status.stop()
                console(show.console_text(decoder.decode(data)))

        def on_progress(instructions: int) -> None:
            status.update(f"the emulated TD runs: {instructions / 1e6:,.0f} million instructions")

        try:
            return run(config, on_console, on_progress, observer, point, save, keyboard)
        except EmuError as error:
            raise UserError(str(error)) from error
