/* Do the parts of an executable stay in their list, and does what is found of them lie in the file? */
#include "../src/executable.c"
#include "model.h"

/* Proved in place.c, executable_elf.c and executable_pe.c. */
int plan_is_free(const struct ram *ram, uint64_t start, uint64_t end, uint64_t home) {
    int found;
    return found;
}

status_t executable_elf_end(const struct span *section, uint64_t *end) {
    status_t status;
    writes(end, sizeof *end);
    __CPROVER_assume(status != TDF_OK || *end <= section->size);
    return status;
}

status_t executable_pe_end(const struct span *section, uint64_t *end) { return executable_elf_end(section, end); }

status_t executable_read_elf(const struct span *file, struct linked *linked, struct executable *out) {
    status_t status;
    writes(linked, sizeof *linked);
    writes(out, sizeof *out);
    __CPROVER_assume(out->parts.count <= EXECUTABLE_MAX_PARTS);
    return status;
}

status_t executable_read_pe(const struct span *file, struct linked *linked, struct executable *out) {
    return executable_read_elf(file, linked, out);
}

/* The bytes of a part lie in the file, as the readers add it. */
static int is_in_file(const struct executable *executable, const struct image_part *part) {
    return part->size == 0 ||
           tdf_inside(executable->file.size, part->from - tdf_gpa(executable->file.data), part->size);
}

void prove_executable_extent(void) {
    const struct span section = any_span(BOUND);
    struct span out;
    if (executable_extent(&section, &out) == TDF_OK)
        reads(out.data, out.size);
}

void prove_executable_add(void) {
    struct executable out;
    struct linked linked;
    uint64_t at, memory_size, offset, size;
    uint32_t access;
    out.file = any_span(BOUND);
    __CPROVER_assume(out.parts.count <= EXECUTABLE_MAX_PARTS && (size == 0 || tdf_inside(out.file.size, offset, size)));
    if (executable_add(&out, &linked, at, memory_size, offset, size, access) == TDF_OK)
        __CPROVER_assert(is_in_file(&out, &out.parts.items[out.parts.count - 1]), "what is added lies in the file");
    __CPROVER_assert(out.parts.count <= EXECUTABLE_MAX_PARTS, "the count stays in the list");
    executable_access((int)at, (int)size, &access);
}

void prove_executable_bytes(void) {
    struct executable executable;
    struct span out;
    uint64_t at, size;
    executable.file = any_span(BOUND);
    __CPROVER_assume(executable.parts.count <= EXECUTABLE_MAX_PARTS && size != 0);
    for (uint32_t i = 0; i < EXECUTABLE_MAX_PARTS; i++)
        __CPROVER_assume(is_in_file(&executable, &executable.parts.items[i]));
    if (executable_bytes(&executable, at, size, &out))
        reads(out.data, out.size);
}

void prove_place_executable(void) {
    const struct span file = any_span(BOUND);
    struct ram *ram = ANY(struct ram);
    struct executable out;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    place_executable(&file, ram, &out);
}
