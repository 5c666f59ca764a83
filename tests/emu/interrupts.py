"""What does a small guest need to take interrupts? Macros on guest.py: an IDT in RAM, x2APIC, VMCALLs."""

MACROS = """
.set IDT, RESULTS + 0x3000
.set TSS, RESULTS + 0x2E00
.set SVR, 0x80F
.set ICR, 0x830
.set LVT_TIMER, 0x832
.set INITIAL, 0x838
.set DIVIDE, 0x83E
.macro apic register, value         /* TDVMCALL WRMSR */
    movl $\\register, %r12d
    movl $\\value, %r13d
    vmcall 0x20
.endm
.macro ipi destination, low
    movl $ICR, %r12d
    movl $\\destination, %r13d
    shlq $32, %r13
    movl $\\low, %r14d
    orq %r14, %r13
    vmcall 0x20
.endm
.macro native register, value       /* WRMSR that stays in the TD */
    movl $\\register, %ecx
    movl $\\value, %eax
    xorl %edx, %edx
    wrmsr
.endm
.macro readmsr register
    movl $\\register, %ecx
    rdmsr
.endm
.macro eoi
    native 0x80B, 0
.endm
.macro tsc register
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, \\register
.endm
.macro gate vector, handler, type=0x8E00
    leaq \\handler(%rip), %rbx
    movw %bx, IDT + \\vector * 16
    movl $\\type << 16 | 16, IDT + \\vector * 16 + 2
    shrq $16, %rbx
    movw %bx, IDT + \\vector * 16 + 6
    shrq $16, %rbx
    movl %ebx, IDT + \\vector * 16 + 8
.endm
.macro task                         /* a GDT in RAM with a TSS that has a stack for CPL 0 */
    leaq gdt(%rip), %rsi
    movl $RESULTS + 0x2000, %edi
    movl $8, %ecx
    rep movsq
    movl $TSS, %eax
    shlq $16, %rax
    movq $0x0000890000000067, %rbx
    orq %rbx, %rax
    movq %rax, RESULTS + 0x2000 + 48
    movq $0, RESULTS + 0x2000 + 56
    movl $RESULTS + 0x6000, %eax
    movq %rax, TSS + 4              /* RSP0 */
    movw $63, RESULTS + 0x1FF0
    movl $RESULTS + 0x2000, %eax
    movq %rax, RESULTS + 0x1FF2
    lgdt RESULTS + 0x1FF0
    movl $48, %eax
    ltr %ax
.endm
.macro tables                       /* the exceptions of guest.py, and room for all interrupts */
    cld
    leaq idt(%rip), %rsi
    movl $IDT, %edi
    movl $64, %ecx
    rep movsq
    movw $0xFFF, RESULTS + 0x2FF0
    movl $IDT, %ebx
    movq %rbx, RESULTS + 0x2FF2
    movq $0, RESULTS + 0x2FFA
.endm
.macro start_apic
    lidt RESULTS + 0x2FF0
    apic SVR, 0x1FF
.endm
.macro sleep                        /* until an interrupt comes: STI holds it off for one instruction */
    movl $0, %r10d
    movl $0x0C, %r11d
    movl $0, %r12d
    movl $0, %eax
    movl $0xFF00, %ecx
    sti
    .byte 0x66, 0x0f, 0x01, 0xcc
    cli
.endm
"""

# What is typed comes back, until a new line: the serial port's interrupt through the I/O APIC
ECHO = """
    .macro out port, value
        movl $\\value, %eax
        io 1, \\port
    .endm
    .macro io write, port           /* one byte, value in and out in EAX */
        movl %eax, %r15d
        movl $1, %r12d
        movl $\\write, %r13d
        movl $\\port, %r14d
        movl $0, %r10d
        movl $0x1E, %r11d
        movl $0, %eax
        movl $0xFF00, %ecx
        .byte 0x66, 0x0f, 0x01, 0xcc
    .endm
    .macro device offset, value     /* MMIO write of 4 bytes */
        movl $4, %r12d
        movl $1, %r13d
        movabsq $0x8000FEC00000 + \\offset, %r14
        movl $\\value, %r15d
        movl $0, %r10d
        movl $0x30, %r11d
        movl $0, %eax
        movl $0xFF00, %ecx
        .byte 0x66, 0x0f, 0x01, 0xcc
    .endm
    main:
        tables
        gate 0x44, handler
        start_apic
        device 0, 0x10 + 2 * 4
        device 0x10, 0x44
        out 0x3FC, 8                /* OUT2 lets the interrupt out */
        out 0x3F9, 1
        xorl %ebp, %ebp
    1:  sleep
        jmp 1b
    handler:
        io 0, 0x3FA
        movl %r11d, %eax
        andl $0x0F, %eax
        cmpl $4, %eax
        jne 2f
        io 0, 0x3F8
        movl %r11d, %eax
        cmpl $10, %eax
        je 3f
        io 1, 0x3F8
        incl %ebp
        jmp handler
    2:  eoi
        iretq
    3:  keep 0, %rbp
        halt
    """
