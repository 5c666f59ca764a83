/* Do acceptance and what is left out of it keep to the RAM plan, and do they end? */
#include "../src/accept.c"
#include "model.h"

static void assume_counts(const struct ram *ram) {
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges) && ram->carved.count <= CAPACITY(ram, carved));
}

void prove_accept_next(void) {
    const struct ram *ram = ANY(struct ram);
    struct acceptance at;
    struct accept_run out;
    uint64_t done, status;
    assume_counts(ram);
    accept_next(ram, &at, done, status, &out);
}

void prove_leave_out(void) {
    struct ram ram;
    uint64_t start, end;
    assume_counts(&ram);
    leave_out(&ram, start, end);
}

/* Stands for leave_out, which changes the ranges. */
void any_leave_out(struct ram *ram, uint64_t start, uint64_t end) {
    __CPROVER_havoc_object(ram);
    assume_counts(ram);
}

void prove_accept_begin(void) {
    struct ram ram;
    struct acceptance out;
    uint64_t limit;
    uint32_t level;
    assume_counts(&ram);
    accept_begin(&ram, limit, level, &out);
    __CPROVER_assert(out.range == 0 && out.next == 0 && out.level <= 1, "it begins with the first range");
}
