"""Which metadata fields can a TD read and write, under which ids? (intel/tdx-module TDX_1.5.01,
tdr_tdcs_fields_lookup.c, tdvps_fields_lookup.c, global_sys_fields_lookup.c)
"""

from __future__ import annotations

from dataclasses import dataclass

LAST_ELEMENT_AND_FIELD = 0xF << 34 | 0x1FF << 38
WRITE_MASK_VALID = 1 << 51
CLASS_AND_CODE = 0x3F << 56 | 0xFFFFFF
NULL_ID = (1 << 64) - 1


@dataclass(frozen=True)
class Field:
    """One field: its full id, its name, how many 8-byte elements it has, and which bits a TD may write."""

    id: int
    name: str
    elements: int = 1
    writable: int = 0


VM_FIELDS: tuple[Field, ...] = (
    Field(0x9010000200000001, "NUM_VCPUS"),
    Field(0x1110000200000002, "MAX_VCPUS"),
    Field(0x1110000000000003, "GPAW"),
    Field(0x1110000300000000, "ATTRIBUTES"),
    Field(0x1110000300000001, "XFAM"),
    Field(0x111000010000000C, "TSC_FREQUENCY"),
    Field(0x9110000300000010, "NOTIFY_ENABLES", writable=1),
    Field(0x1110000300000016, "CONFIG_FLAGS"),
    Field(0x1110000300000017, "TD_CTLS", writable=1),
    Field(0x1310000300000000, "MRTD", elements=6),
    Field(0x1310000300000010, "MRCONFIGID", elements=6),
    Field(0x1310000300000018, "MROWNER", elements=6),
    Field(0x1310000300000020, "MROWNERCONFIG", elements=6),
    Field(0x1310000300000040, "RTMR", elements=24),
    Field(0x9910000300000000, "SERVTD_HASH", elements=6),
)
VP_FIELDS: tuple[Field, ...] = (
    Field(0xA020000200000002, "VCPU_INDEX"),
    Field(0xA020000000000007, "CPUID_SUPERVISOR_VE", writable=1),
    Field(0xA020000000000008, "CPUID_USER_VE", writable=1),
)
SYS_FIELDS: tuple[Field, ...] = (
    Field(0x0800000200000000, "VENDOR_ID"),
    Field(0x0800000100000003, "MINOR_VERSION"),
    Field(0x0800000100000004, "MAJOR_VERSION"),
    Field(0x0A00000300000008, "TDX_FEATURES0"),
)


def find(table: tuple[Field, ...], identifier: int) -> tuple[Field, int] | None:
    """Field and element of a single-element id; size and context bits do not count, as in the module."""
    if identifier & LAST_ELEMENT_AND_FIELD:
        return None
    key = identifier & CLASS_AND_CODE & ~(1 << 63)
    for field in table:
        element = key - (field.id & CLASS_AND_CODE & ~(1 << 63))
        if 0 <= element < field.elements:
            return field, element
    return None


def following(table: tuple[Field, ...], identifier: int) -> int:
    """The next readable id after this one, all ones at the end; the first one for the null id."""
    ids = [field.id + element for field in table for element in range(field.elements)]
    if identifier == NULL_ID:
        return ids[0]
    found = find(table, identifier)
    if found is None:
        return NULL_ID
    at = ids.index(found[0].id + found[1]) + 1
    return ids[at] if at < len(ids) else NULL_ID
