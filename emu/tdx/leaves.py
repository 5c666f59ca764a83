"""What does TDCALL do? The guest-side leaves of the TDX module, checks in the module's own order
(intel/tdx-module TDX_1.5.01, tdx_td_dispatcher.c and tdg_*.c; versions of TDG.VP.VEINFO.GET: commit
db57c638520a).
"""

from __future__ import annotations

from collections.abc import Callable

from emu.signals import GP
from emu.tdx import measure, metadata, pages, report
from emu.tdx.module import TdxModule, VcpuModel
from formats.registers import R8, R9, R10, R11, R12, RAX, RBP, RCX, RDX, RSP, Gpr, mask
from formats.tdx import status
from formats.tdx.leaves import (
    LEAF_NAMES,
    REPORT_DATA_SIZE,
    REPORT_SIZE,
    RTMR_DATA_ALIGN,
    RTMR_DATA_SIZE,
    RTMRS,
    Leaf,
)
from formats.tdx.reduction import CATEGORY
from formats.tdx.td import CONFIG_NO_RBP_MOD

MASK_FORBIDDEN = mask(RAX, RCX, RSP, RBP)  # RBP under NO_RBP_MOD only
VP_STATE_ALIGN = 256
VERSION = 16  # bits 23:16 of RAX
LAST_VEINFO_VERSION = 2


def vp_info(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 1."""
    p = module.params
    r[RCX], r[RDX], r[R8] = p.gpaw, p.attributes, p.vcpus | module.max_vcpus << 32
    r[R9], r[R10], r[R11] = vcpu.index, 1, 0
    return status.SUCCESS


def rtmr_extend(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 2; the index is checked after the walk, the lock last."""
    if r[RCX] % RTMR_DATA_ALIGN or not module.gpa_valid(r[RCX], may_be_shared=False):
        return status.OPERAND_INVALID | status.RCX
    gpa, _ = module.reach(r[RCX], LEAF_NAMES[Leaf.MR_RTMR_EXTEND])
    if r[RDX] >= RTMRS:
        return status.OPERAND_INVALID | status.RDX
    choices = module.params.choices
    free = module.tdcalls[LEAF_NAMES[Leaf.MR_RTMR_EXTEND]] <= choices.rtmr_free
    if not free and module.busy("RTMR", choices.rtmr_busy):
        return status.OPERAND_BUSY | status.RTMR
    module.rtmr[r[RDX]] = measure.rtmr_extend(module.rtmr[r[RDX]], module.memory.read(gpa, RTMR_DATA_SIZE))
    return status.SUCCESS


def veinfo_get(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 3: empties the VE information area. Version 1 tells the category, too, version 2 also the
    interruptibility state.
    """
    version = r[RAX] >> VERSION & 0xFF
    r[RCX] = r[RDX] = r[R8] = r[R9] = r[R10] = 0
    if version > LAST_VEINFO_VERSION:
        return status.OPERAND_INVALID | status.RAX
    ve, vcpu.ve = vcpu.ve, None
    if ve is None:
        return status.NO_VALID_VE_INFO
    r[RCX], r[RDX], r[R8], r[R9] = ve.reason, ve.qualification, ve.gla, ve.gpa
    r[R10] = ve.length | ve.info << 32
    if version >= 1:
        r[RCX] |= ve.category << CATEGORY
    if version >= 2:
        r[R11], r[R12] = 0, ve.interruptibility
    return status.SUCCESS


def mr_report(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 4; the walk of the output page comes last."""
    if r[RCX] % REPORT_SIZE:
        return status.OPERAND_INVALID | status.RCX
    if r[RDX] % REPORT_DATA_SIZE or not module.gpa_valid(r[RDX], may_be_shared=True):
        return status.OPERAND_INVALID | status.RDX
    data_gpa, data_shared = module.reach(r[RDX], LEAF_NAMES[Leaf.MR_REPORT])
    if r[R8]:
        return status.OPERAND_INVALID | status.R8
    if module.busy("RTMR", module.params.choices.rtmr_busy):
        return status.OPERAND_BUSY | status.RTMR
    if not module.gpa_valid(r[RCX], may_be_shared=True):
        return status.OPERAND_INVALID | status.RCX
    gpa, shared = module.reach(r[RCX], LEAF_NAMES[Leaf.MR_REPORT], write=True)
    report_data = module.memory.read(data_gpa, REPORT_DATA_SIZE, data_shared)
    module.memory.write(gpa, report.build(module.info(), report_data), shared)
    return status.SUCCESS


def cpuidve_set(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 5."""
    if r[RCX] & ~3:
        return status.OPERAND_INVALID | status.RCX
    vcpu.cpuid_supervisor_ve, vcpu.cpuid_user_ve = r[RCX] & 1, r[RCX] >> 1
    return status.SUCCESS


def verify_report(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 22."""
    if not module.params.choices.seamverifyreport:
        return status.OPERAND_INVALID | status.RAX
    if r[RCX] % report.MAC_STRUCT_SIZE or not module.gpa_valid(r[RCX], may_be_shared=False):
        return status.OPERAND_INVALID | status.RCX
    gpa, _ = module.reach(r[RCX], LEAF_NAMES[Leaf.MR_VERIFYREPORT])
    return report.verify(module.memory.read(gpa, report.MAC_STRUCT_SIZE))


def vp_enter(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 25 in a TD without nested VMs: the state's GPA is checked first, then no VM index is right."""
    if r[RDX] % VP_STATE_ALIGN or not module.gpa_valid(r[RDX], may_be_shared=False):
        return status.OPERAND_INVALID | status.RDX
    return status.OPERAND_INVALID | status.RCX


def vp_invept(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 26: a set of nested VMs, of which there are none; the empty set is fine."""
    return status.OPERAND_INVALID | status.RCX if r[RCX] else status.SUCCESS


def vp_invvpid(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 27."""
    return status.OPERAND_INVALID | status.RCX


Action = Callable[[TdxModule, VcpuModel, Gpr], int]
# What each leaf does but TDG.VP.VMCALL, which the VMM answers
ACTIONS: dict[int, Action] = {
    Leaf.VP_INFO: vp_info,
    Leaf.MR_RTMR_EXTEND: rtmr_extend,
    Leaf.VP_VEINFO_GET: veinfo_get,
    Leaf.MR_REPORT: mr_report,
    Leaf.VP_CPUIDVE_SET: cpuidve_set,
    Leaf.MEM_PAGE_ACCEPT: pages.accept,
    Leaf.VM_RD: metadata.vm_rd,
    Leaf.VM_WR: metadata.vm_wr,
    Leaf.VP_RD: metadata.vp_rd,
    Leaf.VP_WR: metadata.vp_wr,
    Leaf.SYS_RD: metadata.sys_rd,
    Leaf.SYS_RDALL: metadata.sys_rdall,
    Leaf.SERVTD_RD: metadata.servtd,
    Leaf.SERVTD_WR: metadata.servtd,
    Leaf.MR_VERIFYREPORT: verify_report,
    Leaf.MEM_PAGE_ATTR_RD: pages.attr_rd,
    Leaf.MEM_PAGE_ATTR_WR: pages.attr_wr,
    Leaf.VP_ENTER: vp_enter,
    Leaf.VP_INVEPT: vp_invept,
    Leaf.VP_INVVPID: vp_invvpid,
}


def tdcall(module: TdxModule, vcpu: VcpuModel, r: Gpr, long_mode_code: bool, cpl: int) -> bool:
    """Executes the TDCALL in r, in place. Returns True when it is a TDG.VP.VMCALL that the VMM has to
    answer (mask already checked, RAX still the leaf). Raises Fault, VirtualizationException or End.
    """
    if not long_mode_code or cpl:
        raise GP
    leaf, version = r[RAX] & 0xFFFF, r[RAX] >> VERSION & 0xFF
    # These refuse versions that they do not have themselves
    versioned = leaf == Leaf.VM_RD or (leaf == Leaf.VP_VEINFO_GET and module.newer)
    if r[RAX] >> 24 or leaf not in LEAF_NAMES or (version and not versioned):
        module.tdcalls[f"invalid {r[RAX]:#x}"] += 1
        r[RAX] = status.OPERAND_INVALID | status.RAX
        return False
    module.tdcalls[LEAF_NAMES[leaf]] += 1
    if leaf == Leaf.VP_VMCALL:
        return check_vmcall_mask(module, r)
    r[RAX] = ACTIONS[leaf](module, vcpu, r)
    return False


def check_vmcall_mask(module: TdxModule, r: Gpr) -> bool:
    """RCX of TDG.VP.VMCALL: a forbidden register or a reserved bit makes it fail without reaching the
    VMM.
    """
    forbidden = MASK_FORBIDDEN
    if not module.params.config_flags & CONFIG_NO_RBP_MOD:
        forbidden &= ~(1 << RBP)
    if r[RCX] & forbidden or r[RCX] >> 32:
        r[RAX] = status.OPERAND_INVALID | status.RCX
        return False
    return True
