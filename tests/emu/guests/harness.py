"""What surrounds the few instructions a row is about? The common part of every conformance guest."""

from __future__ import annotations

import functools

from peachpy.x86_64 import (
    ADD,
    AND,
    BTS,
    CALL,
    CMP,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    OR,
    PUSH,
    RET,
    ROL,
    SUB,
    TEST,
    XOR,
    Label,
    byte,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    r8,
    r9,
    r10,
    r11,
    r12,
    r13,
    r14,
    r15,
    rax,
    rbp,
    rbx,
    rcx,
    rdi,
    rdx,
    rsi,
)

from gen.x86 import (
    DB,
    DD,
    DQ,
    DW,
    IRETQ,
    LGDT,
    LIDT,
    LJMP,
    MOVCR,
    RDMSR,
    REP_MOVSQ,
    TDCALL,
    Symbol,
    Unit,
    cr0,
    cr3,
    cr4,
    esp,
    rsp,
)

from . import layout as at
from .link import link

GPR64 = (rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15)
GPR32 = (eax, ecx, edx, ebx, esp, ebp, esi, edi)
# MOV EAX, register: the two bytes after 0F
REGISTER_READS = (
    ("cr0", 0x20C0),
    ("cr2", 0x20D0),
    ("cr3", 0x20D8),
    ("cr4", 0x20E0),
    ("dr0", 0x21C0),
    ("dr1", 0x21C8),
    ("dr2", 0x21D0),
    ("dr3", 0x21D8),
    ("dr6", 0x21F0),
    ("dr7", 0x21F8),
)
WITH_ERROR = (8, 10, 11, 12, 13, 14, 17, 21)
EFER, VEINFO_GET, HLT, IO = 0xC0000080, 3, 0x0C, 0x1E
MASK_R10_R15 = 0xFC00
FRAME_QUADS = 16 + len(at.FRAME)
PRESENT, WRITE, USER, LARGE = 1, 2, 4, 0x80


def _entry32(unit: Unit) -> None:
    """Keeps what the reset vector found and enters 64-bit mode."""
    entry = Symbol("entry_block")
    system = {name: 8 * (16 + index) for index, name in enumerate(at.SYSTEM)}
    with unit.code("start", bits=32):  # by VCPU_INDEX, without touching a flag
        DB(b"\xff\x24\xb5" + at.BY_INDEX.to_bytes(4, "little"), "jmp [by_index + 4 * esi]")
    with unit.data("by_index"):
        DD(Symbol("boot"))
        for _ in range(at.MAX_VCPUS - 1):
            DD(Symbol("other"))
    with unit.code("other", bits=32):  # keeps what it got and stays
        for index, register in enumerate(GPR32):
            MOV([Symbol("other_block") + 8 * index], register)
        for offset, number in ((0, 0xC0), (8, 0xE0)):
            DB(bytes((0x0F, 0x20, number)), "mov eax, cr0 or cr4")
            MOV([Symbol("other_block") + (64 + offset)], eax)
        MOV(eax, 1)
        MOV([Symbol("other_block") + (at.OTHER_ARRIVED - at.OTHER)], eax)
        DB(b"\xf3\x90\xeb\xfc", "pause; jmp -2")
    with unit.code("boot", bits=32):
        for index, register in enumerate(GPR32):
            MOV([entry + 8 * index], register)
        MOV(esp, at.STACK)
        DB(b"\x9c", "pushfd")
        DB(b"\x58", "pop eax")
        MOV([entry + system["rflags"]], eax)
        for name, code in REGISTER_READS:
            DB(b"\x0f" + code.to_bytes(2, "big"), f"mov eax, {name}")
            MOV([entry + system[name]], eax)
        for name, field in (
            ("cs", 0xC8),
            ("ds", 0xD8),
            ("es", 0xC0),
            ("fs", 0xE0),
            ("gs", 0xE8),
            ("ss", 0xD0),
        ):
            XOR(eax, eax)
            DB(bytes((0x8C, field)), f"mov eax, {name}")
            MOV([entry + system[name]], eax)
        for name, field in (("ldtr", 0xC0), ("tr", 0xC8)):
            XOR(eax, eax)
            DB(bytes((0x0F, 0x00, field)), f"read {name}")
            MOV([entry + system[name]], eax)
        for name, field in (
            ("gdt", 0x05),
            ("idt", 0x0D),
        ):  # limit in the upper half of a quadword, base behind it
            DB(b"\x0f\x01" + bytes((field,)) + (at.ENTRY + system[f"{name}_limit"] + 6).to_bytes(4, "little"))
            DB(b"\xa1" + (at.ENTRY + system[f"{name}_limit"] + 6).to_bytes(4, "little"), "mov eax, [limit]")
            DB(b"\x25\xff\xff\0\0", "and eax, 0xffff")
            MOV([entry + system[f"{name}_limit"]], eax)
            XOR(eax, eax)
            MOV([entry + system[f"{name}_limit"] + 4], eax)
        MOV(ecx, EFER)
        RDMSR()
        MOV([entry + system["efer"]], eax)
        MOV([entry + system["efer"] + 4], edx)
        LGDT([Symbol("gdtr")])
        MOV(eax, 0x23)
        MOVCR(cr0, eax)
        LJMP(at.CS32, Symbol("flat"))
    with unit.code("flat", bits=32):
        MOV(ecx, [entry + 8 * at.GPRS.index("rbx")])  # GPAW: the shared bit is the highest of it
        SUB(ecx, 33)
        MOV(eax, 1)
        DB(b"\xd3\xe0", "shl eax, cl")
        for gigabyte in range(4):
            MOV([Symbol("pdpt_shared") + (8 * gigabyte + 4)], eax)
        MOV(eax, 0x40660)  # OSXSAVE, OSXMMEXCPT, OSFXSR, MCE, PAE
        MOVCR(cr4, eax)
        MOV(eax, at.PML4)
        MOVCR(cr3, eax)
        MOV(eax, 0x80010023)
        MOVCR(cr0, eax)
        LJMP(at.CS64, Symbol("long"))


def _long(unit: Unit) -> None:
    with unit.code("long"):
        MOV(ebx, at.ENTRY)
        for index in range(8, 16):
            MOV([rbx + 8 * index], GPR64[index])
        MOV(eax, at.DATA)
        for field in (0xD8, 0xC0, 0xD0, 0xE0, 0xE8):
            DB(bytes((0x8E, field)), "load a data segment")
        MOV(esp, at.STACK)
        LIDT([Symbol("idtr")])
        MOV(eax, at.STACK)
        MOV([rbx + 0xE04], rax)  # RSP0 of the TSS
        MOV(eax, at.EXCEPTION_STACK)
        MOV([rbx + 0xE24], rax)  # IST1
        MOV(eax, at.TSS)
        DB(b"\x0f\x00\xd8", "ltr ax")
        MOV(eax, at.SCRIPT)
        MOV([rbx + 0xFF8], rax)
        MOV(eax, at.RECORDS)
        MOV([rbx + 0xFF0], rax)
        JMP(Symbol("next_step"))
    with unit.code("next_step"):
        # RSP becomes the step: sixteen registers, then the frame that IRETQ wants.
        MOV(ebx, at.ENTRY)
        MOV(rsp, [rbx + 0xFF8])
        MOV(rax, [rsp + 128])
        TEST(rax, rax)
        JZ(Symbol("report"))
        for index, register in enumerate(GPR64):
            if register is not rsp:
                MOV(register, [rsp + 8 * index])
        LEA(rsp, [rsp + 128])
        IRETQ()


def _handler(unit: Unit) -> None:
    with unit.code("vectors", align=16):
        for vector in range(32):
            start = Label(f"vector{vector}")
            LABEL(start)
            if vector not in WITH_ERROR:
                DB(b"\x6a\x00", "push 0")
            DB(bytes((0x6A, vector)), "push vector")
            JMP(Symbol("exception"))
            DB(b"\x90" * (16 - 7 - (2 if vector not in WITH_ERROR else 0)))
    with unit.code("exception"):
        for register in reversed(GPR64):
            PUSH(register)
        MOV(ebx, at.ENTRY)
        MOV(rdi, [rbx + 0xFF0])
        MOV(rsi, rsp)
        MOV(ecx, FRAME_QUADS)
        REP_MOVSQ()
        MOV(r15, [rbx + 0xFF0])  # the record
        MOV(r14, [rbx + 0xFF8])  # the step
        MOV(eax, 20)
        CMP(rax, [r15 + 8 * at.RECORD.index("vector")])
        plain = Label("plain")
        JNE(plain)
        MOV(rax, [r14 + 168])
        TEST(eax, at.NO_VEINFO)
        JNE(plain)
        MOV(eax, VEINFO_GET)
        TDCALL()
        for name, register in zip(at.VEINFO, (rax, rcx, rdx, r8, r9, r10), strict=True):
            MOV([r15 + 8 * at.RECORD.index(name)], register)
        LABEL(plain)
        DB(b"\x0f\x20\xd0", "mov rax, cr2")
        MOV([r15 + 8 * at.RECORD.index("cr2")], rax)
        MOV(rax, [r15 + 8 * at.RECORD.index("rip")])
        SUB(rax, [r14 + 128])
        MOV([r15 + 8 * at.RECORD.index("at")], rax)
        XOR(edx, edx)
        for index in range(16):
            if index == 4:
                continue
            same = Label(f"same{index}")
            MOV(rax, [r15 + 8 * index])
            CMP(rax, [r14 + 8 * index])
            JE(same)
            BTS(edx, index)
            LABEL(same)
        MOV([r15 + 8 * at.RECORD.index("changed")], rdx)
        ADD(r15, at.RECORD_SIZE)
        MOV([rbx + 0xFF0], r15)
        ADD(r14, at.STEP_SIZE)
        MOV([rbx + 0xFF8], r14)
        JMP(Symbol("next_step"))


def _print(unit: Unit) -> None:
    """Prints the quadwords of the list, a hexadecimal line each, and halts."""
    with unit.code("report"):
        MOV(esp, at.STACK)
        MOV(eax, at.PRINT)
        MOV(rbp, rax)
        item, digit, shown, skipped, finished = (
            Label(n) for n in ("item", "digit", "shown", "skipped", "finished")
        )
        LABEL(item)
        MOV(rax, [rbp])
        TEST(rax, rax)
        JZ(finished)
        MOV(rbx, [rax])
        MOV(esi, 16)
        XOR(edi, edi)
        LABEL(digit)
        ROL(rbx, 4)
        MOV(eax, ebx)
        AND(eax, 15)
        OR(edi, eax)  # zeros before the first other digit are left out, but not the last one
        JNZ(shown)
        CMP(esi, 1)
        JNE(skipped)
        LABEL(shown)
        LEA(r8, [Symbol("digits")])
        MOVZX(eax, byte[r8 + rax * 1])
        CALL(Symbol("put"))
        LABEL(skipped)
        SUB(esi, 1)
        JNZ(digit)
        MOV(eax, 10)
        CALL(Symbol("put"))
        ADD(rbp, 8)
        JMP(item)
        LABEL(finished)
        MOV(r12, 1)
        MOV(r11, HLT)
        JMP(Symbol("vmcall"))
    with unit.code("put"):  # one character in EAX to COM1
        MOV(r15, rax)
        MOV(r11, IO)
        MOV(r12, 1)
        MOV(r13, 1)
        MOV(r14, 0x3F8)
        JMP(Symbol("vmcall"))
    with unit.code("vmcall"):
        XOR(eax, eax)
        MOV(ecx, MASK_R10_R15)
        XOR(r10, r10)
        TDCALL()
        RET()


def _tables(unit: Unit, vectors: int) -> None:
    with unit.data("digits"):
        DB(b"0123456789abcdef")
    with unit.data("gdt"):
        for descriptor in (0, 0x00CF9B000000FFFF, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00AFFB000000FFFF,
                           0x00CFF3000000FFFF):  # fmt: skip
            DQ(descriptor)
        base = at.ENTRY + 0xE00  # the TSS lies in zeroed memory; its two pointers are written by `long`
        DQ(0x67 | (base & 0xFFFFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56)
        DQ(base >> 32)
    with unit.data("gdtr"):
        DW(8 * 8 - 1)
        DQ(Symbol("gdt"))
    with unit.data("idt", align=16):
        for vector in range(32):
            handler = vectors + 16 * vector
            rights = 0xEE if vector == at.DONE else 0x8E
            DW(handler & 0xFFFF)
            DW(at.CS64)
            DB(bytes((1, rights)))
            DW(handler >> 16 & 0xFFFF)
            DD(handler >> 32)
            DD(0)
    with unit.data("idtr"):
        DW(32 * 16 - 1)
        DQ(Symbol("idt"))


def _quads(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def _paging() -> dict[int, bytes]:
    """Identity map of 512 GiB; above it the shared alias of 4 GiB (its bit is added at run time), then the
    same 512 GiB for user code.
    """
    flags = PRESENT | WRITE | USER
    gigabytes = [(n << 30) | flags | LARGE for n in range(512)]
    return {
        at.PML4: _quads(at.PDPT | PRESENT | WRITE, at.PDPT_SHARED | flags, at.PDPT | flags),
        at.PDPT: _quads(*gigabytes),
        at.PDPT_SHARED: _quads(*gigabytes[:4]),
    }


@functools.cache
def image() -> bytes:
    """The 64 KiB image without steps, code and list."""
    unit = Unit("conformance")
    with unit.code("reset", bits=32):
        JMP(Symbol("start"))
    _entry32(unit)
    _long(unit)
    _handler(unit)
    _print(unit)
    _tables(unit, at.VECTORS)
    fixed = {"reset": at.BASE + at.SIZE - 16, "vectors": at.VECTORS, "by_index": at.BY_INDEX}
    outside = {"entry_block": at.ENTRY, "other_block": at.OTHER, "pdpt_shared": at.PDPT_SHARED}
    made = bytearray(link(unit.blocks, at.BASE, at.TOOLS_END, fixed, outside, at.SIZE))
    for address, content in _paging().items():
        made[address - at.BASE : address - at.BASE + len(content)] = content
    return bytes(made)
