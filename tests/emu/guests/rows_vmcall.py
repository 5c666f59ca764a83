"""What does TDG.VP.VMCALL let through, and what does the VMM answer?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .rows import FILL, Row, Step, absent, code, tdcall, vmcall

MASKS, FUNCTIONS = "4.1 TDG.VP.VMCALL registers", "4.2 GHCI sub-functions"
SOURCE, GHCI = "tdg_vp_vmcall.c", "GHCI"
INVALID_RCX = 0xC000010000000001
INVALID_OPERAND, ALIGN_ERROR = 0x8000000000000000, 0x8000000000000002
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
        {"rax": 0, "r10": INVALID_OPERAND},
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
        return Row(f"ghci.{key}", what, FUNCTIONS, GHCI, given, {"rax": 0} | expect if expect else {}, **more)

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
    yield row("io.port", "IO: a port beyond FFFF", vmcall(0x1E, r12=1, r13=1, r14=0x10000), bad)
    yield row(
        "rdmsr.apic_base",
        "RDMSR of APIC_BASE: x2APIC, enabled, first vCPU",
        vmcall(0x1F, r12=0x1B),
        {"r10": 0, "r11": 0xFEE00D00},
    )
    yield row("rdmsr.x2apic_id", "RDMSR of the x2APIC id", vmcall(0x1F, r12=0x802), {"r10": 0, "r11": 0})
    yield row(
        "rdmsr.unknown", "RDMSR of an MSR that KVM does not emulate for a TD", vmcall(0x1F, r12=0x12345), bad
    )
    yield row(
        "wrmsr",
        "WRMSR, and RDMSR reads it back",
        (vmcall(0x20, r12=0x2FF, r13=0xC06), vmcall(0x1F, r12=0x2FF)),
        {"0.r10": 0, "r10": 0, "r11": 0xC06},
    )
    yield row(
        "wrmsr.unknown",
        "WRMSR of an MSR that KVM does not emulate for a TD",
        vmcall(0x20, r12=0x12345, r13=0),
        bad,
    )
    yield row("wrmsr.apic_base", "WRMSR of APIC_BASE is refused", vmcall(0x20, r12=0x1B, r13=0), bad)
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
    index = vmcall(0x30, r12=4, r13=1, r14=SHARED | 0xFEC00000, r15=1)
    yield row(
        "mmio.ioapic",
        "MMIO: the I/O APIC is version 11h and has 24 pins",
        (index, vmcall(0x30, r12=4, r13=0, r14=SHARED | 0xFEC00010)),
        {"0.r10": 0, "r10": 0, "r11": 0x170011},
    )
    share = vmcall(MAP, r12=FREE | SHARED, r13=0x1000)
    quote = vmcall(QUOTE, r12=FREE | SHARED, r13=0x1000)
    yield row(
        "quote",
        "GetQuote: a buffer without a request gets an error status",
        (share, quote, code("488b4708", rdi=at.SHARED_WINDOW + FREE)),
        {"1.r10": 0, "rax": 0x8000000000000000},
    )
    yield row("quote.private", "GetQuote: a private buffer", vmcall(QUOTE, r12=FREE, r13=0x1000), bad)
    yield row(
        "quote.align",
        "GetQuote: not a whole page",
        (share, vmcall(QUOTE, r12=FREE | SHARED | 8, r13=0x1000)),
        bad,
    )
    yield row("quote.size", "GetQuote: size 0", (share, vmcall(QUOTE, r12=FREE | SHARED, r13=0)), bad)
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
        "hlt",
        "HLT with interrupts off and nothing to wake it ends the run",
        (vmcall(0x0C, r12=1), vmcall(0x1E, r12=1, r13=1, r14=0x3F8, r15=0x58)),
        {},
        console="",
    )
    yield row("unknown", "A sub-function that does not exist", vmcall(0x4242), bad)
    yield row(
        "vendor",
        "R10 not 0 is the VMM's own",
        tdcall(0, rcx=0xFC00, r10=5, r11=0),
        bad,
        status="simplified",
        why="this VMM has no calls of its own",
    )
    yield row(
        "service",
        "Service",
        vmcall(SERVICE, r12=FREE, r13=FREE, r14=0, r15=0),
        bad,
        status="simplified",
        why="no service exists; the VMM refuses as one without it does",
    )
    yield row("pconfig", "PCONFIG", vmcall(0x41), bad)
    yield absent("ghci.migtd", "MigTD requests", FUNCTIONS, "no migration", GHCI)
    yield absent("ghci.quote_real", "A quote", FUNCTIONS, "an emulated TD can prove nothing", GHCI)


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _masks()
    yield from _functions()
