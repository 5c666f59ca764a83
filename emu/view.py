"""What do observers, policies and scripts see of a machine? Protocols over the parts that they may use: no
native handle of the engine is among them.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Protocol

from emu.cpu.apic import LocalApic
from emu.cpu.probe import Probe
from emu.handoff import Handoff
from emu.symbols import Symbols
from emu.vmm.loader import Launch


class Registers(Protocol):
    """Registers of a vCPU, in place; `gpr` in encoding order, `mode` is the width of its code."""

    gpr: MutableSequence[int]
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    idt_limit: int
    cpl: int
    mode: int


class Memory(Protocol):
    """Private memory of the TD, what the host sees of it, and the states of its pages."""

    @property
    def span(self) -> int:
        """Bytes of guest-physical space that can be backed."""

    @property
    def shared_bit(self) -> int:
        """The address bit that selects the shared alias."""

    def read(self, gpa: int, size: int, shared: bool = False) -> bytes:
        """Bytes as the module or the host sees them."""

    def write(self, gpa: int, data: bytes, shared: bool = False) -> None:
        """Writes without a state check."""

    def is_backed(self, gpa: int) -> bool:
        """Whether the page is the TD's, in whatever state; device memory is not."""

    def is_large(self, gpa: int) -> bool:
        """Whether a 2 MiB page is there."""

    def split(self, gpa: int, size: int) -> None:
        """TDH.MEM.PAGE.DEMOTE of every 2 MiB page that the range touches."""

    def remove(self, gpa: int, size: int, again: bool = True) -> None:
        """Takes whole private pages away; with `again` new ones come on demand."""


class Vcpu(Protocol):
    """One vCPU."""

    halted: bool

    @property
    def index(self) -> int:
        """VCPU_INDEX."""

    @property
    def count(self) -> int:
        """Instructions executed."""

    @property
    def time(self) -> int:
        """Its TSC."""

    @property
    def regs(self) -> Registers:
        """Registers in place; changes take effect when the vCPU runs on."""

    @property
    def apic(self) -> LocalApic:
        """Its local APIC: an interrupt can be posted there."""

    @property
    def memory(self) -> Memory:
        """The TD's memory."""

    @property
    def probe(self) -> Probe:
        """What a debugger asks."""


class Console(Protocol):
    """What the guest has printed."""

    data: bytearray


class Machine(Protocol):
    """A TD with its VMM."""

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """By VCPU_INDEX."""

    @property
    def memory(self) -> Memory:
        """Its memory."""

    @property
    def launch(self) -> Launch:
        """What it was made of."""

    @property
    def symbols(self) -> Symbols:
        """The firmware's symbols, none without its ELF file."""

    @property
    def console(self) -> Console:
        """The serial console."""

    @property
    def handoff(self) -> Handoff | None:
        """What the payload was given, None before it runs."""
