"""How do emitters write machine code? PeachPy's instructions, those it lacks, symbols, data and listings.

PeachPy's own instructions, registers and labels come from `peachpy.x86_64`, everything it lacks from here:

    from peachpy.x86_64 import CALL, JNZ, LABEL, LEA, MOV, RET, TEST, Label, eax, rax, rdi
    from gen.x86 import DQ, Symbol, TDCALL, Unit, listing, source

    unit = Unit("demo")                                  # one object file
    with unit.code("demo_entry"):                        # .text, 64-bit, aligned to 16, exported
        LEA(rdi, [Symbol("message")])                    # RIP-relative, resolved by the linker
        CALL(Symbol("c_function"))                       # any external function
        TEST(eax, eax)
        failed = Label("failed")
        JNZ(failed)                                      # labels are local to the block
        with source("dsl/flows/linux.tdf", 12, 5):       # attributed to that line of the flow
            CALL(Symbol("flow_step"))
        LABEL(failed)
        RET()
    with unit.data("message", section=".rodata", align=8):
        DB(b"hello\\0")
        DQ(Symbol("demo_entry"))                         # absolute address
    text = listing(unit).text                            # the .s file: read by people and by clang

`unit.code(..., bits=32)` and `bits=16` check that an instruction means the same there: 32-bit code writes
addresses with the 64-bit names ([rdi + 4] is encoded and listed as [edi + 4]) and a symbol operand is then
its absolute address. Jumps to another function take a Symbol: JMP(Symbol("f")), JNZ(Symbol("f")).
Only physical registers are meant to be used: nothing allocates or saves registers behind the emitter's back.
"""

from peachpy.x86_64.registers import esp, rsp, sp  # peachpy.x86_64 itself leaves the stack pointer out

from gen.x86.code import AssemblyError, Code, Source, Unit, source
from gen.x86.data import BALIGN, DB, DD, DQ, DW, RESERVE
from gen.x86.listing import Listing, instruction_text, listing
from gen.x86.operand import ControlRegister, SegmentRegister, Symbol, cr0, cr2, cr3, cr4, ds, es, fs, gs, ss
from gen.x86.system import (
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
    SystemInstruction,
)

__all__ = [
    "BALIGN",
    "CLI",
    "CPUID",
    "DB",
    "DD",
    "DQ",
    "DW",
    "ENDBR64",
    "HLT",
    "IN",
    "INVLPG",
    "IRETQ",
    "JMP16",
    "JMP_FAR",
    "LGDT",
    "LGDT_CS",
    "LIDT",
    "LJMP",
    "LJMP32",
    "LOCK_CMPXCHG",
    "LOCK_XADD",
    "LODSB_CS",
    "LTR",
    "MOVCR",
    "MOVOFFSET",
    "MOVSEG",
    "OUT",
    "POPFQ",
    "PUSHFQ",
    "RDMSR",
    "REP_INSB",
    "REP_MOVSB",
    "REP_MOVSQ",
    "REP_STOSB",
    "REP_STOSD",
    "REP_STOSQ",
    "RESERVE",
    "RETFQ",
    "STI",
    "TDCALL",
    "WRMSR",
    "XSETBV",
    "AssemblyError",
    "Code",
    "ControlRegister",
    "Listing",
    "SegmentRegister",
    "Source",
    "Symbol",
    "SystemInstruction",
    "Unit",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "ds",
    "es",
    "esp",
    "fs",
    "gs",
    "instruction_text",
    "listing",
    "rsp",
    "source",
    "sp",
    "ss",
]
