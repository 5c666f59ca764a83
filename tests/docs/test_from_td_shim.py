"""Does docs/from-td-shim.md tell the truth? Every command is run in its order, every output compared."""

import shlex
import subprocess
from pathlib import Path

import pytest
from debian import tool
from transcript import ROOT, Reader, blocks, steps

from tdforge.cli import main


def test_every_command_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: a dozen new ones would take as long as what they do."""
    for name in ("dsl", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    reader, commands = Reader(), 0
    page = (ROOT / "docs" / "from-td-shim.md").read_text()
    for step in (step for block in blocks(page) if block.kind == "console" for step in steps(block)):
        words = shlex.split(step.command)
        if words[0] == "openssl":
            subprocess.run([*tool("openssl", "openssl"), *words[1:]], check=True, capture_output=True)
        elif words[0] == "tdforge":
            main(words[1:])
        commands += 1
        said = "".join(capsys.readouterr()).replace("\r", "").replace(f"{ROOT}/", "").splitlines()
        lack = reader.missing(step.expected, said)
        assert lack is None, f"$ {step.command}\nlacks: {lack}\nsaid:\n" + "\n".join(said)
    assert commands > 10
