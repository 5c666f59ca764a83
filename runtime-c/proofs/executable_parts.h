/* What do the readers of an executable take its list of parts for? Each is proved in executable.c. */
#ifndef TDF_PROOFS_EXECUTABLE_PARTS_H
#define TDF_PROOFS_EXECUTABLE_PARTS_H

#include "model.h"

status_t executable_add(struct executable *out, struct linked *linked, uint64_t at, uint64_t memory_size,
                        uint64_t offset, uint64_t size, uint32_t access) {
    status_t status;
    uint64_t base, end, more;
    __CPROVER_assert(out->parts.count <= EXECUTABLE_MAX_PARTS, "the count is in the list");
    __CPROVER_assert(size == 0 || tdf_inside(out->file.size, offset, size), "what is added lies in the file");
    __CPROVER_assume(more <= EXECUTABLE_MAX_PARTS - out->parts.count);
    out->base = base;
    linked->end = end;
    out->parts.count += more;
    return status;
}

int executable_bytes(const struct executable *executable, uint64_t at, uint64_t size, struct span *out) {
    int found;
    uint64_t start;
    __CPROVER_assert(executable->parts.count <= EXECUTABLE_MAX_PARTS && size != 0, "any bytes of a list of parts");
    if (!found)
        return 0;
    __CPROVER_assume(tdf_inside(executable->file.size, start, size));
    out->data = executable->file.data + start;
    out->size = size;
    return 1;
}

status_t executable_access(int writable, int executable, uint32_t *access) {
    status_t status;
    writes(access, sizeof *access);
    return status;
}

#endif
