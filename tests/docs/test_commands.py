"""Can what the pages tell one to type be typed? Every `tdforge` and `./run` command in README.md and docs is
taken by the command line that it is for. Those of three pages are run,
in test_tutorial.py, test_secure_boot.py and test_from_td_shim.py."""

import re
import shlex
from pathlib import Path

import pytest
from transcript import ROOT

from tdforge import boot, cli

RUN = {ROOT / "docs" / name for name in ("tutorial.md", "secure-boot.md", "from-td-shim.md")}
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").glob("*.md")} - RUN)]
MENTIONS = (
    "tdforge check",
    "tdforge run",
    "tdforge sign",
    "tdforge enroll",
    "tdforge verify",
    "tdforge eventlog",
)  # the command as such
SESSIONS = set(re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE))


def typed(page: Path, program: str) -> list[str]:
    """The commands in blocks and in `code`, without what the shell makes of them; forms like `FILE` stay."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(rf"^(?:\$ | {{4}})?({re.escape(program)} .*)$", text, re.MULTILINE)
    inline = re.findall(rf"`({re.escape(program)} [^`]*)`", text)
    commands = [re.split(r"\s+(?:#|&&|\||>|2>)\s*|;", command)[0] for command in (*lines, *inline)]
    return [command for command in commands if command not in MENTIONS]


def words(command: str) -> list[str]:
    """Its words; what stands in brackets may be left out, and is here; FLOW... is one FLOW."""
    return shlex.split(re.sub(r"\[.*?\]", "", command).replace("...", "").replace("$LINE", "quiet"))[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tdforge_takes_them(page: Path) -> None:
    for command in typed(page, "tdforge"):
        try:
            cli.parser().parse_args(words(command))
        except SystemExit:
            pytest.fail(f"{page.name}: {command}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_exist_and_take_them(page: Path) -> None:
    for program in ("./run", "nox -s"):
        for command in typed(page, program):
            names = words(command)[program.count(" ") :]
            options = [index for index, word in enumerate(names) if word.startswith("-")]
            sessions = names[: options[0]] if options else names
            assert set(sessions) <= SESSIONS, f"{page.name}: {command}"
            if sessions == ["boot"]:
                boot.parser().parse_args([word for word in names[1:] if word != "--"])


def test_commands_are_found() -> None:
    assert len(typed(ROOT / "docs" / "emulator.md", "tdforge")) > 10
    assert "./run boot" in typed(ROOT / "README.md", "./run")
