"""Does a flow that the compiler accepts hide nothing from a verifier? A short campaign, and its parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import interferencecampaign
import pytest
from interference import proof
from interference.choices import BASE, file_choices, literals_of, numbers_of
from interference.expressions import Impossible
from interference.generator import Generator, check, prepared
from interference.maker import Maker
from interference.moves import AIMED, MOVES, WAYS, Moves, moved
from interference.proof import Proof, without
from interference.scope import survey
from interference.shrink import shrunk
from interference.trial import TEXT, Builder, Counterexample, judged, outcomes, tried
from interferencecampaign import ALL_RULES, Result, Summary, broken_without, campaign

from dsl.api import shipped_flows
from dsl.model import ListOf, Provenance
from dsl.rules import RULES
from emu.oracle.compare import EXEMPTIONS
from emu.oracle.contents import INITRDS
from emu.oracle.files import DIRECTORIES, SIZES, TRANSFERS
from emu.oracle.shown import PARTS
from emu.vmm.presets import PRESETS
from image.hosts import verdicts

FLOWS, PIECES, SEED = 60, 4, "check"
SAMPLE = ("branch", "optional", "shared argument", "span", "late step")  # of rules, quick to find
HERE = Path(__file__).parent
REFUSED = HERE.parent / "dsl" / "flows" / "refuse"
FOUND = sorted((HERE / "interference" / "found").glob("*.tdf"))
LINUX, QEMU, VMLINUX = (shipped_flows()[name].read_text() for name in ("linux", "qemu", "vmlinux"))
HOST_ACPI, ELF_FLOW = (
    (interferencecampaign.FLOWS_OF_TESTS / f"{name}.tdf").read_text() for name in ("host_acpi", "elf")
)

# Unmeasured bytes of which a primitive makes nothing: all but the measured kernel there is zero, or it fails
ONLY_CHECKED = {("place_vmlinux", "window")}

# Channels of fw_cfg, and how many choices each has
LIES = {"sizes": len(SIZES), "directory": len(DIRECTORIES), "transfers": len(TRANSFERS)}

# Flows that the compiler refuses, the rules without which it would not, and what the oracle then sees.
CUT = ("recorded size", "measured argument")
LINE = ("interference", "command line")
WITHOUT = (
    ("acpi_tables_over_command_line", CUT, ("attribution", "")),
    ("command_line_is_boot_params", ("write overlap",), ("passed on", "")),
    ("interference_command_line_overflow", ("error decides",), LINE),
    ("interference_command_line_bounded", CUT, LINE),
    ("interference_command_line_refused_call", CUT, LINE),
    ("interference_data_of_the_code", ("owned",), ("interference", "initrd")),
    ("page_of_another_kernel", ("repeated step", "missing mark"), ("attribution", "")),
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Builder:
    return Builder(tmp_path_factory.mktemp("interference"), tiny)


@pytest.mark.parametrize("base", sorted(set(interferencecampaign.BASES)))
def test_flows_run_under_hosts_that_load_them(builder: Builder, base: str) -> None:
    firmware = check(interferencecampaign.flow_files()[base].read_text(), ALL_RULES).firmware
    assert firmware is not None
    built = builder.build(firmware)
    assert built is not None
    kernel = PRESETS[built.config.vmm].kernel
    hosts = {name.partition(":")[0] for name, preset in PRESETS.items() if preset.kernel is kernel}
    if built.config.kernel is None:  # built in: who fills Payload sections takes nothing of it from the image
        hosts = {built.config.vmm}
    assert [v.vmm for v in verdicts(built.config.image, sorted(hosts)) if not v.accepts] == []


@pytest.mark.parametrize("piece", range(PIECES))
def test_accepted_flows_show_no_difference(piece: int) -> None:
    """The campaign in short: `nox -s interference` has the long form."""
    summary = Summary()
    for result in campaign(f"{SEED} {piece}", range(3 * FLOWS), quick=True):
        summary.add(result)
        if summary.accepted >= FLOWS // PIECES:
            break
    assert [f"{r.number}: {e}\n{r.text}" for r, e in summary.first.values()] == []
    assert summary.accepted == FLOWS // PIECES
    assert summary.silent <= FLOWS // PIECES // 2


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
    small = shrunk(more, example, builder.build, accept)  # type: ignore[arg-type]
    assert "unused" not in small
    assert 'print "."' not in small
    assert "flow f3" in small


SETTINGS = """    measure settings into RTMR[1] as blob("settings")
    require u8_at(settings, 0)? <= 255
"""
QUOTE = """    let quote = get_quote(private, share(bounce, td)?, digest(image), td)?
    measure quote into RTMR[1] as blob("quote")
"""


@pytest.mark.parametrize(("lines", "choice"), [(SETTINGS, "settings"), (QUOTE, "shared")])
def test_what_a_vmm_puts_into_settings_or_a_quote_is_seen(lines: str, choice: str, builder: Builder) -> None:
    """In the register that records it, and nowhere else."""
    before = '    measure image into RTMR[1] as blob("td_payload")\n'
    text = prepared(LINUX).replace(before, before + lines)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    one, other = outcomes(built, (BASE, replace(BASE, **{choice: 5})))
    assert one.shown is not None
    assert other.shown is not None
    assert one.evidence[0] == other.evidence[0]
    assert one.evidence != other.evidence


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
    for n in range(150, 550):  # one in a hundred gets there
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


@pytest.mark.parametrize("rule", SAMPLE)
def test_without_a_rule_the_campaign_finds_a_counterexample(rule: str) -> None:
    """A sample of `nox -s interference -- --prove`."""
    found, result, example = broken_without(rule, SEED, 20)
    assert found.found, found
    assert result is not None
    assert example is not None
    assert check(result.text, ALL_RULES).firmware is None


def test_a_rule_that_nobody_misses_is_still_broken() -> None:
    """The flows are made and run; what they do is what the reason says."""
    found, result, _ = broken_without("bounded index", SEED, 2)
    assert (found.flows, found.found, result) == (2, "", None)
    assert found.explained
    assert found.figures()["reason"] == proof.UNNOTICED["bounded index"]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_changes_that_break_it(rule: str) -> None:
    """Flows that only this rule refuses, which the campaign tries when it is taken out."""
    for number in range(60):
        for text, _ in Generator(f"aimed/{number}", rule).flows(LINUX):
            if check(text, without(rule) - {rule}).firmware is None:
                return
    pytest.fail(f"no flow breaks `{rule}` alone")


def test_a_finding_or_a_rule_without_a_reason_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Counterexample("interference", "entry", ("answers",), BASE, BASE, "1 / 2")
    results = [Result(0, accepted=True, built=True, found=[one])]
    monkeypatch.setattr(interferencecampaign, "campaign", lambda *_args, **_more: iter(results))
    figures = tmp_path / "figures.json"
    assert interferencecampaign.main(["1", "--json", str(figures)]) == 1
    assert json.loads(figures.read_text())["broken"] == 1
    assert interferencecampaign.main(["--prove", "--rule", "branch", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["rules"]["branch"]["found"] == str(one)
    results[0].found.clear()
    assert interferencecampaign.main(["1"]) == 0
    assert interferencecampaign.main(["--prove", "--rule", "branch"]) == 1
    assert "NOT EXPLAINED" in capsys.readouterr().out
    assert interferencecampaign.main(["--prove", "--rule", "calls"]) == 0


def test_a_flow_without_a_rule_breaks_that_rule() -> None:
    """With a rule taken out, only flows that it alone refuses are tried."""
    rule = "missing mark"
    bases = (LINUX,)
    broken = [r.text for r in (interferencecampaign.one("c", bases, n, rule) for n in range(6)) if r.built]
    assert broken
    assert all(check(text, ALL_RULES).firmware is None for text in broken)


def test_answers_lie_around_the_literals_of_the_flow() -> None:
    first, rest = numbers_of("firmware x { 77 }\nflow boot() {\nrequire n <= 0x20\nprint 1_000\n}")
    assert {31, 32, 33} <= set(first)
    assert set(rest) == {999, 1000, 1001}


def test_exact_answers_are_what_the_flow_selects_by() -> None:
    text = "firmware x { 77 }\nflow boot() {\nlet a = 9\nif n == 0x20 {\n3, 4 -> { }\nrequire n < 1_000\n}"
    assert literals_of(text) == [3, 4, 32, 1000]


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


@pytest.mark.parametrize("name", WAYS)
def test_each_way_is_written_as_the_language_has_it(name: str) -> None:
    """What the compiler says of it comes from the rules alone; none is a mistake of words or types."""
    text = prepared(QEMU if name == "files_again" else LINUX)
    firmware = check(text, ALL_RULES).require()
    places, sites = survey(firmware)
    said: list[str] = []
    for number in range(25):
        random = Random(f"{name}/{number}")
        maker = Maker(random, firmware, text)
        try:
            new = moved(Moves(random, maker, text, places, sites), name)
        except Impossible:
            continue
        new = "\n".join([new, *maker.flows, ""])
        assert new != text
        said += [d.code for d in check(new, ALL_RULES).diagnostics[:1]] or ["accepted"]
    rules = [code for code in said if code.startswith("T") or code == "accepted"]
    assert len(said) > 5
    assert len(rules) >= 0.7 * len(said), said  # a name may not be known yet where it is used
    assert name in MOVES


def test_whatever_fw_cfg_answers_the_shipped_flow_is_clean(builder: Builder) -> None:
    text = prepared(QEMU)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    lies = [replace(BASE, **{name: n}) for name, count in LIES.items() for n in range(1, count)]
    found = list(outcomes(built, [BASE, *lies]))
    assert judged(built, found) == []
    assert [o.findings for o in found if o.findings] == []
    ended = {o.detail for o in found if o.shown is None}
    assert {"tdforge: fw_cfg: the files do not fit in memory", "tdforge: fw_cfg: a transfer failed"} <= ended
    assert sum(o.shown is not None for o in found) > len(lies) // 2
    assert len({o.evidence for o in found if o.shown is not None}) > 4  # what is really other is recorded


def test_whatever_the_hosts_tables_say_is_recorded_or_refused(builder: Builder) -> None:
    text = prepared(HOST_ACPI)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    lies = [replace(BASE, tables=n) for n in range(1, 40)]
    lies += [replace(BASE, transfers=n) for n in range(1, len(TRANSFERS))]
    found = list(outcomes(built, [BASE, *lies]))
    assert judged(built, found) == []
    ended = {o.detail for o in found if o.shown is None}
    assert {
        "tdforge: ACPI loader: malformed script",
        "tdforge: ACPI: malformed table from the VMM",
    } <= ended
    evidence = {o.evidence for o in found if o.shown is not None}
    assert len(evidence) > 3
    assert len({e[1][1:3] for e in evidence}) < len(evidence)  # the host's tables are in RTMR[0]


def test_a_vmlinux_is_what_is_measured_of_its_window(builder: Builder) -> None:
    """libkrun's initrd reaches the payload by its own code in the window, so it is in an event or nowhere."""
    text = prepared(VMLINUX)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    assert built.window is not None
    choices = [replace(BASE, kernel=2), replace(BASE, initrd=2), replace(BASE, behind_kernel=2)]
    found = list(outcomes(built, [BASE, *choices, replace(BASE, tempmem=2)]))
    assert judged(built, found) == []
    shown = [o.shown for o in found if o.shown is not None]
    assert len(shown) >= 4
    assert all(s.in_window and s.kernel.startswith(TEXT[:1000]) for s in shown)  # its code lies further on
    assert len({o.evidence for o in found}) >= 3


def test_an_initrd_that_the_hosts_own_code_names_is_seen(builder: Builder) -> None:
    """boot_params say none. The firmware clears it; before, two of one size gave equal registers."""
    text = prepared(VMLINUX)
    for line, other in (
        ("    let initrd = used_extent(initrd_window)\n", ""),
        ('    measure initrd into RTMR[1] as blob("initrd") unless empty\n', ""),
        ("entry, initrd, ram)", "entry, kernel[0 .. 0], ram)"),
    ):
        assert line in text
        text = text.replace(line, other)
    built = builder.build(check(text, ALL_RULES).require())
    assert built is not None
    one, other_one = outcomes(built, [BASE, replace(BASE, initrd=len(INITRDS) - 1)])
    assert one.evidence == other_one.evidence
    assert judged(built, [one, other_one]) == []
    assert one.shown is not None
    assert one.shown.parts["initrd"] == (0, b"", b"")


def test_an_elf_file_is_what_is_measured_of_it(builder: Builder) -> None:
    """Its one segment is the window that the payload gets; what lies behind the file is nobody's."""
    built = builder.build(check(prepared(ELF_FLOW), ALL_RULES).require())
    assert built is not None
    assert set(built.arguments) == {"command line", "initrd"}
    choices = [replace(BASE, kernel=2), replace(BASE, initrd=2), replace(BASE, behind_kernel=2)]
    found = list(outcomes(built, [BASE, *choices, replace(BASE, tempmem=2)]))
    assert judged(built, found) == []
    shown = [o.shown for o in found if o.shown is not None]
    assert len(shown) == len(found) == 5
    assert {s.kernel for s in shown} == {TEXT, TEXT[:-1] + bytes((TEXT[-1] ^ 1,))}
    assert len({o.evidence for o in found}) == 3


def test_files_are_lied_about_by_one_channel_at_a_time() -> None:
    for choice in file_choices(Random(1), BASE):
        assert len(choice.channels(BASE) & set(LIES)) <= 1
    steady = [c for c in file_choices(Random(1), BASE) if not c.unsteady]
    assert len(steady) == len({str(c) for c in steady}) == 8


# ---- what is documented


def test_the_threat_model_has_the_table_of_exemptions() -> None:
    page = (HERE.parents[1] / "docs" / "threat-model.md").read_text()
    rows = [f"| {e.channel} | {e.part} | {e.reason} |" for e in EXEMPTIONS]
    assert [row for row in rows if row not in page] == []
    assert {e.part for e in EXEMPTIONS} <= set(PARTS)


def test_the_threat_model_has_the_table_of_rules() -> None:
    """`nox -s interference -- --prove --table` writes it; each rule is noticed, or a reason is given."""
    page = (HERE.parents[1] / proof.PAGE).read_text()
    found = proof.rows(page)
    assert set(found) == set(RULES)
    for rule, (taken_out, flows, seen) in found.items():
        assert taken_out == proof.also(rule)
        if flows.isdigit():
            assert 0 < int(flows) <= interferencecampaign.LIMIT
        else:
            assert flows.startswith("none of ")
            assert seen == proof.UNNOTICED[rule]


def test_the_table_replaces_itself() -> None:
    page = f"before\n{proof.BEGIN}\nold\n{proof.END}\nafter\n"
    proofs = [Proof("calls", 3, ""), Proof("branch", 2, "interference: entry | chosen by answers")]
    written = proof.with_table(page, proofs)
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert proof.rows(written) == {
        "branch": ("", "2", "interference: entry - chosen by answers"),
        "calls": ("", "none of 3", proof.UNNOTICED["calls"]),
    }
    assert proof.with_table(written, proofs) == written
    with pytest.raises(ValueError, match="threat-model"):
        proof.with_table("no table", proofs)


def test_rules_that_nobody_misses_are_rules() -> None:
    assert set(proof.UNNOTICED) | set(proof.CHECKED_AT_RUN_TIME) | set(proof.BEHIND) <= set(RULES)
    assert not set(proof.UNNOTICED) & set(proof.CHECKED_AT_RUN_TIME)


def test_no_list_is_made_of_what_was_not_measured() -> None:
    """Why nobody misses the rule on loops: each record with a list is made of measured bytes or records."""
    firmware = check(prepared(LINUX), ALL_RULES).require()
    lists = {
        name for name, r in firmware.records.items() if any(isinstance(f.type, ListOf) for f in r.fields)
    }
    makers = [p for p in firmware.primitives.values() if getattr(p.result, "name", "") in lists]
    assert {"parse_hob", "plan_memory", "place_linux"} <= {p.name for p in makers}
    for primitive in makers:
        assert primitive.result_provenance == Provenance.TRUSTED
        sources = [p for p in primitive.parameters if (primitive.name, p.name) not in ONLY_CHECKED]
        assert all(p.provenance.value >= Provenance.MEASURED.value for p in sources)


def test_each_rule_has_changes_that_are_aimed_at_it() -> None:
    assert set(AIMED) == set(RULES)
