/* Do the readers of an ELF file keep to their section, and the placement to its list of copies? */
#include "../src/elf.c"
#define CLEARS struct placement
#include "model.h"

/* Proved in place.c and vmlinux.c. */
int plan_is_free(const struct ram *ram, uint64_t start, uint64_t end, uint64_t home) {
    int found;
    return found;
}

void plan_vmlinux(const struct span *image, uint64_t entry, struct placement *out) {}

status_t plan_initrd(const struct span *initrd, const struct ram *ram, struct placement *out) {
    status_t status;
    __CPROVER_assert(out->copies.count < MAX_COPIES, "room for the initrd's copy");
    return status;
}

void prove_elf_extent(void) {
    const struct span section = any_span(BOUND);
    struct span out;
    if (elf_extent(&section, &out) == TDF_OK)
        __CPROVER_assert(out.size <= section.size, "the extent lies in the section");
}

void prove_place_elf(void) {
    const struct span file = any_span(BOUND);
    struct span initrd;
    struct ram ram;
    struct placement out;
    place_elf(&file, &initrd, &ram, &out);
}
