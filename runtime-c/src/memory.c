/* Where do the firmware's memcpy, memmove, memset and memcmp come from: here, one `rep` string instruction each.
 *
 * A string instruction is one instruction however long it runs, and needs no vector registers. In a hosted build the
 * same code has names of its own so that tests can call it beside the C library's. */
#include "tdf_base.h"

#if __STDC_HOSTED__
#define NAME(name) tdf_##name
void *NAME(memcpy)(void *restrict to, const void *restrict from, size_t size);
void *NAME(memmove)(void *to, const void *from, size_t size);
void *NAME(memset)(void *to, int value, size_t size);
int NAME(memcmp)(const void *a, const void *b, size_t size);
#else
#define NAME(name) name
#endif

void *NAME(memcpy)(void *restrict to, const void *restrict from, size_t size) {
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

void *NAME(memmove)(void *to, const void *from, size_t size) {
    uint8_t *at = to;
    const uint8_t *source = from;
    if ((uintptr_t)at - (uintptr_t)source < size) {
        /* The end of the source would be overwritten before it is read: copy downwards. */
        at += size - 1;
        source += size - 1;
        __asm__ volatile("std; rep movsb; cld" : "+D"(at), "+S"(source), "+c"(size) : : "memory", "cc");
    } else {
        __asm__ volatile("rep movsb" : "+D"(at), "+S"(source), "+c"(size) : : "memory");
    }
    return to;
}

void *NAME(memset)(void *to, int value, size_t size) {
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

int NAME(memcmp)(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}
