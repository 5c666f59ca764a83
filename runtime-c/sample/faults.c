/* What happens where the sample payload does what it must not? Its exception handler notes it, and goes on behind it.
 *
 * Source: Intel SDM volume 3A, chapters 3 (descriptors) and 6 (gates, error codes). */
#include "sample.h"

#define VECTORS 32u
#define CODE 8u
#define DATA 16u
#define INTERRUPT_GATE 0x8Eu

struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, flags, rsp, ss;
};

struct gate {
    uint16_t low, selector;
    uint8_t stack, type;
    uint16_t middle;
    uint32_t high, reserved;
};

struct __attribute__((packed)) table {
    uint16_t limit;
    uint64_t base;
};

/* 64-bit code, data; marked as accessed, so that the processor does not write here. */
static const uint64_t descriptors[] = {0, UINT64_C(0x00AF9B000000FFFF), UINT64_C(0x00CF93000000FFFF)};
static struct gate gates[VECTORS];
static volatile uint64_t resume; /* where to go on after the exception that is expected now; 0: none is */
static volatile struct fault noted;

/* 16 bytes a vector; the bits of the mask are the vectors that push an error code. Both conventions' first argument. */
__asm__(".text\n"
        ".balign 16\n"
        "sample_vectors:\n"
        ".irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "    .balign 16\n"
        "    .if !((0x60227D00 >> \\vector) & 1)\n"
        "    push $0\n"
        "    .endif\n"
        "    push $\\vector\n"
        "    jmp sample_exception\n"
        ".endr\n"
        "sample_exception:\n"
        ".irp name, rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15\n"
        "    push %\\name\n"
        ".endr\n"
        "    cld\n"
        "    mov %rsp, %rdi\n"
        "    mov %rsp, %rcx\n"
        "    mov %rsp, %rbp\n"
        "    and $-16, %rsp\n"
        "    sub $32, %rsp\n"
        "    call sample_fault\n"
        "    mov %rbp, %rsp\n"
        ".irp name, r15,r14,r13,r12,r11,r10,r9,r8,rdi,rsi,rbp,rbx,rdx,rcx,rax\n"
        "    pop %\\name\n"
        ".endr\n"
        "    add $16, %rsp\n"
        "    iretq\n");

__attribute__((used)) void sample_fault(struct frame *frame);

void sample_fault(struct frame *frame) {
    uint64_t address;
    __asm__("mov %%cr2, %0" : "=r"(address));
    if (resume == 0) {
        say("tdforge sample: exception %u, error code %x, at %x, CR2 %x\n", frame->vector, frame->error,
            frame->rip - sample_image(), address);
        say("tdforge sample: FAILED by an exception\n");
        halt();
    }
    noted.vector = frame->vector;
    noted.error = frame->error;
    noted.address = address;
    frame->rip = resume;
    resume = 0;
}

void take_exceptions(void) {
    uint64_t vectors;
    __asm__("lea sample_vectors(%%rip), %0" : "=r"(vectors));
    for (uint64_t i = 0; i < VECTORS; i++) {
        const uint64_t at = vectors + 16 * i;
        gates[i].low = (uint16_t)at;
        gates[i].selector = CODE;
        gates[i].type = INTERRUPT_GATE;
        gates[i].middle = (uint16_t)(at >> 16);
        gates[i].high = (uint32_t)(at >> 32);
    }
    const struct table gdt = {sizeof descriptors - 1, tdf_gpa(descriptors)};
    const struct table idt = {sizeof gates - 1, tdf_gpa(gates)};
    uint64_t scratch = CODE;
    __asm__ volatile("lgdt %1\n\t"
                     "lidt %2\n\t"
                     "push %0\n\t"
                     "lea 1f(%%rip), %0\n\t"
                     "push %0\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "mov %3, %%ds\n\t"
                     "mov %3, %%es\n\t"
                     "mov %3, %%fs\n\t"
                     "mov %3, %%gs\n\t"
                     "mov %3, %%ss"
                     : "+&r"(scratch)
                     : "m"(gdt), "m"(idt), "r"(DATA)
                     : "memory");
}

#define TRY(instruction, at) \
    resume = 0; \
    noted.vector = NO_FAULT; \
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\t" instruction "\n1:" \
                     : "=m"(resume) \
                     : "r"(at) \
                     : "rax", "rdx", "memory", "cc"); \
    resume = 0; \
    return noted

struct fault try_read(uint64_t at) { TRY("mov (%1), %%dl", at); }
struct fault try_write(uint64_t at) { TRY("lock orb $0, (%1)", at); }
struct fault try_jump(uint64_t at) { TRY("jmp *%1", at); }
