"""Does `run` say in one line what a fresh machine lacks, before it makes anything?"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tdforge.checkout import own
from tdforge.errors import UserError

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


@pytest.mark.parametrize(
    "script", re.findall(r'"(tests/\w+/\w+\.py)"', (SCRIPT.parent / "noxfile.py").read_text())
)
def test_a_campaigns_script_runs_by_itself(script: str) -> None:
    """As its session starts it: Python's path has no folder of pytest's."""
    done = subprocess.run(
        [sys.executable, SCRIPT.parent / script, "--help"],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ./run ")


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


def test_nothing_is_made_behind_a_link_out_of_the_checkout(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A `.nox` copied with its link, or made by hand: what it leads to belongs to somebody else."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (checkout / ".nox").symlink_to(elsewhere)
    done = call(checkout, fake_python(checkout, "echo 3.11"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"run: {checkout}/.nox is a link to {elsewhere}; environments are only")
    assert done.stderr.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("link", [".nox", ".nox/env-3.11"])
def test_an_environment_lies_in_the_checkout(link: str, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / ".nox").mkdir(parents=True)
    place = root / ".nox" / "env-3.11"
    assert own(root, place) == place
    if link == ".nox":
        (root / ".nox").rmdir()
    (root / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{link} is a link to {tmp_path}/elsewhere; .* remove the link"):
        own(root, place)


def test_a_checkout_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / ".nox").mkdir(parents=True)
    (tmp_path / "name").symlink_to(tmp_path / "real")
    place = tmp_path / "name" / ".nox" / "env-3.11"
    assert own(tmp_path / "name", place) == place


def test_every_commit_is_checked_before_it_is_made() -> None:
    """pre-commit runs a hook for the types of files it names, or always."""
    hook = (SCRIPT.parent / ".pre-commit-config.yaml").read_text()
    assert re.search(r"^ *always_run: true\b", hook, re.MULTILINE)
    assert not re.search(r"^ *(types|types_or|files|exclude):", hook, re.MULTILINE)


def test_the_licence_is_said_as_setuptools_of_2027_still_takes_it() -> None:
    """A table ends working in February 2027; an SPDX expression needs setuptools 77, PEP 639."""
    facts = tomllib.loads((SCRIPT.parent / "pyproject.toml").read_text())
    assert facts["project"]["license"] == "BSD-2-Clause-Patent"
    assert [(SCRIPT.parent / name).is_file() for name in facts["project"]["license-files"]] == [True]
    (setuptools,) = facts["build-system"]["requires"]
    assert int(setuptools.removeprefix("setuptools>=")) >= 77
