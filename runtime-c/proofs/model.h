/* What do the proofs take for any input, and for the C library?
 *
 * What nobody has set can be anything, a local variable too. The library's functions may touch what they are given and
 * nothing else; what they write can be anything. */
#ifndef TDF_PROOFS_MODEL_H
#define TDF_PROOFS_MODEL_H

#include "primitives.h"

#define CAPACITY(struct_, list) (sizeof((struct struct_ *)0)->list.items / sizeof((struct struct_ *)0)->list.items[0])
/* A structure of any content. CBMC is faster with one whose size it has to find out. */
#define ANY(type) ((type *)any_exactly(sizeof(type)))

void *malloc(size_t size);

/* Memory of any size up to `most` with any bytes in it. */
static inline struct span any_span(uint64_t most) {
    struct span made;
    __CPROVER_assume(made.size <= most);
    made.data = malloc(made.size);
    __CPROVER_assume(made.data != 0);
    return made;
}

static inline void *any_exactly(uint64_t size) {
    const struct span made = any_span(size);
    __CPROVER_assume(made.size >= size);
    return made.data;
}

/* For a function that stands for another one: it reads, or writes, all of that. */
static inline void reads(const void *from, uint64_t size) {
    __CPROVER_assert(__CPROVER_r_ok(from, size), "reads what it may");
}

static inline void writes(void *to, uint64_t size) {
    __CPROVER_assert(__CPROVER_w_ok(to, size), "writes what it may");
    if (size == 0)
        return;
#ifdef WRITES_WHOLE_OBJECTS /* more than what is written, but easier for CBMC */
    __CPROVER_havoc_object(to);
#else
    __CPROVER_havoc_slice(to, size);
#endif
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    reads(from, size);
    writes(to, size);
#ifdef COPIES_FIRST_TWO /* bytes of the copy that a module relies on: type and length of an entry */
    if (size >= 2)
        __CPROVER_assume(((const uint8_t *)to)[0] == ((const uint8_t *)from)[0] &&
                         ((const uint8_t *)to)[1] == ((const uint8_t *)from)[1]);
#endif
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    reads(from, size);
    writes(to, size);
    return to;
}

void *memset(void *to, int value, size_t size) {
    (void)value;
    writes(to, size);
#ifdef CLEARS /* a type that a module clears whole, and then relies on that */
    if (value == 0 && size == sizeof(CLEARS))
        *(CLEARS *)to = (CLEARS){0};
#endif
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    int found;
    reads(a, size);
    reads(b, size);
    return found;
}

#endif
