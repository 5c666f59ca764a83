"""What does TDCALL do? The guest-side leaves of the TDX module, checks in the module's own order
(intel/tdx-module TDX_1.5.01, tdx_td_dispatcher.c and tdg_*.c)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.cpu.memory import Memory
from emu.signals import GP, End, VirtualizationException
from emu.tdx import measure, metadata, pages, report, status
from emu.tdx.params import (
    CONFIG_FLEXIBLE_PENDING_VE,
    CONFIG_GPAW52,
    CONFIG_NO_RBP_MOD,
    SEPT_VE_DISABLE,
    Choices,
    TdParams,
)
from emu.tdx.registers import (
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    Gpr,
)

__all__ = [
    "CONFIG_FLEXIBLE_PENDING_VE",
    "CONFIG_GPAW52",
    "CONFIG_NO_RBP_MOD",
    "LEAF_NAMES",
    "R8",
    "R9",
    "R10",
    "R11",
    "R12",
    "R13",
    "R14",
    "R15",
    "RAX",
    "RBP",
    "RBX",
    "RCX",
    "RDI",
    "RDX",
    "RSI",
    "RSP",
    "SEPT_VE_DISABLE",
    "Choices",
    "Gpr",
    "TdParams",
    "TdxModule",
    "VcpuModel",
]

MASK_FORBIDDEN = 1 << RAX | 1 << RCX | 1 << RSP | 1 << RBP  # RBP under NO_RBP_MOD only
RTMRS, RTMR_DATA_ALIGN = 4, 64
VP_STATE_ALIGN = 256
MAX_VMS = 4  # of one TD, itself included (tdx_tdvps.h)
TDCALL_LENGTH = 4
VM_RD = 7  # the only leaf that has a version 1; it refuses higher ones itself


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
    rtmr: list[bytes] = field(default_factory=lambda: [bytes(48)] * RTMRS)
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
        gpa, _ = self.reach(r[RCX], LEAF_NAMES[2])
        if r[RDX] >= RTMRS:
            return status.OPERAND_INVALID | status.RDX
        if self.busy("RTMR", self.params.choices.rtmr_busy):
            return status.OPERAND_BUSY | status.RTMR
        self.rtmr[r[RDX]] = measure.rtmr_extend(self.rtmr[r[RDX]], self.memory.read(gpa, 48))
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
        if r[RCX] % report.SIZE:
            return status.OPERAND_INVALID | status.RCX
        if r[RDX] % 64 or not self.gpa_valid(r[RDX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RDX
        data_gpa, data_shared = self.reach(r[RDX], LEAF_NAMES[4])
        if r[R8]:
            return status.OPERAND_INVALID | status.R8
        if self.busy("RTMR", self.params.choices.rtmr_busy):
            return status.OPERAND_BUSY | status.RTMR
        if not self.gpa_valid(r[RCX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RCX
        gpa, shared = self.reach(r[RCX], LEAF_NAMES[4], write=True)
        report_data = self.memory.read(data_gpa, 64, data_shared)
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
        gpa, _ = self.reach(r[RCX], LEAF_NAMES[22])
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
        if r[RAX] >> 24 or leaf not in LEAF_NAMES or (version and leaf != VM_RD):
            self.tdcalls[f"invalid {r[RAX]:#x}"] += 1
            r[RAX] = status.OPERAND_INVALID | status.RAX
            return False
        self.tdcalls[LEAF_NAMES[leaf]] += 1
        if leaf == 0:
            return self.check_vmcall_mask(r)
        r[RAX] = LEAVES[leaf](self, vcpu, r)
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


Leaf = Callable[[TdxModule, VcpuModel, Gpr], int]
# Number, name and action of every leaf (intel/tdx-module TDX_1.5.01, tdx_api_defs.h); the others do not exist
_LEAVES: tuple[tuple[int, str, Leaf | None], ...] = (
    (0, "TDG.VP.VMCALL", None),
    (1, "TDG.VP.INFO", TdxModule.vp_info),
    (2, "TDG.MR.RTMR.EXTEND", TdxModule.rtmr_extend),
    (3, "TDG.VP.VEINFO.GET", TdxModule.veinfo_get),
    (4, "TDG.MR.REPORT", TdxModule.mr_report),
    (5, "TDG.VP.CPUIDVE.SET", TdxModule.cpuidve_set),
    (6, "TDG.MEM.PAGE.ACCEPT", pages.accept),
    (7, "TDG.VM.RD", metadata.vm_rd),
    (8, "TDG.VM.WR", metadata.vm_wr),
    (9, "TDG.VP.RD", metadata.vp_rd),
    (10, "TDG.VP.WR", metadata.vp_wr),
    (11, "TDG.SYS.RD", metadata.sys_rd),
    (12, "TDG.SYS.RDALL", metadata.sys_rdall),
    (18, "TDG.SERVTD.RD", metadata.servtd),
    (20, "TDG.SERVTD.WR", metadata.servtd),
    (22, "TDG.MR.VERIFYREPORT", TdxModule.verify_report),
    (23, "TDG.MEM.PAGE.ATTR.RD", pages.attr_rd),
    (24, "TDG.MEM.PAGE.ATTR.WR", pages.attr_wr),
    (25, "TDG.VP.ENTER", TdxModule.vp_enter),
    (26, "TDG.VP.INVEPT", TdxModule.vp_invept),
    (27, "TDG.VP.INVVPID", TdxModule.vp_invvpid),
)
LEAF_NAMES = {number: name for number, name, _ in _LEAVES}
LEAVES = {number: action for number, _, action in _LEAVES if action}
