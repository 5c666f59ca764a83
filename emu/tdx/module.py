"""What does TDCALL do? The guest-side leaves of the TDX module, checks in the module's own order
(intel/tdx-module TDX_1.5.01, tdx_td_dispatcher.c and tdg_*.c)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.cpu.memory import Memory
from emu.signals import GP, End, VirtualizationException
from emu.tdx import measure, metadata, pages, report
from emu.tdx.params import TdParams
from formats.registers import (
    R8,
    R9,
    R10,
    R11,
    RAX,
    RBP,
    RCX,
    RDX,
    RSP,
    Gpr,
    mask,
)
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
from formats.tdx.td import CONFIG_NO_RBP_MOD

MASK_FORBIDDEN = mask(RAX, RCX, RSP, RBP)  # RBP under NO_RBP_MOD only
VP_STATE_ALIGN = 256
MAX_VMS = 4  # of one TD, itself included (tdx_tdvps.h)
TDCALL_LENGTH = 4


@dataclass
class VcpuModel:
    """What the module keeps per vCPU."""

    index: int
    ve: VirtualizationException | None = None
    cpuid_supervisor_ve: int = 0
    cpuid_user_ve: int = 0
    cpuid_control: dict[int, int] = field(
        default_factory=dict
    )  # CPUID_CONTROL[], bit 0 supervisor, bit 1 user
    l2_ctls: list[int] = field(default_factory=lambda: [0] * MAX_VMS)  # of nested VMs; kept, without effect
    l2_tsc_deadline: list[int] = field(default_factory=lambda: [(1 << 64) - 1] * MAX_VMS)
    msrs: dict[int, int] = field(default_factory=dict)
    xcr0: int = 1

    def cpuid_faults(self, index: int, user: bool) -> bool:
        """Whether the guest asked for #VE on this entry of the CPUID table at this privilege."""
        of_all = self.cpuid_user_ve if user else self.cpuid_supervisor_ve
        return bool(of_all or self.cpuid_control.get(index, 0) >> user & 1)


@dataclass
class TdxModule:
    """One TD as its module sees it."""

    params: TdParams
    memory: Memory
    mrtd: bytes
    rtmr: list[bytes] = field(default_factory=lambda: [bytes(RTMR_DATA_SIZE)] * RTMRS)
    notify_enables: int = 0
    td_ctls: int = field(init=False)
    tdcalls: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    accepted_4k: int = 0
    accepted_2m: int = 0

    def __post_init__(self) -> None:
        self.td_ctls = self.params.attributes >> 28 & 1

    def info(self) -> report.TdInfo:
        """The TDINFO_STRUCT of this moment."""
        p = self.params
        r0, r1, r2, r3 = self.rtmr
        digests = (self.mrtd, p.mrconfigid, p.mrowner, p.mrownerconfig)
        return report.TdInfo(p.attributes, p.xfam, *digests, (r0, r1, r2, r3))

    @property
    def uuid(self) -> bytes:
        """TD_UUID: random on hardware, here a digest of what the TD is, so that runs repeat."""
        return hashlib.sha256(b"emulated TD " + self.mrtd + repr(self.params).encode()).digest()

    @property
    def max_vcpus(self) -> int:
        """MAX_VCPUS as TD_PARAMS gave it."""
        return self.params.max_vcpus or self.params.vcpus

    @property
    def pending_ve_disabled(self) -> bool:
        """Whether touching a pending page is a TD exit instead of #VE."""
        return bool(self.td_ctls & 1)

    def set_td_ctls(self, value: int) -> None:
        """A permitted write of TD_CTLS."""
        self.td_ctls = value
        self.memory.layout.sept_ve_disable = value & 1

    # -- operand checks

    def gpa_valid(self, gpa: int, may_be_shared: bool) -> bool:
        """No bits at or above GPAW, and private unless the operand allows shared."""
        return not gpa >> self.params.gpaw and (may_be_shared or not gpa & self.memory.shared_bit)

    def reach(self, gpa: int, what: str, write: bool = False) -> tuple[int, bool]:
        """Walk of an operand page: GPA without the shared bit and whether it is shared; may end in #VE or
        the run (helpers.c check_walk_and_map_guest_side_gpa).
        """
        lib = self.memory.lib
        bare, shared = gpa & ~self.memory.shared_bit, bool(gpa & self.memory.shared_bit)
        state = self.memory.state(bare) & lib.TD_PAGE_STATE
        if state == (lib.TD_PAGE_SHARED if shared else lib.TD_PAGE_MAPPED):
            return bare, shared
        pending = state == lib.TD_PAGE_PENDING and not self.pending_ve_disabled
        if state == lib.TD_PAGE_UNMAPPED if shared else pending:
            access = 3 if write else 1  # what the page did not allow: reading, and writing where it is asked
            raise VirtualizationException(48, access, gpa=gpa, length=TDCALL_LENGTH)
        raise End(
            "sept-violation", f"{what} names GPA {gpa:#x}, which is not {'shared' if shared else 'accepted'}"
        )

    def busy(self, what: str, times: int) -> bool:
        """Whether the host holds this lock once more."""
        if self.refusals[what] >= times:
            return False
        self.refusals[what] += 1
        return True

    # -- leaves

    def vp_info(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 1."""
        p = self.params
        r[RCX], r[RDX], r[R8] = p.gpaw, p.attributes, p.vcpus | self.max_vcpus << 32
        r[R9], r[R10], r[R11] = vcpu.index, 1, 0
        return status.SUCCESS

    def rtmr_extend(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 2; the index is checked after the walk, the lock last."""
        if r[RCX] % RTMR_DATA_ALIGN or not self.gpa_valid(r[RCX], may_be_shared=False):
            return status.OPERAND_INVALID | status.RCX
        gpa, _ = self.reach(r[RCX], LEAF_NAMES[Leaf.MR_RTMR_EXTEND])
        if r[RDX] >= RTMRS:
            return status.OPERAND_INVALID | status.RDX
        if self.busy("RTMR", self.params.choices.rtmr_busy):
            return status.OPERAND_BUSY | status.RTMR
        self.rtmr[r[RDX]] = measure.rtmr_extend(self.rtmr[r[RDX]], self.memory.read(gpa, RTMR_DATA_SIZE))
        return status.SUCCESS

    def veinfo_get(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 3: empties the VE information area."""
        ve, vcpu.ve = vcpu.ve, None
        if ve is None:
            r[RCX] = r[RDX] = r[R8] = r[R9] = r[R10] = 0
            return status.NO_VALID_VE_INFO
        r[RCX], r[RDX], r[R8], r[R9] = ve.reason, ve.qualification, ve.gla, ve.gpa
        r[R10] = ve.length | ve.info << 32
        return status.SUCCESS

    def mr_report(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 4; the walk of the output page comes last."""
        if r[RCX] % REPORT_SIZE:
            return status.OPERAND_INVALID | status.RCX
        if r[RDX] % REPORT_DATA_SIZE or not self.gpa_valid(r[RDX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RDX
        data_gpa, data_shared = self.reach(r[RDX], LEAF_NAMES[Leaf.MR_REPORT])
        if r[R8]:
            return status.OPERAND_INVALID | status.R8
        if self.busy("RTMR", self.params.choices.rtmr_busy):
            return status.OPERAND_BUSY | status.RTMR
        if not self.gpa_valid(r[RCX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RCX
        gpa, shared = self.reach(r[RCX], LEAF_NAMES[Leaf.MR_REPORT], write=True)
        report_data = self.memory.read(data_gpa, REPORT_DATA_SIZE, data_shared)
        self.memory.write(gpa, report.build(self.info(), report_data), shared)
        return status.SUCCESS

    def cpuidve_set(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 5."""
        if r[RCX] & ~3:
            return status.OPERAND_INVALID | status.RCX
        vcpu.cpuid_supervisor_ve, vcpu.cpuid_user_ve = r[RCX] & 1, r[RCX] >> 1
        return status.SUCCESS

    def verify_report(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 22."""
        if not self.params.choices.seamverifyreport:
            return status.OPERAND_INVALID | status.RAX
        if r[RCX] % report.MAC_STRUCT_SIZE or not self.gpa_valid(r[RCX], may_be_shared=False):
            return status.OPERAND_INVALID | status.RCX
        gpa, _ = self.reach(r[RCX], LEAF_NAMES[Leaf.MR_VERIFYREPORT])
        return report.verify(self.memory.read(gpa, report.MAC_STRUCT_SIZE))

    def vp_enter(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 25 in a TD without nested VMs: the state's GPA is checked first, then no VM index is right."""
        if r[RDX] % VP_STATE_ALIGN or not self.gpa_valid(r[RDX], may_be_shared=False):
            return status.OPERAND_INVALID | status.RDX
        return status.OPERAND_INVALID | status.RCX

    def vp_invept(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 26: a set of nested VMs, of which there are none; the empty set is fine."""
        return status.OPERAND_INVALID | status.RCX if r[RCX] else status.SUCCESS

    def vp_invvpid(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 27."""
        return status.OPERAND_INVALID | status.RCX

    # -- dispatch

    def tdcall(self, vcpu: VcpuModel, r: Gpr, long_mode_code: bool, cpl: int) -> bool:
        """Executes the TDCALL in r, in place. Returns True when it is a TDG.VP.VMCALL that the VMM has to
        answer (mask already checked, RAX still the leaf). Raises Fault, VirtualizationException or End.
        """
        if not long_mode_code or cpl:
            raise GP
        leaf, version = r[RAX] & 0xFFFF, r[RAX] >> 16 & 0xFF
        # VM.RD alone has a version 1; it refuses higher ones itself
        if r[RAX] >> 24 or leaf not in LEAF_NAMES or (version and leaf != Leaf.VM_RD):
            self.tdcalls[f"invalid {r[RAX]:#x}"] += 1
            r[RAX] = status.OPERAND_INVALID | status.RAX
            return False
        self.tdcalls[LEAF_NAMES[leaf]] += 1
        if leaf == Leaf.VP_VMCALL:
            return self.check_vmcall_mask(r)
        r[RAX] = ACTIONS[leaf](self, vcpu, r)
        return False

    def check_vmcall_mask(self, r: Gpr) -> bool:
        """RCX of TDG.VP.VMCALL: a forbidden register or a reserved bit makes it fail without reaching the
        VMM.
        """
        forbidden = MASK_FORBIDDEN
        if not self.params.config_flags & CONFIG_NO_RBP_MOD:
            forbidden &= ~(1 << RBP)
        if r[RCX] & forbidden or r[RCX] >> 32:
            r[RAX] = status.OPERAND_INVALID | status.RCX
            return False
        return True


Action = Callable[[TdxModule, VcpuModel, Gpr], int]
# What each leaf does but TDG.VP.VMCALL, which the VMM answers
ACTIONS: dict[int, Action] = {
    Leaf.VP_INFO: TdxModule.vp_info,
    Leaf.MR_RTMR_EXTEND: TdxModule.rtmr_extend,
    Leaf.VP_VEINFO_GET: TdxModule.veinfo_get,
    Leaf.MR_REPORT: TdxModule.mr_report,
    Leaf.VP_CPUIDVE_SET: TdxModule.cpuidve_set,
    Leaf.MEM_PAGE_ACCEPT: pages.accept,
    Leaf.VM_RD: metadata.vm_rd,
    Leaf.VM_WR: metadata.vm_wr,
    Leaf.VP_RD: metadata.vp_rd,
    Leaf.VP_WR: metadata.vp_wr,
    Leaf.SYS_RD: metadata.sys_rd,
    Leaf.SYS_RDALL: metadata.sys_rdall,
    Leaf.SERVTD_RD: metadata.servtd,
    Leaf.SERVTD_WR: metadata.servtd,
    Leaf.MR_VERIFYREPORT: TdxModule.verify_report,
    Leaf.MEM_PAGE_ATTR_RD: pages.attr_rd,
    Leaf.MEM_PAGE_ATTR_WR: pages.attr_wr,
    Leaf.VP_ENTER: TdxModule.vp_enter,
    Leaf.VP_INVEPT: TdxModule.vp_invept,
    Leaf.VP_INVVPID: TdxModule.vp_invvpid,
}
