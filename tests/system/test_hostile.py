"""Does the firmware reach a true handoff, or refuse, whatever a VMM does to its first boot?"""

from __future__ import annotations

from dataclasses import replace

import fwcfgcampaign
import hostilecampaign
import pytest
from hostilecampaign import Outcome, campaign
from tdbox import MIB, Firmware, finish, launched, wanted_runs

from emu.api import run
from emu.signals import REASONS
from emu.vmm.choose import parse
from image.hosts import verdicts

CI_SEEDS = 60
KERNELS = 3  # boots of a real kernel that go on behind the handoff


@pytest.fixture(scope="module")
def outcome(linux: Firmware) -> Outcome:
    return campaign(linux, range(CI_SEEDS))


def test_seeds_end_in_a_true_handoff_or_in_a_refusal(outcome: Outcome) -> None:
    assert outcome.failures == []
    assert outcome.runs == CI_SEEDS
    assert outcome.by_reason.keys() == {"handoff", "fatal"}


def test_each_campaign_takes_hosts_that_load_its_image(linux: Firmware, qemu: Firmware) -> None:
    """The same that `tdforge check --for` says; the campaigns of lists and of payloads keep to one host."""
    assert verdicts(linux.image, [linux.config.vmm])[0].accepts
    for firmware, module in ((linux, hostilecampaign), (qemu, fwcfgcampaign)):
        hosts = {parse(module.configuration(firmware, seed).vmm)[0].name for seed in range(CI_SEEDS)}
        named = sorted({host.partition(":")[0] for host in hosts})
        assert all(verdict.accepts for verdict in verdicts(firmware.image, named)), named


def test_the_attacks_reach_far(outcome: Outcome) -> None:
    """Not all refused at the door: many boots succeed under attack, and the refusals are of many kinds."""
    assert outcome.by_reason["handoff"] >= CI_SEEDS // 8
    assert len(outcome.by_detail) >= 8
    assert len(outcome.by_attack) >= 30


def test_a_defect_is_found(linux: Firmware) -> None:
    """A firmware that accepts nothing: the campaign must not call that a refusal."""
    # mov qword [r8 + n], 0 for each field of the run; xor eax, eax; ret
    clear = b"".join(b"\x49\xc7\x40" + bytes((at, 0, 0, 0, 0)) for at in range(0, 40, 8))
    nothing_left = clear + b"\x31\xc0\xc3"
    broken = replace(linux, config=linux.patched("accept_next", nothing_left))
    found = campaign(broken, range(12))
    assert found.by_reason["sept-violation"]
    assert len(found.failures) >= found.by_reason["sept-violation"]


def test_the_judge_sees_bytes_that_were_not_measured(linux: Firmware) -> None:
    """The same boot, judged against one other byte in each thing that was given."""
    seed = next(s for s in range(200) if run(hostilecampaign.configuration(linux, s)).met)
    config = hostilecampaign.configuration(linux, seed)
    with launched(config) as machine:
        given = hostilecampaign.what_is_given(linux, machine)
        td = finish(machine, config)
        hostilecampaign.judge_handoff(linux, td, given)
        for name, at in (("hob", 60), ("payload", 0x400), ("parameters", 0)):
            changed = bytearray(getattr(given, name))
            changed[at] ^= 1
            with pytest.raises(AssertionError):
                hostilecampaign.judge_handoff(linux, td, replace(given, **{name: bytes(changed)}))


def test_a_real_kernel_under_attack_ends_in_words(linux: Firmware, kernel: bytes) -> None:
    """Past the handoff it is the kernel's fight; the emulator tells how it ended and does not fail itself."""
    config = replace(
        linux.config,
        kernel=kernel,
        memory=128 * MIB,
        until="console:Unable to mount root fs",
        max_instructions=500_000_000,
        cmdline="console=ttyS0 earlyprintk=serial nokaslr",
    )
    handed_over = 0
    for seed in range(60):
        report = run(replace(config, vmm=f"hostile:{seed}"))
        assert report.end["reason"] in REASONS
        handed_over += report.handoff is not None
        if handed_over == KERNELS:
            return
    pytest.fail(f"{handed_over} of 60 seeds let the kernel start")


def test_a_campaign_takes_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert wanted_runs("./run hostile", "", 500, []) == 500
    assert wanted_runs("./run hostile", "", 500, ["7"]) == 7
    for words in (["0"], ["many"]):
        with pytest.raises(SystemExit):
            wanted_runs("./run hostile", "", 500, words)
        assert capsys.readouterr().err.splitlines()[-1].startswith("./run hostile: error: ")
