"""Does a flow that the compiler accepts hide nothing from a verifier? A short campaign, and its parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import interferencecampaign
import pytest
from interference.generator import Generator, check, prepared
from interference.shrink import shrunk
from interference.trial import BASE, Builder, judged, numbers_of, outcomes, tried
from interferencecampaign import ALL_RULES, Summary, campaign

from dsl.api import shipped_flows
from dsl.rules import RULES
from emu.oracle.compare import EXEMPTIONS
from emu.oracle.shown import PARTS

FLOWS, SEED = 60, "tests"
HERE = Path(__file__).parent
REFUSED = HERE.parent / "dsl" / "flows" / "refuse"
FOUND = sorted((HERE / "interference" / "found").glob("*.tdf"))
LINUX = shipped_flows()["linux"].read_text()

# Flows that the compiler refuses, the rules without which it would not, and what the oracle then sees.
CUT = ("recorded size", "measured argument")
LINE = ("interference", "command line")
WITHOUT = (
    ("acpi_tables_over_command_line", CUT, ("attribution", "")),
    ("command_line_is_boot_params", ("write overlap",), ("passed on", "")),
    ("interference_command_line_overflow", ("error decides",), LINE),
    ("interference_command_line_bounded", CUT, LINE),
    ("interference_command_line_refused_call", CUT, LINE),
    ("page_of_another_kernel", ("repeated step", "missing mark"), ("attribution", "")),
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Builder:
    return Builder(tmp_path_factory.mktemp("interference"), tiny)


def test_accepted_flows_show_no_difference() -> None:
    """The campaign in short: `nox -s interference` has the long form."""
    summary = Summary()
    for result in campaign(SEED, range(3 * FLOWS), quick=True):
        summary.add(result)
        if summary.accepted >= FLOWS:
            break
    assert [f"{r.number}: {e}\n{r.text}" for r, e in summary.first.values()] == []
    assert summary.accepted == FLOWS
    assert summary.silent < FLOWS // 2


@pytest.mark.parametrize("path", FOUND, ids=lambda p: p.stem)
def test_a_flow_that_was_found_is_clean(path: Path, builder: Builder) -> None:
    """Accepted still, because the firmware does what is right now; refused ones lie in tests/dsl/flows."""
    text = path.read_text()
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    trial = tried(built, text, Random(path.stem))
    assert trial.handed_over > 0
    assert [str(e) for e in trial.found] == []


@pytest.mark.parametrize(("name", "rules", "seen"), WITHOUT, ids=[row[0] for row in WITHOUT])
def test_without_its_rule_an_attack_is_seen(
    name: str, rules: tuple[str, ...], seen: tuple[str, str], builder: Builder
) -> None:
    kind, part = seen
    text = (REFUSED / f"{name}.tdf").read_text()
    assert check(text, ALL_RULES).firmware is None
    built = builder.build(check(text, frozenset(rules)).require())
    assert built is not None
    found = tried(built, text, Random(name)).found
    assert any(e.kind == kind and (not part or e.part == part) for e in found), [str(e) for e in found]


def test_a_counterexample_is_made_small(builder: Builder) -> None:
    rules = frozenset(("error decides",))
    text = (REFUSED / "interference_command_line_overflow.tdf").read_text()
    more = text.replace("    accept ram\n", '    accept ram\n    print "."\n    let unused = 7\n')
    assert more != text

    def accept(candidate: str) -> object:
        return check(candidate, rules).firmware

    built = builder.build(check(more, rules).require())
    assert built is not None
    example = next(e for e in tried(built, more, Random(1)).found if e.part == "command line")
    small = shrunk(more, example, builder, accept)  # type: ignore[arg-type]
    assert "unused" not in small
    assert 'print "."' not in small
    assert "flow f3" in small


# ---- the generator


def test_the_same_seed_gives_the_same_flows() -> None:
    def flows(seed: str) -> list[str]:
        return [text for text, _ in Generator(seed).flows(LINUX)]

    assert flows("a/3") == flows("a/3")
    assert flows("a/3") != flows("a/4")


def test_what_is_generated_is_accepted_and_differs() -> None:
    for n in range(5):
        texts = [text for text, _ in Generator(f"b/{n}").flows(LINUX)]
        assert all(check(text, ALL_RULES).firmware is not None for text in texts)
        assert prepared(LINUX) not in texts
        assert len(set(texts)) == len(texts)


def test_fresh_flows_follow_the_hints_to_a_hand_over(builder: Builder) -> None:
    """From signatures alone: the compiler says what has to come first."""
    made = None
    for n in range(40):
        generator = Generator(f"fresh/{n}")
        firmware = check(prepared(LINUX), ALL_RULES).require()
        made = generator.fresh(firmware, prepared(LINUX))
        if made is not None:
            break
    assert made is not None
    text, firmware = made
    assert "measure" in text
    assert "accept" in text
    assert "handoff linux" in text
    assert builder.build(firmware) is not None


def test_a_flow_without_a_rule_breaks_that_rule() -> None:
    """With a rule taken out, only flows that it alone refuses are tried."""
    rule = "missing mark"
    bases = (LINUX,)
    broken = [
        r.text
        for r in (interferencecampaign.one("c", bases, n, frozenset({rule})) for n in range(6))
        if r.built
    ]
    assert broken
    assert all(check(text, ALL_RULES).firmware is None for text in broken)


def test_answers_lie_around_the_literals_of_the_flow() -> None:
    first, rest = numbers_of("firmware x { 77 }\nflow boot() {\nrequire n <= 0x20\nprint 1_000\n}")
    assert {31, 32, 33} <= set(first)
    assert set(rest) == {999, 1000, 1001}


def test_the_shipped_flow_is_judged_clean_and_its_twin_is_not(builder: Builder) -> None:
    """The same outcomes, one of them with another command line under the same registers."""
    text = prepared(LINUX)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    one, other = outcomes(built, (BASE, BASE))
    assert judged(built, [one, other]) == []
    assert one.shown is not None
    parts = dict(one.shown.parts) | {"command line": b"another"}
    twin = replace(other, shown=replace(one.shown, parts=parts))
    assert [e.part for e in judged(built, [one, twin])] == ["command line"]


# ---- what is documented


def test_the_threat_model_has_the_table_of_exemptions() -> None:
    page = (HERE.parents[1] / "docs" / "threat-model.md").read_text()
    rows = [f"| {e.channel} | {e.part} | {e.reason} |" for e in EXEMPTIONS]
    assert [row for row in rows if row not in page] == []
    assert {e.part for e in EXEMPTIONS} <= set(PARTS)


def test_rules_that_nobody_misses_are_rules() -> None:
    assert set(interferencecampaign.UNNOTICED) <= set(RULES)
