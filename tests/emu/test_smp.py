"""Do several vCPUs share one machine: memory, code, time, interrupts, and a schedule that repeats?"""

from __future__ import annotations

import guest
import pytest
from interrupts import MACROS

from emu.api import RunConfig, prepare
from emu.schedule import Turn
from emu.view import Vcpu
from emu.vmm.policy import Policy

# %ebp is the vCPU's index, each has 512 bytes of stack; vCPU 0 goes on at `boot` when the tables are there,
# the others at `others` once it says `release`.
SEVERAL = (
    MACROS
    + """
.set GATE, RESULTS + 0xE00
.macro release
    movl $1, GATE
.endm
main:
    movl %esi, %ebp
    movl %esi, %eax
    shll $9, %eax
    subq %rax, %rsp
    testl %ebp, %ebp
    jz 2f
1:  pause
    cmpl $0, GATE
    je 1b
    lidt RESULTS + 0x2FF0
    jmp others
2:  tables
    jmp boot
.macro await address, value
9:  pause
    cmpl $\\value, \\address
    jne 9b
.endm
"""
)


def run(body: str, vcpus: int = 4, **settings: object) -> guest.Outcome:
    """A guest of several vCPUs."""
    return guest.run(SEVERAL + body, vcpus=vcpus, limit=20_000_000, **settings)


COUNT = """
    boot:
        release
    others:
        movl $20000, %ecx
    1:  lock incq RESULTS
        incq RESULTS + 8        /* without a lock: updates may get lost */
        loop 1b
        lock incl RESULTS + 16
        testl %ebp, %ebp
        jz 2f
        halt
    2:  await RESULTS + 16, 4
        tsc %rax
        keep 3, %rax
        halt
"""


def test_locked_updates_are_never_lost() -> None:
    assert run(COUNT).words[0] == 80_000


def test_same_seed_same_run_other_seed_other_order() -> None:
    def trace(seed: int) -> tuple[int, tuple[int, ...]]:
        done = run(COUNT, seed=seed)
        return done.count, done.words[:4]

    assert trace(1) == trace(1)
    assert len({trace(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize(
    ("send", "counts"),
    [
        ("ipi 2, 0x45", (0, 0, 1, 0)),
        ("ipi 0xFFFFFFFF, 0x45", (1, 1, 1, 1)),
        ("ipi 0xA, 0x845", (0, 1, 0, 1)),
        ("ipi 3, 0x40045", (1, 0, 0, 0)),
        ("ipi 3, 0x80045", (1, 1, 1, 1)),
        ("ipi 3, 0xC0045", (0, 1, 1, 1)),
        ("ipi 3, 0xC0400", (0, 0x100, 0x100, 0x100)),
    ],
    ids=["physical", "broadcast", "logical", "self", "all", "others", "nmi"],
)
def test_interrupts_between_processors(send: str, counts: tuple[int, ...]) -> None:
    body = f"""
    boot:
        gate 0x45, handler
        gate 2, nmi
        release
        start_apic
        await RESULTS + 0x80, 3
        sti
        {send}
        .rept 4             /* more than a turn, so that all have taken theirs */
        movl $60000, %ecx
        loop .
        .endr
        cli
        halt
    others:
        start_apic
        lock incl RESULTS + 0x80
    1:  sleep
        jmp 1b
    handler:
        lock incq RESULTS(, %rbp, 8)
        eoi
        iretq
    nmi:
        addq $0x100, RESULTS(, %rbp, 8)
        iretq
    """
    assert run(body).words[:4] == counts


def test_code_that_another_processor_wrote() -> None:
    """vCPU 1 runs a function in RAM all the time while vCPU 0 rewrites it, as a kernel patches its text."""
    body = """
    .set CODE, RESULTS + 0x4000
    boot:
        movl $CODE, %edi
        movl $0x000000b8, (%rdi)    /* mov $0, %eax; ret */
        movw $0xc300, 4(%rdi)
        release
        movl $1, %edx
    3:  movl %edx, CODE + 1
        movl %edx, RESULTS + 0x80   /* this value from now on */
    4:  pause
        cmpl %edx, RESULTS + 0x88   /* vCPU 1 has checked it */
        jne 4b
        incl %edx
        cmpl $200, %edx
        jne 3b
        halt
    others:
        movl $CODE, %edi
    5:  pause
        movl RESULTS + 0x80, %ebx
        call *%rdi
        cmpl %ebx, %eax
        jae 6f
        lock incl RESULTS           /* old code ran */
    6:  movl %ebx, RESULTS + 0x88
        jmp 5b
    """
    done = run(body, vcpus=2)
    assert done.ending.end.reason == "halt"
    assert done.words[0] == 0
    assert done.words[0x88 // 8] == 199


def test_time_never_goes_back_from_one_processor_to_the_next() -> None:
    body = """
    boot:
        release
    others:
        movl $5000, %ebx
    1:  movl $1, %eax
        xchgl %eax, RESULTS + 0x80      /* a lock around the clock */
        testl %eax, %eax
        jz 2f
        pause
        jmp 1b
    2:  tsc %r8
        cmpq RESULTS + 0x88, %r8
        jae 3f
        incq RESULTS
    3:  movq %r8, RESULTS + 0x88
        movl $0, RESULTS + 0x80
        decl %ebx
        jnz 1b
        lock incl RESULTS + 0x90
        testl %ebp, %ebp
        jz 4f
        halt
    4:  await RESULTS + 0x90, 4
        halt
    """
    done = run(body)
    assert done.words[0] == 0
    assert done.words[0x90 // 8] == 4


def test_a_processor_that_only_waits_costs_next_to_nothing() -> None:
    body = """
    boot:
        release
        movl $3000000, %ecx
        loop .
        movl $1, RESULTS
        halt
    others:
        await RESULTS, 1
        halt
    """
    with guest.machine(guest.build(SEVERAL + body).image, vcpus=4) as td:
        td.run(20_000_000, None)
        assert all(vcpu.count < 100_000 for vcpu in td.vcpus[1:])


def test_all_asleep_ends_the_run() -> None:
    body = """
    boot:
        release
        start_apic
        sleep
    others:
        start_apic
        sleep
    """
    end = run(body).ending.end
    assert (end.reason, end.detail) == ("halt", "every vCPU halted and nothing will wake one")


@pytest.mark.parametrize("alias", [0x812000, (5 << 30) + 0x812000], ids=["same address", "not executable"])
def test_code_that_the_processor_itself_wrote(alias: int) -> None:
    """Each of two functions of one page is patched by two stores, through its own address or another one."""
    body = f"""
    .set CODE, 0x812000
    boot:
        movabsq $0x8000000000000087, %rax   /* 5 GiB: the first GiB again, not executable */
        movq %rax, pdpt + 5 * 8(%rip)
        movq %cr3, %rax
        movq %rax, %cr3
        movl $CODE, %edi
        movabsq ${alias}, %rsi
        movq %rdi, %r8
        movl $2, %ebx
    1:  movw $0x00b8, (%r8)                 /* mov $0, %eax; add $0, %eax; ret */
        movl $0x05000000, 2(%r8)
        movl $0, 6(%r8)
        movb $0xc3, 10(%r8)
        addq $0x200, %r8
        decl %ebx
        jnz 1b
        movl $100, %ebp
    2:  movl %ebp, 1(%rsi)
        movl %ebp, 6(%rsi)
        movl %ebp, 0x201(%rsi)
        movl %ebp, 0x206(%rsi)
        leal (%rbp, %rbp), %edx
        call *%rdi
        cmpl %edx, %eax
        je 3f
        incq RESULTS
    3:  leaq 0x200(%rdi), %rax
        call *%rax
        cmpl %edx, %eax
        je 4f
        incq RESULTS + 8
    4:  decl %ebp
        jnz 2b
        movq $1, RESULTS + 16
        halt
    others:
        halt
    """
    assert run(body, vcpus=1).words[:3] == (0, 0, 1)


class Turns(Policy):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        self.asked.append(instructions)
        return instructions


@pytest.mark.parametrize(("ahead", "asked"), [(-5, []), (0, []), (7, [7])])
def test_a_policy_is_asked_for_turns_that_are_left(ahead: int, asked: list[int]) -> None:
    body = "main:\n1:  nop\n    jmp 1b\n"
    policy = Turns()
    config = RunConfig(guest.build(body).image, "guest.bin", memory=guest.MEMORY, until="halt")
    machine = prepare(config, policy=policy)
    try:
        vcpu = machine.vcpus[0]
        vcpu.run_alone(100)
        machine.turn(Turn(vcpu, vcpu.time + ahead), 1_000_000)
        assert policy.asked == asked
    finally:
        machine.close()
