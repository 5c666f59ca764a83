/* Do the readers of a firmware volume and of its trust anchor keep to these, and does the walk over the files end? */
#include "../src/cfv.c"
#include "model.h"

void prove_is_volume(void) {
    const struct span region = any_span(BOUND);
    struct fv_header head;
    is_volume(&region, &head);
}

/* What a file is: it lies in the region, and the next one is behind it. */
static int is_file(const struct span *region, uint64_t at, const struct span *data, uint64_t next) {
    const uint64_t start = tdf_gpa(data->data) - tdf_gpa(region->data);
    return at <= region->size && next > at && next <= region->size + FFS_ALIGNMENT &&
           tdf_inside(region->size, start, data->size);
}

void prove_read_file(void) {
    const struct span region = any_span(BOUND);
    struct ffs_file_header file;
    struct span data;
    uint64_t at, next;
    if (read_file(&region, at, &file, &data, &next))
        __CPROVER_assert(is_file(&region, at, &data, next), "the file is what the walk takes it for");
}

int any_read_file(const struct span *region, uint64_t at, struct ffs_file_header *file, struct span *data, uint64_t *next) {
    int found;
    uint64_t start;
    writes(file, sizeof *file);
    writes(next, sizeof *next);
    __CPROVER_assume(tdf_inside(region->size, start, data->size));
    data->data = region->data + start;
    __CPROVER_assume(!found || is_file(region, at, data, *next));
    return found;
}

int any_is_volume(const struct span *region, struct fv_header *head) {
    int found;
    writes(head, sizeof *head);
    return found;
}

void prove_anchor_extent(void) {
    const struct span region = any_span(BOUND);
    struct span out;
    if (anchor_extent(&region, &out) == TDF_OK)
        reads(out.data, out.size);
}

void prove_trust_anchor(void) {
    const struct span file = any_span(BOUND);
    struct anchor out;
    trust_anchor(&file, &out);
}
