"""Does a guest see the CPU of a TD: entry state, #VE, exceptions, page protection, time?"""

from __future__ import annotations

import guest
import pytest
from guest import RESULTS, run

VEINFO = """
veinfo:                     /* handler for vector 20 in the tests that fetch what happened */
    movq (%rsp), %rbx
    keep 8, %rbx
    movl $3, %eax
    .byte 0x66, 0x0f, 0x01, 0xcc
    keep 0, %rax
    keep 1, %rcx
    keep 2, %rdx
    keep 3, %r8
    keep 4, %r9
    keep 5, %r10
    halt
"""
SET_VE_HANDLER = """
    leaq idt(%rip), %rbx    /* the IDT lies in the image: copy it to RAM and point vector 20 at veinfo */
    movl $RESULTS + 0x2000, %edi
    movq %rbx, %rsi
    movl $64, %ecx
    rep movsq
    leaq veinfo(%rip), %rbx
    movw %bx, RESULTS + 0x2000 + 20 * 16
    shrq $16, %rbx
    movw %bx, RESULTS + 0x2000 + 20 * 16 + 6
    movw $511, RESULTS + 0x1FF0
    movl $RESULTS + 0x2000, %ebx
    movq %rbx, RESULTS + 0x1FF2
    lidt RESULTS + 0x1FF0
    xorl %ebx, %ebx
"""


def test_entry_state() -> None:
    first = """
        movl %ebx, %ebp
        movl %esi, %edi
        movl %ecx, %ebx
        movl %edx, %esi
        movl %cr0, %ecx
        movl %cr4, %edx
    """
    body = """
    main:
        keep 0, %rbp
        keep 1, %rdi
        keep 2, %rbx
        keep 3, %rsi
        keep 4, %rcx
        keep 5, %rdx
        keep 6, %r8
        movl $0xC0000080, %ecx
        rdmsr
        keep 7, %rax
        halt
    """
    words = run(body, first).words
    assert words[:8] == (48, 0, guest.HOB, 0x806F8, 0x31, 0x40, guest.HOB, 0xD01)


@pytest.mark.parametrize(
    ("name", "code", "reason", "qualification", "length"),
    [
        ("cpuid", "movl $2, %eax; at: cpuid", 10, 0, 2),
        ("hypervisor leaf", "movl $0x40000000, %eax; at: cpuid", 10, 0, 2),
        ("hlt", "at: hlt", 12, 0, 1),
        ("invd", "at: invd", 13, 0, 2),
        ("wbinvd", "at: wbinvd", 54, 0, 2),
        ("in al, imm", "at: inb $0x71, %al", 30, 0x710048, 2),
        ("out dx, ax", "movl $0x3F8, %edx; at: outw %ax, %dx", 30, 0x3F80001, 2),
        ("in eax, dx", "movl $0xCFC, %edx; at: inl %dx, %eax", 30, 0xCFC000B, 1),
        ("rep outsb", "movl $0x402, %edx; at: rep outsb", 30, 0x4020030, 2),
        ("rdmsr", "movl $0x1B, %ecx; at: rdmsr", 31, 0, 2),
        ("wrmsr", "movl $0x8B, %ecx; at: wrmsr", 32, 0, 2),
        ("efer", "movl $0xC0000080, %ecx; movl $1, %eax; xorl %edx, %edx; at: wrmsr", 32, 0, 2),
        ("cr4 mce", "movl $0x620, %eax; at: movq %rax, %cr4", 28, 4, 3),
        ("cr0 cd", "movl $0xC0010023, %ebx; at: movq %rbx, %cr0", 28, 0x300, 3),
        ("mwait", "at: mwait", 36, 0, 3),
        ("monitor", "at: monitor", 39, 0, 3),
        ("vmcall", "at: vmcall_insn", 18, 0, 3),
    ],
)
def test_instruction_raises_ve(name: str, code: str, reason: int, qualification: int, length: int) -> None:
    code = code.replace("vmcall_insn", ".byte 0x0f, 0x01, 0xc1")
    body = (
        f"main:\n{SET_VE_HANDLER}\n    leaq at(%rip), %r12\n    keep 9, %r12\n    {code}\n    halt\n{VEINFO}"
    )
    words = run(body).words
    assert words[0] == 0, name
    assert (words[1], words[2], words[5] & 0xFFFFFFFF) == (reason, qualification, length), name
    assert words[8] == words[9], "RIP of the frame points at the instruction"


def test_second_ve_before_veinfo_is_a_double_fault() -> None:
    body = """
    main:
        movl $2, %eax
        cpuid
    """
    handler = "veinfo:\n    movl $2, %eax\n    cpuid\n    halt\n"
    outcome = run(body.replace("main:", f"main:\n{SET_VE_HANDLER}") + handler)
    assert outcome.exception is not None
    assert outcome.exception[:2] == (8, 0)


@pytest.mark.parametrize(
    ("code", "vector"),
    [
        ("movl $0x276, %ecx; rdmsr", 13),
        ("movl $0x10A, %ecx; wrmsr", 13),
        ("movl $0x11, %eax; movq %rax, %cr0", 13),
        ("movl $0x1660, %eax; movq %rax, %cr4", 13),
        ("movl $3, %eax; .byte 0x66, 0x0f, 0x01, 0xcf", 6),  # SEAMCALL
        ("ud2", 6),
        ("xorl %ecx, %ecx; divl %ecx", 0),
        ("movl $0x40, %eax; movl %eax, %ds", 13),
        ("rdpmc", 13),
        ("getsec", 6),
    ],
)
def test_instruction_raises_an_exception(code: str, vector: int) -> None:
    outcome = run(f"main:\n    {code}\n    halt\n")
    assert outcome.exception is not None
    assert outcome.exception[0] == vector


def test_int3_pushes_the_next_rip() -> None:
    outcome = run("main:\n    leaq 1f(%rip), %rax\n    keep 0, %rax\n    int3\n1:  halt\n")
    assert outcome.exception is not None
    assert outcome.exception[:2] == (3, outcome.words[0])


def test_efer_write_of_the_same_value_and_native_msrs() -> None:
    body = """
    main:
        movl $0xC0000080, %ecx
        rdmsr
        wrmsr
        keep 0, %rax
        movl $0xC0000102, %ecx
        movl $0x12345678, %eax
        movl $0x1ABC, %edx
        wrmsr
        xorl %eax, %eax
        rdmsr
        keep 1, %rax
        keep 2, %rdx
        movl $0x808, %ecx
        movl $0x20, %eax
        xorl %edx, %edx
        wrmsr
        xorl %eax, %eax
        rdmsr
        keep 3, %rax
        movl $0x1A0, %ecx
        rdmsr
        keep 4, %rax
        halt
    """
    outcome = run(body)
    assert outcome.exception is None
    assert outcome.words[:5] == (0xD01, 0x12345678, 0x1ABC, 0x20, 0x1001)


PROTECT = """
    movl $RESULTS + 0x4000, %edi    /* PML4 +4000, PDPT +5000, PD +6000, PT +7000: the first 2 MiB */
    xorl %eax, %eax
    movl $0x800, %ecx
    rep stosq
    movl $RESULTS + 0x5007, %eax
    movq %rax, RESULTS + 0x4000
    movl $RESULTS + 0x6007, %eax
    movq %rax, RESULTS + 0x5000
    movq pdpt + 24(%rip), %rax
    movq %rax, RESULTS + 0x5018
    movl $RESULTS + 0x7007, %eax
    movq %rax, RESULTS + 0x6000
    movq $0xE7 | 0x800000, RESULTS + 0x6020
    movq $0x80A001, RESULTS + 0x7008        /* 0x1000: read only, supervisor, the HOB's second page */
    movabsq $0x800000000080A003, %rax       /* 0x2000: read-write, NX */
    movq %rax, RESULTS + 0x7010
    movl $RESULTS + 0x4000, %eax
    movq %rax, %cr3
"""


@pytest.mark.parametrize(
    ("code", "error", "address"),
    [
        ("movq %rax, 0x1008", 3, 0x1008),
        ("movb $1, 0x1234(,%rcx)", 3, 0x1234),
        ("movl $0x2010, %eax; call *%rax", 0x11, 0x2010),
        ("movq 0x3456, %rax", 0, 0x3456),
        ("movl $0x3000, %edi; stosb", 2, 0x3000),
        ("movabsq $0x3777, %rax; movq %rcx, (%rax)", 2, 0x3777),
    ],
)
def test_page_faults_reach_the_guest(code: str, error: int, address: int) -> None:
    outcome = run(f"main:\n{PROTECT}\n    xorl %ecx, %ecx\n    {code}\n    halt\n")
    assert outcome.exception is not None
    vector, found, _, cr2 = outcome.exception
    assert (vector, found, cr2) == (14, error, address)


def test_accessed_and_dirty_bits() -> None:
    body = f"""main:\n{PROTECT}
        movq 0x1000, %rax
        movq 0x2000, %rax
        movq RESULTS + 0x7010, %rbx
        keep 0, %rbx
        movq %rax, 0x2000
        movq RESULTS + 0x7010, %rbx
        keep 1, %rbx
        movq RESULTS + 0x7008, %rbx
        keep 2, %rbx
        halt
    """
    words = run(body).words
    assert [word >> 5 & 3 for word in words[:3]] == [1, 3, 1]


def test_user_mode_exception_switches_to_the_tss_stack() -> None:
    body = """
    main:
        leaq tss_descriptor(%rip), %rbx         /* GDT copied to RAM with a TSS at 0x3000 of RESULTS */
        leaq gdt(%rip), %rsi
        movl $RESULTS + 0x2000, %edi
        movl $8, %ecx
        rep movsq
        movl $RESULTS + 0x3000, %eax
        movq $RESULTS + 0x0E00, RESULTS + 0x3004    /* RSP0 */
        shlq $16, %rax
        movabsq $0x0000890000000067, %rcx
        orq %rcx, %rax
        movq %rax, RESULTS + 0x2030
        movq $0, RESULTS + 0x2038
        movw $63, RESULTS + 0x1FF0
        movl $RESULTS + 0x2000, %eax
        movq %rax, RESULTS + 0x1FF2
        lgdt RESULTS + 0x1FF0
        movl $0x30, %eax
        ltr %ax
        pushq $0x2B                             /* SS */
        pushq $RESULTS + 0x1000                 /* RSP */
        pushq $2
        pushq $0x23                             /* CS: 64-bit user code */
        leaq user(%rip), %rax
        pushq %rax
        iretq
    user:
        movl %cs, %eax
        hlt                                     /* #GP at CPL 3 */
    """
    outcome = run(body)
    assert outcome.exception is not None
    assert outcome.exception[:2] == (13, 0)
    frame = outcome.words[0x0E00 // 8 - 4 : 0x0E00 // 8 - 1]  # what is left of CS, RFLAGS, RSP below RSP0
    assert frame[0] == 0x23
    assert frame[2] == RESULTS + 0x1000


def test_shared_memory_after_map_gpa() -> None:
    body = """
    main:
        movabsq $0x800000900000, %r12
        movl $0x1000, %r13d
        vmcall 0x10001
        keep 0, %r10
        movl $RESULTS + 0x4000, %edi
        leaq pml4(%rip), %rsi
        movl $0x200, %ecx
        rep movsq
        movl $RESULTS + 0x5000, %edi
        leaq pdpt(%rip), %rsi
        movl $0x200, %ecx
        rep movsq
        movl $RESULTS + 0x5007, %eax
        movq %rax, RESULTS + 0x4000
        movabsq $0x8000000000E7, %rax           /* 512 GiB mark: GiB 4 maps GPA 0 with the shared bit */
        movq %rax, RESULTS + 0x5020
        movl $RESULTS + 0x4000, %eax
        movq %rax, %cr3
        movabsq $0x100900000, %rbx
        movq $0x5EC, %rax
        movq %rax, (%rbx)
        movq (%rbx), %rax
        keep 1, %rax
        halt
    """
    with guest.machine(guest.build(body).image) as made:
        made.run(1_000_000, None)
        assert made.memory.read(RESULTS, 16) == (0).to_bytes(8, "little") + (0x5EC).to_bytes(8, "little")
        assert made.memory.read(0x900000, 8, shared=True) == (0x5EC).to_bytes(8, "little")
        assert made.memory.read(0x900000, 8) == bytes(8)


def test_shared_device_memory_raises_ve_with_the_exact_address() -> None:
    table = """
        movl $RESULTS + 0x4000, %edi
        leaq pml4(%rip), %rsi
        movl $0x400, %ecx
        rep movsq
        movl $RESULTS + 0x5007, %eax
        movq %rax, RESULTS + 0x4000
        movabsq $0x8000C00000E7, %rax
        movq %rax, RESULTS + 0x5020
        movl $RESULTS + 0x4000, %eax
        movq %rax, %cr3
    """
    access = "    movabsq $0x13EC00010, %rbx\n    movl (%rbx), %eax\n    halt\n"
    body = f"main:\n{SET_VE_HANDLER}{table}{access}{VEINFO}"
    words = run(body).words
    assert words[:5] == (0, 48, 0x781, 0x13EC00010, 0x8000FEC00010)


def test_rep_counts_as_one_instruction() -> None:
    def count(length: int) -> int:
        fill = "movl $RESULTS, %edi\n xorl %eax, %eax\n rep stosb\n"
        return run(f"main:\n movl ${length}, %ecx\n {fill} halt\n").count

    assert count(1) == count(2) == count(3000)


def test_time_advances_with_instructions() -> None:
    body = """
    main:
        rdtsc
        movl %eax, %ebx
        nop
        nop
        nop
        rdtsc
        subl %ebx, %eax
        keep 0, %rax
        rdrand %rcx
        setc %al
        movzbl %al, %eax
        keep 1, %rax
        keep 2, %rcx
        rdrand %rcx
        keep 3, %rcx
        halt
    """
    first, second = run(body), run(body)
    assert first.words[:4] == second.words[:4]
    assert first.words[0] == 5
    assert first.words[1] == 1
    assert first.words[2] != first.words[3]


def test_bmi_works_without_osfxsr() -> None:
    body = """
    main:
        movl $0x60, %eax
        movq %rax, %cr4
        movl $5, %ecx
        movl $1, %eax
        shlxl %ecx, %eax, %eax
        keep 0, %rax
        movq %cr4, %rax
        keep 1, %rax
        halt
    """
    assert run(body).words[:2] == (32, 0x60)


def test_same_input_same_run_whatever_the_slices() -> None:
    body = """
    main:
        movl $1000, %ecx
    1:  rdtsc
        addq %rax, %rbx
        decl %ecx
        jnz 1b
        keep 0, %rbx
        movl $77, %ecx
        movl $RESULTS + 64, %edi
        rep stosb
        halt
    """
    image = guest.build(body).image
    results = []
    for step in (1, 7, 100, 10_000_000):
        with guest.machine(image) as made:
            vcpu = made.vcpus[0]
            ended = False
            while not ended:
                ended = made.run(vcpu.count + step, None).end.reason != "limit"
            results.append((vcpu.count, made.memory.read(RESULTS, 256)))
    assert all(result == results[0] for result in results)


def test_ever_new_addresses_of_watched_instructions() -> None:
    """Code that moves on forever, as one program after another does, takes no table of the emulator's beyond
    its end.
    """
    body = """
    main:
        movl $6, %eax
        movl $0x1000001, %ecx
        .byte 0x66, 0x0f, 0x01, 0xcc
        movl $0x1000000, %edi
        movl $9000, %ebp
        xorl %esi, %esi
    1:  movl $0xC3A20F, (%rdi)
        movl $0x21, %eax
        xorl %ecx, %ecx
        call *%rdi
        cmpl $0x65746E49, %ebx
        jne 2f
        incl %esi
    2:  addl $64, %edi
        decl %ebp
        jnz 1b
        keep 0, %rsi
        halt
    """
    found = run(body)
    assert found.words[0] == 9000
    assert found.count == run(body, vcpus=2).count


@pytest.mark.parametrize("store", ["movb $0x90, (%rsi)", "incl 0x100(%rsi)"])
def test_a_store_makes_no_page_executable(store: str) -> None:
    """Code is patched through an alias that is not executable; executing the alias is still a page fault."""
    body = f"""
    .set ALIAS, (5 << 30) + 0x812000
    main:
        movabsq $0x8000000000000087, %rax   /* 5 GiB: the first GiB again, not executable */
        movq %rax, pdpt + 5 * 8(%rip)
        movl $0x812000, %edi
        movabsq $ALIAS, %rsi
        movw $0xc390, (%rdi)                /* nop; ret */
        call *%rdi
        {store}
        call *%rdi
        keep 0, %rdi
        call *%rsi
        halt
    """
    found = run(body)
    assert found.words[0] == 0x812000
    assert found.exception == (14, 0x11, (5 << 30) + 0x812000, (5 << 30) + 0x812000)
