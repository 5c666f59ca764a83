"""Where is each primitive declared, written and tested? docs/primitives.md holds what this file finds;
`PYTHONPATH=. python <this file>` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsl.capabilities import CORE, capabilities, capability_of, prelude
from dsl.model import Primitive
from gen.primitives import bodies

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/primitives.md"
HEAD = """# Primitives

The primitives that a flow may call, and those that only generated code calls (*internal*): where each is
declared, where it is written, and which unit tests cover it. `tests/dsl/test_primitives_table.py` finds the
rows and compares them with this page. The [system tests](../tests/system) run all of them together.
"""
PRIMITIVES = prelude().primitives


def code_of(primitive: Primitive) -> Path | None:
    """The file that defines the function: its definition in C, or the body in its capability's file."""
    name = primitive.name
    if primitive.home == "c":
        definition = re.compile(rf"^(?:status_t|void) {name}\(", re.MULTILINE)
        found = [p for p in sorted((ROOT / "runtime-c/src").glob("*.c")) if definition.search(p.read_text())]
        return found[0] if len(found) == 1 else None
    file = ROOT / f"gen/primitives/{capability_of(name)}.py"
    return file if f'"{name}": ' in file.read_text() and name in bodies() else None


def called_by(primitive: Primitive) -> list[Path]:
    """The files that call it: from Python as C, or as machine code."""
    if primitive.home == "c":
        folder, call = "tests/runtime_c", re.compile(rf"\b{primitive.name}\b")
    else:
        folder, call = "tests/gen/flow", re.compile(rf"\"(?:prim_)?{primitive.name}\"")
    return [p for p in sorted((ROOT / folder).glob("test_*.py")) if call.search(p.read_text())]


def link(path: Path | None) -> str:
    return f"[{path.name}](../{path.relative_to(ROOT).as_posix()})" if path else "**nowhere**"


def row(primitive: Primitive) -> str:
    name = f"`{primitive.name}`" + (" *internal*" if primitive.internal else "")
    tests = ", ".join(map(link, called_by(primitive))) or "**nowhere**"
    return f"| {name} | {link(code_of(primitive))} | {tests} |"


def page() -> str:
    text = HEAD
    for capability in (CORE, *capabilities()):
        rows = [row(p) for name, p in PRIMITIVES.items() if capability_of(name) == capability]
        title = f"\n## [{capability}](../dsl/prelude/{capability}.tdf)\n"
        text += "\n".join((title, "| Primitive | Written in | Tested by |", "|---|---|---|", *rows, ""))
    return text


@pytest.mark.parametrize("primitive", PRIMITIVES.values(), ids=PRIMITIVES.keys())
def test_a_primitive_is_written_once_and_tested(primitive: Primitive) -> None:
    assert code_of(primitive), "no file defines it, or several do"
    assert called_by(primitive), "nothing tests it"


def test_nothing_is_written_that_is_not_declared() -> None:
    assert bodies().keys() == {name for name, each in PRIMITIVES.items() if each.home == "generated"}


def test_the_page_is_what_was_found() -> None:
    assert PAGE.read_text() == page(), "changed: rewrite the page and review the difference"


if __name__ == "__main__":
    PAGE.write_text(page())
