"""What is one vCPU made of? Engine, what the module keeps of it, local APIC; its registers and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emu.cpu.apic import LocalApic
from emu.cpu.memory import Memory
from emu.cpu.probe import Probe
from emu.observe import Observer
from emu.tdx import cpuid
from emu.tdx.module import TdxModule, VcpuModel
from emu.vmm.vmcall import Vmm
from formats.registers import RAX, RDX

RESET_VECTOR = 0xFFFFFFF0
MASK32 = (1 << 32) - 1
FMASK, FMASK_AT_ENTRY = 0xC0000084, 0x20200  # td_vmcs_init.c


@dataclass
class Processor:
    """One vCPU's parts and registers."""

    ffi: Any
    lib: Any
    handle: Any
    module: TdxModule
    vmm: Vmm
    memory: Memory
    model: VcpuModel
    names: dict[int, str]
    after_call: Callable[[], None]  # may end the run between a TDCALL and the next instruction
    apic: LocalApic
    probe: Probe
    halted: bool = False
    deaf: bool = False  # halted with interrupts blocked: only an NMI wakes it
    yielded: bool = False  # the last stop was for spinning
    spins: int = 0  # turns in a row that ended so
    rests_until: int = 0
    observer: Observer | None = None

    def __post_init__(self) -> None:
        self.stop = self.ffi.new("td_stop *")

    @property
    def index(self) -> int:
        """VCPU_INDEX."""
        return self.model.index

    def enter(self, hob_address: int) -> None:
        """State at the first TDH.VP.ENTER (intel/tdx-module, td_vmcs_init.c, tdh_vp_init.c)."""
        self.lib.td_enter(self.handle, RESET_VECTOR)
        gpr = self.lib.td_get_regs(self.handle).gpr
        gpr[3], gpr[1], gpr[8] = self.module.params.gpaw, hob_address, hob_address
        gpr[2], gpr[6] = cpuid.FMS, self.index
        self.lib.td_set_msr(self.handle, FMASK, FMASK_AT_ENTRY)

    @property
    def regs(self) -> Any:
        """Registers in place; changes take effect when the vCPU runs on."""
        return self.lib.td_get_regs(self.handle)

    @property
    def count(self) -> int:
        """Instructions executed."""
        return int(self.lib.td_count(self.handle))

    @property
    def excluded(self) -> int:
        """Those of them that are counted separately (RunConfig.skip_count)."""
        return int(self.lib.td_count_excluded(self.handle))

    @property
    def time(self) -> int:
        """Its TSC."""
        return int(self.lib.td_tsc(self.handle))

    def catch_up(self, time: int) -> None:
        """Time has passed while it did not run."""
        if (behind := time - self.time) > 0:
            self.lib.td_skip_time(self.handle, behind)

    def retire(self, length: int) -> None:
        """The instruction at RIP is done."""
        self.lib.td_retire(self.handle, length)

    def edx_eax(self) -> int:
        """The 64-bit operand in EDX:EAX."""
        return int((self.regs.gpr[RDX] & MASK32) << 32 | self.regs.gpr[RAX] & MASK32)

    def set_edx_eax(self, value: int) -> None:
        """A 64-bit result in EDX:EAX."""
        self.regs.gpr[RAX], self.regs.gpr[RDX] = value & MASK32, value >> 32 & MASK32
