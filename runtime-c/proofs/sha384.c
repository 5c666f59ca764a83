/* Do the pieces of a message become blocks without a byte outside of either? */
#include "../src/sha384.c"
#include "model.h"

/* Proved in sha384_blocks.c. */
void sha384_blocks(uint64_t state[8], const uint8_t *data, uint64_t count) {
    __CPROVER_assert(count <= UINT64_MAX / SHA384_BLOCK, "no more blocks than memory has");
    reads(data, count * SHA384_BLOCK);
    writes(state, 8 * sizeof state[0]);
}

void prove_sha384(void) {
    const struct span data = any_span(BOUND), more = any_span(BOUND);
    struct sha384 hash; /* of any message so far */
    struct digest out;
    digest(&data, &out);
    sha384_update(&hash, &more);
    sha384_finish(&hash, out.bytes);
}
