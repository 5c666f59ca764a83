/* Does a copy fit where it goes? */
#include "../src/copy.c"
#include "model.h"

void prove_copy(void) {
    struct span to = any_span(BOUND), out;
    const struct span from = any_span(BOUND);
    copy_in(&to, &from, &out);
}
