"""What does the TDX module keep of a TD and of each vCPU, and how does it check an operand of a TDCALL?
(intel/tdx-module TDX_1.5.01, helpers.c)"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from emu.cpu import pagestate
from emu.cpu.memory import Memory
from emu.signals import End, VirtualizationException
from emu.tdx import report
from emu.tdx.features import Choice
from emu.tdx.params import TdParams
from emu.tdx.topology import Topology
from formats.tdx.leaves import RTMR_DATA_SIZE, RTMRS
from formats.tdx.reduction import ARCH, PENDING

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

    def cpuid_faults(self, index: int | None, user: bool) -> bool:
        """Whether the guest asked for #VE on this entry of the CPUID table (None: any) at this privilege."""
        of_all = self.cpuid_user_ve if user else self.cpuid_supervisor_ve
        return bool(of_all or (index is not None and self.cpuid_control.get(index, 0) >> user & 1))


@dataclass
class TdxModule:
    """One TD as its module sees it."""

    params: TdParams
    memory: Memory
    mrtd: bytes
    topology: Topology | None = None  # of a module after 1.5.01: the ids that the host gave
    rtmr: list[bytes] = field(default_factory=lambda: [bytes(RTMR_DATA_SIZE)] * RTMRS)
    notify_enables: int = 0
    feature_paravirt_ctls: int = 0
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
    def newer(self) -> bool:
        """Whether it is a module after 1.5.01."""
        return self.topology is not None

    @property
    def choice(self) -> Choice:
        """What the TD chose of CPUID, MSRs and #VE."""
        return Choice(self.td_ctls, self.feature_paravirt_ctls)

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
        bare, shared = gpa & ~self.memory.shared_bit, bool(gpa & self.memory.shared_bit)
        state = self.memory.state(bare) & pagestate.STATE
        if state == (pagestate.SHARED if shared else pagestate.MAPPED):
            return bare, shared
        pending = state == pagestate.PENDING and not self.pending_ve_disabled
        if state == pagestate.UNMAPPED if shared else pending:
            access = 3 if write else 1  # what the page did not allow: reading, and writing where it is asked
            category = ARCH if shared else PENDING
            raise VirtualizationException(48, access, gpa=gpa, length=TDCALL_LENGTH, category=category)
        raise End(
            "sept-violation", f"{what} names GPA {gpa:#x}, which is not {'shared' if shared else 'accepted'}"
        )

    def busy(self, what: str, times: int) -> bool:
        """Whether the host holds this lock once more."""
        if self.refusals[what] >= times:
            return False
        self.refusals[what] += 1
        return True
