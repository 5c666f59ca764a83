"""Does an independent decoder read every added instruction as what its class says, in each mode it claims?"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from peachpy.x86_64 import al, ax, cl, cx, dx, eax, ecx, r9, r10, r13, rax, rbx, rcx, rdi, rdx, rsi, si
from peachpy.x86_64.registers import GeneralPurposeRegister64 as R64

import gen.x86.system as system
from gen.x86 import (
    CLI,
    CPUID,
    ENDBR64,
    HLT,
    IN,
    INVLPG,
    IRETQ,
    JMP16,
    JMP_FAR,
    LGDT,
    LGDT_CS,
    LIDT,
    LJMP,
    LJMP32,
    LOCK_CMPXCHG,
    LOCK_XADD,
    LODSB_CS,
    LTR,
    MOVCR,
    MOVOFFSET,
    MOVSEG,
    OUT,
    POPFQ,
    PUSHFQ,
    RDMSR,
    REP_INSB,
    REP_MOVSB,
    REP_MOVSQ,
    REP_STOSB,
    REP_STOSD,
    REP_STOSQ,
    RETFQ,
    STI,
    TDCALL,
    WRMSR,
    XSETBV,
    AssemblyError,
    Symbol,
    SystemInstruction,
    Unit,
    cr0,
    cr2,
    cr3,
    cr4,
    ds,
    es,
    fs,
    gs,
    rsp,
    ss,
)

FORMS: list[tuple[Callable[[], SystemInstruction], str]] = [
    (RDMSR, "rdmsr"),
    (WRMSR, "wrmsr"),
    (XSETBV, "xsetbv"),
    (HLT, "hlt"),
    (CLI, "cli"),
    (CPUID, "cpuid"),
    (STI, "sti"),
    (PUSHFQ, "pushfq"),
    (POPFQ, "popfq"),
    (IRETQ, "iretq"),
    (RETFQ, "retfq"),
    (ENDBR64, "endbr64"),
    (LODSB_CS, "cs lodsb"),
    (REP_INSB, "rep insb"),
    (REP_MOVSB, "rep movsb"),
    (REP_MOVSQ, "rep movsq"),
    (REP_STOSB, "rep stosb"),
    (REP_STOSD, "rep stosd"),
    (REP_STOSQ, "rep stosq"),
    (TDCALL, "tdcall"),
    (lambda: MOVCR(cr0, rax), "mov cr0, rax"),
    (lambda: MOVCR(cr4, r13), "mov cr4, r13"),
    (lambda: MOVCR(rcx, cr2), "mov rcx, cr2"),
    (lambda: MOVCR(r9, cr3), "mov r9, cr3"),
    (lambda: MOVCR(cr3, eax), "mov cr3, eax"),
    (lambda: MOVCR(ecx, cr0), "mov ecx, cr0"),
    (lambda: MOVSEG(ds, eax), "mov ds, eax"),
    (lambda: MOVSEG(es, ecx), "mov es, ecx"),
    (lambda: MOVSEG(fs, eax), "mov fs, eax"),
    (lambda: MOVSEG(gs, eax), "mov gs, eax"),
    (lambda: MOVSEG(ss, eax), "mov ss, eax"),
    (lambda: LTR(ax), "ltr ax"),
    (lambda: LTR(cx), "ltr cx"),
    (lambda: LGDT([rax + 8]), "lgdt [rax + 8]"),
    (lambda: LIDT([rsp]), "lidt [rsp]"),
    (lambda: LIDT([Symbol("table")]), "lidt [rip + table]"),
    (lambda: INVLPG([rdi]), "invlpg [rdi]"),
    (lambda: INVLPG([r13]), "invlpg [r13]"),
    (lambda: OUT(dx, al), "out dx, al"),
    (lambda: OUT(dx, ax), "out dx, ax"),
    (lambda: OUT(dx, eax), "out dx, eax"),
    (lambda: OUT(0x80, al), "out 0x80, al"),
    (lambda: IN(al, dx), "in al, dx"),
    (lambda: IN(ax, dx), "in ax, dx"),
    (lambda: IN(eax, 0x60), "in eax, 0x60"),
    (lambda: LJMP(0x10, Symbol("entry")), "jmp 0x10:entry"),
    (lambda: JMP_FAR([rbx + 40]), "jmp far [rbx + 0x28]"),
    (lambda: JMP_FAR([r13]), "jmp far [r13]"),
    (lambda: LOCK_CMPXCHG([rdx], rcx), "lock cmpxchg [rdx], rcx"),
    (lambda: LOCK_CMPXCHG([r9 + 8], r10), "lock cmpxchg [r9 + 8], r10"),
    (lambda: LOCK_XADD([rdx], rcx), "lock xadd [rdx], rcx"),
    (lambda: LOCK_XADD([r9 + 8], r10), "lock xadd [r9 + 8], r10"),
    (lambda: LJMP32(0x08, Symbol("entry")), "jmp 0x8:entry"),
    (lambda: LGDT_CS(Symbol("pointer") - 0xFFFF0000), "o32 lgdt pointer - 0xffff0000"),
    (lambda: JMP16(Symbol("far") - 0xFFFEFFFF), "jmp far - 0xfffeffff"),
    (lambda: MOVOFFSET(si, Symbol("text")), "mov si, text"),
    (lambda: MOVOFFSET(ecx, Symbol("text")), "mov ecx, text"),
]


@pytest.mark.parametrize(("form", "text"), FORMS, ids=[text for _, text in FORMS])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_decodes_in_every_mode_it_claims(
    form: Callable[[], SystemInstruction], text: str, bits: int, check_unit: Callable[[Unit], int]
) -> None:
    from gen.x86 import instruction_text

    unit = Unit("one")
    with unit.code("f", bits=bits) as block:
        try:
            instruction = form()
        except AssemblyError:
            pytest.fail("construction never fails for a mode, only encoding does")
    high = any(reg.physical_id > 7 for reg in instruction.register_objects)
    if bits in instruction.modes and not (high and bits != 64):
        if bits == 64:
            assert instruction_text(instruction, bits) == text
        assert check_unit(unit) == 1
    else:
        with pytest.raises(AssemblyError, match=f"{bits}-bit code"):
            block.encoded()


def test_every_class_is_covered() -> None:
    tested = {type(form()) for form, _ in FORMS}
    classes = {
        value
        for name, value in inspect.getmembers(system, inspect.isclass)
        if issubclass(value, SystemInstruction)
        and not name.startswith("_")
        and value is not SystemInstruction
    }
    assert classes == tested


@pytest.mark.parametrize(
    ("instruction", "reads", "writes"),
    [
        (RDMSR, {"ecx"}, {"eax", "edx"}),
        (REP_STOSQ, {"rax", "rcx", "rdi"}, {"rcx", "rdi"}),
        (REP_MOVSB, {"rcx", "rsi", "rdi"}, {"rcx", "rsi", "rdi"}),
        (lambda: OUT(dx, al), {"dx", "al"}, set()),
        (lambda: IN(eax, dx), {"dx"}, {"eax"}),
        (lambda: MOVCR(cr3, rbx), {"rbx"}, set()),
        (lambda: MOVCR(rbx, cr3), set(), {"rbx"}),
        (lambda: MOVSEG(ds, ecx), {"ecx"}, set()),
        (lambda: LTR(cx), {"cx"}, set()),
        (lambda: LGDT([rsi + rdx * 2]), {"rsi", "rdx"}, set()),
        (lambda: JMP_FAR([rbx]), {"rbx"}, set()),
        (lambda: LOCK_CMPXCHG([rdx], rcx), {"rax", "rcx", "rdx"}, {"rax"}),
        (lambda: LOCK_XADD([rdx], rcx), {"rcx", "rdx"}, {"rcx"}),
        (lambda: TDCALL(reads=(rax, rcx), writes=(rax,)), {"rax", "rcx"}, {"rax"}),
    ],
)
def test_declares_registers(
    instruction: Callable[[], SystemInstruction], reads: set[str], writes: set[str]
) -> None:
    made = instruction()
    assert {str(r) for r in made.input_registers} == reads
    assert {str(r) for r in made.output_registers} == writes


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OUT(cl, al),
        lambda: IN(cl, dx),
        lambda: OUT(256, al),
        lambda: MOVCR(rax, rbx),
        lambda: MOVCR(cr0, al),
        lambda: MOVSEG(ds, rax),
        lambda: LTR(rax),
        lambda: LGDT(rax),
        lambda: JMP_FAR(rax),
        lambda: LOCK_CMPXCHG(rax, rcx),
        lambda: LOCK_CMPXCHG([rdx], ecx),
        lambda: LOCK_XADD(rax, rcx),
        lambda: LOCK_XADD([rdx], ecx),
        lambda: MOVOFFSET(rax, Symbol("s")),
    ],
)
def test_rejects_operands(wrong: Callable[[], object]) -> None:
    with pytest.raises(SyntaxError, match="Invalid operands"):
        wrong()


def test_registers_are_physical() -> None:
    assert R64(0) == rax
