"""Does the emulated TD answer as the specification and the module's source say? One small guest per row."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from guests import runner, sources, table
from guests.__main__ import main
from guests.rows import Row, tdcall
from guests.suite import suite

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
RUN = [row for row in suite() if row.status != "absent"]


def problem(row: Row) -> str:
    """What differs from the row's expectations, empty if nothing does."""
    found = runner.result(row)
    if found.end != row.end or row.detail not in found.detail:
        return f"ended as {found.end!r} ({found.detail}), expected {row.end!r} {row.detail}"
    if row.console is not None and found.console != row.console:
        return f"the VMM saw {found.console!r}, expected {row.console!r}"
    if row.end != "halt":
        return ""
    wrong = [name for name, value in row.expect.items() if found.values.get(name) != value]
    return ", ".join(
        f"{name} is {found.values.get(name, -1):#x}, expected {row.expect[name]:#x}" for name in wrong
    )


@pytest.mark.parametrize("row", RUN, ids=[row.key for row in RUN])
def test_row(row: Row) -> None:
    assert not problem(row)


def test_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == table.document(), "run: python -m tests.emu.guests.table"


def test_at_least_200_rows_are_exact() -> None:
    assert sum(row.status == "exact" for row in suite()) >= 200


def test_rows_say_something() -> None:
    """A row that runs expects something; a row that is not exact says why; an absent one does not run."""
    for row in suite():
        judged = row.expect or row.end != "halt" or row.console is not None
        assert bool(judged) == (row.status != "absent"), row.key
        assert bool(row.why) == (row.status != "exact"), row.key
        assert row.source, row.key
        assert row.section, row.key


def test_every_exact_row_names_its_place() -> None:
    """A reader who doubts a row can look it up: a function or a table, not only a file; or the SDM."""
    vague = {
        f"{row.key}: {row.source}"
        for row in suite()
        if row.status == "exact"
        and not row.source.startswith("Intel SDM volume ")
        and not all(name for _, name in sources.named(row.source) or [("", "")])
    }
    assert not vague


def test_every_name_has_its_definition() -> None:
    """What a row names of the TDX module has its line, each line is a row's; other files are known."""
    named = {each for row in suite() for each in sources.named(row.source)}
    known = {(path.rpartition("/")[2], name) for path, names in sources.MODULE.items() for name in names}
    assert {each for each in named if each[0] not in sources.OTHERS and each[1]} == known
    assert {file for file, _ in named} >= set(sources.OTHERS)


def test_a_source_is_read_as_places() -> None:
    assert sources.named("KVM tdx.c tdx_get_msr, x86.c a, b, QEMU x/y.c c, d.h") == [
        ("KVM tdx.c", "tdx_get_msr"),
        *(("KVM x86.c", "a"), ("KVM x86.c", "b"), ("QEMU x/y.c", "c"), ("d.h", "")),
    ]
    assert sources.named("Intel SDM volume 2, RDTSC") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"expect": {"rcx": 52}}, "rcx is 0x30, expected 0x34"),
        ({"end": "fatal"}, "ended as 'halt'"),
        ({"steps": (tdcall(2, rcx=0x8000000, rdx=0),)}, "ended as 'sept-violation'"),
        ({"expect": {}, "console": "x"}, "the VMM saw ''"),
    ],
    ids=["value", "ending", "exit", "console"],
)
def test_a_wrong_row_is_noticed(change: dict[str, object], expected: str) -> None:
    good = next(row for row in suite() if row.key == "vp.info.gpaw48")
    assert not problem(good)
    assert expected in problem(dataclasses.replace(good, **change))  # type: ignore[arg-type]


def test_an_image_can_be_written_for_a_real_td(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpuid.0", str(tmp_path / "x.bin")]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == ["3    vector", "23    rax"]
    assert (tmp_path / "x.bin").stat().st_size == 0x10000
    assert main(["nothing", "x"]) == 2


def test_images_differ_only_in_steps() -> None:
    """Every row is the same measured harness with its own script: nothing but steps and the list to print."""
    first, second = (runner.build(row) for row in RUN[:2])
    different = [at for at in range(len(first)) if first[at] != second[at]]
    assert all(0x4000 <= at < 0xA000 for at in different)
