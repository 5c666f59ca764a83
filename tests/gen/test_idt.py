"""Does every exception end in a report that names it, its place and its address?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import unicorn as uc
import unicorn.x86_const as x86
from cpu import FLOW_ENTRY, REGIONS, STACK_TOP, Td
from machinecode import SCRIPT, Link, Linked

from gen.boot.units import emit, units
from gen.x86 import Unit

ERROR_CODE = {8, 10, 11, 12, 13, 14, 17, 21, 29, 30}
NAMES = {
    0: "DE",
    1: "DB",
    2: "NI",
    3: "BP",
    6: "UD",
    8: "DF",
    13: "GP",
    14: "PF",
    19: "XM",
    20: "VE",
    21: "CP",
}
RIP, CR2, GLA = 0xFFFF_1234_5678, 0xDEAD_BEEF_0123, 0x7_0000_8000_1000


def test_all_code_decodes(check_unit: Callable[[Unit], int]) -> None:
    assert check_unit(units(REGIONS)[1]) > 100


def gate(image: Linked, vector: int) -> tuple[int, int, int]:
    """Target, selector and attributes of a 64-bit gate (SDM volume 3A, figure 6-8)."""
    entry = image.read(image.symbols["idt"] + 16 * vector, 16)
    word = [int.from_bytes(entry[2 * n : 2 * n + 2], "little") for n in range(8)]
    return word[0] | word[3] << 16 | word[4] << 32 | word[5] << 48, word[1], word[2]


def test_idt_is_complete_and_read_only(image: Linked) -> None:
    assert image.symbols["__rodata_start"] <= image.symbols["idt"] < image.symbols["__rodata_end"]
    pointer = image.read(image.symbols["idt_pointer"], 10)
    assert int.from_bytes(pointer[:2], "little") == 32 * 16 - 1
    assert int.from_bytes(pointer[2:], "little") == image.symbols["idt"]
    targets = [gate(image, vector) for vector in range(32)]
    assert {(selector, attributes) for _, selector, attributes in targets} == {(0x10, 0x8E01)}
    names = {value: name for name, value in image.symbols.items()}
    assert [names[target][:13] for target, _, _ in targets] == [f"exception_{n:02}_" for n in range(32)]


@pytest.mark.parametrize("vector", range(32))
@pytest.mark.parametrize("misalign", [0, 8])
def test_exception_is_reported(image: Linked, vector: int, misalign: int) -> None:
    reports = []

    def module(before: dict[str, int]) -> dict[str, int]:
        if before["rax"] == 3:
            return {"rax": 0, "rcx": 48, "rdx": 2, "r8": GLA, "r9": 0x1000, "r10": 0}
        if before["rax"] == 2:
            return {"rax": 0}
        assert before["rax"] == 0
        reports.append(before)
        return {"stop": 1}

    td = Td(image, module)
    td.cpu.reg_write(x86.UC_X86_REG_CR2, CR2)
    error = 0x1F2E if vector in ERROR_CODE else None
    frame = [error] * (error is not None) + [RIP, 0x10, 0x10246, STACK_TOP - 0x80, 0x18]
    stack = STACK_TOP - 0x200 - misalign
    td.cpu.mem_write(stack, b"".join(value.to_bytes(8, "little") for value in frame))
    entered: dict[str, int] = {}
    for callee in ("fatal_exception", "fatal", "tdvmcall_fatal"):
        place = image.symbols[callee]
        td.cpu.hook_add(
            uc.UC_HOOK_CODE,
            lambda cpu, *_, callee=callee: entered.update({callee: cpu.reg_read(x86.UC_X86_REG_RSP) % 16}),
            begin=place,
            end=place,
        )
    td.start(gate(image, vector)[0], stack)
    assert entered == {"fatal_exception": 8, "fatal": 8, "tdvmcall_fatal": 8}, "stack not aligned for a call"
    (report,) = reports
    order = ("r14", "r15", "rbx", "rdi", "rsi", "r8", "r9", "rdx")
    text = b"".join(report[name].to_bytes(8, "little") for name in order).rstrip(b"\0").decode()
    shown_error, address = (48, GLA) if vector == 20 else (error or 0, CR2)
    name = NAMES.get(vector, text[10:12])
    assert text == f"tdforge: #{name}({shown_error:08x}) at {RIP:016x} on {address:016x}"
    leaves = [call.before["rax"] for call in td.calls]
    assert leaves == ([3] if vector == 20 else []) + [2, 2, 0], "VEINFO.GET comes first, and only for #VE"
    digest = next(call.before["rcx"] for call in td.calls if call.before["rax"] == 2)
    assert bytes(td.cpu.mem_read(digest, 48)) == hashlib.sha384(b"\1\0\0\0").digest()


def test_linker_refuses_handlers_outside_of_the_last_64_kib(link: Link) -> None:
    exceptions = [listing for listing in emit(REGIONS) if listing.name != "reset"]
    low = SCRIPT.replace(". = 0xFFFF0000;", ". = 0xFFFE0000;")
    outside = {"reset.s": ".globl reset_real, ap_enumerated\nreset_real: ap_enumerated: nop\n", **FLOW_ENTRY}
    with pytest.raises(RuntimeError, match="out of range"):
        link(exceptions, outside, low)
