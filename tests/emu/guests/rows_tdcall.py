"""What does each TDCALL leaf answer? Encoding, information and nested VMs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .common import (
    DISPATCH,
    ENCODING,
    GP,
    INVALID,
    LEAVES,
    NO_VE_INFO,
    R8,
    R9,
    R10,
    R11,
    RAX,
    RCX,
    RDX,
    SHARED,
    B,
    make,
)
from .rows import ALL_ONES, FILL, Row, Step, absent, code, tdcall


def _encoding() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(f"tdcall.{key}", what, ENCODING, DISPATCH, steps, expect, **more)

    bad = {"vector": 3, "rax": INVALID, "changed": RAX}
    for leaf in (13, 14, 15, 16, 17, 19, 21, 28, 29, 30, 31, 32, 33, 64, 72, 254, 0xFFFF):
        yield row(f"leaf{leaf}", f"Leaf {leaf} does not exist", tdcall(leaf), bad)
    for leaf in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 18, 22, 23, 25):
        yield row(f"version{leaf}", f"Leaf {leaf} has no version 1", tdcall(0x10000 | leaf, rcx=0xFC00), bad)
    yield row(
        "version7",
        "Leaf 7 has no version 2, which it says itself: R8 is zero, RDX all ones",
        tdcall(0x20007, rcx=0, rdx=0),
        {"vector": 3, "rax": INVALID, "r8": 0, "rdx": ALL_ONES, "changed": RAX | RDX | R8},
    )
    yield row("reserved24", "RAX bit 24 is reserved", tdcall(1 << 24 | 1), bad)
    yield row("reserved63", "RAX bit 63 is reserved", tdcall(1 << 63 | 1), bad)
    yield row("compat", "In 32-bit code it is #GP(0)", tdcall(1, cs=at.CS32), GP)
    yield row(
        "user",
        "In user mode it is #GP(0)",
        tdcall(1, cs=at.USER_CS),
        GP,
        status="simplified",
        why="what a CPU does is not confirmed in a public source",
    )
    yield row(
        "flags",
        "RFLAGS and the stack pointer are preserved",
        code("f9 660f01cc 0f92c3 4889e1", rax=1, rbx=0, rsp=at.STACK - 64),
        {"rbx": 1, "rcx": at.STACK - 64},
    )
    xmm = code("66480f6ec3 660f01cc 66480f7ec3", rax=1, rbx=0x1122334455667788)
    yield row("xmm", "XMM registers are preserved", xmm, {"rbx": 0x1122334455667788})
    yield absent(
        "tdcall.outside",
        "Outside a TD it is #UD",
        ENCODING,
        "this emulator runs TDs only",
        "CPU architecture",
    )
    yield absent(
        "tdcall.interrupted",
        "An interrupted leaf is executed again",
        ENCODING,
        "leaves are not interrupted here: they take no time",
        DISPATCH,
    )


def _info() -> Iterator[Row]:
    def row(key: str, what: str, expect: dict[str, int], **td: Any) -> Row:
        return make(f"vp.info.{key}", what, LEAVES, "tdg_vp_info.c tdg_vp_info", tdcall(1), expect, td=td)

    every = RAX | RCX | RDX | R8 | R9 | R10 | R11
    yield row(
        "changed", "VP.INFO changes RAX, RCX, RDX, R8 to R11 and nothing else", {"rax": 0, "changed": every}
    )
    yield row("gpaw48", "RCX is the GPA width, 48", {"rcx": 48})
    yield row("gpaw52", "RCX is the GPA width, 52", {"rcx": 52}, config_flags=5)
    yield row("attributes", "RDX is ATTRIBUTES", {"rdx": 1 << 28})
    yield row("attributes_debug", "RDX shows DEBUG", {"rdx": 1 << 28 | 1}, attributes=1 << 28 | 1)
    yield row("vcpus", "R8 is NUM_VCPUS and MAX_VCPUS", {"r8": 1 << 32 | 1})
    yield row("max_vcpus", "MAX_VCPUS may be more than NUM_VCPUS", {"r8": 8 << 32 | 1}, max_vcpus=8)
    yield row("index", "R9 is VCPU_INDEX", {"r9": 0})
    yield row("features", "R10 bit 0 tells of SYS.RD; R11 is 0", {"r10": 1, "r11": 0})


def _veinfo() -> Iterator[Row]:
    empty = {
        "rax": NO_VE_INFO,
        "rcx": 0,
        "rdx": 0,
        "r8": 0,
        "r9": 0,
        "r10": 0,
        "changed": RAX | RCX | RDX | R8 | R9 | R10,
    }
    yield make(
        "veinfo.empty",
        "Without a #VE all outputs are 0",
        LEAVES,
        "tdg_vp_veinfo_get.c tdg_vp_veinfo_get",
        tdcall(3),
        empty,
    )
    full = (code("f4", keep_ve=True), tdcall(3))
    yield make(
        "veinfo.full",
        "VEINFO.GET after HLT",
        LEAVES,
        "tdg_vp_veinfo_get.c tdg_vp_veinfo_get",
        full,
        {"rax": 0, "rcx": 12, "rdx": 0, "r8": 0, "r9": 0, "r10": 1, "r11": FILL + 11},
    )


def _cpuidve() -> Iterator[Row]:
    for value in range(4):
        yield make(
            f"cpuidve.{value}",
            f"CPUIDVE.SET {value}",
            LEAVES,
            "tdg_vp_cpuidve_set.c tdg_vp_cpuidve_set",
            tdcall(5, rcx=value),
            {"rax": 0, "changed": RAX},
        )
    for bit in (2, 63):
        yield make(
            f"cpuidve.reserved{bit}",
            f"CPUIDVE.SET bit {bit}: |RCX",
            LEAVES,
            "tdg_vp_cpuidve_set.c tdg_vp_cpuidve_set",
            tdcall(5, rcx=1 << bit),
            {"rax": INVALID | 1},
        )


def _partition() -> Iterator[Row]:
    def row(key: str, what: str, step: Step, status: int, source: str, **more: Any) -> Row:
        return make(
            f"nested.{key}",
            what,
            LEAVES,
            source,
            step,
            {"rax": status, "changed": RAX if status else 0},
            **more,
        )

    yield row(
        "enter_align",
        "VP.ENTER: RDX not a multiple of 256: |RDX",
        tdcall(25, rcx=0, rdx=B + 8),
        INVALID | 2,
        "tdg_vp_enter.c tdg_vp_enter",
    )
    yield row(
        "enter_shared",
        "VP.ENTER: a shared GPA: |RDX",
        tdcall(25, rcx=0, rdx=B | SHARED),
        INVALID | 2,
        "tdg_vp_enter.c tdg_vp_enter",
    )
    yield row(
        "enter_vm0",
        "VP.ENTER: VM 0: |RCX",
        tdcall(25, rcx=0, rdx=B),
        INVALID | 1,
        "tdg_vp_enter.c tdg_vp_enter",
    )
    yield row(
        "enter_vm1",
        "VP.ENTER: VM 1 of a TD without nested VMs: |RCX",
        tdcall(25, rcx=1 << 52, rdx=B),
        INVALID | 1,
        "tdg_vp_enter.c tdg_vp_enter",
    )
    yield row(
        "invept_vm0",
        "VP.INVEPT: bit 0: |RCX",
        tdcall(26, rcx=1),
        INVALID | 1,
        "tdg_vp_invept.c tdg_vp_invept",
    )
    yield row(
        "invept_vm1",
        "VP.INVEPT: a VM that does not exist: |RCX",
        tdcall(26, rcx=2),
        INVALID | 1,
        "tdg_vp_invept.c tdg_vp_invept",
    )
    yield make(
        "nested.invept_none",
        "VP.INVEPT: the empty set",
        LEAVES,
        "tdg_vp_invept.c tdg_vp_invept",
        tdcall(26, rcx=0),
        {"rax": 0},
    )
    yield row(
        "invvpid_vm0",
        "VP.INVVPID: VM 0: |RCX",
        tdcall(27, rcx=0, rdx=0),
        INVALID | 1,
        "tdg_vp_invvpid.c tdg_vp_invvpid",
    )
    yield row(
        "invvpid_vm1",
        "VP.INVVPID: a VM that does not exist: |RCX",
        tdcall(27, rcx=1 << 52, rdx=0),
        INVALID | 1,
        "tdg_vp_invvpid.c tdg_vp_invvpid",
    )
    yield absent(
        "nested.run",
        "Nested VMs: entry, exits, attributes, their fields",
        LEAVES,
        "NUM_L2_VMS is always 0",
        "tdg_vp_enter.c tdg_vp_enter",
    )
    handles = "a handle that binds nothing may also end in a cross-TD trap, depending on the TD's UUID"
    for leaf, name in ((18, "RD"), (20, "WR")):
        yield make(
            f"servtd.{name.lower()}",
            f"SERVTD.{name} without a binding: |RCX",
            LEAVES,
            "tdg_servtd_rd_wr.c tdg_servtd_rd_wr",
            tdcall(leaf, rcx=0, rdx=0),
            {"rax": INVALID | 1, "r8": 0},
            status="simplified",
            why=handles,
        )
    yield absent(
        "servtd.bound", "Service TDs", LEAVES, "nothing can be bound", "tdg_servtd_rd_wr.c tdg_servtd_rd_wr"
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    for part in (_encoding, _info, _veinfo, _cpuidve, _partition):
        yield from part()
