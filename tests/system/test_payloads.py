"""Is a kernel or an executable handed over as it was measured, or refused, whatever is in it?"""

from __future__ import annotations

from dataclasses import replace

import executablecampaign
import pytest
from hostilecampaign import Outcome
from payloadcampaign import campaign
from tdbox import Firmware

CI_RUNS = 120
FILES = 40  # executables


@pytest.fixture(scope="module")
def outcome(linux: Firmware) -> Outcome:
    return campaign(linux, CI_RUNS)


def test_payloads_are_handed_over_or_refused(outcome: Outcome) -> None:
    assert outcome.failures == []
    assert outcome.runs == CI_RUNS


def test_both_ends_and_many_reasons_are_met(outcome: Outcome) -> None:
    assert min(outcome.by_reason.values()) >= CI_RUNS // 5
    assert len(outcome.by_detail) >= 6


def test_the_same_runs_each_time(linux: Firmware) -> None:
    assert campaign(linux, 20) == campaign(linux, 20)


def test_a_defect_is_found(linux: Firmware) -> None:
    """A firmware that sees no initrd neither measures it nor hands it over."""
    no_initrd = b"\x48\xc7\x02\0\0\0\0\x48\xc7\x42\x08\0\0\0\0\x31\xc0\xc3"
    broken = replace(linux, config=linux.patched("initrd_extent", no_initrd))
    found = campaign(broken, 20)
    assert any(failure.startswith("run ") for failure in found.failures)


# ---- executables


@pytest.fixture(scope="module")
def executables(executable: Firmware) -> Outcome:
    return executablecampaign.campaign(executable, FILES)


def test_executables_are_entered_or_refused(executables: Outcome) -> None:
    assert executables.failures == []
    assert executables.runs == FILES
    assert min(executables.by_reason.values()) >= FILES // 5
    assert len(executables.by_detail) >= 5


def test_the_same_executables_each_time(executable: Firmware) -> None:
    assert executablecampaign.campaign(executable, 3) == executablecampaign.campaign(executable, 3)


def test_a_loader_that_does_not_relocate_is_found(executable: Firmware) -> None:
    broken = replace(executable, config=executable.patched("relocate_executable", b"\x31\xc0\xc3"))
    found = executablecampaign.campaign(broken, 5)
    assert any("attribution: the image that is entered" in failure for failure in found.failures)
