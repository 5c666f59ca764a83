/* Does text_extent keep to its region? */
#include "../src/text.c"
#include "model.h"

void prove_text(void) {
    const struct span region = any_span(BOUND);
    struct span out;
    text_extent(&region, &out);
}
