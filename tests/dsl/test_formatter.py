"""Is formatting stable, and does it leave the meaning alone?"""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from casefile import CASES, read_cases

from dsl.api import CheckFailed, format_source, shipped_flows
from dsl.capabilities import PRELUDE
from dsl.diagnostics import Reporter
from dsl.model import Span
from dsl.parse import parse

FILES = [
    *shipped_flows().values(),
    *sorted(PRELUDE.glob("*.tdf")),
    CASES / "base.tdf",
    CASES / "base_flows.tdf",
]
TOKENS = re.compile(r'(?:hex)?"(?:[^"\\\n]|\\.)*"|\d+\.\d+\.\d+|\w+|->|\.\.|==|!=|<=|>=|<<|>>|\S')


def meaning(text: str) -> Any:
    """The syntax tree without places and documentation."""
    reporter = Reporter(text)
    file = parse(text, "x", reporter)
    assert not reporter.diagnostics

    def strip(node: Any) -> Any:
        if isinstance(node, tuple):
            return tuple(strip(n) for n in node)
        if dataclasses.is_dataclass(node) and not isinstance(node, Span):
            fields = [f.name for f in dataclasses.fields(node) if f.name not in ("span", "doc")]
            return type(node).__name__, tuple(strip(getattr(node, f)) for f in fields)
        return node

    return strip(file.declarations)


def parsing_cases() -> list[str]:
    return [c.text for c in read_cases() if "error[S01]" not in c.says]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_ships_is_formatted(path: Path) -> None:
    assert format_source(path.read_text()) == path.read_text()


@pytest.mark.parametrize("text", parsing_cases())
def test_examples_keep_their_meaning(text: str) -> None:
    formatted = format_source(text)
    assert meaning(formatted) == meaning(text)
    assert format_source(formatted) == formatted


def without_comments(text: str) -> list[str]:
    return TOKENS.findall(re.sub(r"//[^\n]*", "", text))


@settings(max_examples=60)
@given(st.data())
def test_any_spacing_is_formatted_to_the_same_meaning(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([shipped_flows()["linux"].read_text(), *parsing_cases()]))
    gaps = st.sampled_from([" ", "  ", "\n", "\n\n\n", "\t", " // a comment\n", "\r\n"])
    tokens = without_comments(text)
    seed = data.draw(st.randoms(use_true_random=False))
    choices = [" ", " ", " ", "\n", "\n\n\n", "\t", " // a comment\n", "\r\n", data.draw(gaps)]
    mangled = "".join(t + seed.choice(choices) for t in tokens)
    formatted = format_source(mangled)
    assert meaning(formatted) == meaning(text)
    assert format_source(formatted) == formatted
    assert formatted.count("// a comment") == mangled.count("// a comment")


def test_columns_indents_and_spaces() -> None:
    untidy = """firmware   x{
version 1.0.0
image below 4 GiB{
code BFV up to 64 KiB

hob TD_HOB 4 KiB at 0x0080_0000 // list
stack TempMem 128 KiB guarded


}
}
// before
flow boot ( td:VpInfo )->never{
on error fatal
let a=( td.gpaw+1 )*2   // one
let longer = hob[ 0..4 ]    // two
if not(a==4)or a<3{fail out_of_bounds}
fail   requirement_failed }
"""
    assert (
        format_source(untidy)
        == """firmware x {
    version 1.0.0
    image below 4 GiB {
        code  BFV  up to 64 KiB

        hob    TD_HOB     4 KiB  at 0x0080_0000           // list
        stack  TempMem  128 KiB                  guarded
    }
}
// before
flow boot(td: VpInfo) -> never {
    on error fatal
    let a = (td.gpaw + 1) * 2  // one
    let longer = hob[0 .. 4]   // two
    if not (a == 4) or a < 3 { fail out_of_bounds }
    fail requirement_failed }
"""
    )


def test_a_file_that_does_not_parse_is_refused() -> None:
    with pytest.raises(CheckFailed, match=r"x.tdf:1:1: error\[S01\]"):
        format_source("let x = 3", "x.tdf")
