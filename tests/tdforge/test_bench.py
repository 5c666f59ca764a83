"""Does the page of figures say what was measured?"""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--fast"], 2)])
def test_a_word_does_not_start_the_measurement(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == code
    said = capsys.readouterr()
    assert "./run bench" in said.out + said.err
