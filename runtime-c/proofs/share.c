/* Does the list of what is shared hold every plan, and does a rest end with its chunk? */
#include "../src/share.c"
#include "model.h"

/* Proved in accept.c. */
status_t accept_next(const struct ram *ram, struct acceptance *at, uint64_t done, uint64_t status,
                     struct accept_run *out) {
    (void)done, (void)status;
    reads(ram, sizeof *ram);
    writes(at, sizeof *at);
    writes(out, sizeof *out);
    status_t result;
    return result;
}

void prove_accept_shares(void) {
    const struct ram *ram = ANY(struct ram);
    struct shares out;
    uint32_t level;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    accept_shares(ram, level, &out);
    __CPROVER_assert(out.list.count <= ram->ranges.count, "no more parts than ranges");
}

void prove_accept_rest(void) {
    const struct ram *ram = ANY(struct ram);
    struct acceptance at;
    struct accept_run out;
    uint64_t end, done, status;
    if (accept_rest(ram, &at, end, done, status, &out) != TDF_OK || out.count == 0)
        return;
    __CPROVER_assert(out.start < end, "a rest ends with its chunk");
    __CPROVER_assert(out.count <= (end - out.start) / (out.level ? TDF_PAGE_2M : TDF_PAGE), "and so do its pages");
}
