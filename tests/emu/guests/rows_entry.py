"""What does a vCPU hold at its first entry?"""

from __future__ import annotations

from collections.abc import Iterator

from . import layout as at
from .rows import Row, absent, code, tdcall

MODE, GENERAL = "1.1 Entry state: mode and system registers", "1.2 Entry state: general registers"
MAP, VMCS = "td_vmcs_init.c td_vmcs_migrated_state_init_map", "td_vmcs_init.c init_td_vmcs"
INIT, ZEROS = "tdh_vp_init.c init_vcpu_gprs_and_registers", "tdh_vp_init.c tdh_vp_init"
MSRS = "tdh_vp_init.c init_vcpu_msrs"
SHADOW = "td_vmcs_init.c td_vmcs_non_migrated_state_init_map, init_tdcs_dependent_fields_in_vmcs"
IN_VMCS = (
    "SYSENTER_CS",
    "SYSENTER_ESP",
    "SYSENTER_EIP",
    "FS_BASE",
    "GS_BASE",
)  # what its maps do not name is 0
SOURCES = {  # of the mode and the system registers; what is not here is in the map of the VMCS
    "cr0": SHADOW,
    "cr2": INIT,
    "cr4": SHADOW,
    "idtr": VMCS,
    "dr6": INIT,
    "dr03": INIT,
    "cs": VMCS,
    "data": VMCS,
    "system": VMCS,
}
RDMSR = "0f32"
ZERO_MSRS = (
    ("STAR", 0xC0000081),
    ("LSTAR", 0xC0000082),
    ("KERNEL_GS_BASE", 0xC0000102),
    ("SYSENTER_CS", 0x174),
    ("SYSENTER_ESP", 0x175),
    ("SYSENTER_EIP", 0x176),
    ("XSS", 0xDA0),
    ("FS_BASE", 0xC0000100),
    ("GS_BASE", 0xC0000101),
    ("TSC_AUX", 0xC0000103),
    ("SPEC_CTRL", 0x48),
)


def _entry(key: str, what: str, **fields: int) -> Row:
    section, source = (GENERAL, INIT) if key.startswith("gpr") else (MODE, SOURCES.get(key, MAP))
    return Row(
        f"entry.{key}", what, section, source, (), {f"entry.{name}": value for name, value in fields.items()}
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield _entry("cr0", "CR0 reads PE, ET, NE; caching is on", cr0=0x31)
    yield _entry("cr2", "CR2 and CR3 are 0", cr2=0, cr3=0)
    yield _entry("cr4", "CR4 reads MCE; VMXE is hidden", cr4=0x40)
    yield _entry("efer", "EFER has SCE, LME, NXE", efer=0x901)
    yield _entry("rflags", "RFLAGS is 2, interrupts are off", rflags=2)
    yield _entry("gdtr", "GDTR has base 0 and limit FFFF", gdt_base=0, gdt_limit=0xFFFF)
    yield _entry("idtr", "IDTR has base 0 and limit 0", idt_base=0, idt_limit=0)
    yield _entry("dr7", "DR7 is 400", dr7=0x400)
    yield _entry("dr6", "DR6 is FFFF0FF0", dr6=0xFFFF0FF0)
    yield _entry("dr03", "DR0 to DR3 are 0", dr0=0, dr1=0, dr2=0, dr3=0)
    yield _entry("cs", "CS holds selector 0", cs=0)
    yield _entry("data", "DS, ES, FS, GS, SS hold selector 0", ds=0, es=0, fs=0, gs=0, ss=0)
    yield _entry("system", "LDTR and TR hold selector 0", ldtr=0, tr=0)
    pat = code(RDMSR, rcx=0x277)
    yield Row(
        "entry.pat",
        "IA32_PAT is 0007040600070406",
        MODE,
        MAP,
        (pat,),
        {"rax": 0x00070406, "rdx": 0x00070406},
    )
    fmask = code(RDMSR, rcx=0xC0000084)
    yield Row("entry.fmask", "IA32_FMASK is 20200", MODE, MSRS, (fmask,), {"rax": 0x20200, "rdx": 0})
    xcr0 = code("0f01d0", rcx=0)
    yield Row("entry.xcr0", "XCR0 is 1", MODE, INIT, (xcr0,), {"rax": 1, "rdx": 0})
    mxcsr = code("0fae1f 8b07", rdi=at.BUFFER)
    yield Row(
        "entry.mxcsr", "MXCSR is in its INIT state", MODE, ZEROS, (mxcsr,), {"vector": 3, "rax": 0x1F80}
    )
    x87 = code("d93f 0fb70f dfe0 0fb7c0", rdi=at.BUFFER)  # FNSTCW, FNSTSW
    yield Row(
        "entry.x87", "x87 is in its INIT state", MODE, ZEROS, (x87,), {"vector": 3, "rcx": 0x37F, "rax": 0}
    )
    every = "".join(
        f"66{'41' if n > 7 else ''}0feb{0xC0 | n & 7:02x}" for n in range(1, 16)
    )  # POR XMM0, XMMn
    xmm = code(every + "66480f7ec0 660f73d808 66480f7ec1")
    yield Row("entry.xmm", "XMM registers are 0", MODE, ZEROS, (xmm,), {"vector": 3, "rax": 0, "rcx": 0})
    for name, index in ZERO_MSRS:
        what = f"{name} is 0"
        source = VMCS if name in IN_VMCS else MSRS
        yield Row(
            f"entry.{name.lower()}", what, MODE, source, (code(RDMSR, rcx=index),), {"rax": 0, "rdx": 0}
        )
    perfmon = "counters exist only with ATTRIBUTES.PERFMON, which this emulator's CPU lacks"
    yield absent("entry.perf_global_ctrl", "IA32_PERF_GLOBAL_CTRL is FF", MODE, perfmon, MAP)

    yield _entry("gpr.rbx48", "RBX is the GPA width, 48", rbx=48)
    row = _entry("gpr.rbx52", "RBX is the GPA width, 52", rbx=52)
    yield Row(row.key, row.what, row.section, row.source, (), row.expect, td={"config_flags": 5})
    yield _entry("gpr.rcx_r8", "RCX and R8 are the host's value, here the TD HOB", rcx=at.HOB, r8=at.HOB)
    yield Row(
        "entry.gpr.rdx",
        "RDX is CPUID(1).EAX",
        GENERAL,
        INIT,
        (code("0fa2", rax=1, rcx=0), code("4831c2 4889d0", rax=0x806F8, rdx=0x806F8)),
        {"entry.rdx": 0x806F8, "0.rax": 0x806F8},
    )
    yield _entry("gpr.rsi", "RSI is VCPU_INDEX, 0 for the first vCPU", rsi=0)
    yield _entry("gpr.zero32", "RAX, RBP, RDI, RSP are 0", rax=0, rbp=0, rdi=0, rsp=0)
    yield _entry("gpr.zero64", "R9 to R15 are 0", r9=0, r10=0, r11=0, r12=0, r13=0, r14=0, r15=0)
    tdcall32 = "the exception before LIDT is a triple fault: TD exit NON_RECOVERABLE_VCPU"
    yield Row(
        "entry.idt",
        f"An interrupt gate beyond an IDT limit of 0: {tdcall32}",
        MODE,
        VMCS,
        (code("0f011d 02000000 eb0a 0000 0000000000000000 0f0b"),),
        end="triple-fault",
    )
    yield from _other()


def _other() -> Iterator[Row]:
    """The second vCPU keeps its registers in memory; the first one waits for that and prints them."""
    wait = code("f390 833f00 74f9", rdi=at.OTHER_ARRIVED)

    def row(key: str, what: str, section: str, source: str, offsets: dict[int, int]) -> Row:
        expect = {f"mem.{at.OTHER + offset:#x}": value for offset, value in offsets.items()}
        return Row(f"entry.ap.{key}", what, section, source, (wait,), expect, td={"vcpus": 2})

    yield row("rsi", "RSI of the second vCPU is 1", GENERAL, INIT, {48: 1})
    yield row("same", "RBX, RCX, RDX are those of the first", GENERAL, INIT, {24: 48, 8: at.HOB, 16: 0x806F8})
    yield row("zero", "RAX, RSP, RBP, RDI are 0", GENERAL, INIT, {0: 0, 32: 0, 40: 0, 56: 0})
    yield row("system", "CR0 and CR4 are those of the first", MODE, SHADOW, {64: 0x31, 72: 0x40})
    info = "tdg_vp_info.c tdg_vp_info"
    yield Row(
        "entry.ap.info",
        "VP.INFO counts both vCPUs",
        GENERAL,
        info,
        (tdcall(1),),
        {"r8": 2 << 32 | 2},
        td={"vcpus": 2},
    )
