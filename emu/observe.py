"""What can be seen of a run while it happens? One interface, called at exits the machine makes anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.ending import Ending
from emu.handoff import Handoff
from emu.view import Machine, Vcpu
from formats.registers import Gpr


@dataclass(frozen=True)
class Raised:
    """An exception on its way to the guest's handler; `rip` is where it happened, `address` CR2 of a #PF."""

    vector: int
    error_code: int | None
    rip: int
    address: int | None = None


class Observer:
    """Does nothing at every event; a subclass overrides what it needs. No method may change the guest."""

    def on_start(self, machine: Machine) -> None:
        """The TD is launched, nothing ran yet (or a snapshot was restored)."""

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        """A TDCALL, TDG.VP.VMCALL included, before it retires: general registers
        before and after, the same object when it ended the run or raised #VE.
        """

    def on_exception(self, vcpu: Vcpu, raised: Raised) -> None:
        """An exception or #VE was delivered; RIP is at the handler's first instruction."""

    def on_interrupt(self, vcpu: Vcpu, vector: int, rip: int) -> None:
        """A maskable interrupt or NMI was delivered; `rip` is where it came."""

    def on_control(self, vcpu: Vcpu, register: str, old: int, new: int) -> None:
        """A write of CR0, CR4 or EFER that the module allows."""

    def on_mode(self, vcpu: Vcpu) -> None:
        """Code of another width begins: RIP is at its first instruction."""

    def on_handoff(self, vcpu: Vcpu, given: Handoff) -> None:
        """The first fetch outside the measured pages is due; without boot_params it may be no payload."""

    def on_stop(self, vcpu: Vcpu) -> None:
        """A breakpoint or the end of a step; the guest goes on when this returns."""

    def on_slice(self, machine: Machine) -> None:
        """Between two turns of the vCPUs."""

    def on_end(self, machine: Machine, ending: Ending) -> None:
        """The run is over; registers and memory can still be read."""


@dataclass(frozen=True)
class Several(Observer):
    """Passes each event to several observers, in order."""

    observers: Sequence[Observer]

    def on_start(self, machine: Machine) -> None:
        for one in self.observers:
            one.on_start(machine)

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        for one in self.observers:
            one.on_tdcall(vcpu, given, result)

    def on_exception(self, vcpu: Vcpu, raised: Raised) -> None:
        for one in self.observers:
            one.on_exception(vcpu, raised)

    def on_interrupt(self, vcpu: Vcpu, vector: int, rip: int) -> None:
        for one in self.observers:
            one.on_interrupt(vcpu, vector, rip)

    def on_control(self, vcpu: Vcpu, register: str, old: int, new: int) -> None:
        for one in self.observers:
            one.on_control(vcpu, register, old, new)

    def on_mode(self, vcpu: Vcpu) -> None:
        for one in self.observers:
            one.on_mode(vcpu)

    def on_handoff(self, vcpu: Vcpu, given: Handoff) -> None:
        for one in self.observers:
            one.on_handoff(vcpu, given)

    def on_stop(self, vcpu: Vcpu) -> None:
        for one in self.observers:
            one.on_stop(vcpu)

    def on_slice(self, machine: Machine) -> None:
        for one in self.observers:
            one.on_slice(machine)

    def on_end(self, machine: Machine, ending: Ending) -> None:
        for one in self.observers:
            one.on_end(machine, ending)
