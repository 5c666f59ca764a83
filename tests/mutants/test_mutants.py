"""Do the mutants fit the sources, and is there one for each check that must not get lost?"""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsl.rules import RULES
from emu.cpu import engine
from emu.signals import EmuError
from formats.tdx.leaves import Leaf
from gen.core import hostlib
from gen.errors import BuildError
from mutants.__main__ import LEAST, chosen, main, noticed, table
from mutants.catalogue import ROOT, CatalogueError, Mutant, read_catalogue
from mutants.runner import NOT_COMPILED, Copy, Outcome, Result, Stopped

ALL = read_catalogue()
PAGE = ROOT / "docs" / "testing.md"
ROOMS = {"dsl", "gen", "runtime-c", "image", "formats", "emu/tdx", "emu/cpu", "emu/vmm", "tdforge"}


def problem(mutant: Mutant) -> str:
    """Why a mutant cannot be tried, empty if it can."""
    try:
        changed = mutant.applied(ROOT)
        if mutant.path.endswith(".py"):
            compile(changed, mutant.path, "exec")
    except (CatalogueError, SyntaxError) as error:
        return f"{mutant.name}: {error}"
    gone = [word for word in mutant.tests if word.startswith("tests/") and not (ROOT / word).exists()]
    return f"{mutant.name}: no {', '.join(gone)}" if gone else ""


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_mutant_fits_the_sources(room: str) -> None:
    assert [text for mutant in ALL if mutant.room == room and (text := problem(mutant))] == []


def test_every_room_has_some() -> None:
    assert len(ALL) >= 150
    assert {mutant.room for mutant in ALL} == ROOMS


def test_the_page_counts_them() -> None:
    """In docs/testing.md: how many each room has, and how many of them no test can tell."""
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| (\d+) \| (\d+) \| 0 \|$", PAGE.read_text(), re.M)
    assert {room: (int(all_), int(equivalent)) for room, all_, _, equivalent in rows} == {
        room: (len(mine), sum(bool(mutant.equivalent) for mutant in mine))
        for room in ROOMS
        if (mine := [mutant for mutant in ALL if mutant.room == room])
    }
    assert all(int(all_) == int(killed) + int(equivalent) for _, all_, killed, equivalent in rows)


def covered(room: str) -> set[str]:
    return {mutant.covers for mutant in ALL if mutant.room == room and mutant.covers}


def test_each_rule_of_the_compiler_has_one() -> None:
    assert covered("dsl") == set(RULES)


def test_each_finding_of_the_image_checker_has_one() -> None:
    source = "".join((ROOT / "image" / name).read_text() for name in ("check.py", "igvm.py"))
    codes = re.findall(r'(?:Finding\(\s*|code = )"([\w-]+)"(?: if [^\n]* else "([\w-]+)")?', source)
    assert covered("image") == {code for pair in codes for code in pair if code}


def test_each_leaf_has_one() -> None:
    assert covered("emu/tdx") == {leaf.name for leaf in Leaf}


def untouched(path: Path, refusal: str, above: int) -> list[str]:
    """Lines that refuse something, where no mutant changes them or one of the `above` lines before."""
    text = path.read_text()
    touched: set[int] = set()
    for mutant in ALL:
        if ROOT / mutant.path == path:
            before, found = text.partition(mutant.find)[:2]
            first = before.count("\n") + 1
            touched |= set(range(first, first + found.rstrip("\n").count("\n") + 1))
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(refusal, line) and not touched & set(range(number - above, number + 1))
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "runtime-c/src").glob("*.c")), ids=lambda path: path.name)
def test_each_refusal_and_each_bounds_check_of_the_c_core_has_one(path: Path) -> None:
    assert untouched(path, r"return TDF_E_|status = TDF_E_|: TDF_E_", 6) == []
    assert untouched(path, r"(if|return|&&|\|\||!).*tdf_(inside|overlap|read)\(", 0) == []


@pytest.mark.parametrize("name", ["leaves", "metadata", "pages", "launch"])
def test_each_status_of_the_tdx_module_has_one(name: str) -> None:
    assert untouched(ROOT / "emu/tdx" / f"{name}.py", r"return .*status\.(?!SUCCESS$)", 1) == []


# ---- the runner, on a tree of its own

SMALL = Mutant("small", "a is b", "adder.py", "return a + b", "return a - b", ("test_one.py",))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    (tmp_path / "adder.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_one.py").write_text("from adder import add\n\ndef test_it(): assert add(1, 0) == 1\n")
    (tmp_path / "test_all.py").write_text("from adder import add\n\ndef test_it(): assert add(1, 2) == 3\n")
    (tmp_path / "test_bad.py").write_text("def test_it(): assert False\n")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    return Copy(tmp_path, tmp_path / "cache")


def test_a_mutant_survives_or_is_killed_and_the_file_comes_back(copy: Copy) -> None:
    before = (copy.root / "adder.py").read_text()
    killer = dataclasses.replace(SMALL, tests=("test_all.py",))
    same = dataclasses.replace(SMALL, equivalent="nobody looks")
    outcomes = [copy.try_(mutant).outcome for mutant in (SMALL, killer, same)]
    assert outcomes == [Outcome.SURVIVED, Outcome.KILLED, Outcome.EQUIVALENT]
    assert copy.try_(killer).detail == "test_all.py::test_it"
    assert (copy.root / "adder.py").read_text() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"find": "return a * b"}, "a is b: adder.py: found 'return a * b' 0 times, expected once"),
        ({"find": "a"}, "found 'a' 3 times"),
        ({"put": "return a + b"}, "changes nothing"),
        ({"path": "gone.py"}, "a is b: cannot read gone.py"),
        ({"tests": ("test_all.py",), "equivalent": "so they say"}, "is called equivalent, but noticed"),
        ({"tests": ("test_bad.py",)}, "`test_bad.py` fails without the mutant: test_bad.py::test_it"),
        ({"find": "def add", "put": "def sub"}, "the tests do not run"),
    ],
)
def test_a_mutant_that_does_not_fit_is_named(copy: Copy, change: dict[str, str], says: str) -> None:
    with pytest.raises(CatalogueError, match=re.escape(says)):
        copy.try_(dataclasses.replace(SMALL, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("said", NOT_COMPILED)
def test_c_that_does_not_compile_is_no_fault_noticed(copy: Copy, said: str) -> None:
    (copy.root / "adder.c").write_text("return a + b")
    test = f"def test_it(): assert 'a + b' in open('adder.c').read(), '{said}adder.c'\n"
    (copy.root / "test_c.py").write_text(test)
    mutant = dataclasses.replace(SMALL, path="adder.c", tests=("test_c.py",))
    with pytest.raises(CatalogueError, match="the tests do not run"):
        copy.try_(mutant)


def test_what_is_said_of_c_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/one.c").write_text("int f(\n")
    monkeypatch.setattr(hostlib, "SOURCES", tmp_path)
    monkeypatch.setattr(engine, "NATIVE", tmp_path / "src")
    for library, said in zip((lambda: hostlib.library(False), engine.library), NOT_COMPILED, strict=True):
        with pytest.raises((BuildError, EmuError), match=said):
            library()


def test_a_list_that_is_wrong_is_refused(tmp_path: Path) -> None:
    text = 'room = "r"\n[[file]]\npath = "p"\ntests = "t"\n'
    one = '[[file.mutant]]\nname = "n"\nfind = "a"\nput = "b"\n'
    (tmp_path / "a.toml").write_text(text + one)
    assert read_catalogue(tmp_path) == (Mutant("r", "n", "p", "a", "b", ("t",)),)
    (tmp_path / "b.toml").write_text(text + one)
    with pytest.raises(CatalogueError, match="more than one mutant is called n"):
        read_catalogue(tmp_path)
    (tmp_path / "b.toml").write_text(text + one + 'when = "now"\n')
    with pytest.raises(CatalogueError, match="r: n: unknown key when"):
        read_catalogue(tmp_path)


def results(*outcomes: Outcome) -> list[Result]:
    return [Result(SMALL, outcome, "") for outcome in outcomes]


def test_the_score() -> None:
    found = results(*[Outcome.KILLED] * 19, Outcome.SURVIVED, Outcome.EQUIVALENT)
    assert noticed(found) == LEAST
    assert table(found).splitlines()[2:] == ["| `small` | 21 | 19 | 1 | 1 |", "| **all** | 21 | 19 | 1 | 1 |"]


def test_a_subset_by_room_file_or_name() -> None:
    assert {m.room for m in chosen(ALL, ["image"])} == {"image"}
    assert {m.path for m in chosen(ALL, ["image/check.py"])} == {"image/check.py"}
    assert chosen(ALL, [ALL[3].name]) == [ALL[3]]
    with pytest.raises(CatalogueError, match="no room, file or mutant is called nothing"):
        chosen(ALL, ["nothing"])


def test_the_list_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "image"]) == 0
    assert "check: one section\n" in capsys.readouterr().out
    assert main(["nothing"]) == 2


KILLED_ONCE = """
import os, signal
from pathlib import Path
if "b + a" in Path("adder.py").read_text() and not Path("again").exists():
    Path("again").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_tests_that_the_system_kills_are_run_once_more(copy: Copy) -> None:
    (copy.root / "conftest.py").write_text(KILLED_ONCE)
    assert copy.try_(dataclasses.replace(SMALL, put="return b + a")).outcome is Outcome.SURVIVED
    assert (copy.root / "again").exists()


def test_tests_that_are_ended_from_outside_have_noticed_nothing(copy: Copy) -> None:
    before = (copy.root / "adder.py").read_text()
    copy.stop()
    with pytest.raises(Stopped):
        copy.try_(SMALL)
    assert (copy.root / "adder.py").read_text() == before


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.mutants", "--workers", "1", "image/check.py"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert " killed " in process.stderr.readline()
    process.terminate()
    told = process.stderr.read().splitlines()
    judged = [line for line in told if re.search(" killed | equivalent ", line) and "ended by" not in line]
    assert told == judged
    assert process.wait() == 128 + signal.SIGTERM
    assert list(tmp_path.glob("tdforge-mutants-*")) == []


def test_one_mutant_from_end_to_end() -> None:
    command = [sys.executable, "-m", "tests.mutants", "--workers", "1", "check: one section"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("  1/1 killed     check: one section: tests/image/test_image_check.py::")
    assert "| `image` | 1 | 1 | 0 | 0 |\n" in done.stdout
