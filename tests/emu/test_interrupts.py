"""Do interrupts reach the guest as on hardware: timer, priority, IF and its shadow, stacks, devices?"""

from __future__ import annotations

import os

import guest
import pytest
from interrupts import ECHO, MACROS

from emu.cpu.apic import BROADCAST, LocalApic, Message
from emu.keyboard import Keyboard


def run(body: str, **settings: object) -> guest.Outcome:
    """A guest with the interrupt macros."""
    return guest.run(MACROS + body, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arm", "ticks"),
    [
        ("apic DIVIDE, 0xB\n apic LVT_TIMER, 0x40\n tsc %r9\n apic INITIAL, 1000", 40_000),
        ("apic DIVIDE, 0x3\n apic LVT_TIMER, 0x40\n tsc %r9\n apic INITIAL, 1000", 640_000),
        (
            "apic LVT_TIMER, 0x40040\n tsc %r9\n movq %r9, %r13\n addq $50000, %r13\n"
            "movl $0x6E0, %r12d\n vmcall 0x20",
            50_000,
        ),
    ],
    ids=["one-shot", "divided", "deadline"],
)
def test_timer_comes_on_time_and_is_in_service_until_eoi(arm: str, ticks: int) -> None:
    body = f"""
    main:
        tables
        gate 0x40, handler
        start_apic
        {arm}
        sti
    1:  jmp 1b
    handler:
        tsc %r8
        subq %r9, %r8
        keep 0, %r8
        readmsr 0x812       /* ISR bits 64 to 95 */
        keep 1, %rax
        readmsr 0x80A       /* PPR */
        keep 2, %rax
        eoi
        readmsr 0x812
        keep 3, %rax
        readmsr 0x80A
        keep 4, %rax
        halt
    """
    words = run(body).words
    assert ticks <= words[0] < ticks + 200
    assert words[1:5] == (1, 0x40, 0, 0)


def test_periodic_timer() -> None:
    body = """
    main:
        tables
        gate 0x40, handler
        start_apic
        apic DIVIDE, 0xB
        apic LVT_TIMER, 0x20040
        xorl %ebp, %ebp
        tsc %r9
        apic INITIAL, 500
        sti
    1:  jmp 1b
    handler:
        incl %ebp
        eoi
        cmpl $5, %ebp
        je 2f
        iretq
    2:  tsc %r8
        subq %r9, %r8
        keep 0, %r8
        halt
    """
    assert 100_000 <= run(body, limit=2_000_000).words[0] < 100_300


def test_interrupt_waits_for_if_and_for_the_instruction_behind_sti() -> None:
    body = """
    main:
        tables
        gate 0x41, handler
        start_apic
        native 0x83F, 0x41
        .rept 50
        jmp 1f              /* many blocks with IF clear: nothing may come */
    1:
        .endr
        movq $1, RESULTS
        sti
    shadow:
        incq RESULTS
    behind:
        nop
        jmp .
    handler:
        leaq behind(%rip), %rax
        subq (%rsp), %rax
        keep 1, %rax
        movq 16(%rsp), %rax
        andl $0x200, %eax
        keep 2, %rax
        pushfq
        popq %rax
        andl $0x200, %eax
        keep 3, %rax
        halt
    """
    assert run(body).words[:4] == (2, 0, 0x200, 0)


def test_priorities() -> None:
    body = """
    main:
        tables
        gate 0x41, low
        gate 0x52, high
        gate 0x53, high2
        start_apic
        xorl %ebp, %ebp
        native 0x808, 0x50  /* TPR holds back class 5 and below */
        native 0x83F, 0x41
        native 0x83F, 0x52
        sti
        nop
        nop
        cli
        keep 0, %rbp
        readmsr 0x822       /* IRR */
        keep 1, %rax
        native 0x808, 0
        sti
        nop
        nop
        keep 4, %rbp
        halt
    low:
        shlq $8, %rbp
        orq $1, %rbp
        eoi
        iretq
    high:
        shlq $8, %rbp
        orq $2, %rbp
        native 0x83F, 0x53  /* the same class: not before EOI */
        sti
        nop
        nop
        shlq $8, %rbp
        orq $4, %rbp
        cli
        eoi
        iretq
    high2:
        shlq $8, %rbp
        orq $3, %rbp
        eoi
        iretq
    """
    words = run(body).words
    assert words[:2] == (0, 1 << (0x41 - 0x40) | 1 << (0x52 - 0x40))
    assert words[4] == 0x02040301


def test_halt_skips_time_to_the_timer() -> None:
    body = """
    main:
        tables
        gate 0x40, handler
        start_apic
        apic DIVIDE, 0xB
        apic LVT_TIMER, 0x40
        tsc %r9
        apic INITIAL, 25000000
        sleep
        tsc %r8
        subq %r9, %r8
        keep 0, %r8
        halt
    handler:
        movq $1, RESULTS + 8
        eoi
        iretq
    """
    done = run(body)
    assert 10**9 <= done.words[0] < 10**9 + 200
    assert done.words[1] == 1
    assert done.count < 1000


@pytest.mark.parametrize("body", ["apic LVT_TIMER, 0x10040\n apic INITIAL, 10\n sleep", "sleep", "halt"])
def test_nothing_wakes_it(body: str) -> None:
    ending = run("main:\n tables\n start_apic\n apic DIVIDE, 0xB\n" + body + "\n ud2").ending
    assert ending.end.reason == "halt"


def test_interrupt_in_user_mode_and_on_an_interrupt_stack() -> None:
    body = """
    main:
        tables
        gate 0x40, handler
        gate 0x41, own_stack, 0x8E01    /* IST 1 */
        start_apic
        movl $RESULTS + 0x7000, %eax
        movq %rax, TSS + 36             /* IST1 */
        task
        movq %cr4, %rax
        apic DIVIDE, 0xB
        apic LVT_TIMER, 0x40
        apic INITIAL, 100
        pushq $40 + 3
        pushq $RESULTS + 0x5000
        pushq $0x202
        pushq $32 + 3
        leaq user(%rip), %rax
        pushq %rax
        iretq
    user:
        jmp user
    handler:                            /* frame: RIP CS RFLAGS RSP SS */
        keep 0, %rsp
        movq 8(%rsp), %rax
        keep 1, %rax
        movq 24(%rsp), %rax
        keep 2, %rax
        movq 32(%rsp), %rax
        keep 3, %rax
        movl %ss, %eax
        keep 4, %rax
        eoi
        native 0x83F, 0x41
        movl $RESULTS + 0x5800, %esp
        sti
        nop
    1:  jmp 1b
    own_stack:
        keep 5, %rsp
        movq 24(%rsp), %rax
        keep 6, %rax
        halt
    """
    words = run(body.replace("pdpt + 0x67", "pdpt + 0x67")).words
    results = guest.RESULTS
    assert words[:5] == (results + 0x6000 - 40, 0x23, results + 0x5000, 0x2B, 0)
    assert words[5:7] == (results + 0x7000 - 40, results + 0x5800)


def test_nmi_comes_with_interrupts_off() -> None:
    body = """
    main:
        tables
        gate 2, handler
        start_apic
        ipi 0, 0x400
        jmp .
    handler:
        movq $1, RESULTS
        halt
    """
    assert run(body).words[0] == 1


# Echoes its input until a newline, sleeping between bytes; all by interrupts, as a driver does.
def test_serial_port_interrupts_through_the_io_apic() -> None:
    with guest.machine(guest.build(MACROS + ECHO).image, stdin=b"typed\n") as td:
        ending = td.run(1_000_000, None)
        assert ending.end.reason == "halt"
        assert bytes(td.console.data) == b"typed"
        assert td.memory.read(guest.RESULTS, 1) == b"\x05"


def test_a_sleeping_guest_wakes_when_somebody_types() -> None:
    with guest.machine(guest.build(MACROS + ECHO).image) as td:
        out, into = os.pipe()
        td.keyboard = Keyboard(out)
        shown = td.console.send

        def next_key(byte: int) -> None:
            shown(byte)
            os.write(into, b"bc\n"[byte - ord("a") : byte - ord("a") + 1])

        td.vmm.ports.uart.send = next_key
        os.write(into, b"a")
        assert td.run(1_000_000, None).end.reason == "halt"
        assert bytes(td.console.data) == b"abc"
        os.close(into)
        os.close(out)


def test_the_end_of_what_is_typed_is_the_end_of_waiting() -> None:
    with guest.machine(guest.build(MACROS + ECHO).image) as td:
        out, into = os.pipe()
        td.keyboard = Keyboard(out)
        os.write(into, b"xy")
        os.close(into)
        assert td.run(1_000_000, None).end.detail == "every vCPU halted and nothing will wake one"
        assert bytes(td.console.data) == b"xy"
        os.close(out)


def apic(index: int, sent: list[Message] | None = None) -> LocalApic:
    """An x2APIC outside a machine, switched on."""
    made = LocalApic(
        index, index, lambda: 0, lambda _, message: (sent if sent is not None else []).append(message), 40
    )
    made.write(0x80F, 0x1FF)
    return made


def test_who_a_message_is_for() -> None:
    def receivers(message: Message, sender: int = 1) -> set[int]:
        return {index for index in range(40) if apic(index).matches(message, sender)}

    assert receivers(Message(0x40, 0, 3, logical=False)) == {3}
    assert receivers(Message(0x40, 0, BROADCAST, logical=False)) == set(range(40))
    assert receivers(Message(0x40, 0, 1 << 16 | 0b101, logical=True)) == {16, 18}
    assert receivers(Message(0x40, 0, 5, logical=False, shorthand=1)) == {1}
    assert receivers(Message(0x40, 0, 5, logical=False, shorthand=2)) == set(range(40))
    assert receivers(Message(0x40, 0, 5, logical=False, shorthand=3)) == set(range(40)) - {1}


def test_interrupt_command_register() -> None:
    sent: list[Message] = []
    one = apic(0, sent)
    assert one.write(0x830, 7 << 32 | 1 << 11 | 3 << 18 | 0x4FD)
    assert sent == [Message(0xFD, 4, 7, logical=True, shorthand=3)]
    assert one.read(0x830) == 7 << 32 | 1 << 11 | 3 << 18 | 0x4FD


def test_registers_that_cannot_be_written() -> None:
    one = apic(20)
    assert one.read(0x80D) == 1 << 16 | 1 << 4
    assert not any(one.write(register, 0) for register in (0x802, 0x803, 0x80D, 0x839))
    assert not any(one.write_native(register, 0) for register in (0x80A, 0x810, 0x820))
    assert not one.write_native(0x80B, 1)
    assert not one.write_native(0x83F, 8)
    assert one.read_native(0x80B) == 0


def test_interrupts_are_dropped_until_the_apic_is_on() -> None:
    one = LocalApic(0, 0, lambda: 0, lambda *_: None, 40)
    one.post(0x40)
    assert not one.wanted
    one.post(0, 4)
    assert one.wanted
