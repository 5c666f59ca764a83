"""What can a TD choose under a TDX module after 1.5.01: TD_CTLS, FEATURE_PARAVIRT_CTLS, CR4.MCE?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .common import ID_INCORRECT, VALUE_NOT_VALID
from .rows import Row, Step, code, tdcall
from .rows_control import BASE4, GP, reads, write4

SECTION = "5.7 Newer modules"
METADATA, FIELDS = "newer metadata_td.c md_td_write_element", "newer tdr_tdcs_fields_lookup.c tdr_tdcs_lookup"
CR4, DISPATCH = "newer helpers.c write_guest_cr4", "newer tdx_td_dispatcher.c tdx_td_dispatcher"
CONFIGURED, TD_CTLS = 0x9100000000000019, 0x1110000300000017
VE_REDUCTION_VALID, PARAVIRT = 0x911000000000001A, 0x9110000300000022
TOPOLOGY, CPUID2, REDUCE, LOCK = 2, 4, 8, 1 << 63
NEWER: Mapping[str, Any] = {"module": "newer", "apic_ids": "291"}
ID = 291
# Bits of FEATURE_PARAVIRT_CTLS
CORE_CAPABILITIES, EST, MCA, MTRR, TSC_DEADLINE = 1 << 0, 1 << 2, 1 << 3, 1 << 4, 1 << 11


def control(bits: int) -> Step:
    """TDG.VM.WR of TD_CTLS."""
    return tdcall(8, rcx=0, rdx=TD_CTLS, r8=bits, r9=bits)


def paravirt(bits: int, mask: int = 0xFFF) -> Step:
    """TDG.VM.WR of FEATURE_PARAVIRT_CTLS."""
    return tdcall(8, rcx=0, rdx=PARAVIRT, r8=bits, r9=mask)


READ_CONTROLS, READ_PARAVIRT = tdcall(7, rcx=0, rdx=TD_CTLS), tdcall(7, rcx=0, rdx=PARAVIRT)


def newer(
    key: str, what: str, source: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any
) -> Row:
    """A row in a TD of a newer module, unless `td` says otherwise."""
    more.setdefault("td", NEWER)
    return Row(f"newer.{key}", what, more.pop("section", SECTION), source, steps, expect, **more)


def _controls() -> Iterator[Row]:
    read = tdcall(7, rcx=0, rdx=CONFIGURED)
    yield newer(
        "configured",
        "TOPOLOGY_ENUM_CONFIGURED is 1: the host gave ids",
        METADATA,
        (read,),
        {"rax": 0, "r8": 1},
    )
    yield newer(
        "configured.old", "Module 1.5.01 has no such field",
        "metadata_generic.c md_check_as_single_element_id", (read,), {"rax": ID_INCORRECT, "r8": 0}, td={},
    )  # fmt: skip
    for name, bits, becomes in (
        ("topology", TOPOLOGY, 3),
        ("cpuid2", CPUID2, 5),
        ("reduce", REDUCE, 0xF),
        ("none", 0, 1),
    ):
        what = f"TD_CTLS {becomes:X} after bits {bits:X} are set" + (
            ": REDUCE_VE implies both" if bits == REDUCE else ""
        )
        mask = tdcall(8, rcx=0, rdx=TD_CTLS, r8=bits, r9=bits or 0xE)
        yield newer(
            f"ctls.{name}",
            what,
            METADATA,
            (mask, READ_CONTROLS),
            {"0.rax": 0, "0.r8": 1, "rax": 0, "r8": becomes},
        )
    clear = tdcall(8, rcx=0, rdx=TD_CTLS, r8=0, r9=TOPOLOGY)
    yield newer(
        "ctls.clear", "ENUM_TOPOLOGY can be cleared again", METADATA,
        (control(TOPOLOGY), clear, READ_CONTROLS), {"1.rax": 0, "1.r8": 3, "r8": 1},
    )  # fmt: skip
    yield newer(
        "ctls.reserved", "A reserved bit of TD_CTLS", METADATA,
        (tdcall(8, rcx=0, rdx=TD_CTLS, r8=0x20 | TOPOLOGY, r9=0x20 | TOPOLOGY), READ_CONTROLS),
        {"0.rax": VALUE_NOT_VALID, "r8": 1},
    )  # fmt: skip
    yield newer(
        "ctls.old", "Module 1.5.01 keeps bits 1 to 3", "metadata_td.c md_td_write_element",
        (control(TOPOLOGY),), {"rax": 0xC0000C0100000000, "r8": 0}, td={},
    )  # fmt: skip
    yield newer(
        "features", "TDX_FEATURES0[20, 29, 30, 46]: topology enumeration, CPUID leaf 2, #VE reduction, "
        "interruptibility state", "newer helpers.c get_tdx_features_enum0",
        (tdcall(11, rcx=0, rdx=0x0A00000300000008), tdcall(11, rcx=0, rdx=0x0A00000300000008)),
        {"rax": 0, "r8": 0x4000601F0FBF},
        status="simplified", why="bits of features that this emulator lacks are 0",
    )  # fmt: skip


def _paravirt() -> Iterator[Row]:
    yield newer(
        "valid", "VE_REDUCTION_VALID is 1", FIELDS,
        (tdcall(7, rcx=0, rdx=VE_REDUCTION_VALID),), {"rax": 0, "r8": 1},
    )  # fmt: skip
    config_flags, mrtd = 0x9110000300000016, 0x1310000300000000
    order = (config_flags, 0x9110000300000017, 0x9110000000000019, VE_REDUCTION_VALID, PARAVIRT, mrtd)
    yield newer(
        "order", "VM.RD version 1 goes from CONFIG_FLAGS by TD_CTLS and the new fields to MRTD", FIELDS,
        tuple(tdcall(1 << 16 | 7, rcx=0, rdx=field) for field in order[:-1]),
        {f"{step}.rdx": field for step, field in enumerate(order[1:])},
    )  # fmt: skip
    yield newer(
        "paravirt", "FEATURE_PARAVIRT_CTLS is 0 at first and keeps bits 11:0", METADATA,
        (paravirt(0xFFF), READ_PARAVIRT), {"0.rax": 0, "0.r8": 0, "rax": 0, "r8": 0xFFF},
    )  # fmt: skip
    yield newer(
        "paravirt.reserved", "Bit 12 of FEATURE_PARAVIRT_CTLS is reserved", METADATA,
        (paravirt(0x1001, 0x1FFF), READ_PARAVIRT), {"0.rax": VALUE_NOT_VALID, "r8": 0},
    )  # fmt: skip
    yield newer(
        "paravirt.old", "Module 1.5.01 has no such field",
        "metadata_generic.c md_check_as_single_element_id", (READ_PARAVIRT,), {"rax": ID_INCORRECT, "r8": 0},
        td={},
    )  # fmt: skip
    lock = control(LOCK | REDUCE)
    yield newer(
        "lock", "LOCK is kept, with what was chosen", METADATA,
        (lock, READ_CONTROLS), {"0.rax": 0, "r8": LOCK | 0xF},
    )  # fmt: skip
    yield newer(
        "lock.ctls", "After LOCK, TD_CTLS does not change, and LOCK stays", METADATA,
        (lock, tdcall(8, rcx=0, rdx=TD_CTLS, r8=0, r9=LOCK | REDUCE), READ_CONTROLS),
        {"1.rax": VALUE_NOT_VALID, "r8": LOCK | 0xF},
    )  # fmt: skip
    yield newer(
        "lock.same", "After LOCK, the same value of TD_CTLS is fine", METADATA,
        (lock, control(LOCK | REDUCE)), {"rax": 0, "r8": LOCK | 0xF},
    )  # fmt: skip
    yield newer(
        "lock.paravirt", "After LOCK, FEATURE_PARAVIRT_CTLS does not change", METADATA,
        (paravirt(MTRR), lock, paravirt(0), READ_PARAVIRT), {"2.rax": VALUE_NOT_VALID, "r8": MTRR},
    )  # fmt: skip
    yield newer(
        "lock.paravirt.same", "After LOCK, the same value of FEATURE_PARAVIRT_CTLS is fine", METADATA,
        (paravirt(MTRR), lock, paravirt(MTRR)), {"rax": 0, "r8": MTRR},
    )  # fmt: skip


def _instructions() -> Iterator[Row]:
    for key, text in (("mwait", "0f01c9"), ("monitor", "0f01c8")):
        yield newer(
            key, f"{key.upper()} is #UD, whatever TD_CTLS says", DISPATCH,
            (code(text), control(REDUCE), code(text)), {"0.vector": 6, "vector": 6, "at": 0},
        )  # fmt: skip
    clear, both = write4(BASE4 & ~0x40), control(REDUCE)
    yield newer(
        "cr4.mce.clear", "With REDUCE_VE, MCE can be cleared", CR4, (both, clear), reads(BASE4 & ~0x40)
    )
    yield newer(
        "cr4.mce.set",
        "With REDUCE_VE, MCE cannot be set again: #GP(0)",
        CR4,
        (both, clear, write4(BASE4)),
        GP,
    )
    yield newer(
        "cr4.mce.paravirt", "It can where FEATURE_PARAVIRT_CTLS has MCA", CR4,
        (paravirt(MCA), both, clear, write4(BASE4)), reads(BASE4),
    )  # fmt: skip
    yield newer(
        "cr4.mce.only", "A write that changes MCE changes nothing else", CR4,
        (both, write4(BASE4 & ~0x40 | 1 << 7)), reads(BASE4 & ~0x40),
    )  # fmt: skip
    for key, bit in (("vmxe", 13), ("smxe", 14)):
        yield newer(
            f"cr4.{key}", f"With REDUCE_VE, setting {key.upper()} does nothing", CR4,
            (both, write4(BASE4 | 1 << bit)), reads(BASE4),
        )  # fmt: skip
    yield newer(
        "cr4.late", "MCE cleared under REDUCE_VE and set without it: #VE(28)", CR4,
        (both, clear, tdcall(8, rcx=0, rdx=TD_CTLS, r8=0, r9=REDUCE), write4(BASE4)),
        {"vector": 20, "ve_rcx": 28, "at": 0},
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """This part of the section."""
    yield from _controls()
    yield from _paravirt()
    yield from _instructions()
