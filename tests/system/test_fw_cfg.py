"""Does qemu.tdf reach a true handoff, or refuse, whatever the fw_cfg device answers?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fwcfgcampaign
import pytest
from fwcfgcampaign import HOST_ACPI, QEMU, Files, campaign, judge_fw_cfg, what_is_given
from hostilecampaign import Outcome
from tdbox import Firmware, finish, launched, made

from dsl.api import check_source

CI_SEEDS = 60


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    return made(QEMU, tmp_path_factory.mktemp("qemu"), tiny)


@pytest.fixture(scope="module")
def outcome(qemu: Firmware) -> Outcome:
    return campaign(qemu, range(CI_SEEDS))


def test_seeds_end_in_a_true_handoff_or_in_a_refusal(outcome: Outcome) -> None:
    assert outcome.failures == []
    assert outcome.runs == CI_SEEDS
    assert outcome.by_reason.keys() == {"handoff", "fatal"}


def test_seeds_of_the_hosts_tables(tmp_path: Path, tiny: bytes) -> None:
    """The loader script and its tables lie, too."""
    found = campaign(made(HOST_ACPI, tmp_path, tiny), range(CI_SEEDS // 2))
    assert found.failures == []
    assert found.by_reason["handoff"]
    lies = [line for line in found.by_attack if line.startswith(("loader script", "ACPI tables"))]
    assert len(lies) >= 10
    assert any("ACPI loader" in line or "ACPI: malformed" in line for line in found.by_detail)


def test_the_lies_reach_far(outcome: Outcome) -> None:
    """Not all refused at the first transfer: many boots succeed, and the refusals are of many kinds."""
    assert outcome.by_reason["handoff"] >= CI_SEEDS // 6
    assert len(outcome.by_detail) >= 10
    assert len([attack for attack in outcome.by_attack if "fw_cfg" in attack]) >= 15


def test_the_same_runs_each_time(qemu: Firmware) -> None:
    assert campaign(qemu, range(3)) == campaign(qemu, range(3))


def test_a_defect_is_found(qemu: Firmware) -> None:
    """A firmware that never sees etc/boot/kernel takes the kernel's two parts, whatever the host lists."""
    found_nothing = b"\x31\xc0\x48\x89\x01\x89\x41\x08\xc3"
    broken = replace(qemu, config=qemu.patched("fw_cfg_find", found_nothing))
    found = campaign(broken, range(12))
    assert len(found.failures) >= found.by_reason["handoff"] // 2 > 0


def test_the_judge_sees_bytes_that_were_not_measured(qemu: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same boot, judged against one other byte in each file that was given."""
    config = fwcfgcampaign.configuration(qemu, 34)
    with launched(config) as machine:
        given = what_is_given(qemu, machine)
        td = finish(machine, config)
        assert td.report.handoff
        judge_fw_cfg(qemu, td, given, {})
        true = fwcfgcampaign.files(machine.vmm.policy.device)  # type: ignore[attr-defined]
        for name, at in (("kernel", 0x400), ("line", 0), ("initrd", 5)):
            changed = bytearray(getattr(true, name))
            changed[at] ^= 1
            lie = replace(true, **{name: bytes(changed)})

            def told(_: object, lie: Files = lie) -> Files:
                return lie

            monkeypatch.setattr(fwcfgcampaign, "files", told)
            with pytest.raises(AssertionError):
                judge_fw_cfg(qemu, td, given, {})


def test_as_many_regions_as_a_flow_may_declare_leave_room_for_files(tmp_path: Path, tiny: bytes) -> None:
    text = QEMU.read_text().replace(
        "        window  ", "        a 4 KiB  b 4 KiB  c 4 KiB  d 4 KiB\n        window  "
    )
    (flow := tmp_path / "many.tdf").write_text(text)
    firmware = made(flow, tmp_path, tiny)
    assert len(check_source(text).require().memory) == 8
    config = fwcfgcampaign.configuration(firmware, 34)
    with launched(config) as machine:
        assert finish(machine, config).report.handoff


def test_a_campaign_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert fwcfgcampaign.main(["3", "--first", "8", "--json", str(figures)]) == 0
    told = json.loads(figures.read_text())
    assert (told["first"], told["runs"], told["failures"]) == (8, 3, [])
    assert "3 seeds\n" in capsys.readouterr().out
    for words in (["0"], ["many"], ["1", "--first", "-1"]):
        with pytest.raises(SystemExit):
            fwcfgcampaign.main(words)
