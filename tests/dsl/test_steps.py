"""Are steps data? What the prelude declares of them is all that the rules know."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsl.rules
from dsl import capabilities
from dsl.api import check_source
from dsl.capabilities import prelude
from dsl.effects import TEXTS
from dsl.model import RecordRef

RULES = Path(dsl.rules.__file__).parent

STEPS = """
uses measure, memory
step brewed T08 {
    missing "`{call}` needs a brew" "`brew(...)?` first"
    repeated "brewed before `{call}`" "brew once"
    other "{argument} holds no brew" "brew in it"
    unrelated "{argument} was brewed with other leaves" "brew again"
}
step closed of rtmr T07 {
    missing "{rtmr} stays open" "`close {rtmr}`"
    repeated "{rtmr} may be closed" "close it once"
    late "{rtmr} may be closed, nothing follows" "measure first"
}
step poured T09 {
    abandoned "poured, and on" "end with `fail`"
}
primitive brew(pot: untrusted bytes, leaves: measured bytes) fails out_of_bounds
    with gives brewed, makes pot brewed for leaves = c
primitive drink(pot: untrusted bytes, leaves: measured bytes)
    with needs brewed, needs pot brewed for leaves = c
primitive close(rtmr: u32) with gives closed of rtmr = c
primitive pour() -> never fails out_of_bounds with needs closed, gives poured = c
"""
BOOT = """
uses tea
firmware test {
    version 1.0.0
    image below 4 GiB {
        code     BFV
        hob      TD_HOB         8 KiB  at 0x0080_0000
        paging   TempMem       48 KiB
        stack    TempMem       32 KiB                  guarded
        log      TempMem       64 KiB                  nvs
        pot      TempMem        4 KiB
        cup      TempMem        4 KiB
        params   PayloadParam   4 KiB
        payload  Payload        1 MiB
    }
}
flow boot(td: VpInfo) -> never {
    on error fatal
    start_log(log)?
    measure payload into RTMR[1] as blob("green")
    measure params into RTMR[1] as blob("black")
    BODY
    close(0) close(1)
    pour()?
}
"""


@pytest.fixture(autouse=True)
def tea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A prelude with one more capability, `tea`."""
    for path in capabilities.PRELUDE.glob("*.tdf"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "tea.tdf").write_text(STEPS)
    caches = (capabilities.capabilities, capabilities._file, capabilities._names)
    monkeypatch.setattr(capabilities, "PRELUDE", tmp_path)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path / "tea.tdf"
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


def says(body: str) -> list[tuple[str, str, str]]:
    """Code, message and hint of each mistake in a flow with these lines."""
    found = check_source(BOOT.replace("BODY", body)).diagnostics
    return [(d.code, d.message, d.hint) for d in found]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("brew(pot, payload)? drink(pot, payload)", None),
        ("drink(pot, payload)", ("T08", "`drink` needs a brew", "`brew(...)?` first")),
        (
            "if td.attributes != 0 { brew(pot, payload)? } drink(pot, payload)",
            ("T08", "`drink` needs a brew", "`brew(...)?` first"),
        ),
        ("brew(pot, payload)? brew(cup, payload)?", ("T08", "brewed before `brew`", "brew once")),
        (
            "if td.attributes != 0 { brew(pot, payload)? } brew(cup, payload)?",
            ("T08", "brewed before `brew`", "brew once"),
        ),
        ("brew(pot, payload)? drink(cup, payload)", ("T08", "`cup` holds no brew", "brew in it")),
        (
            "brew(pot, payload)? drink(pot, params)",
            ("T08", "`pot` was brewed with other leaves", "brew again"),
        ),
        ("close(1)", ("T07", "RTMR[1] may be closed", "close it once")),
        (
            'if td.attributes != 0 { close(0) } measure hob into RTMR[0] as blob("hob") fail out_of_bounds',
            ("T07", "RTMR[0] may be closed, nothing follows", "measure first"),
        ),
        ("pour()?", ("T07", "RTMR[0] and RTMR[1] stays open", "`close RTMR[0], RTMR[1]`")),
        (
            'close(0) close(1) try pour() { } on _ { print "on" } fail out_of_bounds',
            ("T09", "poured, and on", "end with `fail`"),
        ),
    ],
)
def test_a_new_step_needs_no_line_of_the_compiler(body: str, expected: tuple[str, str, str] | None) -> None:
    """Every text that a step may have is said by some flow."""
    found = [d for d in says(body) if d[1] != "this is never reached"]
    assert found == ([] if expected is None else [expected])


def test_a_misspelt_call_counts_as_its_steps() -> None:
    assert [code for code, *_ in says("brw(pot, payload)? drink(pot, payload)")] == ["N01"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("step brewed T08", "step brewed T99", "there is no rule `T99`"),
        ("step closed of rtmr", "step brewed of rtmr", "step `brewed` is already declared"),
        ('repeated "brewed', 'repaeted "brewed', "a step has no text `repaeted`"),
        ('other "{argument} holds', 'missing "{argument} holds', "`missing` is already declared"),
        ("needs a brew", "needs a {brew}", "a brace without a known name"),
        ("needs brewed,", "needs brewd,", "there is no step `brewd`"),
        ("needs brewed,", "needs poured,", "step `poured` has no text `missing`"),
        ("gives poured", "gives poured of rtmr", "there is no parameter `rtmr`"),
        ("gives closed of rtmr", "gives closed", "step `closed` is taken for a register"),
        ("makes pot brewed for leaves", "makes pto brewed for leaves", "there is no parameter `pto`"),
        ("makes pot brewed for leaves", "makes pot brewed for leafs", "there is no parameter `leafs`"),
        ("needs pot brewed for leaves", "needs pot closed for leaves", "step `closed` has no text"),
    ],
)
def test_a_prelude_that_contradicts_itself_is_not_loaded(tea: Path, old: str, new: str, message: str) -> None:
    assert old in STEPS
    tea.write_text(STEPS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        prelude()


def test_no_rule_knows_a_step_by_name() -> None:
    steps = set(prelude().steps)
    assert {"log", "plan", "accepted", "parked", "separated", "loaded", "filled", "entered"} < steps
    files = [*RULES.glob("*.py"), RULES.parent / "suppress.py", RULES.parent / "effects.py"]
    assert len(files) > 8
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in steps, f"{path.name}:{node.lineno} names the step `{node.value}`"


def test_each_text_is_used_by_a_step_that_ships() -> None:
    assert {word for step in prelude().steps.values() for word in step.texts} == set(TEXTS)


def test_what_makes_something_that_runs_says_of_which_bytes() -> None:
    """A handoff takes a placement or an executable: each is made of bytes that `runs` names, or of a kernel
    that was.
    """
    names = prelude()
    made = {
        name: names.effects[name].runs
        for name, each in names.primitives.items()
        if isinstance(each.result, RecordRef) and each.result.name in ("Linux", "Placement", "Executable")
    }
    assert {name: runs for name, runs in made.items() if runs} == {
        "parse_linux": ("image",),
        "place_vmlinux": ("kernel",),
        "place_elf": ("file",),
        "place_executable": ("file",),
    }
    (other,) = (name for name, runs in made.items() if not runs)
    assert names.primitives[other].parameters[0].type == RecordRef("Linux")
    entries = [each.parameters[0] for name, each in names.primitives.items() if name.startswith("handoff_")]
    assert {p.type for p in entries} == {RecordRef("Placement"), RecordRef("Executable")}
