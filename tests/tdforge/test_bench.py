"""Does the page of figures say what was measured?"""

from __future__ import annotations

from pathlib import Path

import pytest

from formats.units import PAGE as PAGE_SIZE
from gen.link import toolchain
from host import library
from tdforge.bench import core_label, main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def test_hashing_on_the_host_is_not_passed_off_as_the_firmwares() -> None:
    label = core_label()
    assert label == "C core, compiled for this host with -O2 (the image's is compiled with -Os)"
    assert "-O2" in library.FLAGS
    assert "-Os" in toolchain.C_FLAGS
    assert f"| {label} | " in PAGE.read_text()


def test_the_limits_are_held_by_the_figures_above_them() -> None:
    """Counts that were written by hand, after a change of the firmware, are written in both tables."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    of = {row[0]: row[1:] for row in reversed(rows) if row}  # the first table of those that have such a row
    flows = next(row[1:] for row in rows if row and row[0] == "" and "linux.tdf, 2 GiB" in row)
    for flow, count in zip(flows, of["instructions, without hashing"], strict=True):
        assert of.get(f"instructions, {flow}", [count])[0] == count
    pages = of["pages that are in MRTD by content"][0]
    assert of["measured pages"][0] == pages
    assert of["BFV bytes"][0] == f"{int(pages) * PAGE_SIZE:,}"


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--fast"], 2)])
def test_a_word_does_not_start_the_measurement(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == code
    said = capsys.readouterr()
    assert "./run bench" in said.out + said.err
