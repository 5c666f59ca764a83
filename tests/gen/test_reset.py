"""Does the CPU get from 0xFFFFFFF0 to where it should, from each state it may start in?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import unicorn as uc
import unicorn.x86_const as x86
from cpu import FLOW_ENTRY, REGIONS, STACK_TOP, machine, run
from machinecode import SCRIPT, Link, Linked, decode

from gen.boot.units import emit, units
from gen.x86 import Unit

MOV_CR3_EAX, MOV_CR4_EAX, MOV_CR0_EAX = (bytes.fromhex(code) for code in ("0f22d8", "0f22e0", "0f22c0"))


def test_all_code_decodes_in_its_mode(check_unit: Callable[[Unit], int]) -> None:
    reset = units(REGIONS)[0]
    assert check_unit(reset) > 80


def test_vector_is_16_bytes_and_alike_in_both_modes(image: Linked) -> None:
    vector = image.read(0xFFFF_FFF0, 16)
    common = [(0, 3, "mov eax,cr0"), (3, 2, "test al,1"), (5, 2, "je")]
    for bits, ip in ((16, 0xFFF0), (32, 0xFFFF_FFF0)):
        for at, size, text in common:
            assert str(decode(vector[at : at + size], bits, ip + at)[0]).startswith(text)
    assert decode(vector[5:7], 16, 0xFFF5)[0].near_branch_target == 0xFFFC
    assert decode(vector[7:12], 32, 0xFFFF_FFF7)[0].near_branch_target == image.symbols["reset_td"]
    real = decode(vector[12:15], 16, 0xFFFC)[0].near_branch_target
    assert 0xFFFF_0000 + real == image.symbols["reset_real"]


def test_real_mode_says_why_and_stops(image: Linked) -> None:
    cpu = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_16)
    cpu.mem_map(0xF_0000, 0x1_0000)
    for start, content in image.segments:
        cpu.mem_write(start - 0xFFFF_0000 + 0xF_0000, content)
    written: dict[int, bytes] = {0x402: b"", 0x3F8: b""}
    cpu.hook_add(
        uc.UC_HOOK_INSN,
        lambda cpu, port, size, value, _: written.update({port: written[port] + bytes([value])}),
        None,
        1,
        0,
        x86.UC_X86_INS_OUT,
    )
    cpu.reg_write(x86.UC_X86_REG_CS, 0xF000)
    stops: list[int] = []
    cpu.hook_add(
        uc.UC_HOOK_CODE,
        lambda cpu, at, size, _: (
            (stops.append(at), cpu.emu_stop()) if cpu.mem_read(at, 1) == b"\xf4" else None
        ),
    )
    cpu.emu_start(0xF_FFF0, 0, count=5000)
    assert stops, "real mode does not halt"
    message = b"tdforge: not in a TD: this image needs Intel TDX\r\n"
    assert written == {0x402: message, 0x3F8: message}
    after = bytes(cpu.mem_read(stops[0] + 1, 2))
    target = decode(after, 16, stops[0] + 1)[0].near_branch_target
    assert target == (stops[0] - 1) & 0xFFFF, "must halt again after an NMI"


def test_td_entry_state_reaches_paging_with_the_right_values(image: Linked) -> None:
    cpu = machine(image, uc.UC_MODE_32)
    pool = next(region.start for region in REGIONS if region.name == "paging")
    cpu.reg_write(x86.UC_X86_REG_ESI, 0)
    at, values = 0xFFFF_FFF0, []
    for code in (MOV_CR3_EAX, MOV_CR4_EAX, MOV_CR0_EAX):
        at = run(cpu, at, lambda _, now, code=code: now == code)
        values.append(cpu.reg_read(x86.UC_X86_REG_EAX))
        at += len(code)
    assert values == [pool, 0x660, 0x8001_0033]
    jump = decode(bytes(cpu.mem_read(at, 7)), 32, at)[0]
    assert (jump.far_branch_selector, jump.far_branch32) == (0x10, image.symbols["reset_long"])
    assert cpu.reg_read(x86.UC_X86_REG_GDTR)[1:3] == (image.symbols["gdt"], 47)


def test_gdt_has_flat_segments(image: Linked) -> None:
    gdt = image.symbols["gdt"]
    for selector, long_mode, wide, kind in ((8, 0, 1, 0xB), (0x10, 1, 0, 0xB), (0x18, 0, 1, 0x3)):
        entry = int.from_bytes(image.read(gdt + selector, 8), "little")
        limit = entry & 0xFFFF | entry >> 32 & 0xF0000
        base = entry >> 16 & 0xFFFFFF | entry >> 32 & 0xFF000000
        flags = entry >> 52 & 0xF
        assert (base, limit, flags >> 3) == (0, 0xFFFFF, 1)
        assert (flags >> 1 & 1, flags >> 2 & 1) == (long_mode, wide)
        assert entry >> 40 & 0xFF == 0x90 | kind


def test_the_tss_names_the_top_of_the_stack_for_exceptions(image: Linked) -> None:
    entry = int.from_bytes(image.read(image.symbols["gdt"] + 0x20, 16), "little")
    base = entry >> 16 & 0xFFFFFF | (entry >> 56 & 0xFF) << 24 | entry >> 64 << 32
    assert (base, entry & 0xFFFF, entry >> 40 & 0xFF, entry >> 48 & 0xFF) == (
        image.symbols["tss"],
        103,
        0x89,
        0,
    )
    tss = image.read(base, 104)
    assert int.from_bytes(tss[36:44], "little") == STACK_TOP
    assert (tss[:36], tss[44:102], tss[102:]) == (bytes(36), bytes(58), b"\x68\0")
    assert base % 4096 <= 4096 - 104


def long_mode(image: Linked, index: int) -> uc.Uc:
    cpu = machine(image, uc.UC_MODE_64)
    cpu.reg_write(x86.UC_X86_REG_GDTR, (0, image.symbols["gdt"], 47, 0))
    cpu.reg_write(x86.UC_X86_REG_RBP, index)
    return cpu


def test_vcpu_0_calls_the_flow_with_stack_and_idt(image: Linked) -> None:
    cpu = long_mode(image, 0)
    flow = image.symbols["tdf_entry"]
    assert run(cpu, image.symbols["reset_long"], lambda at, _: at == flow) == flow
    assert cpu.reg_read(x86.UC_X86_REG_RSP) == STACK_TOP - 8
    assert cpu.reg_read(x86.UC_X86_REG_IDTR)[1:3] == (image.symbols["idt"], 32 * 16 - 1)
    assert cpu.reg_read(x86.UC_X86_REG_TR)[:3] == (0x20, image.symbols["tss"], 103)
    for segment in ("DS", "ES", "SS", "FS", "GS"):
        assert cpu.reg_read(getattr(x86, f"UC_X86_REG_{segment}")) == 0x18
    back = int.from_bytes(cpu.mem_read(STACK_TOP - 8, 8), "little")
    assert bytes(cpu.mem_read(back, 2)) == b"\x0f\x0b", "a flow that returns must trap"


@pytest.mark.parametrize("index", [1, 7, 256, 0x10000, 0xFFFE])
def test_other_vcpus_hold_until_the_gate_opens(image: Linked, index: int) -> None:
    """Any index but 0, multiples of 256 and 65536 too, waits and enters with the PML4 that the gate names."""
    cpu = machine(image, uc.UC_MODE_32)
    cpu.reg_write(x86.UC_X86_REG_ESI, index)
    polls = []

    def stop(_: int, code: bytes) -> bool:
        if code == b"\xf3\x90":
            polls.append(1)
            if len(polls) == 20:
                cpu.mem_write(image.symbols["ap_gate"], (0x12_3000).to_bytes(4, "little"))
        return code == MOV_CR3_EAX

    run(cpu, image.symbols["reset_td"], stop)
    assert len(polls) == 20
    assert cpu.reg_read(x86.UC_X86_REG_EAX) == 0x12_3000
    assert cpu.reg_read(x86.UC_X86_REG_EBP) == index
    assert bytes(cpu.mem_read(0x81_0000, 0xC000)) == b"\xa5" * 0xC000, "only vCPU 0 writes page tables"


def test_another_vcpu_tells_its_id_and_touches_no_stack(image: Linked) -> None:
    cpu, identify = long_mode(image, 5), image.symbols["ap_identify"]
    before = cpu.reg_read(x86.UC_X86_REG_RSP)
    run(cpu, image.symbols["reset_long"], lambda at, _: at == identify)
    assert cpu.reg_read(x86.UC_X86_REG_RBP) == 5
    assert cpu.reg_read(x86.UC_X86_REG_RSP) == before


@pytest.mark.parametrize(
    ("name", "size"), [("ap_gate", 4), ("ap_enumerated", 4), ("ap_mailbox", 8), ("ap_ids", 8)]
)
def test_what_aps_wait_for_is_zero_in_the_measured_image(image: Linked, name: str, size: int) -> None:
    assert image.read(image.symbols[name], size) == bytes(size)
    assert image.symbols["__data_start"] <= image.symbols[name] < image.symbols["__data_end"]


# What `ap_identify` clears: the park loop needs none of them, and the OS would see them.
CLEARED = ("RBX", "RSI", "RDI", *(f"R{number}" for number in range(8, 16)))


def test_parked_vcpu_wakes_for_its_own_id_only(image: Linked) -> None:
    mailbox, vector = 0x90_0000, 0x1_2345_6000
    cpu = long_mode(image, 5)
    cpu.mem_map(vector, 0x1000)
    cpu.reg_write(x86.UC_X86_REG_RDX, mailbox)
    for name in CLEARED:
        cpu.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0)
    cpu.reg_write(x86.UC_X86_REG_RCX, 0x90_1000)
    states = [(0, 5), (1, 4), (2, 4), (3, 5), (1, 0x10005), (1, 5)]
    seen = []

    def stop(at: int, code: bytes) -> bool:
        if code == b"\xf3\x90":
            command, target = states[len(seen)]
            seen.append(command)
            cpu.mem_write(mailbox, command.to_bytes(4, "little") + target.to_bytes(4, "little"))
            cpu.mem_write(mailbox + 8, vector.to_bytes(8, "little") + b"\x77" * 16)
        return at == vector

    run(cpu, image.symbols["ap_park"], stop)
    assert len(seen) == len(states)
    content = bytes(cpu.mem_read(mailbox, 32))
    assert content == bytes(4) + (5).to_bytes(4, "little") + vector.to_bytes(8, "little") + b"\x77" * 16
    assert cpu.reg_read(x86.UC_X86_REG_RAX) == vector
    shown = {
        name: cpu.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in (*CLEARED, "RCX", "RDX", "RBP")
    }
    assert shown == dict.fromkeys(shown, 0)


@pytest.mark.parametrize(
    ("command", "apic_id", "answer"), [(2, 5, 0), (2, 4, 2), (2, 0x10005, 2), (0x12, 5, 0x12)]
)
def test_parked_vcpu_answers_a_test_of_its_own_id_only(
    image: Linked, command: int, apic_id: int, answer: int
) -> None:
    mailbox, rest = 0x90_0000, apic_id.to_bytes(4, "little") + b"\x77" * 24
    cpu = long_mode(image, 5)
    cpu.reg_write(x86.UC_X86_REG_RDX, mailbox)
    cpu.mem_write(mailbox, command.to_bytes(4, "little") + rest)
    turns: list[int] = []

    def stop(at: int, code: bytes) -> bool:
        turns.extend([at] if code == b"\xf3\x90" else [])
        return len(turns) == 3

    run(cpu, image.symbols["ap_park"], stop)
    assert bytes(cpu.mem_read(mailbox, 32)) == answer.to_bytes(4, "little") + rest


@pytest.mark.parametrize("levels", [0, 1 << 12], ids=["4 levels", "5 levels"])
def test_the_reset_code_keeps_the_levels_of_paging_until_it_is_off(image: Linked, levels: int) -> None:
    cpu = long_mode(image, 5)
    cpu.reg_write(x86.UC_X86_REG_CR4, levels | 0x2_06A0)
    run(cpu, image.symbols["ap_reset_vector"], lambda _, code: code[:3] == MOV_CR4_EAX)
    assert cpu.reg_read(x86.UC_X86_REG_RAX) == levels | 0x660


def test_linker_refuses_reset_code_outside_of_the_last_64_kib(link: Link) -> None:
    low = SCRIPT.replace(". = 0xFFFF0000;", ". = 0xFFFE0000;")
    with pytest.raises(RuntimeError, match="out of range"):
        link(emit(REGIONS), FLOW_ENTRY, low)
