"""What does user mode see: SYSCALL, SYSRET, SWAPGS, faults with the user bit, instructions not for it?"""

from __future__ import annotations

import guest
import pytest
from interrupts import MACROS

from emu.cpu import pagestate

# CPL 3 at `user` with paging that lets it read all but nothing else; SYSCALL leads to `entry`.
USER = (
    MACROS
    + """
.set USER_STACK, RESULTS + 0x5000
main:
    tables
    lidt RESULTS + 0x2FF0
    task
    movl $0xC0000081, %ecx      /* STAR: kernel 0x10, SYSRET to 0x13 + 16 and + 8 */
    xorl %eax, %eax
    movl $0x00130010, %edx
    wrmsr
    leaq entry(%rip), %rax
    movq %rax, %rdx
    shrq $32, %rdx
    movl $0xC0000082, %ecx      /* LSTAR */
    wrmsr
    native 0xC0000084, 0x40600  /* FMASK: IF, DF, AC */
    native 0xC0000102, 0x1234   /* KERNEL_GS_BASE */
    pushq $40 + 3
    pushq $USER_STACK
    pushq $0x202
    pushq $32 + 3
    leaq user(%rip), %rax
    pushq %rax
    iretq
"""
)


def run(body: str) -> guest.Outcome:
    """A guest that goes to user mode."""
    return guest.run(USER + body)


def test_syscall_and_sysret() -> None:
    body = """
    user:
        std
        movl $0x111, %ecx
        movq $0x222, %r11
        syscall
    back:
        movq %rcx, RESULTS + 5 * 8
        movl %cs, %eax
        keep 6, %rax
        movl %ss, %eax
        keep 7, %rax
        pushfq
        popq %rax
        keep 8, %rax
        movl $1, %ebp
        syscall
    entry:
        testl %ebp, %ebp
        jnz 1f
        leaq back(%rip), %rax
        subq %rcx, %rax
        keep 0, %rax            /* RCX is the address behind SYSCALL */
        keep 1, %r11
        pushfq
        popq %rax
        keep 2, %rax
        movl %cs, %eax
        keep 3, %rax
        movl %ss, %eax
        keep 4, %rax
        movq $USER_STACK, %rsp
        sysretq
    1:  halt
    """
    words = run(body).words
    back = words[5]
    assert words[0] == 0
    assert words[1] & 0x600 == 0x600
    assert words[2] & 0x600 == 0
    assert words[3:5] == (0x10, 0x18)
    assert back > 0xFFFF0000
    assert words[6:8] == (0x23, 0x1B)
    assert words[8] & 0x600 == 0x600


def test_swapgs() -> None:
    body = """
    user:
        syscall
    entry:
        movl $0xC0000101, %ecx
        rdmsr
        keep 0, %rax
        swapgs
        rdmsr
        keep 1, %rax
        halt
    """
    assert run(body).words[:2] == (0, 0x1234)


@pytest.mark.parametrize(
    ("instruction", "vector", "error"),
    [
        ("hlt", 13, 0),
        ("cli", 13, 0),
        ("movq %cr3, %rax", 13, 0),
        ("rdmsr", 13, 0),
        ("swapgs", 13, 0),
        ("movl $1, %eax\n .byte 0x66, 0x0f, 0x01, 0xcc", 13, 0),
        ("int $0x30", 13, 0x30 * 8 + 2),
        ("movb $1, 0xFFFFFFFFFFFF0000", 14, 6),
        ("movq $0x8000000000, %rax\n movb (%rax), %al", 14, 4),
        ("movq $0x8000000000, %rax\n jmp *%rax", 14, 0x14),
    ],
)
def test_what_user_mode_may_not(instruction: str, vector: int, error: int) -> None:
    body = f"""
    user:
        leaq pdpt(%rip), %rax
        {instruction}
    1:  jmp 1b
    entry:
        halt
    """
    found = run(body).exception
    assert found is not None
    assert found[:2] == (vector, error)


@pytest.mark.parametrize(
    ("access", "error"), [("movb (%rbx), %al", 5), ("movb %al, (%rbx)", 7), ("jmp *%rbx", 0x15)]
)
def test_page_of_the_kernel(access: str, error: int) -> None:
    body = f"""
    user:
        movl $0x40000000, %ebx
        movb (%rbx), %al        /* fine once: the page is the user's as yet */
        syscall
        {access}
    entry:
        andb $~4, pdpt + 8(%rip)
        invlpg (%rbx)
        sysretq
    """
    with guest.machine(guest.build(USER + body).image, memory=(1 << 30) + (64 << 20)) as td:
        td.memory.set_states(1 << 30, 4096, pagestate.MAPPED)
        td.run(100_000, None)
        assert td.memory.read(guest.RESULTS + 0xF00, 1) == b"\x0e"
        assert int.from_bytes(td.memory.read(guest.RESULTS + 0xF08, 8), "little") == error


@pytest.mark.parametrize(("access", "error"), [("movb (%rbx), %al", 1), ("movb %al, (%rbx)", 3)])
def test_the_kernel_keeps_off_pages_of_the_user(access: str, error: int) -> None:
    """SMAP: STAC opens, CLAC closes; the stack and the tables are on pages of the kernel alone."""
    body = f"""
    main:
        movl $0x40000000, %ebx
        andb $~4, pdpt(%rip)            /* 0 to 1 GiB and 3 to 4 GiB are the kernel's */
        andb $~4, pdpt + 24(%rip)
        movq %cr3, %rax
        movq %rax, %cr3
        movq %cr4, %rax
        orl $0x200000, %eax
        movq %rax, %cr4
        stac
        movb $7, (%rbx)
        movb (%rbx), %al
        keep 0, %rax
        clac
        {access}
        halt
    """
    with guest.machine(guest.build(body).image, memory=(1 << 30) + (64 << 20)) as td:
        td.memory.set_states(1 << 30, 4096, pagestate.MAPPED)
        td.run(100_000, None)
        assert td.memory.read(guest.RESULTS, 1) == b"\x07"
        assert td.memory.read(guest.RESULTS + 0xF00, 1) == b"\x0e"
        assert int.from_bytes(td.memory.read(guest.RESULTS + 0xF08, 8), "little") == error
