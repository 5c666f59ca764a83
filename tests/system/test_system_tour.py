"""Does every construct of the language do at run time what its page says? A flow that checks itself, run."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha384
from pathlib import Path

import pytest
from tdbox import MIB, Firmware, made

from emu.api import run

HERE = Path(__file__).parent
TOUR = HERE / "tour.tdf"
LANGUAGE = HERE.parents[1] / "docs" / "language.md"
SAID = """constants: end
constants: 0x5555
middle: 0
middle: 3
middle: 4
records: index
spans: end
spans: order
host: 0x80
tab\tquote" backslash\\ end\r
tdforge tiny payload: started
"""


def two(firmware: Firmware) -> Firmware:
    """The same with two vCPUs."""
    return replace(firmware, config=replace(firmware.config, vcpus=2))


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    return two(made(TOUR, tmp_path_factory.mktemp("tour"), tiny))


def test_every_line_gives_what_it_says(tour: Firmware, tiny: bytes) -> None:
    report = run(replace(tour.config, until="console:started\n"))
    assert report.console == SAID
    digests = {event["description"]: event["digest"] for event in report.events}
    whole = sha384(tiny.ljust(16 * MIB, b"\0")).hexdigest()
    assert digests["the whole section"] == whole
    assert digests["parameters"] == sha384(b"console=ttyS0".ljust(4096, b"\0")).hexdigest()
    assert digests["host"] == sha384(bytes(512)).hexdigest()
    assert report.handoff is not None
    usable = [start + size for start, size, kind in report.handoff["e820"] if kind == 1]
    assert max(usable) == 64 * MIB


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        ("require a == 64", "require a == 65", "tour: a number is wrong"),
        ("require depth == 7", "require depth == 8", "tour: a branch is wrong"),
        ("records(vmm, td)?", "require raise(0)? == 0", "tour: raised on purpose"),
        ("numbers()?", "require add(~0, 1)? == 0", "arithmetic overflow in the flow"),
        ("spans()?", "require part(window, 2, 1)?.size == 1", "index or slice out of bounds in the flow"),
    ],
)
def test_an_error_goes_to_its_target(tiny: bytes, tmp_path: Path, right: str, wrong: str, text: str) -> None:
    assert TOUR.read_text().count(right) == 1
    flow = tmp_path / "wrong.tdf"
    flow.write_text(TOUR.read_text().replace(right, wrong))
    report = run(two(made(flow, tmp_path, tiny)).config)
    assert report.end["reason"] == "fatal"
    assert text in str(report.end["detail"])


def test_the_example_of_the_language_page_boots(tmp_path: Path, tiny: bytes) -> None:
    found = re.search(r"```tdf\n(.*?)```", LANGUAGE.read_text(), re.DOTALL)
    assert found is not None
    flow = tmp_path / "minimal.tdf"
    flow.write_text(found[1])
    report = run(replace(made(flow, tmp_path, tiny).config, until="handoff"))
    assert report.handoff is not None, report.end
