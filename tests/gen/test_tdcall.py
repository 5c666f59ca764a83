"""Does each TDCALL function put its operands where the ABI wants them and keep its promises to the caller?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cpu import FLOW_ENTRY, NAMES, REGIONS, Td
from machinecode import Link, Linked

from dsl.capabilities import prelude
from gen.boot import tdcall
from gen.boot.accept import LOOP_BUDGET
from gen.boot.units import emit, units
from gen.errors import BuildError
from gen.x86 import Unit

OUT, IN = 0x90_0000, 0x90_1000
HOST = {name: 0xBAD0_0000_0000_0000 + index for index, name in enumerate(NAMES)}
MASKS = {0xFC00: {f"r{n}" for n in range(10, 16)}}
MASKS[0xFFCC] = MASKS[0xFC00] | {"rdx", "rbx", "rsi", "rdi", "r8", "r9"}


def test_all_code_decodes(check_unit: Callable[[Unit], int]) -> None:
    assert check_unit(units(REGIONS)[2]) > 150


def answering(**answer: int) -> Callable[[dict[str, int]], dict[str, int]]:
    return lambda _: {"rax": 0, **answer}


def vmm(r10: int = 0, rax: int = 0, **answer: int) -> Callable[[dict[str, int]], dict[str, int]]:
    """A VMM that overwrites every register it was shown."""

    def module(before: dict[str, int]) -> dict[str, int]:
        assert before["rax"] == 0
        shown = MASKS[before["rcx"]]
        return {**{name: HOST[name] for name in shown}, "r10": r10, "rax": rax, **answer}

    return module


def test_vp_info(image: Linked) -> None:
    td = Td(
        image,
        answering(
            rcx=52 | ~0x3F & (1 << 64) - 1, rdx=0x1000_0001, r8=0x10_0000_0003, r9=2 | 0xF << 32, r10=1, r11=0
        ),
    )
    td.cpu.mem_write(OUT, b"\xee" * 40)
    assert td.call("tdcall_vp_info", OUT) == 0
    assert td.calls[0].before["rax"] == 1
    assert td.u64(OUT, 2) == [52, 0x1000_0001]
    words = [int.from_bytes(td.cpu.mem_read(OUT + 16 + 4 * n, 4), "little") for n in range(4)]
    assert words == [3, 0x10, 2, 1]
    assert td.u64(OUT + 32) == [0xEEEE_EEEE_EEEE_EEEE]


BUSY = 0x8000_0200_0000_00A8


@pytest.mark.parametrize(("locked", "tries", "status"), [(1, 2, 0), (1000, 1001, 0), (1001, 1001, BUSY)])
def test_rtmr_extend_is_patient_with_locked_registers(
    image: Linked, locked: int, tries: int, status: int
) -> None:
    answers = iter([BUSY] * locked + [0])
    td = Td(image, lambda _: {"rax": next(answers)})
    assert td.call("tdcall_rtmr_extend", 0x90_0040, 1) == status
    assert len(td.calls) == tries
    assert {(c.before["rax"], c.before["rcx"], c.before["rdx"]) for c in td.calls} == {(2, 0x90_0040, 1)}


def test_rtmr_extend(image: Linked) -> None:
    td = Td(image, answering(rax=0xC000_0100_0000_0001))
    assert td.call("tdcall_rtmr_extend", 0x90_0040, 3) == 0xC000_0100_0000_0001
    before = td.calls[0].before
    assert (before["rax"], before["rcx"], before["rdx"]) == (2, 0x90_0040, 3)


def test_ve_info(image: Linked) -> None:
    td = Td(image, answering(rcx=48, rdx=1, r8=0x1234, r9=0x5678, r10=3))
    assert td.call("tdcall_ve_info", OUT) == 0
    assert td.calls[0].before["rax"] == 3
    assert td.u64(OUT, 5) == [48, 1, 0x1234, 0x5678, 3]


def test_report(image: Linked) -> None:
    td = Td(image, answering())
    assert td.call("tdcall_report", 0x90_0400, 0x90_0040) == 0
    before = td.calls[0].before
    assert [before[name] for name in ("rax", "rcx", "rdx", "r8")] == [4, 0x90_0400, 0x90_0040, 0]


def test_vm_rd_and_wr(image: Linked) -> None:
    td = Td(image, answering(r8=0x77))
    assert td.call("tdcall_vm_rd", 0x1110_0003_0000_0001, OUT) == 0
    assert td.call("tdcall_vm_wr", 0x1110_0003_0000_0017, 5, 0xFF) == 0
    read, write = (call.before for call in td.calls)
    assert [read[name] for name in ("rax", "rcx", "rdx")] == [7, 0, 0x1110_0003_0000_0001]
    assert [write[n] for n in ("rax", "rcx", "rdx", "r8", "r9")] == [8, 0, 0x1110_0003_0000_0017, 5, 0xFF]
    assert td.u64(OUT) == [0x77]


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("tdvmcall", (0x10000, IN, OUT), [0x10000, 1, 2, 3, 4]),
        ("tdvmcall_io_write", (0x3F8, 1, 0x41), [0x1E, 1, 1, 0x3F8, 0x41]),
        ("tdvmcall_io_read", (0x60, 4, OUT), [0x1E, 4, 0, 0x60, 0]),
        ("tdvmcall_map_gpa", (1 << 47 | 0x1000, 0x2000, OUT), [0x10001, 1 << 47 | 0x1000, 0x2000, 0, 0]),
        ("tdvmcall_hlt", (), [0x0C, 1, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("status", [0, 1, 0x8000_0000_0000_0000])
def test_tdvmcall(
    image: Linked, name: str, arguments: tuple[int, ...], shown: list[int], status: int
) -> None:
    td = Td(image, vmm(r10=status))
    td.cpu.mem_write(IN, b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4)))
    assert td.call(name, *arguments) == status
    (call,) = td.calls
    assert call.before["rcx"] == 0xFC00
    assert [call.before[f"r{n}"] for n in range(10, 16)] == [0, *shown]
    left = [
        register for register, value in td.registers().items() if value in HOST.values() and value != status
    ]
    assert not left, "values of the VMM stay in registers"
    outputs = {"tdvmcall": 5, "tdvmcall_io_read": 1, "tdvmcall_map_gpa": 1}.get(name, 0)
    assert td.u64(OUT, outputs) == [HOST[f"r{11 + n}"] for n in range(outputs)]


def test_tdvmcall_that_the_module_refuses(image: Linked) -> None:
    td = Td(image, lambda _: {"rax": 0xC000_0100_0000_0001})
    assert td.call("tdvmcall_hlt") == 0xC000_0100_0000_0001


def test_fatal_extends_reports_and_never_stops_halting(image: Linked) -> None:
    text = bytes(range(1, 65))
    halts = 0

    def module(before: dict[str, int]) -> dict[str, int]:
        nonlocal halts
        if before["rax"] == 0 and before["r11"] == 0x0C:
            halts += 1
            return {"stop": 1} if halts == 5 else vmm()(before)
        return {"rax": 0xDEAD} if before["rax"] == 2 else vmm()(before)

    td = Td(image, module)
    td.cpu.mem_write(OUT, text)
    td.call("fatal", OUT)
    assert td.halted
    first, second, report, *rest = (call.before for call in td.calls)
    assert [(call["rax"], call["rdx"]) for call in (first, second)] == [(2, 0), (2, 1)]
    assert first["rcx"] == second["rcx"]
    assert first["rcx"] % 64 == 0
    assert bytes(td.cpu.mem_read(first["rcx"], 48)) == hashlib.sha384(b"\1\0\0\0").digest()
    assert (report["rax"], report["rcx"], report["r10"], report["r11"]) == (0, 0xFFCC, 0, 0x10003)
    assert (report["r12"], report["r13"]) == (0, 0)
    order = ("r14", "r15", "rbx", "rdi", "rsi", "r8", "r9", "rdx")
    assert b"".join(report[name].to_bytes(8, "little") for name in order) == text
    assert len(rest) == 5


def test_no_mask_shows_forbidden_registers() -> None:
    """RAX, RCX, RSP are illegal in a mask, RBP is refused by hosts with NO_RBP_MOD."""
    for mask in MASKS:
        assert not mask & 0b110011


@pytest.mark.parametrize(("level", "step"), [(0, 0x1000), (1, 0x20_0000)])
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_accept_run(image: Linked, level: int, step: int, count: int) -> None:
    td = Td(image, answering())
    assert td.call("tdcall_accept_run", 0x1_0000_0000, count, level, OUT) == 0
    assert td.u64(OUT) == [count]
    wanted = [0x1_0000_0000 + n * step | level for n in range(count)]
    assert [call.before["rcx"] for call in td.calls] == wanted
    assert {call.before["rax"] for call in td.calls} <= {6}


@pytest.mark.parametrize("good", [0, 1, 7])
@pytest.mark.parametrize("status", [0xC000_0B0B_0000_0001, 0x0000_0B0A_0000_0000, 0x8000_0200_0000_0001])
def test_accept_run_stops_at_the_first_status(image: Linked, good: int, status: int) -> None:
    td = Td(image, lambda before: {"rax": status if len(td.calls) > good else 0})
    assert td.call("tdcall_accept_run", 0x20_0000, 10, 1, OUT) == status
    assert td.u64(OUT) == [good]
    assert len(td.calls) == good + 1


def test_accept_run_stays_in_its_budget(image: Linked) -> None:
    spent = []
    for count in (100, 200):
        td = Td(image, answering())
        td.call("tdcall_accept_run", 0, count, 0, OUT)
        spent.append(td.instructions + len(td.calls))  # the invalid instruction is not counted by the hook
    assert (spent[1] - spent[0]) / 100 <= LOOP_BUDGET


def test_vp_info_goes_where_the_record_has_its_fields(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    names = prelude()
    record = names.records["VpInfo"]
    at = {field.name: field.offset for field in record.fields}
    swapped = {"gpaw": at["attributes"], "attributes": at["gpaw"]}
    fields = tuple(replace(each, offset=swapped.get(each.name, each.offset)) for each in record.fields)
    names.records["VpInfo"] = replace(record, fields=fields)
    monkeypatch.setattr(tdcall, "prelude", lambda: names)
    td = Td(link(emit(REGIONS), FLOW_ENTRY), answering(rcx=48, rdx=0x1000_0000, r8=1 << 32 | 1, r9=0))
    assert td.call("tdcall_vp_info", OUT) == 0
    assert td.u64(OUT, 2) == [0x1000_0000, 48]
    apart = tuple(replace(each, offset=24) if each.name == "max_vcpus" else each for each in record.fields)
    names.records["VpInfo"] = replace(record, fields=apart)
    with pytest.raises(BuildError, match="max_vcpus does not follow num_vcpus"):
        emit(REGIONS)


def test_a_page_that_was_refused_is_named(image: Linked) -> None:
    td = Td(image, lambda before: {"rax": 0, "stop": before["rax"] == 0})
    td.call("fatal_accept", 0x0000_0123_4567_8000, 0xC000_0B0D_0000_0001)
    report = td.calls[-1].before
    order = ("r14", "r15", "rbx", "rdi", "rsi", "r8", "r9", "rdx")
    text = b"".join(report[name].to_bytes(8, "little") for name in order)
    assert text == b"tdforge: PAGE.ACCEPT of 0000012345678000 gave c0000b0d00000001\0\0"
