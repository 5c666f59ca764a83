"""What happens at an instruction that a TD may not simply execute? One vCPU between the engine, the
module and the VMM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emu.cpu.apic import FIRST_VECTOR, SELF_IPI, LocalApic
from emu.cpu.apic import NATIVE as APIC_NATIVE
from emu.cpu.decode import port_qualification, prefixes, string_info
from emu.cpu.memory import Memory
from emu.cpu.probe import Probe
from emu.observe import Observer, Raised
from emu.signals import GP, UD, End, Fault, VirtualizationException
from emu.tdx import control, cpuid, leaves, msr
from emu.tdx.control import Outcome
from emu.tdx.module import TdxModule, VcpuModel
from emu.vmm.vmcall import Vmm
from formats.registers import RAX, RCX, RDX, Gpr

RESET_VECTOR = 0xFFFFFFF0
VE_VECTOR, DOUBLE_FAULT, PAGE_FAULT, NMI_VECTOR = 20, 8, 14, 2
MASK32 = (1 << 32) - 1
ENGINE_XCR0 = 7  # x87, SSE, AVX
FMASK, FMASK_AT_ENTRY = 0xC0000084, 0x20200  # td_vmcs_init.c
EFER, TSC = 0xC0000080, 0x10
IF = 1 << 9

# Exit reasons of #VE (Intel SDM volume 3, appendix C)
EXIT_REASON = {"CPUID": 10, "HLT": 12, "INVD": 13, "VMCALL": 18, "IN": 30, "OUT": 30, "INS": 30, "OUTS": 30}
EXIT_REASON |= {"MWAIT": 36, "MONITOR": 39, "WBINVD": 54, "PCONFIG": 65}
APIC_WRITE, SELF_IPI_OFFSET = 56, 0x3F0  # of the virtual-APIC page
PRIVILEGED = frozenset(("HLT", "INVD", "WBINVD", "RDMSR", "WRMSR", "MOV_CR0", "MOV_CR4", "MOV_CR8", "LMSW"))
UNKNOWN_TO_USERS = frozenset(("MONITOR", "MWAIT", "PCONFIG"))  # #UD beyond CPL 0
PORT_ACCESS = frozenset(("IN", "OUT", "INS", "OUTS"))


def instruction_names(lib: Any, ffi: Any) -> dict[int, str]:
    """TD_INSN_* numbers of the native core by name, without the prefix."""
    constants = (name for name in dir(lib) if name.startswith("TD_INSN_"))
    return {int(getattr(lib, name)): name.removeprefix("TD_INSN_") for name in constants}


@dataclass
class Vcpu:
    """One vCPU; raises End when the run is over."""

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

    def run(self, limit: int) -> bool:
        """Runs until the instruction count reaches `limit` (True) or one stop was handled (False)."""
        if self.apic.irr or self.apic.nmi:
            self.interrupt()
        self.lib.td_run(self.handle, limit, self.stop)
        stop = self.stop
        lib = self.lib
        if stop.kind == lib.TD_STOP_INSN:
            try:
                self.instruction(self.names[stop.insn], int(stop.length))
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

    def run_alone(self, instructions: int) -> None:
        """Runs for this number of instructions without a turn of another vCPU, not at all once it halted."""
        target = self.count + instructions
        self.lib.td_spin_limit(self.handle, 0)
        while not self.halted and not self.run(target):
            pass

    @property
    def time(self) -> int:
        """Its TSC."""
        return int(self.lib.td_tsc(self.handle))

    def catch_up(self, time: int) -> None:
        """Time has passed while it did not run."""
        if (behind := time - self.time) > 0:
            self.lib.td_skip_time(self.handle, behind)

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
        known, and whether it is the access itself or one to a page table (Intel SDM volume 3, table 28-7).
        """
        stop = self.stop
        gpa = int(stop.gpa) | (self.memory.shared_bit if stop.shared else 0)
        if stop.shared and self.model.ve is not None:
            # The CPU itself raises this #VE, and only into an empty area (Intel SDM volume 3, 26.5.7.1)
            why = "before TDG.VP.VEINFO.GET of the last #VE"
            raise End("sept-violation", f"access to shared GPA {gpa:#x} {why}")
        qualification = 0x81 if stop.in_walk else (1, 2, 4)[stop.access] | 0x180
        self.virtualization_exception(VirtualizationException(48, qualification, int(stop.gla), gpa))

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
            state = self.memory.state(int(stop.gpa)) & lib.TD_PAGE_STATE
            what = {
                lib.TD_PAGE_PENDING: "not accepted",
                lib.TD_PAGE_SHARED: "shared",
                lib.TD_PAGE_MAPPED: "private",
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
        self.model.ve = ve
        self.deliver(Fault(VE_VECTOR))

    def retire(self, length: int) -> None:
        """The instruction at RIP is done."""
        self.regs.rip += length
        self.lib.td_add_count(self.handle, 1)

    def instruction(self, name: str, length: int) -> None:
        """One instruction that the engine did not execute."""
        regs = self.regs
        if name == "TDCALL":
            self.tdcall(length)
            return
        if (name in PRIVILEGED and regs.cpl) or (name in PORT_ACCESS and regs.cpl > (regs.rflags >> 12 & 3)):
            raise GP
        if name in UNKNOWN_TO_USERS and regs.cpl:
            raise UD
        if name in PORT_ACCESS:
            code = bytes(self.stop.bytes)
            qualification = port_qualification(code, regs.mode, int(regs.gpr[RDX]))
            info = string_info(code, regs.mode) if name in ("INS", "OUTS") else 0
            raise VirtualizationException(EXIT_REASON[name], qualification, length=length, info=info)
        match name:
            case "CPUID":
                self.cpuid(length)
            case "RDMSR" | "WRMSR":
                self.msr(name == "WRMSR", length)
            case "MOV_CR0" | "MOV_CR4":
                self.control_register(0 if name == "MOV_CR0" else 4, length)
            case "LMSW":
                self.lib.td_pass_once(self.handle)
            case "XSETBV":
                self.xsetbv(length)
            case "XGETBV":
                self.xgetbv(length)
            case "MOV_CR8":
                self.task_priority(length)
            case "STORE_TABLE":
                if regs.cpl and regs.cr4 & control.CR4_UMIP:
                    raise GP
                self.lib.td_pass_once(self.handle)
            case "RDPMC" | "RDTSC" | "RDTSCP":  # the latter two come here only when CR4.TSD forbids them
                raise GP
            case "UD":
                raise UD
            case _:
                raise VirtualizationException(EXIT_REASON[name], length=length)

    def edx_eax(self) -> int:
        """The 64-bit operand in EDX:EAX."""
        return int((self.regs.gpr[RDX] & MASK32) << 32 | self.regs.gpr[RAX] & MASK32)

    def set_edx_eax(self, value: int) -> None:
        """A 64-bit result in EDX:EAX."""
        self.regs.gpr[RAX], self.regs.gpr[RDX] = value & MASK32, value >> 32 & MASK32

    def tdcall(self, length: int) -> None:
        """TDCALL, and the VMM's part of TDG.VP.VMCALL."""
        regs = self.regs
        r = list(regs.gpr)
        if self.observer is None:
            self.call(r)
        else:
            result = given = r.copy()
            try:
                self.call(r)
                result = r
            finally:
                self.observer.on_tdcall(self, given, result)
        regs = self.regs
        regs.gpr[0:16] = r
        self.retire(length)
        self.after_call()

    def call(self, r: Gpr) -> None:
        """What module and VMM make of the registers of a TDCALL, in place."""
        regs = self.regs
        leaf = r[RAX] & 0xFFFF
        if leaves.tdcall(self.module, self.model, r, regs.mode == 64, regs.cpl):
            self.vmm.handle(self.index, r)
        elif leaf == 0 and r[RAX] and self.module.params.choices.stop_at_refused_vmcall:
            raise End(
                "illegal",
                f"TDG.VP.VMCALL with register mask {r[RCX]:#x}: bits 0, 1, 4, 5 and 63:32 are forbidden",
            )

    def cpuid(self, length: int) -> None:
        """CPUID."""
        regs = self.regs
        tsc = self.module.params.tsc_25mhz
        caller = cpuid.Caller(self.index, int(regs.cr4), regs.mode == 64, tsc)
        leaf, subleaf = regs.gpr[RAX] & MASK32, regs.gpr[RCX] & MASK32
        answer, row = cpuid.lookup(leaf, subleaf, caller), cpuid.find(leaf, subleaf)
        if answer is None or row is None or self.model.cpuid_faults(row.number, user=regs.cpl > 0):
            raise VirtualizationException(EXIT_REASON["CPUID"], length=length)
        regs.gpr[0], regs.gpr[3], regs.gpr[1], regs.gpr[2] = answer
        self.retire(length)

    def msr(self, is_write: bool, length: int) -> None:
        """RDMSR and WRMSR that the engine must not do."""
        regs = self.regs
        index = regs.gpr[RCX] & MASK32
        xfam = self.module.params.xfam
        access = msr.access(index, is_write, xfam, self.module.params.attributes)
        if access is msr.Access.GP:
            raise GP
        if access is msr.Access.VE:
            raise VirtualizationException(32 if is_write else 31, length=length)
        value = self.edx_eax()
        if is_write and not msr.native_takes(index, value):
            raise GP
        if index in msr.ENGINE:
            self.lib.td_pass_once(self.handle)
            return
        if index in APIC_NATIVE:
            self.apic_msr(index, value if is_write else None, length)
            return
        if not is_write:
            row = msr.find(index)
            if index == TSC:
                value = int(self.lib.td_read_tsc(self.handle))
            else:
                value = row.value if row and access is msr.Access.FIXED else self.model.msrs.get(index, 0)
            self.set_edx_eax(value)
            self.retire(length)
            return
        if index == EFER:
            if control.write_efer(int(regs.efer), value) is Outcome.VE:
                raise VirtualizationException(control.EFER_VE_REASON, length=length)
            if self.observer:
                self.observer.on_control(self, "EFER", int(regs.efer), value)
            self.lib.td_pass_once(self.handle)
            return
        access, value = msr.written(index, self.model.msrs.get(index, 0), value, xfam)
        if access is msr.Access.GP:
            raise GP
        if access is msr.Access.VE:
            raise VirtualizationException(32, length=length)
        self.model.msrs[index] = value
        self.retire(length)

    def apic_msr(self, index: int, value: int | None, length: int) -> None:
        """An x2APIC register that the module virtualises; without a value it is read."""
        if value is None:
            self.set_edx_eax(self.apic.read_native(index))
        elif index == SELF_IPI and value < FIRST_VECTOR:
            # An APIC-write exit behind the instruction (Intel SDM vol. 3, 30.5): the module makes it #VE
            self.apic.self_ipi = value
            self.retire(length)
            raise VirtualizationException(APIC_WRITE, SELF_IPI_OFFSET)
        elif not self.apic.write_native(index, value):
            raise GP
        self.retire(length)

    def control_register(self, number: int, length: int) -> None:
        """MOV to CR0 or CR4: the module's rules, then the engine does it."""
        regs = self.regs
        code = bytes(self.stop.bytes)
        p = prefixes(code, regs.mode)
        register = (code[p.start + 2] & 7) | (p.rex & 1) << 3
        value = int(regs.gpr[register])
        if regs.mode != 64:
            value &= MASK32
        if number == 0:
            outcome = control.write_cr0(int(regs.cr0), value, int(regs.cr4), regs.mode == 64)
            value = value & ~control.CR0_RESERVED | control.ET
        else:
            params = self.module.params
            cr0, cr3 = int(regs.cr0), int(regs.cr3)
            outcome = control.write_cr4(int(regs.cr4), value, cr0, cr3, params.xfam, params.attributes)
        if outcome is Outcome.GP:
            raise GP
        if outcome is Outcome.VE:
            raise VirtualizationException(control.CR_VE_REASON, number | register << 8, length=length)
        if self.observer:
            old = int(regs.cr4 if number else regs.cr0)
            self.observer.on_control(self, f"CR{number}", old, value)
        self.retire(length)
        (self.lib.td_write_cr4 if number else self.lib.td_write_cr0)(self.handle, value)

    def task_priority(self, length: int) -> None:
        """MOV to and from CR8: bits 7:4 of the virtual APIC's TPR (Intel SDM volume 3, 30.3)."""
        regs = self.regs
        code = bytes(self.stop.bytes)
        p = prefixes(code, regs.mode)
        register = (code[p.start + 2] & 7) | (p.rex & 1) << 3
        if code[p.start + 1] == 0x20:
            regs.gpr[register] = self.apic.tpr >> 4
        elif regs.gpr[register] > 0xF:
            raise GP
        else:
            self.apic.tpr = int(regs.gpr[register]) << 4
        self.retire(length)

    def xsetbv(self, length: int) -> None:
        """XSETBV. The engine gets only the states it knows."""
        regs = self.regs
        if not regs.cr4 & control.CR4_OSXSAVE:
            raise UD
        if regs.cpl:
            raise GP
        value = self.edx_eax()
        if control.write_xcr0(regs.gpr[RCX] & MASK32, value, self.module.params.xfam) is Outcome.GP:
            raise GP
        self.model.xcr0 = value
        if value & ~ENGINE_XCR0:
            self.retire(length)
        else:
            self.lib.td_pass_once(self.handle)

    def xgetbv(self, length: int) -> None:
        """XGETBV of XCR0; no other register exists without XSAVE in CPUID."""
        regs = self.regs
        if not regs.cr4 & control.CR4_OSXSAVE:
            raise UD
        if regs.gpr[RCX] & MASK32:
            raise GP
        self.set_edx_eax(self.model.xcr0)
        self.retire(length)
