/* Does the compression function keep to its blocks? */
#define __builtin_memcpy memcpy
#include "../src/sha384_blocks.c"
#include "model.h"

void prove_sha384_blocks(void) {
    const struct span data = any_span(BOUND);
    uint64_t state[8];
    sha384_blocks(state, data.data, data.size / SHA384_BLOCK);
}
