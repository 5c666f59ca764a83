"""Can a test take each rule out, and does it then miss what only that rule sees?"""

import re

import pytest
from casefile import DOUBLING, read_cases

from dsl.api import check_source
from dsl.rules import RULES

# What the compiler says of each case, by code; that it does say so, tests/dsl/test_cases.py shows
SAID = [(c.text, re.findall(r"^case\.tdf:.*?: error\[(\w+)\]", c.says, re.M)) for c in read_cases() if c.says]
REFUSED = [(DOUBLING.text, [d.code for d in DOUBLING.check().diagnostics]), *SAID]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_broken_by_a_case_and_can_be_taken_out(rule: str) -> None:
    code = RULES[rule].code
    found = any(
        len(check_source(text, disabled=frozenset({rule})).diagnostics) < len(codes)
        for text, codes in REFUSED
        if code in (None, *codes)
    )
    assert found, f"no case breaks `{rule}`: {RULES[rule].says}"


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no such rule: branches"):
        check_source(REFUSED[0][0], disabled=frozenset({"branches"}))
