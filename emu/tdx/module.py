"""What does TDCALL do? The guest-side leaves of the TDX module, checks in the module's own order
(intel/tdx-module TDX_1.5.01, tdx_td_dispatcher.c and tdg_*.c)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.memory import Memory
from emu.signals import GP, End, VirtualizationException
from emu.tdx import fields, measure, report, status

Gpr = list[int]
"""The 16 general registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15"""

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

LEAF_NAMES = {
    0: "TDG.VP.VMCALL",
    1: "TDG.VP.INFO",
    2: "TDG.MR.RTMR.EXTEND",
    3: "TDG.VP.VEINFO.GET",
    4: "TDG.MR.REPORT",
    5: "TDG.VP.CPUIDVE.SET",
    6: "TDG.MEM.PAGE.ACCEPT",
    7: "TDG.VM.RD",
    8: "TDG.VM.WR",
    9: "TDG.VP.RD",
    11: "TDG.SYS.RD",
}

SEPT_VE_DISABLE = 1 << 28
CONFIG_GPAW52, CONFIG_FLEXIBLE_PENDING_VE, CONFIG_NO_RBP_MOD = 1 << 0, 1 << 1, 1 << 2
MASK_FORBIDDEN = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5  # RAX RCX RSP, and RBP under NO_RBP_MOD
NOT_RETIRED = (1 << 64) - 1  # td_accept: the VMM has nothing to map


@dataclass(frozen=True)
class TdParams:
    """What TDH.MNG.INIT fixes for the life of a TD."""

    gpaw: int = 48
    vcpus: int = 1
    attributes: int = SEPT_VE_DISABLE
    xfam: int = 3
    config_flags: int = CONFIG_NO_RBP_MOD
    tsc_25mhz: int = 40
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)


@dataclass
class VcpuModel:
    """What the module keeps per vCPU."""

    index: int
    ve: VirtualizationException | None = None
    cpuid_ve: int = 0
    msrs: dict[int, int] = field(default_factory=dict)


@dataclass
class TdxModule:
    """One TD as its module sees it."""

    params: TdParams
    memory: Memory
    mrtd: bytes
    rtmr: list[bytes] = field(default_factory=lambda: [bytes(48)] * 4)
    notify_enables: int = 0
    td_ctls: int = 0
    tdcalls: Counter[str] = field(default_factory=Counter)
    accepted_4k: int = 0
    accepted_2m: int = 0

    def info(self) -> report.TdInfo:
        """The TDINFO_STRUCT of this moment."""
        p = self.params
        r0, r1, r2, r3 = self.rtmr
        digests = (self.mrtd, p.mrconfigid, p.mrowner, p.mrownerconfig)
        return report.TdInfo(p.attributes, p.xfam, *digests, (r0, r1, r2, r3))

    # -- operand checks

    def gpa_valid(self, gpa: int, may_be_shared: bool) -> bool:
        """No bits at or above GPAW, and private unless the operand allows shared."""
        return not gpa >> self.params.gpaw and (may_be_shared or not gpa & self.memory.shared_bit)

    def reach(self, gpa: int, what: str) -> tuple[int, bool]:
        """Walk of an operand page: GPA without the shared bit and whether it is shared; may end in #VE or
        the run.
        """
        bare, shared = gpa & ~self.memory.shared_bit, bool(gpa & self.memory.shared_bit)
        state = self.memory.state(bare) & self.memory.lib.TD_PAGE_STATE
        if shared and state == self.memory.lib.TD_PAGE_SHARED:
            return bare, True
        if not shared and state == self.memory.lib.TD_PAGE_MAPPED:
            return bare, False
        if state == self.memory.lib.TD_PAGE_PENDING and not shared and not self.pending_ve_disabled:
            raise VirtualizationException(48, gpa=gpa)
        raise End(
            "sept-violation", f"{what} names GPA {gpa:#x}, which is not {'shared' if shared else 'accepted'}"
        )

    @property
    def pending_ve_disabled(self) -> bool:
        """Whether touching a pending page is a TD exit instead of #VE."""
        return bool(self.params.attributes & SEPT_VE_DISABLE or self.td_ctls & 1)

    # -- leaves

    def vp_info(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 1."""
        p = self.params
        r[RCX], r[RDX], r[R8] = p.gpaw, p.attributes, p.vcpus | p.vcpus << 32
        r[R9], r[R10], r[R11] = vcpu.index, 1, 0
        return status.SUCCESS

    def rtmr_extend(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 2; the index is checked after the walk."""
        if r[RCX] & 63 or not self.gpa_valid(r[RCX], may_be_shared=False):
            return status.OPERAND_INVALID | status.RCX
        gpa, _ = self.reach(r[RCX], LEAF_NAMES[2])
        if r[RDX] > 3:
            return status.OPERAND_INVALID | status.RDX
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
        if r[RCX] & 1023:
            return status.OPERAND_INVALID | status.RCX
        if r[RDX] & 63 or not self.gpa_valid(r[RDX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RDX
        data_gpa, data_shared = self.reach(r[RDX], LEAF_NAMES[4])
        if r[R8]:
            return status.OPERAND_INVALID | status.R8
        if not self.gpa_valid(r[RCX], may_be_shared=True):
            return status.OPERAND_INVALID | status.RCX
        gpa, shared = self.reach(r[RCX], LEAF_NAMES[4])
        report_data = self.memory.read(data_gpa, 64, data_shared)
        self.memory.write(gpa, report.build(self.info(), report_data), shared)
        return status.SUCCESS

    def cpuidve_set(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 5."""
        if r[RCX] & ~3:
            return status.OPERAND_INVALID | status.RCX
        vcpu.cpuid_ve = r[RCX]
        return status.SUCCESS

    def page_accept(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 6; level 2 (1 GiB) is refused like a reserved value."""
        level, gpa = r[RCX] & 7, r[RCX] & ~0xFFF
        size = (4096, 2 << 20)[level] if level < 2 else 0
        bad = not size or r[RCX] & 0xFF8 or gpa & (size - 1)
        if bad or not self.gpa_valid(gpa, may_be_shared=False):
            return status.OPERAND_INVALID | status.RCX
        result = int(self.memory.lib.td_accept(self.memory.vm, gpa, level))
        if result == NOT_RETIRED:
            raise End(
                "sept-violation", f"{LEAF_NAMES[6]} of GPA {gpa:#x} level {level}: the VMM has no page there"
            )
        if result == status.SUCCESS:
            self.accepted_4k += level == 0
            self.accepted_2m += level == 1
        return result

    def vm_value(self, name: str, element: int) -> int:
        """Content of a TD-scope metadata field."""
        p = self.params
        digests = {
            "MRTD": self.mrtd,
            "MRCONFIGID": p.mrconfigid,
            "MROWNER": p.mrowner,
            "MROWNERCONFIG": p.mrownerconfig,
            "RTMR": b"".join(self.rtmr),
            "SERVTD_HASH": bytes(48),
        }
        if name in digests:
            return int.from_bytes(digests[name][8 * element : 8 * element + 8], "little")
        return {
            "NUM_VCPUS": p.vcpus,
            "MAX_VCPUS": p.vcpus,
            "GPAW": int(p.gpaw == 52),
            "ATTRIBUTES": p.attributes,
            "XFAM": p.xfam,
            "TSC_FREQUENCY": p.tsc_25mhz,
            "NOTIFY_ENABLES": self.notify_enables,
            "CONFIG_FLAGS": p.config_flags,
            "TD_CTLS": self.td_ctls | int(self.pending_ve_disabled),
        }[name]

    def vm_rd(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 7, versions 0 and 1; R8 is zeroed before any check."""
        version, identifier, r[R8] = r[RAX] >> 16 & 0xFF, r[RDX], 0
        if r[RCX]:
            return status.OPERAND_INVALID | status.RCX
        if version == 1 and identifier == fields.NULL_ID:
            r[RDX] = fields.following(fields.VM_FIELDS, identifier)
            return status.FIRST_FIELD_ID
        found = fields.find(fields.VM_FIELDS, identifier)
        if found is None or identifier & fields.WRITE_MASK_VALID:
            r[RDX] = fields.NULL_ID if version == 1 else identifier
            return status.FIELD_ID_INCORRECT
        r[R8] = self.vm_value(found[0].name, found[1])
        if version == 1:
            r[RDX] = fields.following(fields.VM_FIELDS, identifier)
        return status.SUCCESS

    def vm_wr(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 8: masked write of the few fields a TD may change."""
        identifier, data, mask, r[R8] = r[RDX], r[R8], r[R9], 0
        if r[RCX]:
            return status.OPERAND_INVALID | status.RCX
        found = fields.find(fields.VM_FIELDS, identifier)
        if found is None:
            return status.FIELD_ID_INCORRECT
        row, element = found
        if not row.writable:
            return status.FIELD_NOT_WRITABLE
        old = self.vm_value(row.name, element)
        new = old & ~mask | data & mask
        flexible = self.params.config_flags & CONFIG_FLEXIBLE_PENDING_VE
        if new & ~row.writable or (row.name == "TD_CTLS" and new != old and not flexible):
            return status.FIELD_VALUE_NOT_VALID
        if row.name == "TD_CTLS":
            self.td_ctls = new
            self.memory.layout.sept_ve_disable = new & 1
        else:
            self.notify_enables = new
        r[R8] = old
        return status.SUCCESS

    def vp_rd(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 9: RDX becomes the next id whatever the version."""
        identifier, r[R8] = r[RDX], 0
        if r[RCX]:
            return status.OPERAND_INVALID | status.RCX
        r[RDX] = fields.following(fields.VP_FIELDS, identifier)
        if identifier == fields.NULL_ID:
            return status.FIRST_FIELD_ID
        found = fields.find(fields.VP_FIELDS, identifier)
        if found is None:
            return status.FIELD_ID_INCORRECT
        values = {"VCPU_INDEX": vcpu.index, "CPUID_SUPERVISOR_VE": vcpu.cpuid_ve & 1}
        r[R8] = values.get(found[0].name, vcpu.cpuid_ve >> 1)
        return status.SUCCESS

    def sys_rd(self, vcpu: VcpuModel, r: Gpr) -> int:
        """Leaf 11."""
        identifier, r[R8] = r[RDX], 0
        r[RDX] = fields.following(fields.SYS_FIELDS, identifier)
        if identifier == fields.NULL_ID:
            return status.FIRST_FIELD_ID
        found = fields.find(fields.SYS_FIELDS, identifier)
        if found is None:
            return status.FIELD_ID_INCORRECT
        values = {
            "VENDOR_ID": 0x8086,
            "MINOR_VERSION": 5,
            "MAJOR_VERSION": 1,
            "TDX_FEATURES0": 1 << 3 | 1 << 18,
        }
        r[R8] = values[found[0].name]
        return status.SUCCESS

    # -- dispatch

    def tdcall(self, vcpu: VcpuModel, r: Gpr, long_mode_code: bool, cpl: int) -> bool:
        """Executes the TDCALL in r, in place. Returns True when it is a TDG.VP.VMCALL that the VMM has to
        answer (mask already checked, RAX still the leaf). Raises Fault, VirtualizationException or End.
        """
        if not long_mode_code or cpl:
            raise GP
        leaf, version = r[RAX] & 0xFFFF, r[RAX] >> 16 & 0xFF
        if r[RAX] >> 24 or leaf not in LEAF_NAMES or (version and not (leaf == 7 and version == 1)):
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


LEAVES: dict[int, Callable[[TdxModule, VcpuModel, Gpr], int]] = {
    1: TdxModule.vp_info,
    2: TdxModule.rtmr_extend,
    3: TdxModule.veinfo_get,
    4: TdxModule.mr_report,
    5: TdxModule.cpuidve_set,
    6: TdxModule.page_accept,
    7: TdxModule.vm_rd,
    8: TdxModule.vm_wr,
    9: TdxModule.vp_rd,
    11: TdxModule.sys_rd,
}
