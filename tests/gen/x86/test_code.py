"""Do labels, relocations, data, listings and line tables survive the real assembler and linker?"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from elftools.elf.elffile import ELFFile
from machinecode import Link, decode
from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    DEC,
    INC,
    JMP,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    MOVZX,
    NOP,
    POP,
    PUSH,
    RET,
    SHL,
    TEST,
    XOR,
    Label,
    al,
    ax,
    byte,
    cx,
    dword,
    eax,
    ebx,
    ecx,
    edi,
    r8,
    r12,
    r13,
    rax,
    rbp,
    rcx,
    rdi,
    word,
)

from gen.x86 import BALIGN, DB, DD, DQ, DW, RESERVE, AssemblyError, Symbol, Unit, listing, rsp, source


def test_peachpy_instructions_in_64_bit_mode(check_unit: Callable[[Unit], int]) -> None:
    unit = Unit("u")
    with unit.code("f"):
        MOV(rax, 0x123456789ABCDEF0)
        MOV(eax, 5)
        MOV([rbp], rax)
        MOV([r13 + 8], r8)
        MOV(rcx, [rsp + rax * 8 - 0x40])
        MOV(byte[r12], 0x7F)
        MOV(word[rdi], 0)
        AND(dword[rdi + rcx * 4 + 0x1000], 0xFF)
        LEA(rax, [Symbol("f") + 5])
        CMP(dword[Symbol("f") - 4], 0x12345678)
        MOVZX(eax, byte[rdi])
        PUSH(r12)
        POP(r12)
        SHL(rax, 12)
        RET()
    assert check_unit(unit) == 15


def test_peachpy_instructions_in_32_bit_mode(check_unit: Callable[[Unit], int]) -> None:
    unit = Unit("u")
    with unit.code("f", bits=32):
        MOV(eax, 0x80010033)
        MOV([rdi + 4], eax)
        MOV(ecx, [rdi + rcx * 8])
        ADD(edi, 8)
        INC(ecx)
        DEC(ebx)
        TEST(al, 1)
        XOR(eax, eax)
        MOV(eax, [Symbol("f")])
        LEA(edi, [Symbol("f") + 0x10])
        JZ(Symbol("f"))
        MOV(ax, 7)
        SHL(eax, 12)
    assert check_unit(unit) == 13


def test_peachpy_instructions_in_16_bit_mode(check_unit: Callable[[Unit], int]) -> None:
    unit = Unit("u")
    with unit.code("f", bits=16):
        again = Label("again")
        LABEL(again)
        MOV(cx, 0x402)
        MOV(eax, 0x12345678)
        XOR(ax, ax)
        TEST(al, al)
        JNZ(again)
        JMP(again)
    assert check_unit(unit) == 6


@pytest.mark.parametrize(
    ("bits", "emit"),
    [
        (32, lambda: MOV(rax, rcx)),
        (32, lambda: MOV(eax, [r8])),
        (32, lambda: XOR(r8, r8)),
        (16, lambda: MOV(eax, [rdi])),
        (16, lambda: MOV(eax, [Symbol("x")])),
        (16, lambda: MOV(rax, rcx)),
    ],
)
def test_64_bit_only_forms_are_refused(bits: int, emit: Callable[[], object]) -> None:
    with Unit("u").code("f", bits=bits) as block:
        emit()
    with pytest.raises(AssemblyError, match=r"test_code.py:\d+: "):
        block.encoded()


@pytest.mark.parametrize("distance", [0, 1, 125, 126, 127, 128, 129, 4000])
def test_branch_reaches_its_label_forwards_and_backwards(distance: int) -> None:
    with Unit("u").code("f") as block:
        forward, back = Label("forward"), Label("back")
        LABEL(back)
        JZ(forward)
        for _ in range(distance):
            NOP()
        LABEL(forward)
        JMP(back)
        CALL(forward)
    items = {str(e.item): e for e in block.encoded() if e.content}
    places = {str(e.item): e.offset for e in block.encoded() if not e.content}
    jump = next(e for text, e in items.items() if text.startswith("JZ"))
    assert decode(jump.content, 64, jump.offset)[0].near_branch_target == places["forward:"]
    assert len(jump.content) == (2 if distance <= 127 else 6)
    backwards = next(e for text, e in items.items() if text.startswith("JMP"))
    assert decode(backwards.content, 64, backwards.offset)[0].near_branch_target == 0
    call = next(e for text, e in items.items() if text.startswith("CALL"))
    assert decode(call.content, 64, call.offset)[0].near_branch_target == places["forward:"]


def test_chain_of_branches_grows_until_stable() -> None:
    """Each jump is just in reach while the next is short: lengthening one lengthens all."""
    with Unit("u").code("f") as block:
        labels = [Label(f"l{n}") for n in range(20)]
        for label in labels:
            JMP(label)
            for _ in range(5):
                NOP()
        for label in labels:
            LABEL(label)
            for _ in range(3):
                NOP()
    places = {id(e.item.operands[0]): e.offset for e in block.encoded() if not e.content}
    for encoded in block.encoded():
        if encoded.item.name == "JMP":
            target = decode(encoded.content, 64, encoded.offset)[0].near_branch_target
            assert target == places[id(encoded.item.operands[0])]


def test_label_errors_name_the_line() -> None:
    with Unit("u").code("f") as block:
        JMP(Label("nowhere"))
    with pytest.raises(AssemblyError, match=r"test_code.py:\d+: label nowhere is used but never placed"):
        block.encoded()
    with Unit("u").code("g") as block:
        twice = Label("twice")
        LABEL(twice)
        LABEL(twice)
    with pytest.raises(AssemblyError, match="placed twice"):
        block.encoded()


def test_symbol_defined_twice() -> None:
    unit = Unit("u")
    unit.code("f")
    with pytest.raises(ValueError, match="f is defined twice"):
        unit.data("f")


def test_directive_outside_of_a_block() -> None:
    with pytest.raises(RuntimeError, match="outside"):
        DB(b"x")


@pytest.mark.parametrize("make", [lambda: DW(0x10000), lambda: DD(-(1 << 31) - 1), lambda: DQ(1 << 64)])
def test_integers_that_do_not_fit(make: Callable[[], object]) -> None:
    with Unit("u").data("d"), pytest.raises(ValueError, match="does not fit"):
        make()


def test_listing_reads_as_written() -> None:
    unit = Unit("demo")
    with unit.code("demo", section=".text.demo"):
        out = Label("out")
        with source("dsl/flows/linux.tdf", 12, 5):
            LEA(rdi, [Symbol("greeting")])
        CMP(dword[Symbol("greeting") + 4], 5)
        JNZ(out)
        CALL(Symbol("c_function"))
        LABEL(out)
        RET()
    with unit.data("greeting", align=4):
        DB(b"hello", "a greeting")
        BALIGN(4)
        DD(Symbol("demo") - 1, "just before")
        RESERVE(3)
    text = listing(unit).text
    squeezed = re.sub(r"tests/gen/x86/test_code.py:\d+", "LINE", re.sub(r"[ \t]+", " ", text))
    squeezed = re.sub(r"\.loc 2 \d+ 0", ".loc 2 N 0", squeezed)
    assert squeezed.split("\n\n")[1:3] == [
        """\
 .section .text.demo,"ax",@progbits
 .balign 16, 0xcc
 .globl demo
 .type demo, @function
demo:
 .loc 1 12 5
 .byte 0x48, 0x8d, 0x3d; .long greeting - . - 4 # lea rdi, [rip + greeting] | dsl/flows/linux.tdf:12
 .loc 2 N 0
 .byte 0x83, 0x3d; .long greeting - . - 1; .byte 0x05 # cmp dword [rip + greeting + 0x4], 5 | LINE
 .loc 2 N 0
 .byte 0x75, 0x05 # jnz .out | LINE
 .loc 2 N 0
 .byte 0xe8; .long c_function - . - 4 # call c_function | LINE
.Ldemo.out:
 .loc 2 N 0
 .byte 0xc3 # ret | LINE
 .size demo, . - demo
.Lend.demo:""",
        """\
 .section .rodata,"a",@progbits
 .balign 4
 .globl greeting
 .type greeting, @object
greeting:
 .byte 0x68, 0x65, 0x6c, 0x6c, 0x6f # a greeting | LINE
 .byte 0x00, 0x00, 0x00 # align 4
 .long demo - 1 # just before | LINE
 .zero 3
 .size greeting, . - greeting
.Lend.greeting:""",
    ]


C_SIDE = """
extern int generated(int);
int triple(int x) { return 3 * x; }
int start(void) { return generated(4); }
"""


def test_calls_into_c_and_back_link_at_the_top_of_4_gib(link: Link) -> None:
    unit = Unit("generated")
    with unit.code("generated"):
        CALL(Symbol("triple"))
        ADD(eax, [Symbol("one")])
        CMP(dword[Symbol("one")], 7)
        MOV(rax, [Symbol("pointer")])
        RET()
    with unit.data("one"):
        DD(1)
        DD(2)
        DQ(Symbol("generated") + 1)
    with unit.code("low", bits=32):
        MOV(eax, [Symbol("one") + 4])
    with unit.data("pointer", section=".data"):
        DQ(Symbol("one"))
    image = link([listing(unit)], {"side.c": C_SIDE})
    block = unit.blocks[0].encoded()
    base, symbols = image.symbols["generated"], image.symbols
    placed = [image.read(base + e.offset, len(e.content)) for e in block]
    call, add, compare, load = (decode(placed[n], 64, base + block[n].offset)[0] for n in range(4))
    assert call.near_branch_target == symbols["triple"]
    assert add.memory_displacement == symbols["one"] > 0xFFFF0000
    assert compare.memory_displacement == symbols["one"]
    assert load.memory_displacement == symbols["pointer"]
    low = decode(image.read(symbols["low"], 6), 32, symbols["low"])[0]
    assert low.memory_displacement == symbols["one"] + 4
    assert int.from_bytes(image.read(symbols["one"] + 8, 8), "little") == base + 1
    assert int.from_bytes(image.read(symbols["pointer"], 8), "little") == symbols["one"]


def test_line_table_names_the_flow_line(link: Link) -> None:
    unit = Unit("lined")
    with unit.code("f"):
        with source("dsl/flows/linux.tdf", 33):
            XOR(eax, eax)
        RET()
    with unit.code("g", section=".text.other"), source("dsl/flows/linux.tdf", 44):
        RET()
    image = link([listing(unit)])
    with image.path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        (compile_unit,) = dwarf.iter_CUs()
        program = dwarf.line_program_for_CU(compile_unit)
        names = [entry.name.decode() for entry in program["file_entry"]]
        rows = {
            row.state.address: (names[row.state.file - 1], row.state.line)
            for row in program.get_entries()
            if row.state is not None and not row.state.end_sequence
        }
        ranges = dwarf.range_lists().get_range_list_at_offset(
            compile_unit.get_top_DIE().attributes["DW_AT_ranges"].value
        )
        covered = [(entry.begin_offset, entry.end_offset) for entry in ranges]
    assert rows[image.symbols["f"]] == ("linux.tdf", 33)
    assert rows[image.symbols["f"] + 2][0] == "test_code.py"
    assert rows[image.symbols["g"]] == ("linux.tdf", 44)
    assert covered == [
        (image.symbols["f"], image.symbols["f"] + 3),
        (image.symbols["g"], image.symbols["g"] + 1),
    ]
