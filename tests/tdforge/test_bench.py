"""Does the page of figures say what was measured?"""

from __future__ import annotations

from pathlib import Path

from gen.core import hostlib
from gen.link import toolchain
from tdforge.bench import core_label

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def test_hashing_on_the_host_is_not_passed_off_as_the_firmwares() -> None:
    label = core_label()
    assert label == "C core, compiled for this host with -O2 (the image's is compiled with -Os)"
    assert "-O2" in hostlib.FLAGS
    assert "-Os" in toolchain.C_FLAGS
    assert f"| {label} | " in PAGE.read_text()
