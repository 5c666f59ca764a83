"""Can a test take each rule out, and does it then miss what only that rule sees?"""

import pytest
from casefile import DOUBLING, read_cases

from dsl.api import check_source
from dsl.rules import RULES

REFUSED = [(c.text, len(c.check().diagnostics)) for c in (DOUBLING, *read_cases()) if c.says or c is DOUBLING]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_broken_by_a_case_and_can_be_taken_out(rule: str) -> None:
    found = any(len(check_source(text, disabled=frozenset({rule})).diagnostics) < n for text, n in REFUSED)
    assert found, f"no case breaks `{rule}`: {RULES[rule].says}"


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no such rule: branches"):
        check_source(REFUSED[0][0], disabled=frozenset({"branches"}))
