/* Do the readers of a bzImage keep to their section? */
#include "../src/linux.c"
#include "model.h"

void prove_linux(void) {
    const struct span section = any_span(BOUND);
    struct span kernel, out;
    struct linux parsed;
    initrd_extent(&section, &kernel, &out);
    linux_extent(&section, &kernel);
    parse_linux(&section, &parsed);
}
