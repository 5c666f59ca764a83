/* What do the parts of the sample payload have of each other, and what depends on the format of its file?
 *
 * The entry takes its arguments by the convention of the target that it is compiled for. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include "tdf_base.h"

#ifdef _WIN32
#define FORMAT "PE32+"
#define IMAGE "__ImageBase"
#define SHADOW 32u /* bytes above the return address that are the callee's: Microsoft x64 convention */
#else
#define FORMAT "ELF64"
#define IMAGE "__ehdr_start"
#define SHADOW 0u
#endif
/* Where it runs: the linkers' name of the first byte, found from RIP and not through a pointer that is relocated. */
static inline uint64_t sample_image(void) {
    uint64_t at;
    __asm__("lea " IMAGE "(%%rip), %0" : "=r"(at));
    return at;
}

/* console.c. Writes to COM1: %u is a uint64_t in decimal, %x one in hexadecimal with 0x, %s a text. */
void say(const char *format, ...);
_Noreturn void halt(void);

/* faults.c. What an access ended in; `vector` is NO_FAULT if it was let through. */
#define NO_FAULT 0xFFu
#define PAGE_FAULT 14u /* Intel SDM volume 3A, 6.15; the bits of its error code */
#define FAULT_PRESENT 1u
#define FAULT_WRITE 2u
#define FAULT_FETCH 16u
struct fault {
    uint64_t vector, error, address;
};

void take_exceptions(void); /* with a GDT and an IDT of its own: those that it was entered with may lie anywhere */
struct fault try_read(uint64_t at);
struct fault try_write(uint64_t at); /* changes nothing if it is let through */
struct fault try_jump(uint64_t at);  /* to the bytes JUMP_BACK */
#define JUMP_BACK {0xFF, 0xE0} /* jmp *%rax */

#endif
