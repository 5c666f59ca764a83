"""Do vCPUs that accept together hand over what one alone does, whichever come, and in whatever order?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from faultcampaign import built
from interference.choices import BASE
from interference.trial import Built
from qemubox import console, initrd
from tdbox import GIB, MIB, QEMU, Firmware, made

from emu import api
from emu.observe import Observer
from emu.oracle import chosen
from emu.oracle.chosen import ORDERS, Outcome
from emu.oracle.compare import differences
from emu.report import Report
from emu.tdx import leaves as tdx_leaves
from emu.tdx.measure import AddedRegion
from emu.tdx.module import TdxModule, VcpuModel
from emu.view import Machine, Vcpu
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy
from formats.registers import RAX, RCX, Gpr
from formats.tdx import status
from formats.tdx.leaves import Leaf
from tdforge.bench import PAGE_FILE, SHARED_MEMORY, VCPUS
from tdforge.hosts import Launch as PlainLaunch
from tdforge.initramfs import TOUR

FLOW = Path(__file__).parents[1] / "dsl" / "flows" / "all_vcpus.tdf"
LARGE = 2 * MIB


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    return made(FLOW, tmp_path_factory.mktemp("all_vcpus"), tiny)


@pytest.fixture(scope="module")
def shown() -> Built:
    """The same for the oracle of the interference campaign."""
    flow = built(FLOW)
    return replace(flow, config=replace(flow.config, memory=GIB))


@dataclass
class Acceptance(Observer):
    """Which operands each vCPU had accepted, and what it was answered otherwise."""

    accepted: dict[int, list[int]] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        if given[RAX] != Leaf.MEM_PAGE_ACCEPT:
            return
        if result[RAX] == status.SUCCESS:
            self.accepted.setdefault(vcpu.index, []).append(given[RCX])
        else:
            self.answers[result[RAX]] += 1

    @property
    def all(self) -> list[int]:
        return sorted(operand for each in self.accepted.values() for operand in each)


class Late(Policy):
    """A VMM that does not run these vCPUs while RAM is accepted. `words`: where `ap_shared` is."""

    def __init__(self, words: int, *indices: int) -> None:
        super().__init__()
        self.words, self.indices = words, indices
        self.machine: Machine | None = None
        self.withheld = 0

    def on_launched(self, machine: Machine) -> None:
        self.machine = machine

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        assert self.machine is not None
        words = self.machine.memory.read(self.words, 24)
        chunks, done = (int.from_bytes(words[at : at + 8], "little") for at in (8, 16))
        away = vcpu.index in self.indices and done < chunks
        self.withheld += away
        return 0 if away else instructions


class Refusing:
    """Between firmware and module: PAGE.ACCEPT of an operand is answered so, by everyone or only an AP."""

    def __init__(self, patch: pytest.MonkeyPatch, answers: dict[int, int], aps_alone: bool = False) -> None:
        self.answers, self.aps_alone = answers, aps_alone
        self.of_aps = 0
        self.module = tdx_leaves.ACTIONS[Leaf.MEM_PAGE_ACCEPT]
        patch.setitem(tdx_leaves.ACTIONS, Leaf.MEM_PAGE_ACCEPT, self)

    def __call__(self, module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
        if r[RCX] in self.answers and (vcpu.index or not self.aps_alone):
            self.of_aps += vcpu.index > 0
            return self.answers[r[RCX]]
        return self.module(module, vcpu, r)


def boot(firmware: Firmware, policy: Policy | None = None, **changes: object) -> tuple[Report, Acceptance]:
    config = replace(firmware.config, **changes)  # type: ignore[arg-type]
    machine = api.prepare(config, policy=policy)
    try:
        seen = Acceptance()
        machine.observe(seen)
        ending = machine.run(config.max_instructions, None)
        return api.report(machine, ending), seen
    finally:
        machine.close()


# ---- the same as one alone


@pytest.mark.parametrize("vcpus", [1, 2, 4, 64])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_same_pages_and_registers_as_by_one(
    together: Firmware, linux: Firmware, vcpus: int, seed: int
) -> None:
    """Large pages as one page, and each once: a second acceptance would show as an answer."""
    changes = {"memory": 2 * GIB, "vcpus": vcpus, "seed": seed}
    (one, alone), (other, shared) = boot(linux, **changes), boot(together, **changes)
    assert (one.met, other.met) == (True, True), other.end
    assert alone.accepted.keys() == {0}
    assert shared.all == alone.all
    assert not shared.answers
    assert other.rtmr == one.rtmr
    assert all(ap["parked"] for ap in other.aps)


def test_every_vcpu_takes_part(together: Firmware) -> None:
    """Of 2.000 chunks of 4 GiB, with turns of 64 instructions or so: nobody is left out."""

    class Short(Policy):
        def turn(self, vcpu: Vcpu, instructions: int) -> int:
            return min(instructions, 64)

    report, seen = boot(together, Short(), memory=4 * GIB, vcpus=4)
    assert report.met
    assert sorted(seen.accepted) == [0, 1, 2, 3]
    assert min(len(each) for each in seen.accepted.values()) > 200


def test_a_host_of_small_pages(together: Firmware, linux: Firmware) -> None:
    changes = {"memory": 256 * MIB, "host_page_size": "4K"}
    (one, alone), (other, shared) = boot(linux, **changes), boot(together, vcpus=4, seed=1, **changes)
    assert (one.met, other.met) == (True, True)
    assert shared.all == alone.all
    assert shared.answers == alone.answers, "a large page is tried once for each area"
    assert len(shared.accepted) > 1


def test_vcpus_that_come_when_all_is_over(together: Firmware) -> None:
    late = Late(together.symbols()["ap_shared"], 1, 2, 3)
    report, seen = boot(together, late, memory=GIB, vcpus=4)
    assert report.met, report.end
    assert late.withheld
    assert list(seen.accepted) == [0]
    assert all(ap["parked"] for ap in report.aps)


def test_some_that_come_and_one_that_does_not(together: Firmware) -> None:
    late = Late(together.symbols()["ap_shared"], 2)
    report, seen = boot(together, late, memory=4 * GIB, vcpus=4)
    assert report.met, report.end
    assert late.withheld
    assert sorted(seen.accepted) == [0, 1, 3]


HONEST = replace(BASE, vcpus=3)
CHOICES = [
    *(replace(HONEST, order=order, seed=seed) for order in range(1, len(ORDERS)) for seed in (1, 2)),
    replace(HONEST, busy=3, order=2),
    replace(HONEST, small=1, seed=3),
    replace(HONEST, small=1, busy=2, order=2),
    replace(HONEST, preset=1, tempmem=2, order=2),
]


@pytest.fixture(scope="module")
def honest(shown: Built) -> Outcome:
    return outcome(shown, HONEST)


def outcome(built: Built, choice: chosen.Choice) -> Outcome:
    return chosen.run(built.config, choice, built.log_area, built.arguments, built.window)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_same_is_handed_over_in_any_order(shown: Built, honest: Outcome, choice: chosen.Choice) -> None:
    other = outcome(shown, choice)
    assert other.shown is not None, other.detail
    assert honest.shown is not None
    assert other.findings == ()
    if not choice.preset:  # another list of memory is another measurement
        assert other.evidence == honest.evidence
        assert differences(honest.shown, other.shown) == []


# ---- what an AP cannot finish

ANYWHERE = 128 * MIB  # in RAM of each machine here


class ApsFirst(Policy):
    """vCPU 0 runs little."""

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        return instructions if vcpu.index else min(instructions, 50)


@pytest.mark.parametrize("answer", [status.OPERAND_INVALID | status.RCX, status.EPT_ENTRY_STATE_INCORRECT])
@pytest.mark.parametrize("aps_first", [False, True])
def test_a_refused_page_ends_the_boot_and_is_named(
    together: Firmware, monkeypatch: pytest.MonkeyPatch, answer: int, aps_first: bool
) -> None:
    """The same words whoever asks first."""
    refusing = Refusing(monkeypatch, {ANYWHERE | 1: answer})
    report, _ = boot(together, ApsFirst() if aps_first else None, memory=GIB, vcpus=4)
    assert report.end["reason"] == "fatal"
    assert report.end["detail"] == f"tdforge: PAGE.ACCEPT of {ANYWHERE:016x} gave {answer:016x}"
    assert refusing.of_aps == aps_first


def test_what_an_ap_was_refused_is_asked_for_by_vcpu_0(
    together: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = {gpa | 1 for gpa in range(64 * MIB, 960 * MIB, LARGE)}
    refusing = Refusing(
        monkeypatch, dict.fromkeys(operands, status.OPERAND_BUSY | status.RCX), aps_alone=True
    )
    report, seen = boot(together, ApsFirst(), memory=GIB, vcpus=4)
    assert report.met, report.end
    assert refusing.of_aps > 100
    assert operands <= set(seen.accepted[0])
    assert len(set(seen.all)) == len(seen.all)


class Adding(ApsFirst):
    """Pages of the VMM's where no section is."""

    PAGES = (ANYWHERE, ANYWHERE + 4096, *range(200 * MIB, 200 * MIB + LARGE, 4096), 255 * MIB - 4096)

    def launch(self, launch: Launch) -> Launch:
        added = (AddedRegion(at, b"dirt" * 1024, False) for at in self.PAGES)
        return replace(launch, regions=(*launch.regions, *added))


def test_what_the_vmm_had_added_is_cleared(together: Firmware, linux: Firmware) -> None:
    """By vCPU 0, whoever finds it; all else is accepted as one alone does it."""
    _, alone = boot(linux, Adding())
    config = replace(together.config, vcpus=4)
    machine = api.prepare(config, policy=Adding())
    try:
        shared = Acceptance()
        machine.observe(shared)
        ending = machine.run(config.max_instructions, None)
        assert ending.end.reason == "handoff", ending.end.detail
        left = [at for at in Adding.PAGES if any(machine.read_guest(at, 4096))]
    finally:
        machine.close()
    assert left == []
    assert shared.all == alone.all
    assert len(shared.accepted) > 1
    assert shared.answers[status.PAGE_ALREADY_ACCEPTED] >= len(Adding.PAGES)


# ---- figures


@pytest.mark.parametrize("vcpus", VCPUS)
def test_the_page_of_figures_has_these(together: Firmware, vcpus: int) -> None:
    """docs/performance.md: all calls, vCPU 0's, the busiest vCPU's."""
    lines = PAGE_FILE.read_text().split("## Acceptance on all vCPUs")[1].split("\n## ")[0].splitlines()
    rows = {cells[1].strip(): cells[2:-1] for line in lines if len(cells := line.split("|")) > 2}
    column = VCPUS.index(vcpus)
    names = ("TDG.MEM.PAGE.ACCEPT", "by vCPU 0", "by the busiest vCPU")
    _, seen = boot(together, memory=SHARED_MEMORY, vcpus=vcpus)
    calls = {index: len(each) for index, each in seen.accepted.items()}
    found = (sum(calls.values()), calls[0], max(calls.values()))
    assert [rows[name][column].strip() for name in names] == [f"{figure:,}" for figure in found]


# ---- without TDX


def test_on_an_ordinary_machine_all_is_there(tmp_path: Path, tiny: bytes, kernel: bytes) -> None:
    """The same image in a TD on QEMU, where APs take part, and on a QEMU without TDX, where none is asked."""
    flow = tmp_path / "everywhere.tdf"
    flow.write_text(QEMU.read_text().replace("    accept ram\n", "    accept ram on all vcpus\n"))
    image = made(flow, tmp_path, tiny)
    report, seen = boot(image, ApsFirst(), vmm="qemu", vcpus=4)
    assert report.met, report.end
    assert sorted(seen.accepted) == [0, 1, 2, 3]
    bios = tmp_path / "everywhere.bin"
    bios.write_bytes(image.image)
    file = tmp_path / "kernel"
    file.write_bytes(kernel)
    text = console(PlainLaunch(bios, file, initrd(tmp_path, TOUR), "console=ttyS0 quiet", 512 * MIB, 2, ()))
    assert "tour: processors: 2\n" in text
    assert "tour: done" in text
