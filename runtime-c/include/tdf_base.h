/* What does every module of the C core share: spans, status, small helpers.
 *
 * Contract of the whole core: a function reads only what its spans cover, writes only through its non-const
 * parameters, keeps no state, never recurses and is total: any bytes give a result or a status. Addresses are GPAs;
 * in the firmware a pointer and a GPA are the same number. Sizes are bytes. */
#ifndef TDF_BASE_H
#define TDF_BASE_H

#include <stddef.h>
#include <stdint.h>

#include "formats.h"

/* What a loop changes, what holds whenever it begins again, and what becomes less each time: for the proofs alone
 * (docs/proofs.md). Firmware has nothing of it. */
#ifdef __CPROVER__
#define PROVE_LOOP(changes, holds, ...) __CPROVER_assigns changes __CPROVER_loop_invariant(holds) __CPROVER_decreases(__VA_ARGS__)
#else
#define PROVE_LOOP(changes, holds, ...)
#endif

/* 0, or an error number of the prelude (TDF_E_...). */
typedef uint32_t status_t;

struct span {
    uint8_t *data;
    uint64_t size;
};

/* A SHA-384 digest. */
struct digest {
    _Alignas(8) uint8_t bytes[48];
};

/* The C library's names, because compilers call them by these; memory.c has them for the firmware. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

static inline uint64_t tdf_align_down(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }

/* The caller knows that value + alignment does not wrap. */
static inline uint64_t tdf_align_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline int tdf_aligned(uint64_t value, uint64_t alignment) { return (value & (alignment - 1)) == 0; }

/* Behind the success of a check of what the VMM gave: nothing that follows runs before the check is decided, not even
 * speculatively, so no load goes by a number that failed it (Intel SDM volume 2, LFENCE; td-shim's threat model, S-1). */
#ifdef __CPROVER__
#define TDF_BARRIER() ((void)0)
#else
#define TDF_BARRIER() __asm__ volatile("lfence" ::: "memory")
#endif

/* Is [offset, offset + size) inside of a span of `total` bytes? */
static inline __attribute__((always_inline)) int tdf_inside(uint64_t total, uint64_t offset, uint64_t size) {
    if (offset > total || size > total - offset)
        return 0;
    TDF_BARRIER();
    return 1;
}

static inline int tdf_overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end) {
    return a < b_end && b < a_end;
}

static inline uint64_t tdf_gpa(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

/* Copies a structure out of bytes of any alignment; 0 if it does not fit. */
static inline int tdf_read(const struct span *from, uint64_t offset, void *to, uint64_t size) {
    if (!tdf_inside(from->size, offset, size))
        return 0;
    memcpy(to, from->data + offset, size);
    return 1;
}

#endif
