# The payload of last resort: prints one line by TDG.VP.VMCALL<Instruction.IO> and halts.
# Linux 64-bit boot protocol: entered at +0x200 with RSI = boot_params; no stack is used.
# Registers and sub-function numbers: Intel GHCI, TDG.VP.VMCALL.
        .text
        .globl  _start
_start:
        cli
        lea     line(%rip), %rsi
next:   movzbl  (%rsi), %r15d           # the byte to write
        test    %r15d, %r15d
        jz      halt
        mov     $0x1e, %r11d            # Instruction.IO
        mov     $1, %r12d               # one byte
        mov     $1, %r13d               # OUT
        mov     $0x3f8, %r14d           # COM1
        xor     %r10d, %r10d            # GHCI sub-function
        mov     $0xfc00, %ecx           # R10 to R15 are exchanged
        xor     %eax, %eax              # TDG.VP.VMCALL
        tdcall
        inc     %rsi
        jmp     next
halt:   mov     $0x0c, %r11d            # Instruction.HLT
        mov     $1, %r12d               # interrupts are blocked
        xor     %r13d, %r13d
        xor     %r14d, %r14d
        xor     %r15d, %r15d
        xor     %r10d, %r10d
        mov     $0xfc00, %ecx
        xor     %eax, %eax
        tdcall
        jmp     halt
line:   .asciz  "tdforge tiny payload: started\n"
