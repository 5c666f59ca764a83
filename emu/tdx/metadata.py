"""How do TDG.VM.RD and WR, VP.RD and WR, SYS.RD and SYS.RDALL read and write metadata fields? (intel/tdx-
module TDX_1.5.01, tdg_vm_rd_wr.c, tdg_vp_rd_wr.c, tdg_sys_rd.c, tdg_sys_rdall.c, metadata_generic.c,
metadata_td.c)
"""

from __future__ import annotations

from collections.abc import Callable

from emu.tdx import fields, reduced
from emu.tdx.module import TdxModule, VcpuModel
from formats.registers import R8, R9, RAX, RCX, RDX, Gpr
from formats.tdx import status
from formats.tdx.fields import NULL_ID, SIZE, SYS, TD, VP, Field
from formats.tdx.reduction import FEATURE_CPUID2, FEATURE_VE_INTR_STATE, FEATURE_VE_REDUCTION, LOCK
from formats.tdx.td import CONFIG_FLEXIBLE_PENDING_VE
from formats.tdx.topology import FEATURE_ENUM_TOPOLOGY
from formats.units import PAGE

# TDX_FEATURES0 of module 1.5.01 (metadata_sys.c md_sys_get_first_element_val_and_ptr): migration, preserving,
# service TDs, VP.RD and WR, relaxed concurrency, CPUID control; partitioning, local attestation, entry
# enhancements, host priority, ARCH_CAPABILITIES; pending EPT violations, family and model, NO_RBP_MOD, L2 TLB
FEATURES0 = 0x3F | 0xF80 | 0xF0000
NEWER_FEATURES0 = FEATURE_ENUM_TOPOLOGY | FEATURE_CPUID2 | FEATURE_VE_REDUCTION | FEATURE_VE_INTR_STATE
LOCAL_ATTESTATION = 1 << 8  # where the CPU has SEAMVERIFYREPORT
INTEL, MAJOR, MINOR = 0x8086, 1, 5
GPA_ATTRIBUTES = 0x807F  # sept_manager.h GUEST_L2_GPA_ATTR_MASK
HEADER, QUAD = 8, 8
LOCKED = frozenset(("TD_CTLS", "FEATURE_PARAVIRT_CTLS"))  # by TD_CTLS.LOCK, which 1.5.01 does not have
LAST_FIELD = 38  # bits 46:38 of a sequence header: how many fields follow the first

Value = Callable[["TdxModule", "VcpuModel", int], int]


def _quad(of: Callable[[TdxModule], bytes]) -> Value:
    return lambda m, v, e: int.from_bytes(of(m)[QUAD * e : QUAD * e + QUAD], "little")


def _features(m: TdxModule, v: VcpuModel, e: int) -> int:
    features = FEATURES0 | (NEWER_FEATURES0 if m.newer else 0)
    return features if m.params.choices.seamverifyreport else features & ~LOCAL_ATTESTATION


VALUES: dict[str, Value] = {
    "TD_UUID": _quad(lambda m: m.uuid),
    "NUM_VCPUS": lambda m, v, e: m.params.vcpus,
    "MAX_VCPUS": lambda m, v, e: m.max_vcpus,
    "GPAW": lambda m, v, e: int(m.params.gpaw == 52),
    "ATTRIBUTES": lambda m, v, e: m.params.attributes,
    "XFAM": lambda m, v, e: m.params.xfam,
    "TSC_FREQUENCY": lambda m, v, e: m.params.tsc_25mhz,
    "NOTIFY_ENABLES": lambda m, v, e: m.notify_enables,
    "CONFIG_FLAGS": lambda m, v, e: m.params.config_flags,
    "TOPOLOGY_ENUM_CONFIGURED": lambda m, v, e: int(m.newer),
    "VE_REDUCTION_VALID": lambda m, v, e: int(m.newer),
    "FEATURE_PARAVIRT_CTLS": lambda m, v, e: m.feature_paravirt_ctls,
    "TD_CTLS": lambda m, v, e: m.td_ctls,
    "MRTD": _quad(lambda m: m.mrtd),
    "MRCONFIGID": _quad(lambda m: m.params.mrconfigid),
    "MROWNER": _quad(lambda m: m.params.mrowner),
    "MROWNERCONFIG": _quad(lambda m: m.params.mrownerconfig),
    "RTMR": _quad(lambda m: b"".join(m.rtmr)),
    "VCPU_INDEX": lambda m, v, e: v.index,
    "CPUID_SUPERVISOR_VE": lambda m, v, e: v.cpuid_supervisor_ve,
    "CPUID_USER_VE": lambda m, v, e: v.cpuid_user_ve,
    "L2_CTLS": lambda m, v, e: v.l2_ctls[e],
    "TSC_DEADLINE": lambda m, v, e: v.l2_tsc_deadline[e],
    "CPUID_CONTROL": lambda m, v, e: v.cpuid_control.get(e, 0),
    "VENDOR_ID": lambda m, v, e: INTEL,
    "MINOR_VERSION": lambda m, v, e: MINOR,
    "MAJOR_VERSION": lambda m, v, e: MAJOR,
    "NUM_TDX_FEATURES": lambda m, v, e: 1,
    "TDX_FEATURES0": _features,
    "GUEST_L2_GPA_ATTR_MASK": lambda m, v, e: GPA_ATTRIBUTES,
}
"""Content of every field; those not listed are zero: no nested VM, service TD or migration exists here."""


def value(module: TdxModule, vcpu: VcpuModel, field: Field, element: int) -> int:
    """What a read of one element gives."""
    content = VALUES[field.name](module, vcpu, element) if field.name in VALUES else 0
    return content & field.readable


def read(module: TdxModule, vcpu: VcpuModel, r: Gpr, scope: str, with_next: bool) -> int:
    """VM.RD, VP.RD and SYS.RD: R8 is zeroed and RDX set to no id before any check."""
    identifier, newer = r[RDX], module.newer
    r[R8] = 0
    if with_next:
        r[RDX] = NULL_ID
    if scope == TD and r[RAX] >> 17 & 0x7F:
        return status.OPERAND_INVALID | status.RAX
    if r[RCX] and scope != SYS:
        return status.OPERAND_INVALID | status.RCX
    if with_next and fields.is_null(identifier):
        r[RDX] = fields.following(scope, identifier, newer)
        return status.FIRST_FIELD_ID
    found = fields.find(scope, identifier, newer)
    if found is None:
        return status.FIELD_ID_INCORRECT
    if not found[0].readable:
        return status.FIELD_NOT_READABLE
    r[R8] = value(module, vcpu, *found)
    if with_next:
        r[RDX] = fields.following(scope, identifier, newer)
    return status.SUCCESS


def write(module: TdxModule, vcpu: VcpuModel, r: Gpr, scope: str) -> int:
    """VM.WR and VP.WR: bits of R9 are written, those the TD may not write must not change."""
    data, mask, r[R8] = r[R8], r[R9], 0
    if r[RCX]:
        return status.OPERAND_INVALID | status.RCX
    found = fields.find(scope, r[RDX], module.newer)
    if found is None:
        return status.FIELD_ID_INCORRECT
    field, element = found
    writable = field.writable & mask
    if not writable:
        return status.FIELD_NOT_WRITABLE
    old = value(module, vcpu, field, element)
    if (old ^ data) & mask & ~field.writable:
        return status.FIELD_VALUE_NOT_VALID
    new = old & ~writable | data & writable
    if field.name in LOCKED and module.td_ctls & LOCK and new != old:
        return status.FIELD_VALUE_NOT_VALID
    flexible = module.params.config_flags & CONFIG_FLEXIBLE_PENDING_VE
    if field.name == "TD_CTLS" and not flexible and (new ^ old) & 1:
        return status.FIELD_VALUE_NOT_VALID
    if field.name == "TD_CTLS" and module.newer:
        new = reduced.control_bits(new)
    _store(module, vcpu, field.name, element, new)
    r[R8] = old
    return status.SUCCESS


def _store(module: TdxModule, vcpu: VcpuModel, name: str, element: int, new: int) -> None:
    match name:
        case "TD_CTLS":
            module.set_td_ctls(new)
        case "FEATURE_PARAVIRT_CTLS":
            module.feature_paravirt_ctls = new
        case "NOTIFY_ENABLES":
            module.notify_enables = new
        case "CPUID_SUPERVISOR_VE":
            vcpu.cpuid_supervisor_ve = new
        case "CPUID_USER_VE":
            vcpu.cpuid_user_ve = new
        case "L2_CTLS":
            vcpu.l2_ctls[element] = new
        case "TSC_DEADLINE":
            vcpu.l2_tsc_deadline[element] = new
        case "CPUID_CONTROL":
            vcpu.cpuid_control[element] = new


def vm_rd(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 7; version 1 also gives the next id."""
    return read(module, vcpu, r, TD, with_next=bool(r[RAX] >> 16 & 0xFF))


def vm_wr(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 8."""
    return write(module, vcpu, r, TD)


def vp_rd(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 9."""
    return read(module, vcpu, r, VP, with_next=True)


def vp_wr(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 10."""
    return write(module, vcpu, r, VP)


def sys_rd(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 11; RCX is no operand."""
    return read(module, vcpu, r, SYS, with_next=True)


def sys_rdall(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 12: a metadata list; neighbours of one size are one sequence (metadata_generic.c
    md_dump_sequence).
    """
    first, r[R8] = r[R8], NULL_ID
    if r[RDX] % PAGE or not module.gpa_valid(r[RDX], may_be_shared=False):
        return status.OPERAND_INVALID | status.RDX
    gpa, _ = module.reach(r[RDX], "TDG.SYS.RDALL", write=True)
    every = fields.of(SYS)
    start = 0
    if not fields.is_null(first):
        found = fields.find(SYS, first)
        if found is None or found[0] not in every or (found[0].id ^ first) & SIZE:
            return status.FIELD_ID_INCORRECT
        start = every.index(found[0])
    sequences: list[list[Field]] = []
    for field in every[start:]:
        if sequences and field.id == sequences[-1][-1].id + 1:
            sequences[-1].append(field)
        else:
            sequences.append([field])
    quads = []
    for sequence in sequences:
        quads.append(sequence[0].id | (len(sequence) - 1) << LAST_FIELD)
        quads += [value(module, vcpu, field, 0) for field in sequence]
    body = b"".join(quad.to_bytes(QUAD, "little") for quad in quads)
    header = (HEADER + len(body)).to_bytes(2, "little") + len(sequences).to_bytes(2, "little") + bytes(4)
    module.memory.write(gpa, header + body)
    return status.SUCCESS


def servtd(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaves 18 and 20: nothing is bound, so no handle is right. SERVTD.RD also gives no next id."""
    if r[RAX] & 0xFFFF == 18:
        r[RDX] = NULL_ID
    r[R8] = 0
    return status.OPERAND_INVALID | status.RCX
