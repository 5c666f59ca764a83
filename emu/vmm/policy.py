"""Which decisions are the VMM's alone, and who makes them? One object, honest here; a hostile VMM and a
user's script override what they want.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emu.signals import End
from emu.tdx.params import TdParams
from emu.view import Machine, Vcpu
from emu.vmm.devices.bus import Device
from emu.vmm.loader import Launch
from formats import tdvf
from formats.registers import R11, Gpr


@dataclass
class Call:
    """One TDG.VP.VMCALL. `given` are the registers that reached the VMM, in encoding order; `answer` those
    it is about to give back (only the ones that the guest named in RCX arrive).
    """

    vcpu: int
    name: str
    given: Gpr
    answer: Gpr

    @property
    def function(self) -> int:
        """The GHCI sub-function, R11."""
        return self.given[R11]


class Policy:
    """The honest VMM: every hook leaves things as they are. `done` lists, one line each, what a policy did
    that an honest VMM would not; it goes into the report.
    """

    watches_calls = False  # on_call, on_answer and on_end are called only if this is set

    def __init__(self) -> None:
        self.done: list[str] = []

    def params(self, params: TdParams) -> TdParams:
        """TD_PARAMS before TDH.MNG.INIT, and how often locks are held (`params.choices`)."""
        return params

    def launch(self, launch: Launch) -> Launch:
        """RAM, every page that is added and its bytes, and the HOB address, before anything is added."""
        return launch

    def devices(self, board: tuple[Device, ...]) -> tuple[Device, ...]:
        """The devices of the host's board, before the TD is launched."""
        return board

    def on_launched(self, machine: Machine) -> None:
        """The TD is final, nothing ran yet: page sizes, pages that are not given."""

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        """For how many instructions this vCPU runs next, instead of `instructions` (> 0); 0: not now."""
        return instructions

    def on_call(self, call: Call) -> int | None:
        """Before a TDVMCALL is carried out. A number is the answer's R10, and nothing is carried out."""
        return None

    def on_answer(self, call: Call) -> None:
        """After it was carried out: `call.answer` may be changed."""

    def on_end(self, call: Call, end: End) -> None:
        """A call that ends the run (a report of a fatal error, a halt, power-off). Raises `end`, or returns
        to resume the guest, which then gets `call.answer`.
        """
        raise end


def section_content(launch: Launch, kind: tdvf.SectionType) -> bytes:
    """The bytes that the VMM puts into the first section of a type, to the section's size."""
    for section in launch.sections:
        if section.type == kind:
            return launch.content(section).ljust(section.memory_size, b"\0")
    return b""


def with_content(launch: Launch, kind: tdvf.SectionType, content: bytes) -> Launch:
    """The launch with other bytes in the first section of a type, cut to its size."""
    for section in launch.sections:
        if section.type == kind:
            return with_section(launch, section, content)
    return launch


def with_section(launch: Launch, section: tdvf.Section, content: bytes) -> Launch:
    """The launch with other bytes in a section, cut to its size; zeros behind them."""
    regions = list(launch.regions)
    index, at = launch.holder(section)
    old, end = regions[index], at + section.memory_size
    cut = content[: section.memory_size]
    new = cut
    if section.memory_size < old.length:
        new = old.content[:at].ljust(at, b"\0") + cut.ljust(section.memory_size, b"\0") + old.content[end:]
    regions[index] = replace(old, content=new, size=old.length)
    hob = cut if section.type == tdvf.SectionType.TD_HOB else launch.hob
    return replace(launch, regions=tuple(regions), hob=hob)
