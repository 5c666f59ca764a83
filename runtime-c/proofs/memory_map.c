/* Do the readers of a memory map keep to it, and what they found to its list? */
#include "../src/memory_map.c"
#define CLEARS struct vmm
#include "model.h"

void prove_memory_map_extent(void) {
    const struct span region = any_span(BOUND);
    struct span out;
    if (memory_map_extent(&region, &out) == TDF_OK)
        __CPROVER_assert(out.size <= region.size, "the extent lies in the region");
}

void prove_parse_memory_map(void) {
    const struct span map = any_span(BOUND);
    struct vmm out;
    parse_memory_map(&map, &out);
}
