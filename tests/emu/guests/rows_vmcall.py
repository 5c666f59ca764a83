"""What does TDG.VP.VMCALL let through, and what does the VMM answer?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .rows import ALL_ONES, FILL, Row, Step, absent, code, tdcall, vmcall

MASKS, FUNCTIONS = "4.1 TDG.VP.VMCALL registers", "4.2 GHCI sub-functions"
SOURCE, GHCI = "tdg_vp_vmcall.c tdg_vp_vmcall", "GHCI"
SOURCES = {  # by the first word of a row's key
    "info": "KVM tdx.c tdx_get_td_vm_call_info",
    "io": "KVM tdx.c tdx_emulate_io",
    "rdmsr": "KVM tdx.c tdx_get_msr, x86.c kvm_get_msr_common",
    "wrmsr": "KVM tdx.c tdx_set_msr, x86.c kvm_set_msr_common",
    "cpuid": "KVM tdx.c tdx_emulate_cpuid",
    "mmio": "KVM tdx.c tdx_emulate_mmio",
    "quote": "KVM tdx.c tdx_get_quote, QEMU tdx.c tdx_handle_get_quote",
    "notify": "QEMU tdx.c tdx_handle_setup_event_notify_interrupt",
    "fatal": "QEMU tdx.c tdx_handle_report_fatal_error",
    "hlt": "KVM tdx.c tdx_handle_exit, x86.c kvm_emulate_halt_noskip",
    "unknown": "KVM tdx.c handle_tdvmcall",
    "service": "KVM tdx.c handle_tdvmcall",
    "pconfig": "KVM tdx.c handle_tdvmcall",
    "vendor": "KVM tdx.c tdx_emulate_vmcall, x86.c ____kvm_emulate_hypercall",
}
LAPIC = "KVM lapic.c kvm_lapic_reg_write"
KVM_READS = (  # MSR, its name, what KVM answers at the start
    (0x3A, "FEAT_CTL is locked, without LMCE", 1),
    (0x8B, "UCODE_REV is 0", 0),
    (0xCE, "PLATFORM_INFO offers CPUID faulting", 0x80000000),
    (0xFE, "MTRRcap: 8 variable ranges, fixed ranges, WC", 0x508),
    (0x140, "MISC_FEATURES_ENABLES is 0", 0),
    (0x179, "MCG_CAP: 32 banks, no MCG_CTL, no CMCI, no LMCE, where the VMM set nothing else", 0x20),
    (0x17A, "MCG_STATUS is 0", 0),
    (0x1A0, "MISC_ENABLE: no BTS, no PEBS", 0x1800),
    (0x1FC, "POWER_CTL is 0", 0),
    (0x200, "the first MTRR is 0", 0),
    (0x20F, "the last variable MTRR is 0", 0),
    (0x26F, "the last fixed MTRR is 0", 0),
    (0x277, "PAT has its reset value", 0x0007040600070406),
    (0x2FF, "MTRRdefType is 0", 0),
    (0x400, "MC0_CTL is 0", 0),
    (0x47F, "MC31_MISC is 0", 0),
    (0x4B564D05, "KVM_POLL_CONTROL is 1", 1),
    (0xC0000080, "EFER: SCE, LME, LMA, NX", 0xD01),
    (0x803, "x2APIC version: 14, six LVT entries, directed EOI", 0x1050014),
    (0x80F, "x2APIC SVR: disabled", 0xFF),
    (0x835, "x2APIC LINT0 of the boot processor: ExtINT, not masked", 0x700),
    (0x836, "x2APIC LINT1: masked", 0x10000),
    (1 << 32 | 0xFE, "32 bits of the number count", 0x508),
)
KVM_REFUSES = (  # MSRs, why RDMSR and WRMSR are refused
    (0x17B, "MCG_CTL, which MCG_CAP does not have"),
    (0x210, "a ninth variable MTRR"),
    (0x251, "no fixed MTRR"),
    (0x280, "MC0_CTL2 without CMCI"),
    (0x29F, "MC31_CTL2 without CMCI"),
    (0x480, "a VMX MSR"),
    (0x4D0, "MCG_EXT_CTL without LMCE"),
    (0x808, "an x2APIC register that the CPU virtualises"),
    (0x80E, "x2APIC DFR, which is no register"),
    (0x82F, "x2APIC LVT CMCI without CMCI"),
    (0x12345, "an MSR that KVM does not emulate for a TD"),
)
KVM_WRITES = (  # MSR, a value that is taken, one that is not, why
    (0x140, 1, 2, "MISC_FEATURES_ENABLES: only CPUID faulting"),
    (0x17A, 7, None, "MCG_STATUS takes all"),
    (0x1A0, 0x1801, 0x801, "MISC_ENABLE: PEBS stays unavailable"),
    (0x1FC, 2, None, "POWER_CTL takes all"),
    (0x200, 0x80000006, 0x80000002, "a base has a memory type"),
    (0x201, 0xFFF80000800, 0xFFF80000801, "a mask has no bits below V"),
    (0x250, 0x0606060606060606, 0x0206060606060606, "a fixed MTRR has eight memory types"),
    (0x277, 0x0007010600070106, 0x0207040600070406, "PAT has eight memory types"),
    (0x2FF, 0xC06, 0x1000, "MTRRdefType has E, FE and a type"),
    (0x400, ALL_ONES, 1, "MC0_CTL is all zeros or all ones"),
    (0x401, 0, 1, "MC0_STATUS can be cleared"),
    (0x402, 5, None, "MC0_ADDR takes all"),
    (0x4B564D05, 0, 2, "KVM_POLL_CONTROL is one bit"),
    (0x80F, 0x11FF, 1 << 32, "x2APIC SVR has 32 bits"),
    (0x828, 0, 1, "x2APIC ESR is cleared"),
    (0x838, 5, 1 << 32, "x2APIC initial count"),
    (0x83E, 0xB, 1 << 32, "x2APIC divide configuration"),
)
KVM_READ_ONLY = (0x802, 0x803, 0x80D, 0x839, 0x1B, 0x3A, 0xCE, 0xFE, 0x10A, 0x179, 0xC0000080)
INVALID_RCX = 0xC000010000000001
INVALID_OPERAND, ALIGN_ERROR, UNSUPPORTED = 0x8000000000000000, 0x8000000000000002, 0x8000000000000003
NO_HYPERCALL = 0xFFFFFFFFFFFFFC18  # -KVM_ENOSYS
INFO, MAP, QUOTE, FATAL, NOTIFY, SERVICE = 0x10000, 0x10001, 0x10002, 0x10003, 0x10004, 0x10005
FREE, SHARED = at.FREE, 1 << 47
NO_FLAGS = {"config_flags": 0}
RAX, R10, R11, R12, R13, R14 = 1 << 0, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14


def _masks() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        given = steps if isinstance(steps, tuple) else (steps,)
        return Row(f"vmcall.{key}", what, MASKS, SOURCE, given, expect, **more)

    for bit, name in (
        (0, "RAX"),
        (1, "RCX"),
        (4, "RSP"),
        (5, "RBP under NO_RBP_MOD"),
        (32, "bit 32"),
        (63, "bit 63"),
    ):
        yield row(
            f"mask{bit}",
            f"The mask must not name {name}: OPERAND_INVALID|RCX",
            vmcall(INFO, 0xFC00 | 1 << bit, r12=0),
            {"rax": INVALID_RCX, "changed": RAX, "r10": 0, "r11": INFO},
        )
    for bit in (0, 1, 4):
        yield row(
            f"mask{bit}_old",
            f"Bit {bit} is forbidden without NO_RBP_MOD too",
            vmcall(INFO, 0xFC00 | 1 << bit, r12=0),
            {"rax": INVALID_RCX},
            td=NO_FLAGS,
        )
    yield row(
        "rbp_old",
        "RBP may be named without NO_RBP_MOD",
        vmcall(INFO, 0xFC20, r12=0),
        {"rax": 0, "r10": 0},
        td=NO_FLAGS,
    )
    yield row(
        "ok",
        "RAX is 0, RCX stays the mask, R10 is the VMM's status",
        vmcall(INFO, r12=0),
        {"rax": 0, "rcx": 0xFC00, "r10": 0},
    )
    yield row("rip", "RIP is behind the instruction", vmcall(INFO, r12=0), {"vector": 3, "at": 5})
    yield row("xmm_mask", "XMM registers may be named", vmcall(INFO, 0xFFFFFC00, r12=0), {"rax": 0, "r10": 0})
    info = vmcall(INFO, r12=0)
    yield row(
        "preserved",
        "Registers that are not named keep their values",
        info,
        {
            "rdx": FILL + 2,
            "rbx": FILL + 3,
            "rbp": FILL + 5,
            "rsi": FILL + 6,
            "rdi": FILL + 7,
            "r8": FILL + 8,
            "r9": FILL + 9,
        },
    )
    xmm = Step(bytes.fromhex("66480f6ec3 660f01cc 66480f7ec3"), {**info.regs, "rbx": 0x1122334455667788})
    yield row(
        "xmm_kept", "XMM registers that are not named keep their values", xmm, {"rbx": 0x1122334455667788}
    )
    yield row(
        "partial",
        "Named registers take the VMM's values, others not",
        vmcall(INFO, 1 << 10 | 1 << 11, r12=5, r13=6),
        {"rax": 0, "r10": 0, "r12": 5, "r13": 6},
    )
    yield row(
        "no_r10", "Without R10 in the mask the status is lost", vmcall(0x1234, 0xF800), {"rax": 0, "r10": 0}
    )
    out = {"r12": 1, "r13": 1, "r14": 0x3F8, "r15": 0x41}
    yield row("visible", "The VMM sees registers that are named", vmcall(0x1E, **out), {}, console="A")
    yield row(
        "hidden",
        "The VMM sees 0 in registers that are not named",
        vmcall(0x1E, 0x7C00, **out),
        {},
        console="\0",
    )
    yield row(
        "hidden_function",
        "A hidden R11 is sub-function 0",
        vmcall(0x1E, 0xF400, **out),
        {"rax": 0, "r10": UNSUPPORTED},
    )
    yield absent(
        "vmcall.host_rax",
        "What the host finds in RAX and RCX",
        MASKS,
        "no register of a host exists here",
        SOURCE,
    )
    yield absent(
        "vmcall.scrub",
        "XMM and extended state toward the host",
        MASKS,
        "the VMM never sees XMM registers",
        SOURCE,
    )


def _functions() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        given = steps if isinstance(steps, tuple) else (steps,)
        source = more.pop("source", SOURCES[key.split(".")[0].rstrip("0123456789")])
        return Row(
            f"ghci.{key}", what, FUNCTIONS, source, given, {"rax": 0} | expect if expect else {}, **more
        )

    bad = {"r10": INVALID_OPERAND}
    yield row(
        "info",
        "GetTdVmCallInfo: all base functions are there",
        vmcall(INFO, r12=0, r13=9, r14=9),
        {"r10": 0, "r11": 0, "r12": 0, "r13": 0, "r14": 0},
    )
    yield row(
        "info.optional",
        "GetTdVmCallInfo 1: SetupEventNotifyInterrupt is there",
        vmcall(INFO, r12=1),
        {"r10": 0, "r11": 2, "r12": 0, "r13": 0, "r14": 0},
    )
    yield row("info.leaf2", "GetTdVmCallInfo 2 does not exist", vmcall(INFO, r12=2), bad)
    yield row(
        "io.out8",
        "IO: a byte to COM1 is printed",
        vmcall(0x1E, r12=1, r13=1, r14=0x3F8, r15=0x42),
        {},
        console="B",
    )
    yield row(
        "io.status",
        "IO: OUT leaves R11 alone or not, R10 is 0",
        vmcall(0x1E, r12=1, r13=1, r14=0x80, r15=1),
        {"r10": 0},
    )
    yield row(
        "io.in",
        "IO: IN gives its value in R11",
        vmcall(0x1E, r12=1, r13=0, r14=0x3FD),
        {"r10": 0, "r11": 0x60},
    )
    for size in (2, 4):
        yield row(
            f"io.size{size}", f"IO: {size} bytes", vmcall(0x1E, r12=size, r13=1, r14=0x80, r15=1), {"r10": 0}
        )
    for size in (0, 3, 8):
        yield row(f"io.size{size}", f"IO: size {size}", vmcall(0x1E, r12=size, r13=1, r14=0x80, r15=1), bad)
    yield row("io.direction", "IO: direction 2", vmcall(0x1E, r12=1, r13=2, r14=0x80), bad)
    yield row(
        "io.port",
        "IO: of the port 16 bits count",
        vmcall(0x1E, r12=1, r13=1, r14=0x103F8, r15=0x43),
        {},
        console="C",
    )
    yield row(
        "rdmsr.apic_base",
        "RDMSR of APIC_BASE: x2APIC, enabled, first vCPU",
        vmcall(0x1F, r12=0x1B),
        {"r10": 0, "r11": 0xFEE00D00},
    )
    yield row("rdmsr.x2apic_id", "RDMSR of the x2APIC id", vmcall(0x1F, r12=0x802), {"r10": 0, "r11": 0})
    yield row(
        "rdmsr.arch_capabilities",
        "RDMSR of ARCH_CAPABILITIES",
        vmcall(0x1F, r12=0x10A),
        {"r10": 0, "r11": 0xF16B},
        status="simplified",
        why="KVM gives the host's own value, here that of the emulated CPU",
    )
    for msr, what, value in KVM_READS:
        yield row(f"rdmsr.{msr:x}", f"RDMSR: {what}", vmcall(0x1F, r12=msr), {"r10": 0, "r11": value})
    for msr, what in KVM_REFUSES:
        refused = vmcall(0x1F, r12=msr), vmcall(0x20, r12=msr, r13=0)
        yield row(
            f"rdmsr.{msr:x}", f"RDMSR and WRMSR: {what} is refused", refused, {"0.r10": INVALID_OPERAND} | bad
        )
    for msr, taken, refused_value, what in KVM_WRITES:
        steps = [vmcall(0x20, r12=msr, r13=taken)]
        expect = {"0.r10": 0}
        if refused_value is not None:
            steps.append(vmcall(0x20, r12=msr, r13=refused_value))
            expect["1.r10"] = INVALID_OPERAND
        steps.append(vmcall(0x1F, r12=msr))
        yield row(f"wrmsr.{msr:x}", f"WRMSR: {what}", tuple(steps), {**expect, "r10": 0, "r11": taken})
    yield row(
        "wrmsr.8b",
        "WRMSR of UCODE_REV is taken and ignored",
        (vmcall(0x20, r12=0x8B, r13=5), vmcall(0x1F, r12=0x8B)),
        {"0.r10": 0, "r10": 0, "r11": 0},
    )
    for key, msr, on, given, kept, what in (
        ("832_off", 0x832, 0, 0x20, 0x10020, "an LVT entry is masked while the APIC is disabled"),
        ("832_on", 0x832, 0x100, 0xFFFFFFFF, 0x710FF, "the timer's LVT entry has mode, mask and vector"),
        ("835_on", 0x835, 0x100, 0xFFFFFFFF, 0x1F7FF, "LINT0 has trigger, polarity and mode, too"),
        ("830_busy", 0x830, 0x100, 1 << 12 | 3 << 18, 3 << 18, "ICR is never busy"),
    ):
        yield row(
            f"wrmsr.{key}",
            f"WRMSR: x2APIC {what}",
            (vmcall(0x20, r12=0x80F, r13=on | 0xFF), vmcall(0x20, r12=msr, r13=given), vmcall(0x1F, r12=msr)),
            {"1.r10": 0, "r10": 0, "r11": kept},
            source=LAPIC,
        )
    yield row(
        "wrmsr.80f_off",
        "WRMSR: disabling the x2APIC masks every LVT entry",
        (
            vmcall(0x20, r12=0x80F, r13=0x1FF),
            vmcall(0x20, r12=0x836, r13=0x400),
            vmcall(0x20, r12=0x80F, r13=0xFF),
            vmcall(0x1F, r12=0x836),
        ),
        {"r10": 0, "r11": 0x10400},
        source=LAPIC,
    )
    yield row(
        "wrmsr.832_deadline",
        "WRMSR: TSC-deadline mode, which has no initial count, clears it",
        (
            vmcall(0x20, r12=0x80F, r13=0x1FF),
            vmcall(0x20, r12=0x838, r13=1 << 30),
            vmcall(0x20, r12=0x832, r13=2 << 17 | 0x10020),
            vmcall(0x20, r12=0x838, r13=7),
            vmcall(0x1F, r12=0x838),
        ),
        {"3.r10": 0, "r10": 0, "r11": 0},
        source=LAPIC,
    )
    yield row(
        "wrmsr.83f",
        "WRMSR: a self-IPI of the VMM's part waits in the IRR",
        (
            vmcall(0x20, r12=0x80F, r13=0x1FF),
            vmcall(0x20, r12=0x83F, r13=0x41),
            code("0f32", rcx=0x822),
            vmcall(0x20, r12=0x83F, r13=0x100),
        ),
        {"1.r10": 0, "2.rax": 2, "r10": INVALID_OPERAND},
        source=LAPIC,
    )
    for msr in KVM_READ_ONLY:
        yield row(f"wrmsr.{msr:x}", f"WRMSR: {msr:X} is read-only", vmcall(0x20, r12=msr, r13=0), bad)
    yield row(
        "cpuid",
        "CPUID of a hypervisor leaf",
        vmcall(0x0A, r12=0x40000000, r13=0),
        {"r10": 0},
        status="simplified",
        why="the answer is this VMM's own",
    )
    yield row("mmio.size", "MMIO: size 3", vmcall(0x30, r12=3, r13=0, r14=SHARED | 0xC0000000), bad)
    yield row("mmio.direction", "MMIO: direction 2", vmcall(0x30, r12=4, r13=2, r14=SHARED | 0xC0000000), bad)
    for size in (1, 2, 4, 8):
        yield row(
            f"mmio.read{size}",
            f"MMIO: read of {size} bytes",
            vmcall(0x30, r12=size, r13=0, r14=SHARED | 0xC0000000),
            {"r10": 0, "r11": 0},
            status="simplified",
            why="only the I/O APIC has registers in memory; elsewhere reads give zero, as in QEMU",
        )
    for key, gpa, what in (
        ("private", 0xFEC00000, "a GPA without the shared bit"),
        ("private_ram", at.BUFFER, "a GPA of private RAM"),
        ("beyond", 1 << 48 | 0xFEC00000, "a GPA beyond the GPA width, without the shared bit"),
        ("border", (1 << 48) - 4, "the last byte lies beyond the shared half"),
    ):
        for write, verb in ((0, "read"), (1, "write")):
            yield row(
                f"mmio.{key}_{verb}",
                f"MMIO: {verb} of {what}",
                vmcall(0x30, r12=8, r13=write, r14=gpa, r15=1),
                bad,
            )
    yield row(
        "mmio.beyond_shared",
        "MMIO: address bits above the shared bit are not looked at; no device is there",
        vmcall(0x30, r12=4, r13=0, r14=1 << 48 | SHARED | 0xFEC00000),
        {"r10": 0, "r11": 0},
        status="simplified",
        why="what an absent device answers is the VMM's choice; zero, as in QEMU",
    )
    ram = SHARED | FREE | 8
    yield row(
        "mmio.ram",
        "MMIO: the VMM finds shared RAM, too",
        (
            vmcall(MAP, r12=FREE | SHARED, r13=0x1000),
            vmcall(0x30, r12=4, r13=1, r14=ram, r15=0x1122334455667788),
            vmcall(0x30, r12=2, r13=0, r14=ram),
            code("488b07", rdi=at.SHARED_WINDOW + FREE + 8),
        ),
        {"1.r10": 0, "2.r11": 0x7788, "rax": 0x55667788},
        source="KVM tdx.c tdx_emulate_mmio, QEMU accel/kvm/kvm-all.c kvm_cpu_exec",
    )
    index = vmcall(0x30, r12=4, r13=1, r14=SHARED | 0xFEC00000, r15=1)
    yield row(
        "mmio.ioapic",
        "MMIO: the I/O APIC is version 11h and has 24 pins",
        (index, vmcall(0x30, r12=4, r13=0, r14=SHARED | 0xFEC00010)),
        {"0.r10": 0, "r10": 0, "r11": 0x170011},
    )
    share = vmcall(MAP, r12=FREE | SHARED, r13=0x1000)
    quote = vmcall(QUOTE, r12=FREE | SHARED, r13=0x1000)
    window = at.SHARED_WINDOW + FREE
    yield row(
        "quote.version",
        "GetQuote: a buffer without a request, version 0, stays as it is",
        (share, quote, code("488b4708", rdi=window)),
        {"1.r10": INVALID_OPERAND, "rax": 0},
    )
    yield row(
        "quote.length",
        "GetQuote: a request longer than its buffer",
        (share, code("48890f 895710", rdi=window, rcx=1, rdx=0x1000 - 23), quote),
        bad,
    )
    yield row(
        "quote.report",
        "GetQuote: no TDREPORT in the request: an error status in the buffer",
        (share, code("48890f 895710", rdi=window, rcx=1, rdx=8), quote, code("488b4708", rdi=window)),
        {"2.r10": 0, "rax": 0x8000000000000000},
        status="simplified",
        why="the VMM answers at once, where QEMU first writes the status of a request in flight",
    )
    yield row(
        "quote.not_shared",
        "GetQuote: the GPA has the shared bit, the page is private",
        quote,
        bad,
    )
    yield row("quote.private", "GetQuote: a private buffer", vmcall(QUOTE, r12=FREE, r13=0x1000), bad)
    yield row(
        "quote.align",
        "GetQuote: not a whole page",
        (share, vmcall(QUOTE, r12=FREE | SHARED | 8, r13=0x1000)),
        {"r10": ALIGN_ERROR},
    )
    yield row(
        "quote.half",
        "GetQuote: half a page",
        (share, vmcall(QUOTE, r12=FREE | SHARED, r13=0x800)),
        {"r10": ALIGN_ERROR},
    )
    yield row("quote.size", "GetQuote: size 0", (share, vmcall(QUOTE, r12=FREE | SHARED, r13=0)), bad)
    wide = vmcall(MAP, r12=FREE | SHARED, r13=0x40000)
    request = code("48c70701000000 48c7470800000000 c7471000040000", rdi=window)  # version 1, 1 KiB of report
    for key, what, size, answer in (
        ("most", "128 KiB, which is the most", 0x20000, 0),
        ("large", "a page more than 128 KiB", 0x21000, INVALID_OPERAND),
    ):
        yield row(
            f"quote.{key}",
            f"GetQuote: a buffer of {what}",
            (wide, request, vmcall(QUOTE, r12=FREE | SHARED, r13=size)),
            {"r10": answer},
        )
    for vector in (32, 255):
        yield row(
            f"notify{vector}",
            f"SetupEventNotifyInterrupt: vector {vector}",
            vmcall(NOTIFY, r12=vector),
            {"r10": 0},
        )
    for vector in (0, 31, 256):
        yield row(
            f"notify{vector}", f"SetupEventNotifyInterrupt: vector {vector}", vmcall(NOTIFY, r12=vector), bad
        )
    text = {"r14": 0x64656C6961662074, "r15": 0x2E} | {
        name: 0 for name in ("rbx", "rdi", "rsi", "r8", "r9", "rdx")
    }
    yield row(
        "fatal",
        "ReportFatalError: the text in R14, R15, RBX, RDI, RSI, R8, R9, RDX",
        vmcall(FATAL, 0xFFCC, r12=0, **text),
        {},
        end="fatal",
        detail="t failed.",
    )
    order = {
        name: int.from_bytes(bytes([65 + n]) * 8, "little")
        for n, name in enumerate(("r14", "r15", "rbx", "rdi", "rsi", "r8", "r9", "rdx"))
    }
    yield row(
        "fatal.order",
        "ReportFatalError: order of the text",
        vmcall(FATAL, 0xFFCC, r12=0, **order),
        {},
        end="fatal",
        detail="AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDDEEEEEEEEFFFFFFFFGGGGGGGGHHHHHHHH",
    )
    yield row(
        "fatal.hidden",
        "ReportFatalError: registers not named are no text",
        vmcall(FATAL, 0x7C00, r12=0, **order),
        {},
        end="fatal",
        detail="AAAAAAAA",
    )
    yield row(
        "fatal.gap",
        "ReportFatalError: registers not named leave no gap",
        vmcall(FATAL, 0x7D0C, r12=0, **order),
        {},
        end="fatal",
        detail="AAAAAAAACCCCCCCCFFFFFFFFHHHHHHHH",
    )
    yield row(
        "hlt",
        "HLT with interrupts off and nothing to wake it ends the run",
        (vmcall(0x0C, r12=1), vmcall(0x1E, r12=1, r13=1, r14=0x3F8, r15=0x58)),
        {},
        console="",
    )
    unsupported = {"r10": UNSUPPORTED}
    yield row("unknown", "A sub-function that does not exist", vmcall(0x4242), unsupported)
    yield row("unknown.high", "All 64 bits of R11 count", vmcall(1 << 32 | 0x0C), unsupported)
    yield row("service", "Service", vmcall(SERVICE, r12=FREE, r13=FREE, r14=0, r15=0), unsupported)
    yield row("pconfig", "PCONFIG", vmcall(0x41), unsupported)
    yield row(
        "vendor",
        "R10 not 0 is the number of a hypercall of KVM's: -KVM_ENOSYS",
        tdcall(0, rcx=0xFC00, r10=5, r11=0),
        {"r10": NO_HYPERCALL},
        status="simplified",
        why="KVM has hypercalls that depend on the features it offers; this VMM has none",
    )
    yield absent("ghci.migtd", "MigTD requests", FUNCTIONS, "no migration", GHCI)
    yield absent("ghci.quote_real", "A quote", FUNCTIONS, "an emulated TD can prove nothing", GHCI)


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _masks()
    yield from _functions()
