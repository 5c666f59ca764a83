"""Does each row of the threat model name a proof that exists? Rules name cases and flows, others tests."""

import re

import pytest
from transcript import ROOT

TEXT = (ROOT / "docs" / "threat-model.md").read_text()
RULES = dict(re.findall(r"^\| (T\d\d) \|.*\| (.*) \|$", TEXT, re.MULTILINE))
PLACES = ("tests/dsl/cases", "tests/dsl", "tests/system/interference", "")


@pytest.mark.parametrize("rule", [f"T{number:02}" for number in range(1, 12)])
def test_a_rule_names_its_cases(rule: str) -> None:
    assert f"`{rule}.txt`" in RULES[rule]


def test_every_file_and_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`([\w./*-]+\.(?:txt|tdf|py)|tests/[\w./-]+)`", TEXT))
    assert len(named) > 10
    assert [n for n in sorted(named) if not any(list(ROOT.glob(f"{p}/{n}".strip("/"))) for p in PLACES)] == []
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", TEXT) if f"def {name}(" not in tests] == []
