"""Does an error of any TDCALL end a boot in words, or change nothing? A sample of `./run faults`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from faultcampaign import FLOWS, Call, Honest, Seam, boot, built, honest, main, tried, wrong
from interference.trial import Built
from interferencecampaign import flow_files

from formats.registers import RAX
from formats.tdx import status
from formats.tdx.leaves import Leaf


@pytest.fixture(scope="module")
def linux() -> Built:
    return built(flow_files()["linux"])


@pytest.fixture(scope="module")
def good(linux: Built) -> Honest:
    return honest(linux)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_boot_hands_over_the_same_or_is_refused(flow: str) -> None:
    calls = 307
    figures = tried(flow_files()[flow], every=calls, first=FLOWS.index(flow))
    assert figures.failures == []
    assert figures.runs >= figures.calls // calls
    assert figures.handed_over > 0 or figures.refused


def test_each_leaf_that_a_boot_calls_has_an_error_and_is_asked(linux: Built, good: Honest) -> None:
    """Once each, with what it says: a lock, a size or a console that fails changes nothing, the rest ends."""
    ends = {}
    for call in dict.fromkeys(good.calls):
        for answer in call.errors():
            other = boot(linux, Seam(good.calls.index(call), answer))
            assert wrong(good, other) == ""
            ends[str(call), *answer.values()] = other.detail
    assert ends["TDG.MEM.PAGE.ACCEPT", status.OPERAND_BUSY | status.RCX] == ""
    assert ends["TDG.MEM.PAGE.ACCEPT", status.OPERAND_INVALID | status.RCX].startswith("tdforge: ")
    assert ends["TDG.MR.RTMR.EXTEND", status.OPERAND_BUSY | status.RTMR] == ""
    assert ends["TDG.MR.RTMR.EXTEND", status.OPERAND_INVALID | status.RCX].startswith("tdforge: ")


@pytest.mark.parametrize("leaf", [Leaf.MR_RTMR_EXTEND, Leaf.MEM_PAGE_ACCEPT])
def test_an_error_that_nobody_heeds_is_seen(leaf: Leaf, linux: Built, good: Honest) -> None:
    """As if the firmware went on after each: the call is not carried out and answers that it was."""
    unheeded = Seam(good.calls.index(Call(leaf)), {RAX: status.SUCCESS})
    assert wrong(good, boot(linux, unheeded)) != ""


def test_a_refusal_without_separators_is_seen(good: Honest) -> None:
    ended = replace(good.outcome, shown=None, reason="fatal", detail="tdforge: no")
    assert wrong(good, ended) == "refused, and RTMR[0] does not end in separator 1"
    assert wrong(good, replace(ended, detail="")) == "refused without a word: "


def test_no_flow_is_left_out() -> None:
    assert set(FLOWS) == set(flow_files())


def test_a_flow_is_named_or_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lunix"])
    assert "no flow lunix; there are alioth, all_vcpus, elf" in capsys.readouterr().err
    assert main(["linux", "--every", "400"]) == 0
    assert capsys.readouterr().out.startswith("linux: ")
