"""What does TDG.VP.VEINFO.GET tell under a TDX module after 1.5.01: category, interruptibility state?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import layout as at
from .common import INVALID, NO_VE_INFO, B
from .rows import FILL, Row, Step, absent, code, tdcall
from .rows_control import BASE0, BASE4, write0, write4
from .rows_cpuid import cpuid
from .rows_msr import rdmsr, wrmsr
from .rows_newer import NEWER, REDUCE, control, newer

SECTION = "5.8 VEINFO.GET of newer modules"
GET, CALL = "newer tdg_vp_veinfo_get.c tdg_vp_veinfo_get", "newer tdx_td_dispatcher.c td_call"
DISPATCH = "newer tdx_td_dispatcher.c tdx_td_dispatcher"
CPUID, EPT = "newer td_cpuid.c td_cpuid_exit", "newer td_ept_violation.c td_ept_violation_exit"
MSR, CR0, CR4 = (
    "newer td_msr_access.c rd_wr_msr_generic_checks, rd_wr_msr_generic_case",
    "newer helpers.c write_guest_cr0",
    "newer helpers.c write_guest_cr4",
)
INJECT = "newer td_other_exits.c tdx_inject_ve"
WALK = "newer helpers.c check_walk_and_map_guest_side_gpa"
PENDING, CONFIG, NON_CONFIG, UNSUPPORTED = 1, 0x10, 0x11, 0x80
SLOT = at.SHARED_WINDOW + 0xC0000018  # device memory, shared


def veinfo(version: int) -> Step:
    """TDG.VP.VEINFO.GET."""
    return tdcall(version << 16 | 3)


def kept(step: Step) -> Step:
    """The same, and a #VE of it stays for a later step."""
    return replace(step, keep_ve=True)


HLT = code("f4", keep_ve=True)


def _row(
    key: str, what: str, source: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any
) -> Row:
    return newer(f"veinfo.{key}", what, source, steps, expect, section=SECTION, **more)


def _versions() -> Iterator[Row]:
    got = {"rdx": 0, "r8": 0, "r9": 0, "r10": 1}
    unchanged = {"r11": FILL + 11, "r12": FILL + 12}
    yield _row(
        "0",
        "Version 0 after HLT: as 1.5.01",
        GET,
        (HLT, veinfo(0)),
        {"rax": 0, "rcx": 12, **got, **unchanged},
    )
    yield _row(
        "1", "Version 1: the category in RCX[39:32]; R11 and R12 stay", GET, (HLT, veinfo(1)),
        {"rax": 0, "rcx": NON_CONFIG << 32 | 12, **got, **unchanged},
    )  # fmt: skip
    yield _row(
        "2", "Version 2: R11 is 0, R12 the interruptibility state", GET, (HLT, veinfo(2)),
        {"rax": 0, "rcx": NON_CONFIG << 32 | 12, **got, "r11": 0, "r12": 0},
    )  # fmt: skip
    none = {"rcx": 0, "rdx": 0, "r8": 0, "r9": 0, "r10": 0, **unchanged}
    yield _row(
        "2.none", "Version 2 without a #VE: R11 and R12 stay", GET, (veinfo(2),), {"rax": NO_VE_INFO, **none}
    )
    for version in (3, 0xFF):
        yield _row(
            f"{version:x}", f"Version {version:X}: |RAX, outputs are 0, the information stays", GET,
            (HLT, veinfo(version), veinfo(0)),
            {"1.rax": INVALID, **{f"1.{name}": value for name, value in none.items()}, "rax": 0, "rcx": 12},
        )  # fmt: skip
    yield _row(
        "once", "Version 2 gives it once", GET, (HLT, veinfo(2), veinfo(1)), {"1.rax": 0, "rax": NO_VE_INFO}
    )
    yield _row(
        "other", "Other leaves have version 0 alone: VP.INFO", CALL, (tdcall(1 << 16 | 1),),
        {"rax": INVALID, "rcx": FILL + 1},
    )  # fmt: skip
    yield _row(
        "old", "Module 1.5.01 has version 0 alone", "tdx_td_dispatcher.c td_call",
        (HLT, veinfo(1), veinfo(0)), {"1.rax": INVALID, "1.rcx": FILL + 1, "rax": 0, "rcx": 12}, td={},
    )  # fmt: skip


def _categories() -> Iterator[Row]:
    def row(
        key: str, what: str, source: str, step: Step, reason: int, category: int, *before: Step, **more: Any
    ) -> Row:
        return _row(
            f"category.{key}", f"{what}: category {category:X}", source, (*before, kept(step), veinfo(1)),
            {"rax": 0, "rcx": category << 32 | reason}, **more,
        )  # fmt: skip

    for key, text, reason in (
        ("hlt", "f4", 12), ("invd", "0f08", 13), ("vmcall", "0f01c1", 18), ("in", "ec", 30),
        ("wbinvd", "0f09", 54),
    ):  # fmt: skip
        yield row(key, key.upper(), DISPATCH, code(text), reason, NON_CONFIG)
    yield row("apic_write", "APIC-write", DISPATCH, code("0f30", rcx=0x83F, rax=5, rdx=0), 56, NON_CONFIG)
    yield row("hypervisor", "CPUID leaf 40000000", CPUID, cpuid(0x40000000), 10, NON_CONFIG)
    yield row("cpuid", "CPUID leaf 6 without REDUCE_VE", CPUID, cpuid(6), 10, CONFIG)
    yield row("asked", "CPUID by CPUIDVE.SET", CPUID, cpuid(0), 10, CONFIG, tdcall(5, rcx=1))
    yield row("apic_base", "RDMSR APIC_BASE", MSR, rdmsr(0x1B), 31, NON_CONFIG)
    yield row("icr", "WRMSR of the ICR with REDUCE_VE", MSR, wrmsr(0x830, 0), 32, NON_CONFIG, control(REDUCE))
    yield row("outside", "RDMSR beyond the bitmaps", MSR, rdmsr(0x4000), 31, NON_CONFIG)
    yield row("mtrrcap", "RDMSR MTRRCAP", MSR, rdmsr(0xFE), 31, CONFIG)
    yield row("unlisted", "RDMSR of an MSR without a row", MSR, rdmsr(0x1F00), 31, CONFIG)
    yield row(
        "x2apic_id", "RDMSR of the x2APIC id without ENUM_TOPOLOGY", "newer td_msr_access.c td_rdmsr_exit",
        rdmsr(0x802), 31, CONFIG, control(0),
    )  # fmt: skip
    yield row(
        "efer", "WRMSR EFER that changes LME", "newer td_msr_access.c wrmsr_ia32_efer",
        wrmsr(0xC0000080, 0x801), 32, UNSUPPORTED,
    )  # fmt: skip
    yield row(
        "debugctl", "DEBUGCTL.TR without BTS", "newer td_msr_access.c wrmsr_ia32_debugctl",
        wrmsr(0x1D9, 1 << 6), 32, UNSUPPORTED,
    )  # fmt: skip
    yield row(
        "misc_enable", "WRMSR MISC_ENABLE of the CPUID limit", "newer td_msr_access.c wrmsr_ia32_misc_enable",
        wrmsr(0x1A0, 1 << 22), 32, UNSUPPORTED, control(REDUCE),
    )  # fmt: skip
    yield row("cr0", "Setting CR0.CD", CR0, write0(BASE0 | 1 << 30), 28, UNSUPPORTED)
    yield row("cr4.mce", "Clearing CR4.MCE", CR4, write4(BASE4 & ~0x40), 28, CONFIG)
    yield row("cr4.vmxe", "Setting CR4.VMXE", CR4, write4(BASE4 | 1 << 13), 28, UNSUPPORTED)
    touches = {**NEWER, "attributes": 0}
    yield row("pending", "Read of a pending page", EPT, code("488b07", rdi=at.FREE), 48, PENDING, td=touches)
    yield row(
        "operand",
        "RTMR.EXTEND from a pending page",
        WALK,
        tdcall(2, rcx=at.FREE, rdx=3),
        48,
        PENDING,
        td=touches,
    )
    yield row(
        "operand.shared", "MR.REPORT with its data in shared device memory", WALK,
        tdcall(4, rcx=B, rdx=1 << 47 | 0xC0000000, r8=0), 48, 0,
    )  # fmt: skip
    yield row(
        "shared", "Read of shared device memory, by the CPU itself",
        "Intel SDM volume 3, 26.5.7.2, virtualization-exception information",
        code("8b07", rdi=SLOT), 48, 0, status="simplified",
        why="a CPU writes no category; by the source that of the module's last #VE stays there",
    )  # fmt: skip
    yield absent(
        "newer.veinfo.category.reserved", "A GPA beyond the TD's width under MAXGPA_VIRT: category 2",
        SECTION, "this host does not configure MAXGPA_VIRT", EPT,
    )  # fmt: skip


def _interruptibility() -> Iterator[Row]:
    def row(key: str, what: str, text: str, state: int, **regs: int) -> Row:
        steps = (code(text, keep_ve=True, **regs), veinfo(2))
        return _row(
            f"blocking.{key}", what, INJECT, steps, {"0.vector": 20, "rax": 0, "r11": 0, "r12": state}
        )

    yield row("sti", "HLT behind STI: blocking by STI, bit 0", "fbf4", 1)
    yield row("sti_nop", "HLT two behind STI: no blocking", "fb90f4", 0)
    again = row("sti_again", "HLT behind STI where interrupts were on already", "fb90fbf4", 1)
    why = "blocking by STI, as behind the first; a CPU blocks only where IF was 0 (Intel SDM volume 2, STI)"
    yield replace(again, status="simplified", why=why)
    yield row("mov_ss", "HLT behind MOV SS: blocking by MOV SS, bit 1", "8ed0f4", 2, rax=at.DATA)
    yield row("pop_ss", "HLT behind POP SS in 32-bit mode: bit 1", "6a1817f4", 2, cs=at.CS32)
    yield row("before", "IN between STI and MOV SS: blocking by STI", "fbec8ed0", 1, rdx=0x3F8)
    yield row("cpuid", "CPUID behind STI", "fb0fa2", 1, rax=0x40000000)
    yield row(
        "apic_write", "APIC-write, behind its instruction: no blocking", "fb0f30", 0, rcx=0x83F, rax=5, rdx=0
    )
    yield absent(
        "newer.veinfo.blocking.nmi", "Blocking by NMI, bit 3", SECTION,
        "the emulated CPU does not block NMIs between one and its IRET", INJECT,
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """This section."""
    yield from _versions()
    yield from _categories()
    yield from _interruptibility()
