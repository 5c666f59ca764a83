"""What does CPUID return in a TD, and where does it raise #VE?"""

from __future__ import annotations

from collections.abc import Iterator

from . import layout as at
from .rows import Row, Step, code, tdcall

SECTION, SOURCE = "5.5 CPUID", "cpuid_configurations.c cpuid_lookup, td_cpuid.c td_cpuid_exit"
MODEL = "the numbers are those of the emulated CPU; a real one has its own"


def cpuid(leaf: int, subleaf: int = 0, after: str = "", cs: int = at.CS64) -> Step:
    """CPUID with all-ones in the upper halves, and code behind it."""
    high = 0xFFFFFFFF_00000000
    return code("0fa2" + after, cs=cs, rax=high | leaf, rcx=high | subleaf, rbx=high, rdx=high)


def answered(eax: int, ebx: int, ecx: int, edx: int) -> dict[str, int]:
    """All four registers, upper halves zero."""
    return {"vector": 3, "rax": eax, "rbx": ebx, "rcx": ecx, "rdx": edx}


VE = {"vector": 20, "ve_rcx": 10, "ve_rdx": 0, "ve_r8": 0, "ve_r9": 0, "ve_r10": 2, "at": 0}
ZERO = answered(0, 0, 0, 0)
BIT = {  # leaves RAX = the asked bit: MOV EAX, reg; SHR EAX, n; AND EAX, 1
    "ebx": "89d8",
    "ecx": "89c8",
    "edx": "89d0",
}


def bit(leaf: int, register: str, number: int, subleaf: int = 0, cs: int = at.CS64) -> Step:
    """RAX = one bit of an answer."""
    return cpuid(leaf, subleaf, BIT[register] + f"c1e8{number:02x}83e001", cs)


def _row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int], **more: object) -> Row:
    return Row(f"cpuid.{key}", what, SECTION, SOURCE, steps, expect, **more)  # type: ignore[arg-type]


def _leaves() -> Iterator[Row]:
    intel = answered(0x23, 0x756E6547, 0x6C65746E, 0x49656E69)
    yield _row("0", "Leaf 0: last leaf 23, GenuineIntel", (cpuid(0),), intel)
    yield _row(
        "high",
        "Upper halves of RAX, RBX, RCX, RDX become 0",
        (cpuid(0x21),),
        answered(0, 0x65746E49, 0x20202020, 0x5844546C),
    )
    yield _row("2", "Leaf 2 is not in the table: #VE(10)", (cpuid(2),), VE)
    for leaf in (3, 8, 0xE, 0x11, 0x12, 0x13, 0x20, 0x22):
        yield _row(f"{leaf:x}", f"Leaf {leaf:X} is zero", (cpuid(leaf),), ZERO)
    yield _row("19", "Leaf 19 is zero: no Key Locker", (cpuid(0x19),), ZERO)
    yield _row("1c", "Leaf 1C is zero without XFAM[15]", (cpuid(0x1C),), ZERO)
    yield _row(
        "1d",
        "Leaf 1D is zero without XFAM[18:17]",
        (cpuid(0x1D), cpuid(0x1D, 1)),
        ZERO | {"0.rax": 0, "0.rcx": 0},
    )
    yield _row("1d.2", "Leaf 1D sub-leaf 2: #VE(10)", (cpuid(0x1D, 2),), VE)
    yield _row("1e", "Leaf 1E is zero without XFAM[18:17]", (cpuid(0x1E),), ZERO)
    yield _row(
        "14",
        "Leaf 14 is zero without XFAM[8]",
        (cpuid(0x14), cpuid(0x14, 1)),
        ZERO | {"0.rax": 0, "0.rcx": 0},
    )
    yield _row("14.2", "Leaf 14 sub-leaf 2: #VE(10)", (cpuid(0x14, 2),), VE)
    yield _row("a", "Leaf A is zero without PERFMON", (cpuid(0xA),), ZERO)
    yield _row("5", "Leaf 5 is zero without MONITOR", (cpuid(5),), ZERO)
    for leaf in (6, 9, 0xB, 0xC, 0xF, 0x10, 0x16, 0x17, 0x18, 0x1A, 0x1B, 0x1F):
        yield _row(f"{leaf:x}", f"Leaf {leaf:X}: #VE(10)", (cpuid(leaf),), VE)
    yield _row("1f.5", "Leaf 1F sub-leaf 5: #VE(10)", (cpuid(0x1F, 5),), VE)
    for leaf in (0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000006):
        yield _row(f"{leaf:x}", f"Leaf {leaf:X}: #VE(10)", (cpuid(leaf),), VE)
    for leaf in (0x40000000, 0x40000001, 0x4FFFFFFF):
        yield _row(f"{leaf:x}", f"Hypervisor leaf {leaf:X}: #VE(10)", (cpuid(leaf),), VE)
    yield _row(
        "4.0",
        "Leaf 4 sub-leaves 0 to 3 are answered",
        (cpuid(4),),
        {"vector": 3},
        status="simplified",
        why=MODEL,
    )
    yield _row("4.4", "Leaf 4 sub-leaf 4 is zero", (cpuid(4, 4),), ZERO)
    yield _row("4.5", "Leaf 4 sub-leaf 5: #VE(10)", (cpuid(4, 5),), VE)
    yield _row("15", "Leaf 15: 25 MHz times TSC_FREQUENCY", (cpuid(0x15),), answered(1, 40, 25_000_000, 0))
    yield _row(
        "15.freq",
        "Leaf 15 follows TSC_FREQUENCY",
        (cpuid(0x15),),
        answered(1, 100, 25_000_000, 0),
        td={"tsc_25mhz": 100},
    )
    yield _row("21.1", "Leaf 21 sub-leaf 1: #VE(10)", (cpuid(0x21, 1),), VE)
    yield _row(
        "23",
        "Leaf 23 sub-leaves 0 to 3 are answered",
        tuple(cpuid(0x23, n) for n in range(4)),
        {f"{n}.vector": 3 for n in range(4)},
    )
    yield _row("23.4", "Leaf 23 sub-leaf 4: #VE(10)", (cpuid(0x23, 4),), VE)


def _aliases() -> Iterator[Row]:
    for leaf in (0x24, 0x3FFFFFFF, 0x50000000, 0x7FFFFFFF, 0x80000009, 0xFFFFFFFF):
        yield _row(f"alias.{leaf:x}", f"Leaf {leaf:X} is taken as leaf 23", (cpuid(leaf, 3),), {"vector": 3})
        yield _row(f"alias.{leaf:x}.4", f"Leaf {leaf:X} with ECX 4: #VE(10)", (cpuid(leaf, 4),), VE)


def _features() -> Iterator[Row]:
    one: tuple[tuple[str, str, int, int, str], ...] = (
        ("hypervisor", "ecx", 31, 1, "the hypervisor bit is 1"),
        ("x2apic", "ecx", 21, 1, "x2APIC is there"),
        ("vmx", "ecx", 5, 0, "no VMX"),
        ("smx", "ecx", 6, 0, "no SMX"),
        ("apic", "edx", 9, 1, "the APIC bit is 1"),
        ("aes", "ecx", 25, 1, "AES is there"),
        ("cx16", "ecx", 13, 1, "CMPXCHG16B is there"),
        ("fma", "ecx", 12, 0, "no FMA without XFAM[2]"),
        ("avx", "ecx", 28, 0, "no AVX without XFAM[2]"),
        ("f16c", "ecx", 29, 0, "no F16C without XFAM[2]"),
        ("tsc_deadline", "ecx", 24, 1, "the TSC deadline timer, which is the VMM's choice, is there"),
        ("pse36", "edx", 17, 0, "no PSE-36"),
        ("mce", "edx", 7, 1, "MCE is there"),
        ("pae", "edx", 6, 1, "PAE is there"),
        ("sse2", "edx", 26, 1, "SSE2 is there"),
    )
    for key, register, number, value, what in one:
        yield _row(f"1.{key}", f"Leaf 1: {what}", (bit(1, register, number),), {"vector": 3, "rax": value})
    seven: tuple[tuple[str, str, int, str], ...] = (
        ("avx2", "ebx", 5, "no AVX2 without XFAM[2]"),
        ("avx512f", "ebx", 16, "no AVX-512 without XFAM[7:5]"),
        ("pt", "ebx", 25, "no PT without XFAM[8]"),
        ("pku", "ecx", 3, "no PKU without XFAM[9]"),
        ("ospke", "ecx", 4, "OSPKE follows CR4.PKE"),
        ("shstk", "ecx", 7, "no shadow stacks without XFAM[12:11]"),
        ("ibt", "edx", 20, "no IBT without XFAM[12:11]"),
        ("uintr", "edx", 5, "no UINTR without XFAM[14]"),
        ("lbr", "edx", 19, "no LBR without XFAM[15]"),
        ("amx_bf16", "edx", 22, "no AMX without XFAM[18:17]"),
        ("amx_tile", "edx", 24, "no AMX without XFAM[18:17]"),
        ("kl", "ecx", 23, "no Key Locker"),
    )
    for key, register, number, what in seven:
        yield _row(f"7.{key}", f"Leaf 7: {what}", (bit(7, register, number),), {"vector": 3, "rax": 0})
    yield _row(
        "7.ospke_on",
        "Leaf 7: OSPKE is 1 while CR4.PKE is",
        (code("0f22e0", rax=0x440660), bit(7, "ecx", 4)),
        {"0.vector": 3, "rax": 1},
        td={"xfam": 0x203},
    )
    native = (
        "TDH.SYS.INIT asks for these and the TD sees them, but the emulated CPU lacks them: leaf 1 DTES64, "
        "DS-CPL, PDCM, PCID, XSAVE, VME, DS; leaf 7 TSC_ADJUST, FDP_EXCPTN_ONLY, INVPCID, ZERO_FCS_FDS, "
        "CLFLUSHOPT, CLWB, SHA, BUS_LOCK_DETECT, MOVDIRI, MOVDIR64B, MD_CLEAR, SPEC_CTRL, STIBP, L1D_FLUSH, "
        "CORE_CAPABILITIES, SSBD; leaf 7.2 PSFD, IPRED_CTRL, RRSBA_CTRL, BHI_CTRL"
    )
    yield _row(
        "native",
        "Features that every CPU with TDX has",
        (bit(7, "ebx", 10),),
        {"rax": 0},
        status="simplified",
        why=native,
    )
    no_xsave = (
        "every CPU with TDX has it; the engine executes VEX-coded instructions wrongly, so it is hidden"
    )
    xsave = (bit(1, "ecx", 26),)
    yield _row("1.xsave", "Leaf 1: XSAVE", xsave, {"rax": 0}, status="simplified", why=no_xsave)
    yield _row("7.max", "Leaf 7 has sub-leaves up to 2", (cpuid(7),), {"vector": 3, "rax": 2})
    yield _row("7.3", "Leaf 7 sub-leaf 3: #VE(10)", (cpuid(7, 3),), VE)
    yield _row(
        "7.features",
        "Leaf 7: features that XFAM grants",
        (cpuid(7, 1), cpuid(7, 2)),
        {"0.vector": 3, "vector": 3},
        status="simplified",
        why="whatever XFAM grants, the emulated CPU has no AVX, PKU, CET, PT, AMX, UINTR or LBR",
    )
    patched = "c7076690c300 ffd7 c7070fa2c300 ffd7"  # data16 nop; ret becomes cpuid; ret, each called
    yield _row(
        "patched",
        "CPUID written over an instruction that has run",
        (code(patched, rdi=at.BUFFER, rax=0x21, rcx=0),),
        {"vector": 3, "rbx": 0x65746E49},
    )
    yield _row("1.osxsave", "Leaf 1: OSXSAVE is CR4's", (bit(1, "ecx", 27),), {"vector": 3, "rax": 1})
    yield _row(
        "1.osxsave_off",
        "Leaf 1: OSXSAVE is 0 while CR4.OSXSAVE is",
        (code("0f22e0", rax=0x660), bit(1, "ecx", 27)),
        {"vector": 3, "rax": 0},
    )
    apic = cpuid(1, 0, "89d8c1e818")
    yield _row(
        "1.apic_id", "Leaf 1: EBX[31:24] is the low byte of VCPU_INDEX", (apic,), {"vector": 3, "rax": 0}
    )
    yield _row(
        "1.model",
        "Leaf 1: family, model, stepping",
        (cpuid(1),),
        {"vector": 3, "rax": 0x806F8},
        status="simplified",
        why=MODEL,
    )
    yield _row(
        "d.0",
        "Leaf D: states that XFAM grants, and their sizes",
        (cpuid(0xD),),
        ZERO,
        status="simplified",
        why="the emulated CPU has no XSAVE, so the leaf is zero",
    )
    yield _row("d.12", "Leaf D sub-leaf 12 is answered", (cpuid(0xD, 0x12),), ZERO)
    yield _row("d.2", "Leaf D sub-leaf 2 is zero without XFAM[2]", (cpuid(0xD, 2),), ZERO)
    yield _row("d.13", "Leaf D sub-leaf 13: #VE(10)", (cpuid(0xD, 0x13),), VE)
    yield _row(
        "80000000",
        "Last extended leaf is 80000008",
        (cpuid(0x80000000, 0, "31db31c931d2"),),
        answered(0x80000008, 0, 0, 0),
    )
    yield _row(
        "80000001.syscall",
        "Leaf 80000001: SYSCALL in 64-bit mode",
        (bit(0x80000001, "edx", 11),),
        {"vector": 3, "rax": 1},
    )
    yield _row(
        "80000001.compat",
        "Leaf 80000001: no SYSCALL in 32-bit mode",
        (bit(0x80000001, "edx", 11, cs=at.CS32),),
        {"vector": 3, "rax": 0},
    )
    yield _row("80000001.nx", "Leaf 80000001: NX", (bit(0x80000001, "edx", 20),), {"vector": 3, "rax": 1})
    yield _row(
        "80000001.lm", "Leaf 80000001: 64-bit mode", (bit(0x80000001, "edx", 29),), {"vector": 3, "rax": 1}
    )
    yield _row("80000007", "Leaf 80000007: invariant TSC", (cpuid(0x80000007),), answered(0, 0, 0, 0x100))
    yield _row(
        "80000008",
        "Leaf 80000008: 52 physical bits, 48 linear without LA57",
        (cpuid(0x80000008),),
        {"vector": 3, "rax": 0x3034},
        status="simplified",
        why="the linear width is the CPU's own: 57 where it has LA57, as the first CPUs with TDX do",
    )
    yield _row(
        "21.compat",
        "Leaf 21 works in 32-bit mode",
        (cpuid(0x21, cs=at.CS32),),
        {"vector": 3, "rax": 0, "rcx": 0x20202020},
    )


def _choice() -> Iterator[Row]:
    """#VE on CPUID as the guest wishes: CPUIDVE.SET, CPUID_SUPERVISOR_VE, CPUID_USER_VE, CPUID_CONTROL."""
    control = 0xA120000000000000
    yield _row("ve.supervisor", "CPUIDVE.SET bit 0: #VE(10) at CPL 0", (tdcall(5, rcx=1), cpuid(0)), VE)
    yield _row(
        "ve.supervisor_only",
        "CPUIDVE.SET bit 0 leaves user mode alone",
        (tdcall(5, rcx=1), cpuid(0x21, cs=at.USER_CS)),
        {"vector": 3, "rbx": 0x65746E49},
    )
    yield _row(
        "ve.user", "CPUIDVE.SET bit 1: #VE(10) at CPL 3", (tdcall(5, rcx=2), cpuid(0, cs=at.USER_CS)), VE
    )
    yield _row(
        "ve.user_only",
        "CPUIDVE.SET bit 1 leaves CPL 0 alone",
        (tdcall(5, rcx=2), cpuid(0x21)),
        {"vector": 3, "rbx": 0x65746E49},
    )
    yield _row(
        "ve.off",
        "CPUIDVE.SET 0 takes it back",
        (tdcall(5, rcx=1), tdcall(5, rcx=0), cpuid(0x21)),
        {"vector": 3, "rbx": 0x65746E49},
    )
    yield _row(
        "ve.field",
        "CPUID_SUPERVISOR_VE = 1: #VE(10)",
        (tdcall(10, rcx=0, rdx=0xA020000000000007, r8=1, r9=0xFF), cpuid(0)),
        VE | {"0.rax": 0},
    )
    yield _row(
        "ve.field_user",
        "CPUID_USER_VE = 1: #VE(10) at CPL 3",
        (tdcall(10, rcx=0, rdx=0xA020000000000008, r8=1, r9=0xFF), cpuid(0, cs=at.USER_CS)),
        VE,
    )
    yield _row(
        "ve.shown",
        "CPUIDVE.SET shows in CPUID_USER_VE",
        (tdcall(5, rcx=2), tdcall(9, rcx=0, rdx=0xA020000000000008)),
        {"rax": 0, "r8": 1},
    )
    yield _row(
        "ve.control",
        "CPUID_CONTROL of leaf 21 (entry 53): #VE(10) at CPL 0",
        (tdcall(10, rcx=0, rdx=control + 53, r8=1, r9=3), cpuid(0x21)),
        VE | {"0.rax": 0},
    )
    yield _row(
        "ve.control_other",
        "CPUID_CONTROL of leaf 21 leaves leaf 0 alone",
        (tdcall(10, rcx=0, rdx=control + 53, r8=1, r9=3), cpuid(0)),
        {"vector": 3, "rax": 0x23},
    )
    yield _row(
        "ve.control_user",
        "CPUID_CONTROL bit 1 is for user mode",
        (tdcall(10, rcx=0, rdx=control + 53, r8=2, r9=3), cpuid(0x21, cs=at.USER_CS)),
        VE,
    )
    yield _row(
        "ve.control_user_only",
        "CPUID_CONTROL bit 1 leaves CPL 0 alone",
        (tdcall(10, rcx=0, rdx=control + 53, r8=2, r9=3), cpuid(0x21)),
        {"vector": 3, "rbx": 0x65746E49},
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _leaves()
    yield from _aliases()
    yield from _features()
    yield from _choice()
