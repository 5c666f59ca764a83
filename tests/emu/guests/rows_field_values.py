"""What do the metadata fields that a guest reads and writes hold?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .common import (
    FIELDS,
    ID_INCORRECT,
    make,
    quad,
)
from .rows import ALL_ONES, Row, tdcall


def _fields() -> Iterator[Row]:
    source = "tdr_tdcs_fields_lookup.c tdr_tdcs_lookup"

    def row(name: str, leaf: int, identifier: int, value: int, key: str = "", **more: Any) -> Row:
        step = tdcall(leaf, rcx=0, rdx=identifier)
        tables = {
            7: source,
            9: "tdvps_fields_lookup.c tdvps_lookup",
            11: "global_sys_fields_lookup.c global_sys_lookup",
        }
        return make(
            f"field.{key or name.lower()}",
            f"{name} ({identifier:016X})",
            FIELDS,
            more.pop("source", tables[leaf]),
            step,
            {"rax": 0, "r8": value},
            **more,
        )

    td: tuple[tuple[str, int, int, str, dict[str, Any]], ...] = (
        ("NUM_VCPUS", 0x9010000200000001, 1, "", {}),
        ("NUM_L2_VMS", 0x9010000100000005, 0, "", {}),
        ("MAX_VCPUS", 0x1110000200000002, 4, "", {"max_vcpus": 4}),
        ("GPAW", 0x1110000000000003, 0, "gpaw48", {}),
        ("GPAW", 0x1110000000000003, 1, "gpaw52", {"config_flags": 5}),
        ("ATTRIBUTES", 0x1110000300000000, 1 << 28, "", {}),
        ("XFAM", 0x1110000300000001, 0xE7, "", {"xfam": 0xE7}),
        ("TSC_FREQUENCY", 0x111000010000000C, 80, "", {"tsc_25mhz": 80}),
        ("NOTIFY_ENABLES", 0x9110000300000010, 0, "", {}),
        ("CONFIG_FLAGS", 0x1110000300000016, 4, "", {}),
        ("TD_CTLS", 0x1110000300000017, 1, "td_ctls1", {}),
        ("TD_CTLS", 0x1110000300000017, 0, "td_ctls0", {"attributes": 0}),
        ("SERVTD_HASH", 0x9910000300000000, 0, "", {}),
        ("SERVTD_NUM", 0x9910000100000006, 0, "", {}),
        ("PRE_IMPORT_UUID", 0x9810000300000040, 0, "", {}),
    )
    for name, identifier, value, key, params in td:
        yield row(name, 7, identifier, value, key, td=params)
    for name, start in (("MRCONFIGID", 0x10), ("MROWNER", 0x18), ("MROWNERCONFIG", 0x20)):
        digest = bytes(range(start, start + 48))
        yield row(
            f"{name} element 5",
            7,
            0x1310000300000005 + start,
            quad(digest, 5),
            name.lower(),
            td={name.lower(): digest},
        )
    yield row("RTMR0 element 0", 7, 0x1310000300000040, 0, "rtmr")
    last = tdcall(7, rcx=0, rdx=0x1310000300000058)
    yield make("field.rtmr_end", "RTMR has 24 elements", FIELDS, source, last, {"rax": ID_INCORRECT})
    later = tdcall(7, rcx=0, rdx=0x9100000000000019)
    yield make(
        "field.topology",
        "TOPOLOGY_ENUM_CONFIGURED is of later modules",
        FIELDS,
        source,
        later,
        {"rax": ID_INCORRECT},
    )
    uuid = "a digest of the TD's parameters, so that runs repeat; a module makes it at random"
    yield make(
        "field.td_uuid",
        "TD_UUID",
        FIELDS,
        source,
        tdcall(7, rcx=0, rdx=0x8010000300000020),
        {"rax": 0},
        status="simplified",
        why=uuid,
    )
    yield row("VCPU_INDEX", 9, 0xA020000200000002, 0)
    yield row("CPUID_SUPERVISOR_VE", 9, 0xA020000000000007, 0)
    yield row("CPUID_USER_VE", 9, 0xA020000000000008, 0)
    yield row("TSC_DEADLINE[1]", 9, 0xA020000300000059, ALL_ONES, "tsc_deadline")
    yield row("CPUID_CONTROL[0]", 9, 0xA120000000000000, 0, "cpuid_control")
    yield row("VENDOR_ID", 11, 0x0800000200000000, 0x8086)
    yield row("MAJOR_VERSION", 11, 0x0800000100000004, 1)
    yield row("MINOR_VERSION", 11, 0x0800000100000003, 5)
    yield row("NUM_TDX_FEATURES", 11, 0x0A00000000000001, 1)
    yield row(
        "TDX_FEATURES0",
        11,
        0x0A00000300000008,
        0xF0FBF,  # bits 19:16, 11:7, 5:0
        source="metadata_sys.c md_sys_get_first_element_val_and_ptr",
    )
    yield row(
        "TDX_FEATURES0 without local attestation",
        11,
        0x0A00000300000008,
        0xF0EBF,
        "tdx_features0_local",
        source="metadata_sys.c md_sys_get_first_element_val_and_ptr",
        td={"seamverifyreport": False},
    )
    yield row("MIG_ATTRIBUTES", 11, 0xA000000300000000, 0)
    yield row("SYS_ATTRIBUTES", 11, 0x0A00000200000000, 0)


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _fields()
