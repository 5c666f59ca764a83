"""Which writes of control registers, EFER and XCR0 does a TD survive?"""

from __future__ import annotations

from collections.abc import Iterator

from . import layout as at
from .rows import Row, Step, absent, code

CR0, CR4, EFER_SECTION = "1.3 CR0 writes", "1.4 CR4 writes", "1.5 EFER"
XCR0_SECTION = "10 XSETBV"
HELPERS, EXITS, MSR = (
    "helpers.c write_guest_cr0",
    "td_other_exits.c td_cr_access_exit",
    "td_msr_access.c wrmsr_ia32_efer",
)
CR4_SOURCE, XSETBV_SOURCE = "helpers.c write_guest_cr4", "helpers.c check_guest_xcr0_value"
BASE0, BASE4 = 0x80010033, 0x40660
GP = {"vector": 13, "error": 0, "at": 0}
NO_FEATURE = "the emulated CPU is one of the first generation, which lacks them"
NOT_ENFORCED = "the bit is granted and reads back, but the CPU engine does not act on it"


def write0(value: int) -> Step:
    """MOV CR0, RAX; MOV RCX, CR0."""
    return code("0f22c0 0f20c1", rax=value)


def write4(value: int) -> Step:
    """MOV CR4, RAX; MOV RCX, CR4."""
    return code("0f22e0 0f20e1", rax=value)


def ve(qualification: int, length: int = 3) -> dict[str, int]:
    """#VE(28)."""
    return {
        "vector": 20,
        "ve_status": 0,
        "ve_rcx": 28,
        "ve_rdx": qualification,
        "ve_r8": 0,
        "ve_r9": 0,
        "ve_r10": length,
        "at": 0,
    }


def reads(value: int) -> dict[str, int]:
    """The step ran to its end and read this back."""
    return {"vector": 3, "rcx": value}


def _cr0() -> Iterator[Row]:
    def row(key: str, what: str, value: int, expect: dict[str, int]) -> Row:
        return Row(f"cr0.{key}", what, CR0, HELPERS, (write0(value),), expect)

    yield row("ne", "Clearing NE is #GP(0)", 0x80010013, GP)
    yield row("pg_without_pe", "PG without PE is #GP(0)", 0x80010032, GP)
    yield row("high", "A bit of 63:32 is #GP(0)", 1 << 32 | BASE0, GP)
    yield row("pe", "Clearing PE (with PG) is #VE(28)", 0x10032, ve(0))
    yield row("cd", "Setting CD is #VE(28)", 0xC0010033, ve(0))
    yield row("nw", "Setting NW is #VE(28)", 0xA0010033, ve(0))
    yield row("cd_nw", "Setting CD and NW is #VE(28)", 0xE0010033, ve(0))
    yield Row(
        "cr0.qualification",
        "The qualification names the register",
        CR0,
        EXITS,
        (code("410f22c1", r9=0xC0010033),),
        ve(0x900, 4),
    )
    for key, what, bits in (("6", "15:6", 0xFFC0), ("17", "17", 1 << 17), ("19", "28:19", 0x1FF80000)):
        yield Row(
            f"cr0.reserved{key}",
            f"Bits {what} are ignored",
            CR0,
            HELPERS,
            (write0(BASE0 | bits),),
            reads(BASE0),
        )
    yield Row(
        "cr0.pg_off",
        "Clearing PG in 64-bit mode is #GP(0)",
        CR0,
        "Intel SDM volume 2, MOV to control registers",
        (write0(BASE0 & ~(1 << 31)),),
        GP,
    )
    yield row("et", "ET stays 1", BASE0 & ~0x10, reads(BASE0))
    for name, value in (
        ("wp", BASE0 & ~(1 << 16)),
        ("am", BASE0 | 1 << 18),
        ("mp", BASE0 | 2),
        ("em", BASE0 | 4),
        ("ts", BASE0 | 8),
    ):
        yield row(name, f"{name.upper()} is free", value, reads(value))
    yield row("same", "Writing the same value is native", BASE0, reads(BASE0))
    clear_wp = (write0(BASE0), write4(BASE4 | 1 << 23), write0(BASE0 & ~(1 << 16)))
    yield Row(
        "cr0.wp_cet",
        "Clearing WP under CR4.CET is #GP(0)",
        CR0,
        HELPERS,
        clear_wp,
        GP | {"1.vector": 3},
        td={"xfam": 0x1803},
    )
    yield Row(
        "cr0.lmsw", "LMSW takes MP, EM, TS", CR0, EXITS, (code("0f01f0 0f20c1", rax=0xF),), reads(BASE0 | 0xE)
    )
    yield Row(
        "cr0.lmsw_pe", "LMSW cannot clear PE", CR0, EXITS, (code("0f01f0 0f20c1", rax=0),), reads(BASE0 & ~2)
    )
    yield Row(
        "cr0.clts", "CLTS is native", CR0, HELPERS, (write0(BASE0 | 8), code("0f06 0f20c1")), reads(BASE0)
    )
    yield Row(
        "cr0.user",
        "MOV to CR0 in user mode is #GP(0)",
        CR0,
        "Intel SDM volume 2, MOV to control registers",
        (code("0f22c0", cs=at.USER_CS, rax=BASE0),),
        GP,
    )


def _cr4() -> Iterator[Row]:
    def row(
        key: str,
        what: str,
        bits: int,
        expect: dict[str, int],
        status: str = "exact",
        why: str = "",
        **td: int,
    ) -> Row:
        return Row(
            f"cr4.{key}",
            what,
            CR4,
            CR4_SOURCE,
            (write4(BASE4 | bits),),
            expect,
            td=td,
            status=status,
            why=why,
        )

    yield Row("cr4.mce", "Clearing MCE is #VE(28)", CR4, CR4_SOURCE, (write4(0x40620),), ve(4))
    yield row("vmxe", "Setting VMXE is #VE(28)", 1 << 13, ve(4))
    yield Row(
        "cr4.vmxe0", "VMXE reads 0 and writing 0 is fine", CR4, CR4_SOURCE, (write4(BASE4),), reads(BASE4)
    )
    yield row("smxe", "Setting SMXE is #VE(28)", 1 << 14, ve(4))
    for name, bit in (("bit15", 15), ("fred", 32), ("lass", 27), ("lam_sup", 28)):
        yield row(name, f"Setting {name.upper()} (bit {bit}) where the CPU lacks it is #GP(0)", 1 << bit, GP)
    yield absent("cr4.newer", "Setting those where the CPU has them: #VE(28)", CR4, NO_FEATURE, CR4_SOURCE)
    yield row("bit63", "Setting bit 63, which no CPU has, is #GP(0)", 1 << 63, GP)
    yield row("pke", "PKE without XFAM[9] is #GP(0)", 1 << 22, GP)
    yield row(
        "pke_xfam",
        "PKE with XFAM[9] is granted",
        1 << 22,
        reads(BASE4 | 1 << 22),
        "simplified",
        NOT_ENFORCED,
        xfam=0x203,
    )
    yield row("cet", "CET without XFAM[12:11] is #GP(0)", 1 << 23, GP)
    yield row(
        "cet_xfam",
        "CET with XFAM[12:11] is granted",
        1 << 23,
        reads(BASE4 | 1 << 23),
        "simplified",
        NOT_ENFORCED,
        xfam=0x1803,
    )
    yield Row(
        "cr4.cet_wp",
        "CET while CR0.WP is 0 is #GP(0)",
        CR4,
        CR4_SOURCE,
        (write0(BASE0 & ~(1 << 16)), write4(BASE4 | 1 << 23)),
        GP,
        td={"xfam": 0x1803},
    )
    yield row("uintr", "UINTR without XFAM[14] is #GP(0)", 1 << 25, GP)
    yield row(
        "uintr_xfam",
        "UINTR with XFAM[14] is granted",
        1 << 25,
        reads(BASE4 | 1 << 25),
        "simplified",
        NOT_ENFORCED,
        xfam=0x4003,
    )
    yield row("kl", "KL is #GP(0)", 1 << 19, GP)
    yield row("pks", "PKS without ATTRIBUTES.PKS is #GP(0)", 1 << 24, GP)
    yield row(
        "pks_attribute",
        "PKS with ATTRIBUTES.PKS is granted",
        1 << 24,
        reads(BASE4 | 1 << 24),
        "simplified",
        NOT_ENFORCED,
        attributes=1 << 30 | 1 << 28,
    )
    free = (
        ("vme", 0),
        ("tsd", 2),
        ("de", 3),
        ("pse", 4),
        ("pge", 7),
        ("pce", 8),
        ("umip", 11),
        ("fsgsbase", 16),
        ("pcide", 17),
        ("smep", 20),
        ("smap", 21),
    )
    for name, bit in free:
        yield row(name, f"{name.upper()} is the guest's", 1 << bit, reads(BASE4 | 1 << bit))
    yield row("pvi", "PVI is the guest's", 2, reads(BASE4 | 2), "simplified", NOT_ENFORCED)
    yield Row(
        "cr4.tsd_user",
        "Under TSD, RDTSC in user mode is #GP(0)",
        CR4,
        "Intel SDM volume 2, RDTSC",
        (write4(BASE4 | 4), code("0f31"), code("0f31", cs=at.USER_CS)),
        GP | {"1.vector": 3},
    )
    yield Row(
        "cr4.tsd_user_p",
        "Under TSD, RDTSCP in user mode is #GP(0)",
        CR4,
        "Intel SDM volume 2, RDTSCP",
        (write4(BASE4 | 4), code("0f01f9", cs=at.USER_CS)),
        GP,
    )
    function = at.USER_WINDOW + at.BUFFER  # RET on a page of the user's, called by the kernel
    put, call = code("c607c3", rdi=at.BUFFER), code("ffd7", rdi=function)
    yield Row(
        "cr4.smep_off",
        "Without SMEP the kernel runs user pages",
        CR4,
        "Intel SDM volume 3, 4.6.1, determination of access rights",
        (put, call),
        {"vector": 3},
    )
    yield Row(
        "cr4.smep_fetch",
        "Under SMEP, a fetch of the kernel from a user page is #PF",
        CR4,
        "Intel SDM volume 3, 4.6.1, determination of access rights",
        (put, write4(BASE4 | 1 << 20), call),
        {"vector": 14, "error": 0x11, "cr2": function, "rip": function},
    )
    sidt = code("0f010f", cs=at.USER_CS, rdi=at.USER_WINDOW + at.BUFFER)
    yield Row(
        "cr4.umip_off",
        "Without UMIP, SIDT in user mode is native",
        CR4,
        "Intel SDM volume 3, 2.5, CR4.UMIP",
        (sidt,),
        {"vector": 3},
    )
    for name, what, step in (
        ("sidt", "SIDT", sidt),
        ("sgdt", "SGDT", code("0f0107", cs=at.USER_CS, rdi=at.USER_WINDOW + at.BUFFER)),
        ("sldt", "SLDT", code("0f00c0", cs=at.USER_CS)),
        ("str", "STR", code("0f00c8", cs=at.USER_CS)),
        ("smsw", "SMSW", code("0f01e0", cs=at.USER_CS)),
    ):
        yield Row(
            f"cr4.umip_{name}",
            f"Under UMIP, {what} in user mode is #GP(0)",
            CR4,
            "Intel SDM volume 3, 2.5, CR4.UMIP",
            (write4(BASE4 | 1 << 11), step),
            GP,
        )
    yield Row(
        "cr4.de_dr4",
        "Under DE, DR4 does not exist: #UD",
        CR4,
        "Intel SDM volume 3, 18.2.2, DR4 and DR5",
        (write4(BASE4 | 8), code("0f21e0")),
        {"vector": 6, "at": 0},
    )
    yield Row(
        "cr4.pcide_cr3",
        "Setting PCIDE while CR3 has bits in 11:0 is #GP(0)",
        CR4,
        "Intel SDM volume 2, MOV to control registers",
        (code("0f20d8 0c08 0f22d8"), write4(BASE4 | 1 << 17)),
        GP | {"0.vector": 3},
    )
    yield Row(
        "cr4.pcide_pg",
        "Clearing PG under PCIDE is #GP(0)",
        CR4,
        "Intel SDM volume 2, MOV to control registers",
        (write4(BASE4 | 1 << 17), write0(BASE0 & ~(1 << 31))),
        GP | {"0.vector": 3},
    )
    for name, bit in (("osfxsr", 9), ("osxmmexcpt", 10), ("osxsave", 18)):
        value = BASE4 & ~(1 << bit)
        yield Row(
            f"cr4.{name}", f"{name.upper()} is the guest's", CR4, CR4_SOURCE, (write4(value),), reads(value)
        )
    yield row("la57", "LA57 cannot change in 64-bit mode: #GP(0)", 1 << 12, GP)
    yield Row(
        "cr4.pae",
        "PAE cannot be cleared in 64-bit mode: #GP(0)",
        CR4,
        "Intel SDM volume 2, MOV to control registers",
        (write4(BASE4 & ~0x20),),
        GP,
    )
    yield Row(
        "cr4.order",
        "A natively illegal value is #GP even with MCE cleared",
        CR4,
        CR4_SOURCE,
        (write4(1 << 19 | 0x40620),),
        GP,
    )
    yield Row(
        "cr4.user",
        "MOV to CR4 in user mode is #GP(0)",
        CR4,
        "Intel SDM volume 2, MOV to control registers",
        (code("0f22e0", cs=at.USER_CS, rax=BASE4),),
        GP,
    )


def _efer() -> Iterator[Row]:
    """EFER is D01 in 64-bit mode (SCE, LME, LMA, NXE)."""

    def row(key: str, what: str, value: int, expect: dict[str, int]) -> Row:
        steps = (code("0f30", rcx=0xC0000080, rax=value, rdx=0), code("0f32", rcx=0xC0000080))
        return Row(f"efer.{key}", what, EFER_SECTION, MSR, steps, expect)

    fails = {"0.vector": 20, "0.ve_rcx": 32, "0.ve_rdx": 0, "0.ve_r10": 2, "rax": 0xD01, "rdx": 0}
    yield row(
        "read", "RDMSR is native; LMA is set in 64-bit mode", 0xD01, {"0.vector": 3, "rax": 0xD01, "rdx": 0}
    )
    yield row("lma", "LMA of the input is ignored", 0x901, {"0.vector": 3, "rax": 0xD01, "rdx": 0})
    yield row("sce", "SCE may change", 0xD00, {"0.vector": 3, "rax": 0xD00, "rdx": 0})
    yield row("lme", "Clearing LME is #VE(32)", 0x801, fails)
    yield row("nxe", "Clearing NXE is #VE(32)", 0x501, fails)
    yield row("other", "Any other bit is #VE(32), not #GP", 0x1D01, fails)


def _xcr0() -> Iterator[Row]:
    def row(key: str, what: str, value: int, expect: dict[str, int], index: int = 0, **td: int) -> Row:
        steps = (code("0f01d1", rcx=index, rax=value, rdx=0), code("0f01d0", rcx=0))
        return Row(f"xcr0.{key}", what, XCR0_SECTION, XSETBV_SOURCE, steps, expect, td=td)

    fails = {"0.vector": 13, "0.error": 0, "rax": 1}
    yield row("sse", "x87 and SSE are granted under XFAM 3", 3, {"0.vector": 3, "rax": 3, "rdx": 0})
    yield row("x87", "x87 alone is granted", 1, {"0.vector": 3, "rax": 1, "rdx": 0})
    yield row("no_x87", "Without x87: #GP(0)", 2, fails)
    yield row("avx_xfam", "AVX outside XFAM: #GP(0)", 7, fails)
    yield row("avx_sse", "AVX without SSE: #GP(0)", 5, fails, xfam=7)
    yield row("avx512_part", "Half of AVX-512: #GP(0)", 0x27, fails, xfam=0xE7)
    yield row("avx512_avx", "AVX-512 without AVX: #GP(0)", 0xE3, fails, xfam=0xE7)
    yield row("amx_part", "Half of AMX: #GP(0)", 0x20003, fails, xfam=0x60003)
    yield row("supervisor", "A supervisor state of XFAM: #GP(0)", 0x1803, fails, xfam=0x1803)
    yield row("index", "XCR1: #GP(0)", 3, fails, index=1)
    off = (write4(BASE4 & ~(1 << 18)), code("0f01d1", rcx=0, rax=3, rdx=0))
    yield Row(
        "xcr0.osxsave",
        "Without CR4.OSXSAVE: #UD",
        XCR0_SECTION,
        "Intel SDM volume 2, XSETBV",
        off,
        {"vector": 6, "at": 0},
    )
    for name, what, text in (
        ("vex", "VZEROUPPER", "c5f877"),
        ("vex3", "VPXOR YMM0, YMM0, YMM0", "c4e17defc0"),
        ("evex", "VPXORD ZMM0, ZMM0, ZMM0", "62f17d48efc0"),
    ):
        yield Row(
            f"xcr0.{name}",
            f"Without AVX in XCR0, {what} is #UD",
            XCR0_SECTION,
            "Intel SDM volume 2, 2.4, instruction exception specification",
            (code(text),),
            {"vector": 6, "at": 0},
        )
    yield Row(
        "xcr0.bmi",
        "RORX and ANDN need nothing of XCR0",
        XCR0_SECTION,
        "Intel SDM volume 2, 2.5.1, exception conditions of VEX-encoded general-purpose instructions",
        (code("c4e3fbf0c104 c4e2f8f2d1", rcx=0x1230, rax=0),),
        {"vector": 3, "rax": 0x123, "rdx": 0x1230 & ~0x123},
    )
    user = code("0f01d1", cs=at.USER_CS, rcx=0, rax=3, rdx=0)
    yield Row(
        "xcr0.user", "XSETBV in user mode is #GP(0)", XCR0_SECTION, "Intel SDM volume 2, XSETBV", (user,), GP
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _cr0()
    yield from _cr4()
    yield from _efer()
    yield from _xcr0()
