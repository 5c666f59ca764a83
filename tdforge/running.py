"""How does a command run an image in the emulated TD, and what does the person see meanwhile?"""

import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.status import Status

from emu.api import EmuError, Report, RunConfig, run
from emu.keyboard import Keyboard, raw_terminal
from emu.observe import Observer
from emu.snapshot.file import Snapshot
from tdforge import show
from tdforge.errors import UserError


def symbols_of(image: Path) -> Path | None:
    """The ELF file that lies beside an image, if there is one."""
    elf = image.with_suffix(".elf")
    return elf if elf.is_file() else None


@contextmanager
def typed_keys(wanted: bool) -> Iterator[Keyboard | None]:
    """The terminal as the guest's keyboard, if there is one and `wanted`."""
    if not wanted or sys.stdin is None or not sys.stdin.isatty():  # None: closed by the caller
        yield None
        return
    with raw_terminal(sys.stdin.fileno()) as keyboard:
        yield keyboard


def run_td(
    config: RunConfig,
    console: Callable[[str], None] | None,
    observer: Observer | None = None,
    resume: Snapshot | None = None,
    save: Path | None = None,
    keyboard: Keyboard | None = None,
) -> Report:
    """Run until the condition or the end, from the start or from a snapshot; `console` gets the guest's text
    as it comes, `save` the snapshot. UserError.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    fit = show.Terminal().fit if keyboard else show.console_text
    said = ""  # since the last progress report
    ended_line = True
    with Status("the emulated TD starts", console=show.err()) as status:

        def on_console(data: bytes) -> None:
            nonlocal said, ended_line
            if console is None:
                return
            text = fit(decoder.decode(data))
            if text:
                status.stop()
                console(text)
                said, ended_line = said + text, text.endswith("\n")

        def on_progress(instructions: int) -> None:
            nonlocal said
            status.update(f"the emulated TD runs: {instructions / 1e6:,.0f} million instructions")
            if ended_line and not said and not keyboard:
                status.start()  # again, when the guest is silent
            said = ""

        try:
            return run(config, on_console, on_progress, observer, resume, save, keyboard)
        except EmuError as error:
            raise UserError(str(error)) from error
