"""What was a function of the firmware given? The spans that are passed, as they are at the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emu.observe import Observer
from emu.view import Machine, Vcpu


@dataclass(frozen=True)
class Argument:
    """A pointer to a `struct span` (data, size: 8 bytes each), in a register at a function's first byte."""

    address: int
    register: int  # in encoding order


class Witness(Observer):
    """Keeps what each argument spans at every call of its function: a firmware may place a kernel twice and
    hand over one. `arguments`: by the name of the part of a hand-over that it becomes.
    """

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        self.arguments = arguments
        self.given: dict[str, list[bytes]] = {}

    def on_start(self, machine: Machine) -> None:
        for argument in self.arguments.values():
            machine.vcpus[0].probe.break_set(argument.address)

    def on_stop(self, vcpu: Vcpu) -> None:
        memory = vcpu.memory
        for name, argument in self.arguments.items():
            if int(vcpu.regs.rip) == argument.address:
                span = memory.read(int(vcpu.regs.gpr[argument.register]), 16)
                data, size = (int.from_bytes(part, "little") for part in (span[:8], span[8:]))
                inside = data + size <= memory.span
                self.given.setdefault(name, []).append(memory.read(data, size) if inside else b"")
        vcpu.probe.break_pass()
