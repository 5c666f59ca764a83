/* Do the readers of a PE32+ program keep to its file, and do they give parts and relocations that lie in it? */
#include "../src/executable_pe.c"
#include "executable_parts.h"

void prove_executable_pe_end(void) {
    const struct span section = any_span(BOUND);
    uint64_t end;
    if (executable_pe_end(&section, &end) == TDF_OK)
        __CPROVER_assert(end <= section.size, "the file lies in the section");
}

void prove_executable_read_pe(void) {
    struct linked linked;
    struct executable out;
    out.file = any_span(BOUND);
    out.parts.count = 0;
    const struct span file = out.file;
    if (executable_read_pe(&file, &linked, &out) == TDF_OK)
        __CPROVER_assert(out.parts.count <= EXECUTABLE_MAX_PARTS, "the count stays in the list");
}
