"""Do the proofs of the C core run, does one fail without a check, and does the page list them?"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from debian import HOME

from dsl.capabilities import prelude
from tdforge import prove
from tdforge.errors import UserError

ROOT = prove.ROOT
PROOFS = {proof.name: proof for proof in prove.read_proofs()}
PAGE = (ROOT / "docs/proofs.md").read_text()
SAMPLE = PROOFS["linux"]  # of a second


@pytest.fixture(scope="module")
def prover() -> prove.Prover:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDFORGE_CACHE", str(HOME))
        return prove.prover(lambda text: None)


def test_a_proof_holds_and_fails_without_a_check(prover: prove.Prover) -> None:
    assert prover.run(SAMPLE, ROOT).holds
    result = prove.run_mutant(prover, SAMPLE, SAMPLE.mutants[0])
    assert result.answered
    assert result.failed[0].startswith("runtime-c/src/linux.c:")
    assert re.search("pointer arithmetic|reads what it may", " ".join(result.failed))


def test_a_proof_without_an_answer_is_none(prover: prove.Prover) -> None:
    result = prover.run(replace(SAMPLE, memory=32), ROOT)
    assert (result.holds, result.answered) == (False, False)
    assert prove.try_mutants(prover, [replace(SAMPLE, memory=32)], 1) is False


def test_why_there_is_no_answer() -> None:
    assert (
        prove.reason(6, "SAT checker ran out of memory", SAMPLE, 1) == f"no answer within {SAMPLE.memory} MiB"
    )
    assert prove.reason(-24, "", SAMPLE, SAMPLE.seconds) == f"no answer within {SAMPLE.seconds} s"
    assert prove.reason(6, "reading\none.c:3: error: x", SAMPLE, 1) == "exit code 6: one.c:3: error: x"


@pytest.mark.parametrize("name", PROOFS)
def test_each_mutant_fits_the_sources(name: str) -> None:
    for mutant in PROOFS[name].mutants:
        assert prove.mutated(mutant, ROOT) != (ROOT / mutant.path).read_text()
    with pytest.raises(UserError, match=r"runtime-c/src/hob\.c: found 'no such text' 0 times, expected once"):
        prove.mutated(prove.Mutant("runtime-c/src/hob.c", "no such text", ""), ROOT)


def test_each_source_is_proved_with_a_mutant_or_has_a_reason() -> None:
    files = sorted((ROOT / "runtime-c/proofs").glob("*.c"))
    assert {proof.file for proof in PROOFS.values()} == {path.name for path in files}
    modules = {m[1] for path in files for m in re.finditer(r'#include "\.\./src/(\w+\.c)"', path.read_text())}
    mutants = [mutant for proof in PROOFS.values() for mutant in proof.mutants]
    assert modules == {mutant.path.removeprefix("runtime-c/src/") for mutant in mutants}
    unproved = prove.read_unproved()
    assert sorted((*modules, *unproved)) == sorted(path.name for path in (ROOT / "runtime-c/src").iterdir())
    for name, reason in unproved.items():
        assert f"\n- `runtime-c/src/{name}`: {reason}.\n" in PAGE


def test_each_primitive_in_c_is_proved_or_in_a_source_with_a_reason() -> None:
    proved = {name for proof in PROOFS.values() for name in proof.functions}
    unproved = "".join((ROOT / "runtime-c/src" / name).read_text() for name in prove.read_unproved())
    names = {each.name for each in prelude().primitives.values() if each.home == "c"}
    assert names & proved
    assert [name for name in sorted(names - proved) if not re.search(rf"\b{name}\(", unproved)] == []


def test_each_harness_is_a_proof() -> None:
    files = (ROOT / "runtime-c/proofs").glob("*.c")
    found = {
        name
        for path in files
        for name in re.findall(r"^void prove_(\w+)\(void\)", path.read_text(), re.MULTILINE)
    }
    assert found == set(PROOFS)


def test_each_proof_is_a_row_of_the_page() -> None:
    rows = prove.table(prove.Result(proof, True, (), 0) for proof in PROOFS.values())
    time = re.compile(r" [^|]* \|$", re.MULTILINE)
    assert time.sub("", rows) in time.sub("", PAGE)


def test_a_short_list_is_the_last_of_its_struct() -> None:
    text = prove.headers({"ram.ranges": 8})["primitives.h"]
    struct = re.search(r"^struct ram \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL)
    assert struct is not None
    assert struct[1].splitlines()[-1] == "    struct { uint64_t count; struct ram_range items[8]; } ranges;"
    assert "_Static_assert" not in text
    assert "_Static_assert" in prove.headers({})["primitives.h"]
    with pytest.raises(UserError, match=r"no list ram\.rows in the prelude"):
        prove.headers({"ram.rows": 8})


def test_firmware_has_nothing_of_the_contracts() -> None:
    text = (ROOT / "runtime-c/include/tdf_base.h").read_text()
    assert "#else\n#define PROVE_LOOP(changes, holds, ...)\n#endif\n" in text


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        prove.main(["nothing"])
    assert caught.value.code == 2
    assert "no proof nothing; there are text, hob, linux" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prove.main(["--jobs", "0"])


def test_a_table_with_a_name_twice(tmp_path: Path) -> None:
    one = '[[proof]]\nname = "n"\nfile = "f.c"\nfunctions = ["f"]\ninput = "any"\n'
    (tmp_path / "t.toml").write_text(one + one)
    with pytest.raises(UserError, match="more than one proof is called n"):
        prove.read_proofs(tmp_path / "t.toml")


def test_a_failed_assertion_is_named_with_its_place() -> None:
    said = (
        "/tmp/x/runtime-c/proofs/../src/hob.c function parse_hob\n"
        "[parse_hob.pointer.1] line 12 pointer outside: FAILURE\n"
        "[parse_hob.pointer.2] line 13 pointer outside: SUCCESS\n"
        "<builtin-library> function f\n[f.assertion.1] unwinding: FAILURE\n"
    )
    assert prove.failed(said) == ("runtime-c/src/hob.c:12: pointer outside", "<builtin-library>:?: unwinding")


def test_functions_that_stand_for_others_are_there() -> None:
    for proof in PROOFS.values():
        text = (ROOT / "runtime-c/proofs" / proof.file).read_text()
        assert [name for name in proof.instead.values() if not re.search(rf"\b{name}\(", text)] == []
        assert f"\nvoid prove_{proof.name}(void) {{\n" in text
