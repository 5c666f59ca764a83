"""What does a TDX module after 1.5.01 tell of the topology, and what is no #VE any more?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .common import ID_INCORRECT, VALUE_NOT_VALID
from .rows import ALL_ONES, Row, Step, tdcall
from .rows_cpuid import BIT, ZERO, answered, bit, cpuid
from .rows_msr import GP, READ, VE, WRITE, outcome, rdmsr, wrmsr

SECTION = "5.7 Newer modules"
METADATA, CPUID = "newer metadata_td.c md_td_write_element", "newer td_cpuid.c td_cpuid_exit"
MSR = "newer td_msr_access.c td_rdmsr_exit, td_wrmsr_exit, newer msr_config_lookup.c msr_lookup"
FLAGS = "newer helpers.c update_mutable_cpuid_flags, newer td_cpuid.c td_cpuid_exit"
CONFIGURED, TD_CTLS = 0x9100000000000019, 0x1110000300000017
TOPOLOGY, CPUID2, REDUCE = 2, 4, 8
NEWER: Mapping[str, Any] = {"module": "newer", "apic_ids": "291"}
ID = 291
CPUID_VE = {"1.vector": 20, "1.ve_rcx": 10, "1.at": 0}


def control(bits: int) -> Step:
    """TDG.VM.WR of TD_CTLS."""
    return tdcall(8, rcx=0, rdx=TD_CTLS, r8=bits, r9=bits)


READ_CONTROLS = tdcall(7, rcx=0, rdx=TD_CTLS)


def _row(
    key: str, what: str, source: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any
) -> Row:
    more.setdefault("td", NEWER)
    return Row(f"newer.{key}", what, SECTION, source, steps, expect, **more)


def _controls() -> Iterator[Row]:
    read = tdcall(7, rcx=0, rdx=CONFIGURED)
    yield _row(
        "configured",
        "TOPOLOGY_ENUM_CONFIGURED is 1: the host gave ids",
        METADATA,
        (read,),
        {"rax": 0, "r8": 1},
    )
    yield _row(
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
        yield _row(
            f"ctls.{name}",
            what,
            METADATA,
            (mask, READ_CONTROLS),
            {"0.rax": 0, "0.r8": 1, "rax": 0, "r8": becomes},
        )
    clear = tdcall(8, rcx=0, rdx=TD_CTLS, r8=0, r9=TOPOLOGY)
    yield _row(
        "ctls.clear", "ENUM_TOPOLOGY can be cleared again", METADATA,
        (control(TOPOLOGY), clear, READ_CONTROLS), {"1.rax": 0, "1.r8": 3, "r8": 1},
    )  # fmt: skip
    yield _row(
        "ctls.reserved", "A reserved bit of TD_CTLS", METADATA,
        (tdcall(8, rcx=0, rdx=TD_CTLS, r8=0x20 | TOPOLOGY, r9=0x20 | TOPOLOGY), READ_CONTROLS),
        {"0.rax": VALUE_NOT_VALID, "r8": 1},
    )  # fmt: skip
    yield _row(
        "ctls.old", "Module 1.5.01 keeps bits 1 to 3", "metadata_td.c md_td_write_element",
        (control(TOPOLOGY),), {"rax": 0xC0000C0100000000, "r8": 0}, td={},
    )  # fmt: skip
    yield _row(
        "features", "TDX_FEATURES0[20]: topology enumeration", "newer helpers.c get_tdx_features_enum0",
        (tdcall(11, rcx=0, rdx=0x0A00000300000008), tdcall(11, rcx=0, rdx=0x0A00000300000008)),
        {"rax": 0, "r8": 0xF0FBF | 1 << 20},
        status="simplified", why="bits of features that this emulator lacks are 0",
    )  # fmt: skip


def _cpuid() -> Iterator[Row]:
    for leaf in (0xB, 0x1F):
        yield _row(
            f"cpuid.{leaf:x}.off",
            f"Leaf {leaf:X} without ENUM_TOPOLOGY: #VE",
            CPUID,
            (control(0), cpuid(leaf)),
            CPUID_VE,
        )
        yield _row(
            f"cpuid.{leaf:x}", f"Leaf {leaf:X} with ENUM_TOPOLOGY: EDX is the x2APIC id", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 0, "89d0")), {"1.vector": 3, "1.rax": ID},
        )  # fmt: skip
        levels = answered(9, 1, 0x201, ID)
        yield _row(
            f"cpuid.{leaf:x}.core", f"Leaf {leaf:X} sub-leaf 1: the core level", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 1)), {f"1.{name}": value for name, value in levels.items()},
            status="simplified", why="levels below and above cores are what the id's bits say",
        )  # fmt: skip
        high = answered(0, 0, 0x40, ID)
        yield _row(
            f"cpuid.{leaf:x}.high", f"Leaf {leaf:X} beyond its sub-leaves with REDUCE_VE", CPUID,
            (control(REDUCE), cpuid(leaf, 0x40)), {f"1.{name}": value for name, value in high.items()},
        )  # fmt: skip
        yield _row(
            f"cpuid.{leaf:x}.none", f"Leaf {leaf:X} beyond its sub-leaves, ENUM_TOPOLOGY alone: #VE", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 0x40)), CPUID_VE,
        )  # fmt: skip
    yield _row(
        "cpuid.1.id", "Leaf 1 with ENUM_TOPOLOGY: EBX[31:24] is the id's low byte", CPUID,
        (control(TOPOLOGY), cpuid(1, 0, "89d8c1e818")), {"1.vector": 3, "1.rax": ID & 0xFF},
    )  # fmt: skip
    yield _row(
        "cpuid.1.index", "Leaf 1 without it: the vCPU index", CPUID,
        (control(0), cpuid(1, 0, "89d8c1e818")), {"1.vector": 3, "1.rax": 0},
    )  # fmt: skip
    yield _row(
        "cpuid.2.off", "Leaf 2 without VIRT_CPUID2: #VE", CPUID, (control(TOPOLOGY), cpuid(2)), CPUID_VE
    )
    yield _row(
        "cpuid.2", "Leaf 2 with VIRT_CPUID2", CPUID, (control(CPUID2), cpuid(2)),
        {f"1.{name}": value for name, value in answered(0xFEFF01, 0xF0, 0, 0).items()},
        status="simplified", why="the numbers are those of the emulated CPU; a real one has its own",
    )  # fmt: skip
    for leaf in (6, 9, 0xC, 0xF, 0x10, 0x16, 0x17, 0x1B, 0x80000002, 0x80000003, 0x80000004, 0x80000005):
        yield _row(
            f"cpuid.{leaf:x}.ve",
            f"Leaf {leaf:X} without REDUCE_VE: #VE",
            CPUID,
            (control(TOPOLOGY), cpuid(leaf)),
            CPUID_VE,
        )
        yield _row(
            f"cpuid.{leaf:x}.reduced", f"Leaf {leaf:X} with REDUCE_VE is answered", CPUID,
            (control(REDUCE), cpuid(leaf)), {f"1.{name}": value for name, value in ZERO.items()},
            status="simplified", why="zeros; a real CPU has its own numbers in some of them",
        )  # fmt: skip
    yield _row(
        "cpuid.hypervisor",
        "Leaf 40000000 with REDUCE_VE is still #VE",
        CPUID,
        (control(REDUCE), cpuid(0x40000000)),
        CPUID_VE,
    )
    for register, number, what in (
        ("ecx", 24, "TSC deadline"),
        ("edx", 7, "MCE"),
        ("edx", 12, "MTRR"),
        ("edx", 14, "MCA"),
    ):
        assert register in BIT
        yield _row(
            f"cpuid.1.{register}{number}",
            f"Leaf 1 {register.upper()}[{number}], {what}, is hidden with REDUCE_VE", FLAGS,
            (bit(1, register, number), control(REDUCE), bit(1, register, number)), {"0.rax": 1, "rax": 0},
        )  # fmt: skip


def _msrs() -> Iterator[Row]:
    yield _row(
        "msr.id.off",
        "x2APIC id without ENUM_TOPOLOGY: #VE",
        MSR,
        (control(0), rdmsr(0x802)),
        outcome(1, VE, READ),
    )
    read = {**outcome(1, "native", READ), "1.rax": ID, "1.rdx": 0}
    yield _row("msr.id", "x2APIC id with ENUM_TOPOLOGY", MSR, (control(TOPOLOGY), rdmsr(0x802)), read)
    yield _row(
        "msr.id.write",
        "Write of the x2APIC id",
        MSR,
        (control(TOPOLOGY), wrmsr(0x802, 0)),
        outcome(1, GP, WRITE),
    )
    for key, index, is_write, kind in (
        ("apic_base", 0x1B, False, VE),
        ("x2apic_version", 0x803, False, VE),
        ("icr", 0x830, True, VE),
        ("initial_count", 0x838, True, VE),
        ("cstar", 0xC0000083, True, VE),
        ("outside", 0x4000, False, VE),
        ("kvm", 0x4B564D00, False, VE),
        ("mtrrcap", 0xFE, False, GP),
        ("mtrr_fixed", 0x250, True, GP),
        ("mcg_cap", 0x179, False, GP),
        ("mc0_ctl", 0x400, True, GP),
        ("tsc_deadline", 0x6E0, True, GP),
        ("tsc_adjust", 0x3B, False, GP),
        ("energy_perf_bias", 0x1B0, False, GP),
        ("therm_status", 0x19C, False, GP),
        ("mcu_opt_ctrl", 0x123, False, GP),
        ("unknown", 0x1F00, False, GP),
    ):
        step, reason = (wrmsr(index, 0), WRITE) if is_write else (rdmsr(index), READ)
        what = f"{'WRMSR' if is_write else 'RDMSR'} {index:X} with REDUCE_VE: {kind}"
        yield _row(f"msr.{key}", what, MSR, (control(REDUCE), step), outcome(1, kind, reason))
        if kind == GP:
            what = what.replace(f"with REDUCE_VE: {kind}", "without REDUCE_VE: #VE")
            yield _row(f"msr.{key}.ve", what, MSR, (control(TOPOLOGY), step), outcome(1, VE, reason))
    for key, index, value in (
        ("feature_control", 0x3A, 1),
        ("ppin_ctl", 0x4E, 1),
        ("bios_sign_id", 0x8B, 0xFFFFFFFF),
        ("platform_info", 0xCE, 0),
        ("feature_enables", 0x140, 0),
        ("misc_enable", 0x1A0, 0x1001),
    ):
        expect = {**outcome(1, "native", READ), "1.rax": value, "1.rdx": 0}
        yield _row(
            f"msr.{key}", f"RDMSR {index:X} with REDUCE_VE", MSR, (control(REDUCE), rdmsr(index)), expect
        )
    for key, index, value in (("smi_count", 0x34, 0x123456789), ("misc_enable.write", 0x1A0, 0x1000)):
        expect = {**outcome(1, "native", WRITE), "rax": value & 0xFFFFFFFF, "rdx": value >> 32}
        yield _row(
            f"msr.{key}",
            f"WRMSR {index:X} with REDUCE_VE is kept",
            MSR,
            (control(REDUCE), wrmsr(index, value), rdmsr(index)),
            expect,
        )
    yield _row(
        "msr.misc_enable.gp",
        "WRMSR 1A0 of a bit that is 0",
        MSR,
        (control(REDUCE), wrmsr(0x1A0, 2)),
        outcome(1, GP, WRITE),
    )
    yield _row(
        "msr.misc_enable.limit",
        "WRMSR 1A0 of the CPUID limit",
        MSR,
        (control(REDUCE), wrmsr(0x1A0, 1 << 22)),
        outcome(1, VE, WRITE),
    )
    for key, index, value, kind in (
        ("bios_updt_trig", 0x79, ALL_ONES >> 1, "native"),
        ("feature_enables.write", 0x140, 1, GP),
    ):
        yield _row(
            f"msr.{key}",
            f"WRMSR {index:X} with REDUCE_VE",
            MSR,
            (control(REDUCE), wrmsr(index, value)),
            outcome(1, kind, WRITE),
        )


def rows() -> Iterator[Row]:
    """This section."""
    yield from _controls()
    yield from _cpuid()
    yield from _msrs()
