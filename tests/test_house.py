"""Does the house stand as it is drawn? Arrows between rooms, no circle, numbers once, paths that pages name.

The drawing is the table ROOMS. An import counts wherever it stands, inside a function
and under TYPE_CHECKING too: it says what a file has to know.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from formats import units
from formats.tdx import status
from formats.tdx.fields import FIELDS

ROOT = Path(__file__).parents[1]
EVERYTHING = ("host", "formats", "image", "dsl", "gen", "emu", "tdforge")
# What a room takes from others, and which part of it.
ROOMS = {
    "host": (),
    "formats": (),
    "image": ("formats",),
    "dsl": ("formats.units", "formats.limits"),
    "gen": ("host", "formats", "image", "dsl"),
    "emu": ("host", "formats"),
    "tdforge": ("host", "formats", "image", "dsl", "gen", "emu"),
}

# The same for the folders of a room. What a room's top files take from them is not restricted.
FOLDERS: dict[str, tuple[str, ...]] = {
    "gen.x86": (),
    "gen.boot": ("gen.x86",),
    "gen.flow": ("gen.x86",),
    "gen.core": ("gen.flow", "gen.x86"),
    "gen.primitives": ("gen.flow", "gen.x86"),
    "gen.link": ("gen.flow", "gen.x86"),
    "emu.cpu": (),
    "emu.tdx": ("emu.cpu",),
    "emu.vmm": ("emu.tdx", "emu.cpu"),
    "emu.snapshot": ("emu.vmm", "emu.tdx", "emu.cpu"),
    "emu.debug": ("emu.cpu",),
    "emu.oracle": ("emu.vmm",),
}


def module_name(path: Path) -> str:
    """`gen/x86/__init__.py` is `gen.x86`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for room in EVERYTHING for path in sorted((ROOT / room).rglob("*.py"))}


def imported(source: str, package: str, known: Mapping[str, object]) -> Iterator[str]:
    """The modules of this project that a source text names in its imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            deeper = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in known else base for name in deeper]
        else:
            continue
        yield from (name for name in names if name in known)


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules it imports."""
    found = {}
    for name, path in FILES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = set(imported(path.read_text(), package, FILES)) - {name}
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[frozenset[str]]:
    """The largest groups whose members all reach each other, those of one member left out."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        rest = list(arrows[start])
        while rest:
            each = rest.pop()
            if each not in seen:
                seen.add(each)
                rest += arrows[each]
        return seen

    reached = {name: reach(name) for name in arrows}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in arrows
        if name in reached[name]
    }
    return sorted(groups, key=sorted)


def test_imports_are_seen_wherever_they_stand() -> None:
    known = {"a": 0, "a.b": 0, "a.c": 0, "a.d": 0, "z": 0}
    source = (
        "import os, z\nfrom a import b, other\n"
        "if TYPE_CHECKING:\n    from a.c import C\n"
        "def f():\n    from . import d\n    from .c import x\n"
    )
    assert set(imported(source, "a", known)) == {"z", "a", "a.b", "a.c", "a.d"}


def test_circles_are_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": {"f"}, "f": {"e", "a"}}
    assert circles(arrows) == [frozenset("bc"), frozenset("ef")]


@pytest.mark.parametrize("room", EVERYTHING)
def test_a_room_takes_only_from_those_below_it(room: str) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if name.split(".")[0] == room
        and other.split(".")[0] != room
        and not any(f"{other}.".startswith(f"{below}.") for below in ROOMS[room])
    ]
    assert wrong == []


def folder(name: str) -> str:
    """The folder of a room that a module lies in; the room for its top files."""
    inside = FILES[name].relative_to(ROOT).parts[:-1]
    return ".".join(inside[:2])


def test_every_folder_is_drawn() -> None:
    assert {folder(name) for name in FILES if name.startswith(("gen.", "emu."))} == {*FOLDERS, "gen", "emu"}


@pytest.mark.parametrize("place", FOLDERS)
def test_a_folder_takes_only_from_those_below_it(place: str) -> None:
    others = {(name, other) for name in FILES if folder(name) == place for other in graph()[name]}
    wrong = [
        f"{name} imports {other}"
        for name, other in sorted(others)
        if folder(other) in FOLDERS and folder(other) not in (place, *FOLDERS[place])
    ]
    assert wrong == []


def test_no_circle_among_files() -> None:
    assert [sorted(group) for group in circles(graph())] == []


def test_a_module_opens_with_the_question_it_answers() -> None:
    def opening(path: Path) -> str:
        return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]

    assert [name for name, path in FILES.items() if "?" not in opening(path)] == []


def test_a_function_says_what_it_gives() -> None:
    """Those at the top of a module; methods are part of what their class says."""
    silent = [
        f"{name}.{node.name}"
        for name, path in FILES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert silent == []


# Where 4096 is no page: what a buffer holds, or one of the odd values that a test VMM tries.
NO_PAGE = ("emu/debug/remote.py", "emu/keyboard.py", "emu/oracle/", "emu/vmm/hostile/")
UNITS = {name for name in vars(units) if name.isupper()}
# Statuses and field ids of the TDX module: numbers that stand for nothing else.
OF_THE_MODULE = {
    *(value for value in vars(status).values() if isinstance(value, int) and value >> 32),
    *(field.id for field in FIELDS),
}


def numbers(source: str) -> Iterator[tuple[int, int]]:
    """Line and value of each whole number that a source text writes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield node.lineno, node.value


def bound(source: str) -> set[str]:
    """Names that a source text assigns a value."""
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def test_a_number_of_a_specification_is_written_once() -> None:
    again = []
    for path in FILES.values():
        name, source = path.relative_to(ROOT).as_posix(), path.read_text()
        if name.startswith("formats/"):
            continue
        again += [f"{name}: {unit}" for unit in sorted(bound(source) & UNITS)]
        for line, value in numbers(source):
            if value in OF_THE_MODULE or (value == units.PAGE and not name.startswith(NO_PAGE)):
                again.append(f"{name}:{line}: {value:#x}")
    assert again == []


def test_numbers_and_names_are_found() -> None:
    assert list(numbers("x = 0x1000 + 1\ndef f(): return True, 1.5")) == [(1, 4096), (1, 1)]
    assert bound("PAGE, y = 1, PAGE\nz = GIB") == {"PAGE", "y", "z"}


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NAMED = re.compile(
    r"(?<![\w./-])(?:\.\./)*((?:dsl|docs|emu|formats|gen|host|image|runtime-c|tdforge|tests)/(?:[\w./*-]*\w)?)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_path_that_a_page_names_exists(page: Path) -> None:
    named = sorted({path.rstrip("/") for path in NAMED.findall(page.read_text())})
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_paths_are_found() -> None:
    text = "see `gen/build.py`, (dsl/model.py), build/gen/x, emu/tdx/*.py and [`image/`](../image/mrtd.py)."
    assert NAMED.findall(text) == ["gen/build.py", "dsl/model.py", "emu/tdx/*.py", "image/", "image/mrtd.py"]
