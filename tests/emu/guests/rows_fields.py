"""What do the metadata leaves read and write?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .common import (
    FIRST_ID,
    FLEXIBLE,
    FREE,
    ID_INCORRECT,
    INVALID,
    LEAVES,
    NOT_READABLE,
    NOT_WRITABLE,
    R8,
    RAX,
    RDX,
    SHARED,
    VALUE_NOT_VALID,
    B,
    make,
)
from .rows import ALL_ONES, Row, Step, code, tdcall


def _rd() -> Iterator[Row]:
    def row(
        key: str,
        what: str,
        step: Step | tuple[Step, ...],
        expect: dict[str, int],
        source: str = "tdg_vm_rd_wr.c tdg_vm_rd_wr",
        **more: Any,
    ) -> Row:
        return make(f"rd.{key}", what, LEAVES, source, step, expect, **more)

    xfam = 0x1110000300000001
    yield row(
        "vm",
        "VM.RD changes RAX and R8 only",
        tdcall(7, rcx=0, rdx=xfam),
        {"rax": 0, "r8": 3, "changed": RAX | R8},
    )
    yield row(
        "vm_rcx",
        "VM.RD: RCX not 0: |RCX, R8 zeroed",
        tdcall(7, rcx=1, rdx=xfam),
        {"rax": INVALID | 1, "r8": 0, "rdx": xfam},
    )
    yield row(
        "vm_unknown",
        "VM.RD of no field",
        tdcall(7, rcx=0, rdx=0x1110000300000777),
        {"rax": ID_INCORRECT, "r8": 0},
    )
    yield row(
        "vm_elements",
        "VM.RD of more than one element",
        tdcall(7, rcx=0, rdx=xfam | 1 << 34),
        {"rax": ID_INCORRECT},
    )
    yield row(
        "vm_fields",
        "VM.RD of more than one field",
        tdcall(7, rcx=0, rdx=xfam | 1 << 38),
        {"rax": ID_INCORRECT},
    )
    yield row(
        "vm_reserved",
        "VM.RD with a reserved id bit",
        tdcall(7, rcx=0, rdx=xfam | 1 << 24),
        {"rax": ID_INCORRECT},
    )
    yield row(
        "vm_size",
        "Size and context bits of an id do not count",
        tdcall(7, rcx=0, rdx=xfam & ~(0x73 << 32 | 7 << 52)),
        {"rax": 0, "r8": 3},
    )
    yield row(
        "vm_mask_bit",
        "The write-mask bit of an id does not count",
        tdcall(7, rcx=0, rdx=xfam | 1 << 51),
        {"rax": 0, "r8": 3},
        source="metadata_generic.c md_check_as_single_element_id",
    )
    yield row(
        "vm_host",
        "VM.RD of a field of the host",
        tdcall(7, rcx=0, rdx=0x8010000000000001),
        {"rax": NOT_READABLE, "r8": 0},
        source="tdr_tdcs_fields_lookup.c tdr_tdcs_lookup",
    )
    for key, what, leaf, identifier, answer in (
        ("vm_host_timeout", "VM.RD of HP_LOCK_TIMEOUT", 7, 0x9110000300000011, NOT_READABLE),
        ("vm_host_msrs", "VM.RD of the last MSR bitmap", 7, 0x20100003000001FF, NOT_READABLE),
        ("vp_host_vmcs", "VP.RD of a VMCS field: VPID", 9, 0x0024000100000000, NOT_READABLE),
        ("vp_host_half", "VP.RD of the upper half of a VMCS field", 9, 0x0024000100000001, ID_INCORRECT),
        ("vp_host_gpr", "VP.RD of a saved general register", 9, 0x1020000300000003, NOT_READABLE),
        ("sys_host", "SYS.RD of NUM_PKGS", 11, 0x0000000200000000, NOT_READABLE),
    ):
        table = {7: "tdr_tdcs", 9: "tdvps", 11: "global_sys"}[leaf]
        yield row(
            key,
            what,
            tdcall(leaf, rcx=0, rdx=identifier),
            {"rax": answer, "r8": 0},
            f"{table}_fields_lookup.c {table}_lookup",
        )
    yield row(
        "cpuid_values",
        "VM.RD of CPUID_VALUES: FIELD_ID_INCORRECT",
        tdcall(7, rcx=0, rdx=0x9410000300000000),
        {"rax": ID_INCORRECT},
        status="simplified",
        why="a field of the host whose codes hold a CPUID leaf; a module says NOT_READABLE for those it has",
    )
    yield row(
        "null_context",
        "The context of a null id does not count",
        tdcall(0x10007, rcx=0, rdx=ALL_ONES & ~(7 << 52)),
        {"rax": FIRST_ID, "rdx": 0x8010000300000020},
        source="metadata_generic.h is_null_field_id",
    )
    yield row(
        "next_size",
        "Within a field the next id keeps the size bits that were given, and gets its context",
        tdcall(0x10007, rcx=0, rdx=0x1300000000000002),
        {"rax": 0, "rdx": 0x1310000000000003},
        source="metadata_generic.c md_check_as_single_element_id",
    )
    yield row(
        "vm_v1",
        "VM.RD version 1 gives the next id",
        tdcall(0x10007, rcx=0, rdx=0x1110000300000000),
        {"rax": 0, "r8": 1 << 28, "rdx": xfam, "changed": RAX | RDX | R8},
    )
    yield row(
        "vm_v1_null",
        "VM.RD version 1 of no id gives the first id",
        tdcall(0x10007, rcx=0, rdx=ALL_ONES),
        {"rax": FIRST_ID, "r8": 0, "rdx": 0x8010000300000020},
    )
    yield row("vm_v0_null", "VM.RD version 0 of no id", tdcall(7, rcx=0, rdx=ALL_ONES), {"rax": ID_INCORRECT})
    yield row(
        "vm_v1_bad",
        "VM.RD version 1 that fails: RDX is all ones",
        tdcall(0x10007, rcx=1, rdx=xfam),
        {"rax": INVALID | 1, "rdx": ALL_ONES, "r8": 0},
    )
    vp = "tdg_vp_rd_wr.c tdg_vp_rd_wr"
    yield row(
        "vp",
        "VP.RD gives value and next id",
        tdcall(9, rcx=0, rdx=0xA020000200000002),
        {"rax": 0, "r8": 0, "rdx": 0xA020000000000007, "changed": RAX | RDX | R8},
        vp,
    )
    yield row(
        "vp_rcx",
        "VP.RD: RCX not 0: |RCX",
        tdcall(9, rcx=2, rdx=0xA020000200000002),
        {"rax": INVALID | 1, "rdx": ALL_ONES, "r8": 0},
        vp,
    )
    yield row(
        "vp_unknown",
        "VP.RD of no field",
        tdcall(9, rcx=0, rdx=0xA020000200000999),
        {"rax": ID_INCORRECT, "rdx": ALL_ONES},
        vp,
    )
    yield row(
        "vp_null",
        "VP.RD of no id gives the first id",
        tdcall(9, rcx=0, rdx=ALL_ONES),
        {"rax": FIRST_ID, "rdx": 0xA020000200000002},
        vp,
    )
    yield row(
        "vp_next",
        "L2_CTLS follows CPUID_USER_VE, nested VMs or not",
        tdcall(9, rcx=0, rdx=0xA020000000000008),
        {"rax": 0, "rdx": 0xA020000300000050},
        "tdvps_fields_lookup.c tdvps_lookup",
    )
    sys = "tdg_sys_rd.c tdg_sys_rd"
    yield row(
        "sys",
        "SYS.RD gives value and next id",
        tdcall(11, rdx=0x0800000200000000),
        {"rax": 0, "r8": 0x8086, "rdx": 0x0800000100000003, "changed": RAX | RDX | R8},
        sys,
    )
    yield row(
        "sys_rcx",
        "SYS.RD takes no notice of RCX",
        tdcall(11, rcx=7, rdx=0x0800000200000000),
        {"rax": 0, "r8": 0x8086},
        sys,
    )
    yield row(
        "sys_unknown",
        "SYS.RD of no field",
        tdcall(11, rdx=0x0800000200000777),
        {"rax": ID_INCORRECT, "rdx": ALL_ONES},
        sys,
    )
    yield row(
        "sys_null",
        "SYS.RD of no id gives the first id",
        tdcall(11, rdx=ALL_ONES),
        {"rax": FIRST_ID, "rdx": 0x0800000200000000},
        sys,
    )
    rdall = "tdg_sys_rdall.c tdg_sys_rdall"
    yield row(
        "rdall",
        "SYS.RDALL fills the buffer and ends",
        tdcall(12, rdx=B, r8=ALL_ONES),
        {
            "rax": 0,
            "r8": ALL_ONES,
            f"mem.{B:#x}": 8 << 16 | 168,  # bytes and sequences
            f"mem.{B + 8:#x}": 0x0800000200000000,
            f"mem.{B + 16:#x}": 0x8086,
        },
        rdall,
    )
    yield row(
        "rdall_joined",
        "SYS.RDALL joins neighbours of one size: MINOR_VERSION and MAJOR_VERSION",
        tdcall(12, rdx=B, r8=0x0800000100000003),
        {
            "rax": 0,
            f"mem.{B:#x}": 7 << 16 | 152,
            f"mem.{B + 8:#x}": 0x0800004100000003,
            f"mem.{B + 16:#x}": 5,
            f"mem.{B + 24:#x}": 1,
            f"mem.{B + 32:#x}": 0x0A00000200000000,
        },
        "metadata_generic.c md_dump_sequence",
    )
    yield row(
        "rdall_size",
        "SYS.RDALL from an id with another size",
        tdcall(12, rdx=B, r8=0x0800000300000003),
        {"rax": ID_INCORRECT, "r8": ALL_ONES},
        rdall,
    )
    yield row(
        "rdall_align",
        "SYS.RDALL: RDX not a whole page: |RDX",
        tdcall(12, rdx=B + 8, r8=ALL_ONES),
        {"rax": INVALID | 2, "r8": ALL_ONES},
        rdall,
    )
    yield row(
        "rdall_shared",
        "SYS.RDALL: a shared GPA: |RDX",
        tdcall(12, rdx=B | SHARED, r8=ALL_ONES),
        {"rax": INVALID | 2},
        rdall,
    )
    yield row(
        "rdall_id",
        "SYS.RDALL from no field",
        tdcall(12, rdx=B, r8=0x0800000200000777),
        {"rax": ID_INCORRECT},
        rdall,
    )


def _wr() -> Iterator[Row]:
    def row(
        key: str,
        what: str,
        step: Step | tuple[Step, ...],
        expect: dict[str, int],
        source: str = "metadata_td.c md_td_write_element",
        **more: Any,
    ) -> Row:
        return make(f"wr.{key}", what, LEAVES, source, step, expect, **more)

    notify, ctls = 0x9110000300000010, 0x1110000300000017
    one = tdcall(8, rcx=0, rdx=notify, r8=1, r9=1)
    yield row(
        "notify", "VM.WR of NOTIFY_ENABLES changes RAX and R8", one, {"rax": 0, "r8": 0, "changed": RAX | R8}
    )
    yield row("notify_old", "VM.WR gives the value before", (one, one), {"rax": 0, "r8": 1})
    yield row(
        "notify_linux",
        "The id that Linux uses",
        tdcall(8, rcx=0, rdx=0x9100000000000010, r8=1, r9=ALL_ONES),
        {"rax": 0},
    )
    yield row(
        "rcx",
        "VM.WR: RCX not 0: |RCX",
        tdcall(8, rcx=1, rdx=notify, r8=1, r9=1),
        {"rax": INVALID | 1, "r8": 0},
    )
    yield row(
        "mask0", "VM.WR with an empty mask", tdcall(8, rcx=0, rdx=notify, r8=1, r9=0), {"rax": NOT_WRITABLE}
    )
    yield row(
        "mask_outside",
        "VM.WR of bits that cannot be written",
        tdcall(8, rcx=0, rdx=notify, r8=2, r9=2),
        {"rax": NOT_WRITABLE},
    )
    yield row(
        "mask_bits",
        "VM.WR: what R8 holds outside of the mask does not matter",
        (tdcall(8, rcx=0, rdx=notify, r8=ALL_ONES, r9=1), one),
        {"0.rax": 0, "rax": 0, "r8": 1},
    )
    yield row(
        "forbidden",
        "VM.WR that would change other bits",
        tdcall(8, rcx=0, rdx=notify, r8=3, r9=3),
        {"rax": VALUE_NOT_VALID},
    )
    yield row(
        "xfam",
        "VM.WR of XFAM",
        tdcall(8, rcx=0, rdx=0x1110000300000001, r8=3, r9=ALL_ONES),
        {"rax": NOT_WRITABLE},
    )
    yield row(
        "unknown",
        "VM.WR of no field",
        tdcall(8, rcx=0, rdx=0x1110000300000777, r8=0, r9=1),
        {"rax": ID_INCORRECT},
    )
    yield row(
        "ctls_fixed",
        "TD_CTLS without FLEXIBLE_PENDING_VE",
        tdcall(8, rcx=0, rdx=ctls, r8=0, r9=1),
        {"rax": VALUE_NOT_VALID},
    )
    yield row(
        "ctls_same",
        "TD_CTLS: the value it has may be written",
        tdcall(8, rcx=0, rdx=ctls, r8=1, r9=1),
        {"rax": 0, "r8": 1},
    )
    off, touch = tdcall(8, rcx=0, rdx=ctls, r8=0, r9=1), code("488b07", rdi=FREE)
    yield row(
        "ctls_off",
        "TD_CTLS off: a pending page is #VE(48) again",
        (off, touch),
        {"0.rax": 0, "0.r8": 1, "vector": 20},
        td=FLEXIBLE,
    )
    on = tdcall(8, rcx=0, rdx=ctls, r8=1, r9=1)
    yield row(
        "ctls_on",
        "TD_CTLS on: a pending page is a TD exit",
        (on, touch),
        {},
        end="sept-violation",
        td={**FLEXIBLE, "attributes": 0},
    )
    yield row(
        "ctls_lock",
        "TD_CTLS bits of later modules",
        tdcall(8, rcx=0, rdx=ctls, r8=1 << 63, r9=1 << 63),
        {"rax": NOT_WRITABLE},
    )
    vp = "tdg_vp_rd_wr.c tdg_vp_rd_wr"
    yield row(
        "vp",
        "VP.WR of CPUID_USER_VE",
        tdcall(10, rcx=0, rdx=0xA020000000000008, r8=1, r9=0xFF),
        {"rax": 0, "r8": 0, "changed": RAX | R8},
        vp,
    )
    yield row(
        "vp_index",
        "VP.WR of VCPU_INDEX",
        tdcall(10, rcx=0, rdx=0xA020000200000002, r8=1, r9=0xFF),
        {"rax": NOT_WRITABLE},
        vp,
    )
    yield row(
        "vp_rcx",
        "VP.WR: RCX not 0: |RCX",
        tdcall(10, rcx=1, rdx=0xA020000000000008, r8=1, r9=1),
        {"rax": INVALID | 1},
        vp,
    )
    control = 0xA120000000000000
    yield row(
        "vp_control",
        "VP.WR of CPUID_CONTROL, and back",
        (tdcall(10, rcx=0, rdx=control + 127, r8=3, r9=3), tdcall(9, rcx=0, rdx=control + 127)),
        {"0.rax": 0, "rax": 0, "r8": 3, "rdx": ALL_ONES},
        vp,
    )
    yield row(
        "vp_l2_ctls",
        "VP.WR of L2_CTLS of a VM that does not exist is kept",
        (
            tdcall(10, rcx=0, rdx=0xA020000300000051, r8=5, r9=7),
            tdcall(9, rcx=0, rdx=0xA020000300000051),
        ),
        {"0.rax": 0, "rax": 0, "r8": 5, "rdx": 0xA020000300000052},
        "metadata_vp.c md_vp_write_element",
    )
    yield row(
        "host",
        "VM.WR of a field of the host",
        tdcall(8, rcx=0, rdx=0x9110000300000011, r8=1, r9=ALL_ONES),
        {"rax": NOT_WRITABLE, "r8": 0},
    )
    yield row(
        "vp_control_end",
        "CPUID_CONTROL has 128 entries",
        tdcall(9, rcx=0, rdx=control + 128),
        {"rax": ID_INCORRECT},
        vp,
    )
    yield row(
        "vp_control_bits",
        "CPUID_CONTROL has two bits",
        tdcall(10, rcx=0, rdx=control, r8=4, r9=7),
        {"rax": VALUE_NOT_VALID},
        vp,
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    for part in (_rd, _wr):
        yield from part()
