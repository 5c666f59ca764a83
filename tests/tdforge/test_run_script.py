"""Does `run` say in one line what a fresh machine lacks, before it makes anything?"""

import os
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


def call(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python}
    return subprocess.run(
        ["sh", str(checkout / "run"), "tests"], env=environment, capture_output=True, text=True, check=False
    )


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
    assert done.stderr == "run: Python's venv module is missing; install it with: apt install python3-venv\n"
    assert not (checkout / ".nox").exists()
