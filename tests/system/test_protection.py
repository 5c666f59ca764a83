"""Is memory ever writable and executable? Looks at each vCPU's page tables at each TDCALL of a boot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from faultcampaign import FLOWS, built
from interferencecampaign import flow_files
from oracle import Mapping, mappings

from emu import api
from emu.handoff import Handoff
from emu.observe import Observer
from emu.oracle.chosen import configuration
from emu.tdx.measure import AddedRegion
from emu.view import Vcpu
from formats.registers import RAX, Gpr
from formats.tdx.leaves import Leaf

LOW_MEMORY = 2 << 20  # where Linux has its trampolines
BIT64 = 64


class Watch(Observer):
    """Keeps what is writable and executable, before the handoff and at it."""

    def __init__(self) -> None:
        self.before: list[tuple[int, Mapping]] = []
        self.after: list[Mapping] = []
        self.entry = 0
        self.maps: dict[int, set[tuple[Mapping, ...]]] = {}
        self.accepting: set[int] = set()

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        if vcpu.regs.mode == BIT64 and not self.entry:
            if given[RAX] == Leaf.MEM_PAGE_ACCEPT:
                self.accepting.add(vcpu.index)
            found = mappings(vcpu.memory.read, vcpu.regs.cr3, vcpu.memory.shared_bit)
            self.maps.setdefault(vcpu.index, set()).add(tuple(found))
            self.before += [(vcpu.index, each) for each in found if each.rights == "rwx"]

    def on_handoff(self, vcpu: Vcpu, given: Handoff) -> None:
        self.entry = given.entry
        self.after = mappings(vcpu.memory.read, vcpu.regs.cr3, vcpu.memory.shared_bit)


EXECUTABLES = {"executable", "payload", "service_td", "signed_executable"}


def watched(flow: str) -> tuple[Watch, list[AddedRegion]]:
    """A boot with two vCPUs up to the handoff, and what the VMM measured of the TD."""
    image = built(flow_files()[flow])
    shared = flow == "all_vcpus"
    config = configuration(image.config, image.base)
    machine = api.prepare(replace(config, vcpus=2, memory=4 * config.memory if shared else config.memory))
    try:
        watch = Watch()
        machine.observe(watch)
        ending = machine.run(image.config.max_instructions, None)
        own = [r for r in machine.launch.regions if r.measured]
    finally:
        machine.close()
    assert ending.end.reason == "handoff", ending.end.detail
    assert watch.before == []
    assert len(watch.maps[0]) > 1, "the map of the BSP changes on the way"
    assert 1 in watch.maps, "the AP has 64-bit code, too"
    assert watch.accepting == ({0, 1} if shared else {0})
    return watch, own


@pytest.mark.parametrize("flow", sorted(set(FLOWS) - EXECUTABLES))
def test_nothing_is_both_before_the_handoff_and_then_the_window_alone(flow: str) -> None:
    watch, own = watched(flow)
    low, *windows = [each for each in watch.after if each.rights == "rwx"]
    assert (low.start, low.end) == (0, LOW_MEMORY)
    assert any(each.start <= watch.entry < each.end for each in windows)
    assert not [r for r in own for each in windows if r.gpa < each.end and each.start < r.gpa + r.length]


@pytest.mark.parametrize("flow", sorted(EXECUTABLES))
def test_an_executable_is_entered_with_nothing_that_is_both(flow: str) -> None:
    """The file in the image stays as it is: only its copy in RAM is code."""
    watch, own = watched(flow)
    assert [each for each in watch.after if each.rights == "rwx"] == []
    code = [each for each in watch.after if each.executable]
    assert any(each.start <= watch.entry < each.end for each in code)
    bfv = max(own, key=lambda region: region.gpa)
    for region in own:
        covered = [e for e in code if region.gpa < e.end and e.start < region.gpa + region.length]
        assert not covered or region is bfv, hex(region.gpa)
