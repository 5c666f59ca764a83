"""How does one vCPU run until something needs a decision, and how do exceptions and interrupts reach it?
Between the engine, the module and the VMM.
"""

from __future__ import annotations

from typing import Any

from emu import instructions
from emu.cpu import pagestate
from emu.observe import Raised
from emu.processor import Processor
from emu.signals import End, Fault, VirtualizationException
from formats.tdx.reduction import ARCH, PENDING

VE_VECTOR, DOUBLE_FAULT, PAGE_FAULT, NMI_VECTOR = 20, 8, 14, 2
IF = 1 << 9


def instruction_names(lib: Any, ffi: Any) -> dict[int, str]:
    """TD_INSN_* numbers of the native core by name, without the prefix."""
    constants = (name for name in dir(lib) if name.startswith("TD_INSN_"))
    return {int(getattr(lib, name)): name.removeprefix("TD_INSN_") for name in constants}


class Vcpu(Processor):
    """A vCPU that runs; raises End when the run is over."""

    def run(self, limit: int) -> bool:
        """Runs until the instruction count reaches `limit` (True) or one stop was handled (False)."""
        if self.apic.irr or self.apic.nmi:
            self.interrupt()
        self.lib.td_run(self.handle, limit, self.stop)
        stop = self.stop
        lib = self.lib
        if stop.kind == lib.TD_STOP_INSN:
            try:
                instructions.execute(self, self.names[stop.insn], int(stop.length))
            except VirtualizationException as ve:
                self.virtualization_exception(ve)
            except Fault as fault:
                self.deliver(fault)
            return False
        if stop.kind == lib.TD_STOP_LIMIT:
            return True
        if stop.kind == lib.TD_STOP_WINDOW:
            lib.td_want_window(self.handle, False)
            return False
        if stop.kind == lib.TD_STOP_YIELD:
            self.yielded = True
            return True
        if stop.kind in (lib.TD_STOP_EXCEPTION, lib.TD_STOP_BREAK, lib.TD_STOP_MODE):
            self.report_stop()
            return False
        if stop.kind == lib.TD_STOP_EPT_VE:
            self.ept_violation()
            return False
        self.over()
        return False

    def run_alone(self, number: int) -> None:
        """Runs for a number of instructions without a turn of another vCPU, not at all once it halted."""
        target = self.count + number
        self.lib.td_spin_limit(self.handle, 0)
        while not self.halted and not self.run(target):
            pass

    def interrupt(self) -> None:
        """Delivers an interrupt if the vCPU can take one now, else has the engine stop when it can."""
        apic = self.apic
        regs = self.regs
        if apic.nmi and not regs.shadow and self.model.ve is None:
            apic.nmi = False
            self.take(NMI_VECTOR)
        vector = apic.pending()
        can = bool(regs.rflags & IF) and not regs.shadow
        if vector is not None and can:
            apic.take(vector)
            self.take(vector)
            vector = apic.pending() if regs.rflags & IF else None
        self.lib.td_want_window(self.handle, apic.pending() is not None or apic.nmi)

    def ept_violation(self) -> None:
        """#VE(48) for the access that the stop describes. Qualification: what was tried, a linear address is
        known, whether it is the access itself or one to a page table, and what paging says of the address
        (Intel SDM volume 3, table 28-7; the module passes all on, td_ept_violation.c).
        """
        stop = self.stop
        gpa = int(stop.gpa) | (self.memory.shared_bit if stop.shared else 0)
        if stop.shared and self.model.ve is not None:
            # The CPU itself raises this #VE, and only into an empty area (Intel SDM volume 3, 26.5.7.1)
            why = "before TDG.VP.VEINFO.GET of the last #VE"
            raise End("sept-violation", f"access to shared GPA {gpa:#x} {why}")
        access = (1, 2, 4)[stop.access] | int(stop.linear) << 9 | 0x180
        qualification = 0x81 if stop.in_walk else access
        category = ARCH if stop.shared else PENDING
        ve = VirtualizationException(48, qualification, int(stop.gla), gpa, category=category)
        self.virtualization_exception(ve)

    def take(self, vector: int) -> None:
        """An interrupt through the guest's IDT."""
        rip = int(self.regs.rip)
        if self.lib.td_interrupt(self.handle, vector, self.stop):
            self.not_delivered(vector)
            return
        if self.observer:
            self.observer.on_interrupt(self, vector, rip)

    def report_stop(self) -> None:
        """An observer asked for this stop."""
        stop = self.stop
        if self.observer is None:
            return
        if stop.kind == self.lib.TD_STOP_BREAK:
            self.observer.on_stop(self)
            return
        if stop.kind == self.lib.TD_STOP_MODE:
            self.observer.on_mode(self)
            return
        vector = int(stop.insn)
        code = int(stop.stop_code) if stop.length else None
        address = int(stop.gla) if vector == PAGE_FAULT else None
        self.observer.on_exception(self, Raised(vector, code, int(stop.gpa), address))

    def over(self) -> None:
        """Ends the run for a stop that the guest cannot survive."""
        stop, lib = self.stop, self.lib
        if stop.kind == lib.TD_STOP_HANDOFF:
            raise End("handoff", "")
        if stop.kind == lib.TD_STOP_TRIPLE:
            raise End("triple-fault", "")
        if stop.kind in (lib.TD_STOP_SEPT, lib.TD_STOP_EPT_VE):
            verb = ("read from", "write to", "execution of")[stop.access]
            state = self.memory.state(int(stop.gpa)) & pagestate.STATE
            what = {
                pagestate.PENDING: "not accepted",
                pagestate.SHARED: "shared",
                pagestate.MAPPED: "private",
            }
            alias = "shared" if stop.shared else "private"
            page = what.get(state, "not backed by the VMM")
            where = f"{alias} GPA {int(stop.gpa):#x} (linear {int(stop.gla):#x})"
            raise End("sept-violation", f"{verb} {where}, a page that is {page}")
        raise End(
            "illegal", f"the CPU engine cannot execute this instruction (engine error {int(stop.stop_code)})"
        )

    def not_delivered(self, vector: int) -> None:
        """A pending page stood in the way: #VE takes the place of the event, unless it is #DF."""
        if self.stop.kind != self.lib.TD_STOP_EPT_VE or vector == DOUBLE_FAULT:
            self.over()
        self.ept_violation()

    def deliver(self, fault: Fault) -> None:
        """Through the guest's IDT."""
        has_error, rip = fault.error_code is not None, int(self.regs.rip)
        if self.lib.td_deliver(self.handle, fault.vector, has_error, fault.error_code or 0, self.stop):
            self.not_delivered(fault.vector)
            return
        if self.observer:
            self.observer.on_exception(self, Raised(fault.vector, fault.error_code, rip))

    def virtualization_exception(self, ve: VirtualizationException) -> None:
        """#VE, or #DF while the previous one was not fetched (intel/tdx-module, td_other_exits.c)."""
        if self.model.ve is not None:
            self.deliver(Fault(DOUBLE_FAULT, 0))
            return
        ve.interruptibility = int(self.regs.shadow)  # no NMI is ever blocked here
        self.model.ve = ve
        self.deliver(Fault(VE_VECTOR))
