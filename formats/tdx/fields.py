"""Which metadata fields can a TD read and write, under which ids? One table, from the module's own lookup
tables.

An id names a field by class and code only; size, context, sequence increment and write-mask flag do not
count (intel/tdx-module TDX_1.5.01, metadata_generic.c md_check_as_single_element_id).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from formats.tdx import hostfields
from formats.tdx.reduction import FEATURE_PARAVIRT_CTLS, LOCK, PARAVIRT_BITS, VE_REDUCTION_VALID
from formats.tdx.topology import ENUM_TOPOLOGY, REDUCE_VE, VIRT_CPUID2

RESERVED = 0xFF << 24 | 7 << 47 | 1 << 55 | 1 << 62  # id bits 31:24, 49:47, 55 and 62
LAST_ELEMENT_AND_FIELD = 0xF << 34 | 0x1FF << 38
CLASS_AND_CODE = 0x3F << 56 | 0xFFFFFF
CONTEXT, SIZE = 7 << 52, 3 << 32
NULL_ID = (1 << 64) - 1
ALL = (1 << 64) - 1
TD, VP, SYS = "TD", "VP", "SYS"  # whose fields: VM.RD/WR, VP.RD/WR, SYS.RD
SOURCES = {
    TD: "intel/tdx-module TDX_1.5.01 tdr_tdcs_fields_lookup.c",
    VP: "intel/tdx-module TDX_1.5.01 tdvps_fields_lookup.c",
    SYS: "intel/tdx-module TDX_1.5.01 global_sys_fields_lookup.c",
}


@dataclass(frozen=True)
class Field:
    """One field: whose it is, its id, name, number of 8-byte or smaller elements, the bits of one element
    that a TD may read, and those it may write.
    """

    scope: str
    id: int
    name: str
    elements: int = 1
    readable: int = ALL
    writable: int = 0


BYTE, WORD, DOUBLE = 0xFF, 0xFFFF, 0xFFFFFFFF

FIELDS: tuple[Field, ...] = (
    # In the order of the module's tables, which is the order of iteration. Those of nested VMs that do not
    # exist are no fields, but L2_CTLS and TSC_DEADLINE always are.
    Field(TD, 0x8010000300000020, "TD_UUID", elements=4),
    Field(TD, 0x9010000200000001, "NUM_VCPUS", readable=DOUBLE),
    Field(TD, 0x9010000100000005, "NUM_L2_VMS", readable=WORD),
    Field(TD, 0x1110000300000000, "ATTRIBUTES"),
    Field(TD, 0x1110000300000001, "XFAM"),
    Field(TD, 0x1110000200000002, "MAX_VCPUS", readable=DOUBLE),
    Field(TD, 0x1110000000000003, "GPAW", readable=BYTE),
    Field(TD, 0x111000010000000C, "TSC_FREQUENCY", readable=WORD),
    Field(TD, 0x9110000300000010, "NOTIFY_ENABLES", readable=1, writable=1),
    Field(TD, 0x1110000300000016, "CONFIG_FLAGS"),
    Field(TD, 0x1110000300000017, "TD_CTLS", writable=1),
    Field(TD, 0x1310000300000000, "MRTD", elements=6),
    Field(TD, 0x1310000300000010, "MRCONFIGID", elements=6),
    Field(TD, 0x1310000300000018, "MROWNER", elements=6),
    Field(TD, 0x1310000300000020, "MROWNERCONFIG", elements=6),
    Field(TD, 0x1310000300000040, "RTMR", elements=24),
    Field(TD, 0x9810000300000040, "PRE_IMPORT_UUID", elements=4),
    Field(TD, 0x9910000300000000, "SERVTD_HASH", elements=6),
    Field(TD, 0x9910000100000006, "SERVTD_NUM", readable=WORD),
    Field(TD, 0x9910000300000080, "SERVTD_BINDINGS_TABLE", elements=16),
    Field(VP, 0xA020000200000002, "VCPU_INDEX", readable=DOUBLE),
    Field(VP, 0xA020000000000007, "CPUID_SUPERVISOR_VE", readable=BYTE, writable=BYTE),
    Field(VP, 0xA020000000000008, "CPUID_USER_VE", readable=BYTE, writable=BYTE),
    Field(VP, 0xA020000300000050, "L2_CTLS", elements=4, writable=7),
    Field(VP, 0xA020000300000058, "TSC_DEADLINE", elements=4, writable=ALL),
    Field(VP, 0xA120000000000000, "CPUID_CONTROL", elements=128, readable=BYTE, writable=3),
    Field(SYS, 0x0800000200000000, "VENDOR_ID", readable=DOUBLE),
    Field(SYS, 0x0800000100000003, "MINOR_VERSION", readable=WORD),
    Field(SYS, 0x0800000100000004, "MAJOR_VERSION", readable=WORD),
    Field(SYS, 0x0A00000200000000, "SYS_ATTRIBUTES", readable=DOUBLE),
    Field(SYS, 0x0A00000000000001, "NUM_TDX_FEATURES", readable=BYTE),
    Field(SYS, 0x0A00000300000008, "TDX_FEATURES0"),
    Field(SYS, 0xA000000300000000, "MIG_ATTRIBUTES"),
    Field(SYS, 0x2000000100000001, "MIN_EXPORT_VERSION", readable=WORD),
    Field(SYS, 0x2000000100000002, "MAX_EXPORT_VERSION", readable=WORD),
    Field(SYS, 0x2000000100000003, "MIN_IMPORT_VERSION", readable=WORD),
    Field(SYS, 0x2000000100000004, "MAX_IMPORT_VERSION", readable=WORD),
    Field(SYS, 0xA200000100000000, "GUEST_L2_GPA_ATTR_MASK", readable=WORD),
)

# Of a module after 1.5.01 (intel/tdx-module commit db57c638520a, auto_gen_2_0/tdr_tdcs_fields_lookup.c): more
# controls, whether the host gave ids, and which features stay the VMM's under REDUCE_VE.
_CONTROLS = LOCK | REDUCE_VE | VIRT_CPUID2 | ENUM_TOPOLOGY | 1
_TOP = 1 << 63  # of the ids that iteration gives; no part of a field's name


def _newer(field: Field) -> tuple[Field, ...]:
    if field.name == "CONFIG_FLAGS":
        return (replace(field, id=field.id | _TOP),)
    if field.name != "TD_CTLS":
        return (field,)
    return (
        replace(field, id=field.id | _TOP, writable=_CONTROLS),
        Field(TD, 0x9110000000000019, "TOPOLOGY_ENUM_CONFIGURED", readable=BYTE),
        Field(TD, VE_REDUCTION_VALID, "VE_REDUCTION_VALID", readable=BYTE),
        Field(TD, FEATURE_PARAVIRT_CTLS, "FEATURE_PARAVIRT_CTLS", 1, PARAVIRT_BITS, PARAVIRT_BITS),
    )


NEWER_FIELDS = tuple(field for each in FIELDS for field in _newer(each))

HOST = {TD: hostfields.TD, VP: hostfields.VP, SYS: hostfields.SYS}
