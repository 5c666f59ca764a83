"""Does `run` say in one line what a fresh machine lacks, before it makes anything?"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "run"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with nothing but the script."""
    shutil.copy(SCRIPT, tmp_path / "run")
    return tmp_path


def call(checkout: Path, python: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python}
    command = ["sh", str(checkout / "run"), *(words or ("tests",))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def fake_python(checkout: Path, body: str) -> str:
    path = checkout / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_no_python(checkout: Path) -> None:
    done = call(checkout, "no-such-python")
    assert done.returncode == 1
    assert done.stderr.startswith("run: no-such-python not found; install it")
    assert done.stderr.count("\n") == 1


def test_an_old_python(checkout: Path) -> None:
    done = call(checkout, fake_python(checkout, "echo"))
    assert done.returncode == 1
    assert done.stderr.endswith("is older than Python 3.11; set PYTHON to a newer one\n")


def test_no_venv_module(checkout: Path) -> None:
    body = 'case "$2" in *ensurepip*) exit 1;; *) echo 3.11;; esac'
    done = call(checkout, fake_python(checkout, body))
    assert done.returncode == 1
    lack = "lacks its venv module; install it (Debian: apt install python3-venv)"
    assert done.stderr == f"run: {checkout / 'python'} {lack}\n"
    assert not (checkout / ".nox").exists()


@pytest.mark.parametrize(("words", "code"), [([], 0), (["-h"], 0), (["--list"], 0), (["--frobnicate"], 2)])
def test_the_usage_names_every_session_and_needs_no_python(
    words: list[str], code: int, checkout: Path
) -> None:
    done = subprocess.run(
        ["sh", str(checkout / "run"), *words],
        env={**os.environ, "PYTHON": "no-such-python"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    sessions = re.findall(
        r"^@nox\.session.*\ndef (\w+)", (SCRIPT.parent / "noxfile.py").read_text(), re.MULTILINE
    )
    assert re.findall(r"^  (\w+) ", done.stdout + done.stderr, re.MULTILINE) == sessions


@pytest.mark.parametrize("words", [["--vcpus", "4"], ["--", "--vcpus", "4"]])
def test_options_go_to_the_session(words: list[str], checkout: Path) -> None:
    """The environment is taken to be there; its Python tells what it was called with."""
    body = 'case "$2" in *base_prefix*) echo made;; *version_info*) echo 3.11;; *) echo "$@";; esac'
    python = fake_python(checkout, body)
    place = checkout / ".nox" / "bootstrap-3.11"
    (place / "bin").mkdir(parents=True)
    shutil.copy(python, place / "bin" / "python")
    version = re.search(r"nox_version=(.*)", SCRIPT.read_text())[1]
    (place / "stamp").write_text(f"{version} made  {place}")
    done = call(checkout, python, "boot", "lint", *words)
    assert done.stdout == "-m nox --session boot lint -- --vcpus 4\n", done.stderr
