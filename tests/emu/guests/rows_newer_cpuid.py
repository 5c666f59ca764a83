"""What does CPUID answer under a TDX module after 1.5.01, by what the TD chose?"""

from __future__ import annotations

from collections.abc import Iterator

from .rows import Row, tdcall
from .rows_cpuid import BIT, ZERO, answered, bit, cpuid
from .rows_newer import (
    CORE_CAPABILITIES,
    CPUID2,
    EST,
    ID,
    MCA,
    MTRR,
    REDUCE,
    TOPOLOGY,
    TSC_DEADLINE,
    control,
    newer,
    paravirt,
)

CPUID = "newer td_cpuid.c td_cpuid_exit"
TABLE = "newer cpuid_configurations.c cpuid_lookup, newer td_cpuid.c td_cpuid_exit"
FLAGS = "newer helpers.c update_mutable_cpuid_flags, newer td_cpuid.c td_cpuid_exit"
CPUID_VE = {"1.vector": 20, "1.ve_rcx": 10, "1.at": 0}
CONTROL = 0xA120000000000000  # CPUID_CONTROL
MODEL = "the numbers are those of the emulated CPU; a real one has its own"


def _leaves() -> Iterator[Row]:
    for leaf in (0xB, 0x1F):
        yield newer(
            f"cpuid.{leaf:x}.off",
            f"Leaf {leaf:X} without ENUM_TOPOLOGY: #VE",
            CPUID,
            (control(0), cpuid(leaf)),
            CPUID_VE,
        )
        yield newer(
            f"cpuid.{leaf:x}", f"Leaf {leaf:X} with ENUM_TOPOLOGY: EDX is the x2APIC id", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 0, "89d0")), {"1.vector": 3, "1.rax": ID},
        )  # fmt: skip
        levels = answered(9, 1, 0x201, ID)
        yield newer(
            f"cpuid.{leaf:x}.core", f"Leaf {leaf:X} sub-leaf 1: the core level", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 1)), {f"1.{name}": value for name, value in levels.items()},
            status="simplified", why="levels below and above cores are what the id's bits say",
        )  # fmt: skip
        high = answered(0, 0, 0x40, ID)
        yield newer(
            f"cpuid.{leaf:x}.high", f"Leaf {leaf:X} beyond its sub-leaves with REDUCE_VE", CPUID,
            (control(REDUCE), cpuid(leaf, 0x40)), {f"1.{name}": value for name, value in high.items()},
        )  # fmt: skip
        yield newer(
            f"cpuid.{leaf:x}.none", f"Leaf {leaf:X} beyond its sub-leaves, ENUM_TOPOLOGY alone: #VE", CPUID,
            (control(TOPOLOGY), cpuid(leaf, 0x40)), CPUID_VE,
        )  # fmt: skip
    yield newer(
        "cpuid.1.id", "Leaf 1 with ENUM_TOPOLOGY: EBX[31:24] is the id's low byte", CPUID,
        (control(TOPOLOGY), cpuid(1, 0, "89d8c1e818")), {"1.vector": 3, "1.rax": ID & 0xFF},
    )  # fmt: skip
    yield newer(
        "cpuid.1.index", "Leaf 1 without it: the vCPU index", CPUID,
        (control(0), cpuid(1, 0, "89d8c1e818")), {"1.vector": 3, "1.rax": 0},
    )  # fmt: skip
    yield newer(
        "cpuid.2.off", "Leaf 2 without VIRT_CPUID2: #VE", CPUID, (control(TOPOLOGY), cpuid(2)), CPUID_VE
    )
    yield newer(
        "cpuid.2", "Leaf 2 with VIRT_CPUID2", CPUID, (control(CPUID2), cpuid(2)),
        {f"1.{name}": value for name, value in answered(0xFEFF01, 0xF0, 0, 0).items()},
        status="simplified", why="the numbers are those of the emulated CPU; a real one has its own",
    )  # fmt: skip
    only_reduced = {
        **dict.fromkeys((9, 0xC, 0xF, 0x10, 0x16, 0x17, 0x1B, 0x80000003, 0x80000004, 0x80000005), ZERO),
        6: answered(4, 0, 0, 0),
        0x80000002: answered(0x65746E49, 0x58204454, 0x6C202020, 0),
    }
    for leaf, answer in sorted(only_reduced.items()):
        yield newer(
            f"cpuid.{leaf:x}.ve",
            f"Leaf {leaf:X} without REDUCE_VE: #VE",
            CPUID,
            (control(TOPOLOGY), cpuid(leaf)),
            CPUID_VE,
        )
        yield newer(
            f"cpuid.{leaf:x}.reduced", f"Leaf {leaf:X} with REDUCE_VE is answered", TABLE,
            (control(REDUCE), cpuid(leaf)), {f"1.{name}": value for name, value in answer.items()},
        )  # fmt: skip
    yield newer(
        "cpuid.hypervisor",
        "Leaf 40000000 with REDUCE_VE is still #VE",
        CPUID,
        (control(REDUCE), cpuid(0x40000000)),
        CPUID_VE,
    )
    for leaf, subleaf in ((4, 5), (7, 3), (0xD, 0x13), (0x14, 2), (0x18, 9), (0x1D, 2), (0x21, 1), (0x23, 4)):
        place = f"cpuid.{leaf:x}.{subleaf:x}"
        what = f"Leaf {leaf:X} sub-leaf {subleaf:X}, which the module has not"
        yield newer(
            f"{place}.ve",
            f"{what}: #VE without REDUCE_VE",
            CPUID,
            (control(0), cpuid(leaf, subleaf)),
            CPUID_VE,
        )
        yield newer(
            f"{place}.reduced", f"{what}: zero with REDUCE_VE", CPUID,
            (control(REDUCE), cpuid(leaf, subleaf)), {f"1.{name}": value for name, value in ZERO.items()},
        )  # fmt: skip
    for leaf in (0x24, 0x3FFFFFFF, 0x80000009, 0xFFFFFFFF):
        yield newer(
            f"cpuid.{leaf:x}.last", f"Leaf {leaf:X}, beyond the TD's last, is leaf 23, which is zero", CPUID,
            (cpuid(leaf),), ZERO,
        )  # fmt: skip
    for leaf in (0, 0x80000000):
        last = leaf | (8 if leaf else 0x23)
        yield newer(
            f"cpuid.{leaf:x}", f"Leaf {leaf:X}: the TD's last leaf is {last:X}", TABLE,
            (control(REDUCE), cpuid(leaf)), {"1.vector": 3, "1.rax": last},
        )  # fmt: skip
    for subleaf in (0, 8):
        yield newer(
            f"cpuid.18.{subleaf}", f"Leaf 18 sub-leaf {subleaf} is answered without any choice", TABLE,
            (cpuid(0x18, subleaf),), ZERO, status="simplified", why="zeros; a real CPU tells of its TLBs",
        )  # fmt: skip
    yield newer(
        "cpuid.1a", "Leaf 1A is answered without any choice", TABLE, (cpuid(0x1A),), ZERO,
        status="simplified", why="zeros; a real CPU may tell the kind of its core",
    )  # fmt: skip
    yield newer(
        "cpuid.80000006", "Leaf 80000006 is answered without any choice: lines of L2", TABLE,
        (cpuid(0x80000006),), answered(0, 0, 0x02007040, 0),
        status="simplified", why="the size of L2, bits 31:16, is that of the emulated CPU",
    )  # fmt: skip
    for subleaf, answer in enumerate(
        (
            (0x121, 0x01C0003F, 0x3F),
            (0x122, 0x01C0003F, 0x3F),
            (0x143, 0x01C0003F, 0x3FF),
            (0x163, 0x03C0003F, 0x3FFF),
        )
    ):
        yield newer(
            f"cpuid.4.{subleaf}",
            f"Leaf 4 sub-leaf {subleaf} with REDUCE_VE: the CPU's, but for EAX[31:14]", CPUID,
            (control(REDUCE), cpuid(4, subleaf)),
            {f"1.{name}": value for name, value in answered(*answer, 0).items()},
            status="simplified", why=f"{MODEL}, and this host configures just these, and 0 for EAX[31:14]",
        )  # fmt: skip


def _control() -> Iterator[Row]:
    for leaf, number in ((2, 72), (6, 13), (0xB, 64), (0x80000002, 78)):
        ask = tdcall(10, rcx=0, rdx=CONTROL + number, r8=1, r9=3)
        yield newer(
            f"cpuid.{leaf:x}.control",
            f"CPUID_CONTROL of leaf {leaf:X} (entry {number}) is stronger than REDUCE_VE", CPUID,
            (control(REDUCE), ask, cpuid(leaf)),
            {"1.rax": 0, "2.vector": 20, "2.ve_rcx": 10, "2.at": 0},
        )  # fmt: skip
    yield newer(
        "cpuid.c.control", "A leaf without an entry follows CPUIDVE.SET", CPUID,
        (control(REDUCE), tdcall(5, rcx=1), cpuid(0xC)), {"2.vector": 20, "2.ve_rcx": 10, "2.at": 0},
    )  # fmt: skip


def _features() -> Iterator[Row]:
    for register, number, what in (
        ("ecx", 24, "TSC deadline"),
        ("edx", 7, "MCE"),
        ("edx", 12, "MTRR"),
        ("edx", 14, "MCA"),
    ):
        assert register in BIT
        yield newer(
            f"cpuid.1.{register}{number}",
            f"Leaf 1 {register.upper()}[{number}], {what}, is hidden with REDUCE_VE", FLAGS,
            (bit(1, register, number), control(REDUCE), bit(1, register, number)), {"0.rax": 1, "rax": 0},
        )  # fmt: skip
    for leaf, register, number, choice, what, shown in (
        (1, "ecx", 24, TSC_DEADLINE, "TSC deadline", 1),
        (1, "edx", 7, MCA, "MCE", 1),
        (1, "edx", 14, MCA, "MCA", 1),
        (1, "edx", 12, MTRR, "MTRR", 1),
        (1, "ecx", 7, EST, "EST, which the host has not configured", 0),
        (7, "edx", 30, CORE_CAPABILITIES, "CORE_CAPABILITIES, which the host has not configured", 0),
    ):
        yield newer(
            f"cpuid.{leaf}.{register}{number}.paravirt",
            f"Leaf {leaf} {register.upper()}[{number}] by FEATURE_PARAVIRT_CTLS: {what}", FLAGS,
            (control(REDUCE), paravirt(choice), bit(leaf, register, number)), {"1.rax": 0, "rax": shown},
        )  # fmt: skip
    yield newer(
        "cpuid.7.edx30", "Leaf 7 EDX[30], CORE_CAPABILITIES, is 1 without REDUCE_VE and 0 with it", FLAGS,
        (bit(7, "edx", 30), control(REDUCE), bit(7, "edx", 30)), {"0.rax": 1, "rax": 0},
    )  # fmt: skip
    yield newer(
        "cpuid.paravirt.alone", "FEATURE_PARAVIRT_CTLS does nothing without REDUCE_VE", FLAGS,
        (paravirt(0), control(0), bit(1, "edx", 12)), {"rax": 1},
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """This part of the section."""
    yield from _leaves()
    yield from _control()
    yield from _features()
