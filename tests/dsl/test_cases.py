"""Does the compiler accept and refuse what it should, with these very words and the caret under the
culprit?"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from casefile import DOUBLING, Case, read_cases, rendered

from dsl.api import check_source, shipped_flows
from dsl.diagnostics import RULES
from dsl.verify import verify

ALL = read_cases()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_case(case: Case) -> None:
    result = case.check()
    assert rendered(result) == case.says
    assert (result.firmware is None) == bool(case.says)
    if result.firmware is not None:
        verify(result.firmware)


@pytest.mark.parametrize("code", RULES)
def test_each_rule_has_three_refused_and_one_accepted_example(code: str) -> None:
    own = [c for c in ALL if c.file == code]
    refused = [c for c in own if f"error[{code}]" in c.says]
    assert len(refused) >= 3
    assert len(refused) + len([c for c in own if not c.says]) == len(own)
    assert any(not c.says for c in own)


def test_one_run_reports_mistakes_of_several_kinds() -> None:
    case = next(c for c in ALL if c.title == "three mistakes of three kinds")
    assert [d.code for d in case.check().diagnostics] == ["T01", "T03", "T07"]


def test_a_flow_with_three_mistakes_reports_three() -> None:
    text = shipped_flows()["linux"].read_text()
    no_accept = text.replace("    accept ram\n", "")
    three = no_accept.replace("start_log", "strat_log").replace(
        "load_linux(placement)?", "load_linux(placement)"
    )
    assert [d.code for d in check_source(no_accept).diagnostics] == ["T04"]
    assert [d.code for d in check_source(three).diagnostics] == ["N01", "T04", "T08"]


STEPS = ("start_log", "accept ram", "load_linux", "park aps", "zero_page", "separate", "measure", "let ")


@pytest.mark.parametrize("word", STEPS)
def test_any_line_of_the_linux_flow_left_out_is_one_mistake(word: str) -> None:
    lines = shipped_flows()["linux"].read_text().splitlines(keepends=True)
    numbers = [n for n, line in enumerate(lines) if line.strip().startswith(word)]
    assert numbers
    for number in numbers:
        found = check_source("".join(lines[:number] + lines[number + 1 :])).diagnostics
        assert len(found) == 1, (lines[number], found)


def test_calls_that_double_at_every_level_are_not_followed_forever() -> None:
    assert "error[T10]: more than 2000 calls of flows" in rendered(DOUBLING.check())


def test_colour_changes_nothing_but_colour() -> None:
    case = next(c for c in ALL if c.says)
    plain = case.check().diagnostics[0].render()
    coloured = case.check().diagnostics[0].render(color=True)
    for sequence in ("\x1b[1m", "\x1b[1;31m", "\x1b[1;34m", "\x1b[0m"):
        coloured = coloured.replace(sequence, "")
    assert coloured == plain
