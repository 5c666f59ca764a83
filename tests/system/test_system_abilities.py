"""Does each ability of the language work in a TD? Every flow of `flows` boots the small payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha384
from pathlib import Path

import pytest
from tdbox import Firmware, made

from emu.api import Report, run

FLOWS = sorted((Path(__file__).parent / "flows").glob("*.tdf"))
STARTED = "tdforge tiny payload: started\n"

Build = Callable[[str], Firmware]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Build:
    """The image of a flow, built once."""
    folder, built = tmp_path_factory.mktemp("abilities"), dict[str, Firmware]()

    def of(name: str) -> Firmware:
        if name not in built:
            flow = next(path for path in FLOWS if path.stem == name)
            built[name] = made(flow, folder / name, tiny)
        return built[name]

    return of


def started(firmware: Firmware) -> Report:
    report = run(replace(firmware.config, until=f"console:{STARTED}"))
    assert str(report.console).endswith(STARTED), report.end
    return report


def digests(report: Report) -> dict[str, str]:
    return {str(event["description"]): str(event["digest"]) for event in report.events}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_boots(build: Build, flow: Path) -> None:
    assert started(build(flow.stem)).handoff is not None


def test_a_kernel_that_is_not_on_the_list_is_refused(build: Build, tiny: bytes) -> None:
    other = tiny[:-1] + bytes([tiny[-1] ^ 1])
    report = run(replace(build("allow_list").config, kernel=other))
    assert report.end["reason"] == "fatal"
    assert "kernel: none that this firmware starts" in str(report.end["detail"])


def test_a_cfv_is_in_the_log(build: Build) -> None:
    assert digests(started(build("measure_a_cfv")))["config"] == sha384(bytes(4096)).hexdigest()


def test_a_measured_number_decides(build: Build) -> None:
    report = started(build("measure_a_number"))
    assert str(report.console).startswith("another key\n")
    assert digests(report)["key"] in {
        sha384(bytes([n]) + bytes(7)).hexdigest() for n in range(256) if n != 27
    }
