"""What happens at an instruction that a TD may not simply execute? The module's tables decide: native, value,
#VE or #GP.
"""

from __future__ import annotations

from typing import Any

from emu.cpu.apic import FIRST_VECTOR, SELF_IPI
from emu.cpu.apic import NATIVE as APIC_NATIVE
from emu.cpu.decode import port_qualification, prefixes, string_info
from emu.processor import MASK32, Processor
from emu.signals import GP, UD, End, VirtualizationException
from emu.tdx import control, cpuid, features, leaves, msr, reduced, reduced_msr
from emu.tdx.control import Outcome
from formats.registers import RAX, RCX, RDX, Gpr
from formats.tdx.reduction import CONFIG_PARAVIRT, NON_CONFIG_PARAVIRT, UNSUPPORTED_FEATURE

ENGINE_XCR0 = 7  # x87, SSE, AVX
EFER, TSC = 0xC0000080, 0x10

# Exit reasons of #VE (Intel SDM volume 3, appendix C)
EXIT_REASON = {"CPUID": 10, "HLT": 12, "INVD": 13, "VMCALL": 18, "IN": 30, "OUT": 30, "INS": 30, "OUTS": 30}
EXIT_REASON |= {"MWAIT": 36, "MONITOR": 39, "WBINVD": 54}
APIC_WRITE, SELF_IPI_OFFSET = 56, 0x3F0  # of the virtual-APIC page
PRIVILEGED = frozenset(("HLT", "INVD", "WBINVD", "RDMSR", "WRMSR", "MOV_CR0", "MOV_CR4", "MOV_CR8", "LMSW"))
UNKNOWN_TO_USERS = frozenset(("MONITOR", "MWAIT"))  # #UD beyond CPL 0; modules after 1.5.01: everywhere
PORT_ACCESS = frozenset(("IN", "OUT", "INS", "OUTS"))


def execute(v: Processor, name: str, length: int) -> None:
    """One instruction that the engine did not execute."""
    regs = v.regs
    if name == "TDCALL":
        tdcall(v, regs, length)
        return
    if (name in PRIVILEGED and regs.cpl) or (name in PORT_ACCESS and regs.cpl > (regs.rflags >> 12 & 3)):
        raise GP
    if name in UNKNOWN_TO_USERS and (regs.cpl or v.module.newer):
        raise UD
    if name in PORT_ACCESS:
        code = bytes(v.stop.bytes)
        qualification = port_qualification(code, regs.mode, int(regs.gpr[RDX]))
        info = string_info(code, regs.mode) if name in ("INS", "OUTS") else 0
        reason, category = EXIT_REASON[name], NON_CONFIG_PARAVIRT
        raise VirtualizationException(reason, qualification, length=length, info=info, category=category)
    match name:
        case "CPUID":
            _cpuid(v, length)
        case "RDMSR" | "WRMSR":
            _msr(v, name == "WRMSR", length)
        case "MOV_CR0" | "MOV_CR4":
            _control_register(v, 0 if name == "MOV_CR0" else 4, length)
        case "LMSW":
            v.lib.td_pass_once(v.handle)
        case "XSETBV":
            _xsetbv(v, length)
        case "XGETBV":
            _xgetbv(v, length)
        case "MOV_CR8":
            _task_priority(v, length)
        case "STORE_TABLE":
            if regs.cpl and regs.cr4 & control.CR4_UMIP:
                raise GP
            v.lib.td_pass_once(v.handle)
        case "RDPMC" | "RDTSC" | "RDTSCP":  # the latter two come here only when CR4.TSD forbids them
            raise GP
        case "UD":
            raise UD
        case _:
            raise VirtualizationException(EXIT_REASON[name], length=length, category=NON_CONFIG_PARAVIRT)


def tdcall(v: Processor, regs: Any, length: int) -> None:
    """TDCALL, and the VMM's part of TDG.VP.VMCALL."""
    r = list(regs.gpr)
    if v.observer is None:
        _call(v, regs, r)
    else:
        result = given = r.copy()
        try:
            _call(v, regs, r)
            result = r
        finally:
            v.observer.on_tdcall(v, given, result)
    v.regs.gpr[0:16] = r
    v.retire(length)
    v.after_call()


def _call(v: Processor, regs: Any, r: Gpr) -> None:
    """What module and VMM make of the registers of a TDCALL, in place."""
    leaf = r[RAX] & 0xFFFF
    if leaves.tdcall(v.module, v.model, r, regs.mode == 64, regs.cpl):
        v.vmm.handle(v.index, r)
    elif leaf == 0 and r[RAX] and v.module.params.choices.stop_at_refused_vmcall:
        raise End(
            "illegal",
            f"TDG.VP.VMCALL with register mask {r[RCX]:#x}: bits 0, 1, 4, 5 and 63:32 are forbidden",
        )


def _cpuid(v: Processor, length: int) -> None:
    """CPUID."""
    regs = v.regs
    tsc = v.module.params.tsc_25mhz
    caller = cpuid.Caller(v.index, int(regs.cr4), regs.mode == 64, tsc)
    leaf, subleaf = regs.gpr[RAX] & MASK32, regs.gpr[RCX] & MASK32
    if v.module.topology is None:
        answer, row = cpuid.lookup(leaf, subleaf, caller), cpuid.find(leaf, subleaf)
    else:
        answer = reduced.answer_cpuid(leaf, subleaf, caller, v.module.choice, v.module.topology)
        row = reduced.find(leaf, subleaf)
    if answer is None or v.model.cpuid_faults(row.number if row else None, user=regs.cpl > 0):
        category = NON_CONFIG_PARAVIRT if leaf in reduced.HYPERVISOR else CONFIG_PARAVIRT
        raise VirtualizationException(EXIT_REASON["CPUID"], length=length, category=category)
    regs.gpr[0], regs.gpr[3], regs.gpr[1], regs.gpr[2] = answer
    v.retire(length)


def _msr(v: Processor, is_write: bool, length: int) -> None:
    """RDMSR and WRMSR that the engine must not do."""
    regs = v.regs
    index = regs.gpr[RCX] & MASK32
    xfam = v.module.params.xfam
    access = msr.access(index, is_write, xfam, v.module.params.attributes)
    if v.module.newer:
        access = reduced_msr.access(index, is_write, access, v.module.choice)
    if access is msr.Access.GP:
        raise GP
    if access is msr.Access.VE:
        reason, category = 32 if is_write else 31, reduced_msr.category(index, is_write, own=False)
        raise VirtualizationException(reason, length=length, category=category)
    value = v.edx_eax()
    if is_write and not msr.native_takes(index, value):
        raise GP
    if index in msr.ENGINE:
        v.lib.td_pass_once(v.handle)
        return
    if index in APIC_NATIVE:
        _apic_msr(v, index, value if is_write else None, length)
        return
    if not is_write:
        row = msr.find(index)
        if index == TSC:
            value = int(v.lib.td_read_tsc(v.handle))
        else:
            value = row.value if row and access is msr.Access.FIXED else v.model.msrs.get(index, 0)
        if access is msr.Access.FIXED and v.module.topology is not None:
            given = reduced_msr.read(index, v.index, v.module.topology)
            value = value if given is None else given
        elif index == reduced_msr.MISC_ENABLE:
            value = v.model.msrs.get(index, row.value if row else 0)
        v.set_edx_eax(value)
        v.retire(length)
        return
    if index == EFER:
        if control.write_efer(int(regs.efer), value) is Outcome.VE:
            category = UNSUPPORTED_FEATURE
            raise VirtualizationException(control.EFER_VE_REASON, length=length, category=category)
        if v.observer:
            v.observer.on_control(v, "EFER", int(regs.efer), value)
        v.lib.td_pass_once(v.handle)
        return
    if access is msr.Access.FIXED:  # of a newer module: taken and ignored
        if index == reduced_msr.FEATURE_ENABLES and value:
            raise GP
        v.retire(length)
        return
    if index == reduced_msr.MISC_ENABLE:
        old = v.model.msrs.get(index, reduced_msr.first_misc_enable())
        access, value = reduced_msr.write_misc_enable(old, value, v.module.choice)
    else:
        access, value = msr.written(index, v.model.msrs.get(index, 0), value, xfam)
    if access is msr.Access.GP:
        raise GP
    if access is msr.Access.VE:
        category = reduced_msr.category(index, is_write, own=True)
        raise VirtualizationException(32, length=length, category=category)
    v.model.msrs[index] = value
    v.retire(length)


def _apic_msr(v: Processor, index: int, value: int | None, length: int) -> None:
    """An x2APIC register that the module virtualises; without a value it is read."""
    if value is None:
        v.set_edx_eax(v.apic.read_native(index))
    elif index == SELF_IPI and value < FIRST_VECTOR:
        # An APIC-write exit behind the instruction (Intel SDM vol. 3, 30.5): the module makes it #VE
        v.apic.self_ipi = value
        v.retire(length)
        raise VirtualizationException(APIC_WRITE, SELF_IPI_OFFSET, category=NON_CONFIG_PARAVIRT)
    elif not v.apic.write_native(index, value):
        raise GP
    v.retire(length)


def _control_register(v: Processor, number: int, length: int) -> None:
    """MOV to CR0 or CR4: the module's rules, then the engine does it."""
    regs = v.regs
    code = bytes(v.stop.bytes)
    p = prefixes(code, regs.mode)
    register = (code[p.start + 2] & 7) | (p.rex & 1) << 3
    value = int(regs.gpr[register])
    if regs.mode != 64:
        value &= MASK32
    if number == 0:
        outcome = control.write_cr0(int(regs.cr0), value, int(regs.cr4), regs.mode == 64)
        value = value & ~control.CR0_RESERVED | control.ET
    else:
        params = v.module.params
        cr0, cr3 = int(regs.cr0), int(regs.cr3)
        old, choice = int(regs.cr4), v.module.choice
        outcome = control.write_cr4(old, value, cr0, cr3, params.xfam, params.attributes)
        if outcome is Outcome.VE and choice.reduced:
            outcome, value = control.write_cr4_reduced(old, value, choice.has(features.MCE))
    if outcome is Outcome.GP:
        raise GP
    if outcome is Outcome.VE:
        category = CONFIG_PARAVIRT if number and not value & control.MCE else UNSUPPORTED_FEATURE
        qualification = number | register << 8
        raise VirtualizationException(control.CR_VE_REASON, qualification, length=length, category=category)
    if v.observer:
        old = int(regs.cr4 if number else regs.cr0)
        v.observer.on_control(v, f"CR{number}", old, value)
    v.retire(length)
    (v.lib.td_write_cr4 if number else v.lib.td_write_cr0)(v.handle, value)


def _task_priority(v: Processor, length: int) -> None:
    """MOV to and from CR8: bits 7:4 of the virtual APIC's TPR (Intel SDM volume 3, 30.3)."""
    regs = v.regs
    code = bytes(v.stop.bytes)
    p = prefixes(code, regs.mode)
    register = (code[p.start + 2] & 7) | (p.rex & 1) << 3
    if code[p.start + 1] == 0x20:
        regs.gpr[register] = v.apic.tpr >> 4
    elif regs.gpr[register] > 0xF:
        raise GP
    else:
        v.apic.tpr = int(regs.gpr[register]) << 4
    v.retire(length)


def _xsetbv(v: Processor, length: int) -> None:
    """XSETBV. The engine gets only the states it knows."""
    regs = v.regs
    if not regs.cr4 & control.CR4_OSXSAVE:
        raise UD
    if regs.cpl:
        raise GP
    value = v.edx_eax()
    if control.write_xcr0(regs.gpr[RCX] & MASK32, value, v.module.params.xfam) is Outcome.GP:
        raise GP
    v.model.xcr0 = value
    if value & ~ENGINE_XCR0:
        v.retire(length)
    else:
        v.lib.td_pass_once(v.handle)


def _xgetbv(v: Processor, length: int) -> None:
    """XGETBV of XCR0; no other register exists without XSAVE in CPUID."""
    regs = v.regs
    if not regs.cr4 & control.CR4_OSXSAVE:
        raise UD
    if regs.gpr[RCX] & MASK32:
        raise GP
    v.set_edx_eax(v.model.xcr0)
    v.retire(length)
