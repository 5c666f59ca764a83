/* Do the searches for free RAM keep to the plan, and do they end? Does placing keep to its list of copies?
 *
 * Ranges and regions end below 2^52, as plan_memory has them; an alignment is a power of two of 32 bits and a preferred
 * address has 63, as parse_linux has them. */
#include "../src/place.c"
#include "model.h"

#define MOST (1ull << 52)

static void assume_plan(const struct ram *ram) {
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges) && ram->carved.count <= CAPACITY(ram, carved));
    for (uint64_t i = 0; i < CAPACITY(ram, ranges); i++)
        __CPROVER_assume(ram->ranges.items[i].end <= MOST);
    for (uint64_t i = 0; i < CAPACITY(ram, carved); i++)
        __CPROVER_assume(tdf_gpa(ram->carved.items[i].data) <= MOST && ram->carved.items[i].size <= MOST);
}

static uint64_t any_alignment(void) {
    uint32_t shift;
    __CPROVER_assume(shift >= 12 && shift < 32);
    return 1ull << shift;
}

void prove_is_free(void) {
    struct ram ram;
    uint64_t start, end, home;
    assume_plan(&ram);
    plan_is_free(&ram, start, end, home);
}

void prove_lowest(void) {
    struct ram ram;
    uint64_t from, size;
    assume_plan(&ram);
    __CPROVER_assume(from <= UINT64_MAX / 2);
    lowest(&ram, from, size, any_alignment());
}

void prove_highest(void) {
    struct ram ram;
    struct area kept;
    uint64_t limit, size;
    assume_plan(&ram);
    highest(&ram, limit, size, &kept);
}

int any_is_free(const struct ram *ram, const struct area *area, uint64_t home) {
    int found;
    return found;
}

uint64_t any_lowest(const struct ram *ram, uint64_t from, uint64_t size, uint64_t alignment) {
    uint64_t found;
    return found;
}

uint64_t any_highest(const struct ram *ram, uint64_t limit, uint64_t size, const struct area *kept) {
    uint64_t found;
    return found;
}

void prove_place(void) {
    struct ram ram;
    struct linux kernel;
    struct span initrd;
    struct placement out;
    kernel.alignment = any_alignment();
    place_linux(&kernel, &initrd, &ram, &out);
}
