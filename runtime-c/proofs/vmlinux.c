/* Do the readers of a window keep to it, and is what is cleared in its section? */
#include "../src/vmlinux.c"
#include "model.h"

/* Proved in place.c. */
int plan_is_free(const struct ram *ram, uint64_t start, uint64_t end, uint64_t home) {
    int found;
    return found;
}

void prove_used_extent(void) {
    const struct span region = any_span(BOUND);
    struct span out;
    used_extent(&region, &out);
    __CPROVER_assert(out.size <= region.size, "the extent lies in the region");
}

void prove_place_vmlinux(void) {
    const struct span window = any_span(BOUND);
    struct span kernel, initrd;
    struct ram *ram = ANY(struct ram);
    struct placement out;
    uint64_t entry;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    place_vmlinux(&window, &kernel, entry, &initrd, ram, &out);
}

void prove_clear_rest(void) {
    struct span section = any_span(BOUND), page;
    struct placement placement;
    clear_rest(&section, &placement, &page);
}
