"""Is what the documents say of the language true? Their example is accepted, their message is the compiler's,
their tables name every code and every word."""

import re
from pathlib import Path

from dsl.api import check_source, format_source
from dsl.build_tree import UNITS
from dsl.diagnostics import CODES, RULES
from dsl.layout import ACCESS, E820, KINDS
from dsl.scope import TAKEN

DOCS = Path(__file__).parents[2] / "docs"
LANGUAGE = (DOCS / "language.md").read_text()
THREATS = (DOCS / "threat-model.md").read_text()


def example() -> str:
    found = re.findall(r"```tdf\n(.*?)```", LANGUAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_example_is_accepted_and_formatted() -> None:
    assert check_source(example(), "minimal.tdf").diagnostics == ()
    assert format_source(example()) == example()


def test_the_message_is_the_compilers() -> None:
    broken = "".join(x for x in example().splitlines(keepends=True) if "measure list" not in x)
    (diagnostic,) = check_source(broken, "minimal.tdf").diagnostics
    assert diagnostic.render() in LANGUAGE


def test_every_code_and_word_is_documented() -> None:
    for code in CODES.keys() - RULES.keys():
        assert f"`{code}`" in LANGUAGE
    for word in (*KINDS, *E820, *(a for a in ACCESS if a != "rwx"), *UNITS):
        assert f"`{word}`" in LANGUAGE
    assert " ".join(sorted(TAKEN)) in LANGUAGE.replace("\n", " ")


def test_the_threat_model_has_a_row_for_each_rule() -> None:
    for code, rule in RULES.items():
        assert re.search(rf"^\| {code} \| {rule} \|.*`{code}.txt`", THREATS, re.MULTILINE)
