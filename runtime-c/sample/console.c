/* How does the sample payload write, and stop? By TDG.VP.VMCALL: an OUT or HLT would be a #VE.
 *
 * Source: GHCI 1.5, TDG.VP.VMCALL<Instruction.IO> and <Instruction.HLT>. */
#include <stdarg.h>

#include "sample.h"

static void vmcall(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    register uint64_t r10 __asm__("r10") = 0;
    register uint64_t r11 __asm__("r11") = function;
    register uint64_t r12 __asm__("r12") = a;
    register uint64_t r13 __asm__("r13") = b;
    register uint64_t r14 __asm__("r14") = c;
    register uint64_t r15 __asm__("r15") = d;
    uint64_t leaf = TDX_VP_VMCALL;
    __asm__ volatile("tdcall"
                     : "+a"(leaf), "+r"(r10), "+r"(r11), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
                     : "c"(GHCI_MASK_STANDARD)
                     : "memory", "cc");
}

static void put(char byte) { vmcall(GHCI_IO, 1, GHCI_IO_WRITE, PORT_COM1, (uint8_t)byte); }

static void put_number(uint64_t value, uint64_t base) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0)
        put(digits[--count]);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 'u':
            put_number(va_arg(arguments, uint64_t), 10);
            break;
        case 'x':
            put('0');
            put('x');
            put_number(va_arg(arguments, uint64_t), 16);
            break;
        default:
            for (const char *text = va_arg(arguments, const char *); *text != '\0'; text++)
                put(*text);
        }
    }
    va_end(arguments);
}

_Noreturn void halt(void) {
    for (;;)
        vmcall(GHCI_HLT, 1, 0, 0, 0); /* interrupts are blocked */
}
