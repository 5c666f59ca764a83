/* Does boot_params keep to its page, and its map to its table? */
#include "../src/zero_page.c"
#include "model.h"

void prove_zero_page(void) {
    const struct span page = any_span(BOUND), image = any_span(BOUND), command_line = any_span(BOUND);
    struct placement placement;
    struct ram *ram = ANY(struct ram);
    uint64_t rsdp;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    placement.kernel.image = image;
    zero_page(&page, &placement, ram, &command_line, rsdp);
}
