/* Does the parser of the TD HOB keep to its list? */
#include "../src/hob.c"
#include "model.h"

void prove_hob(void) {
    const struct span list = any_span(BOUND);
    struct span out;
    struct vmm vmm;
    hob_extent(&list, &out);
    parse_hob(&list, &vmm);
}
