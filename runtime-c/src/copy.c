/* How do bytes come out of memory that the VMM can change? Once, in one pass; only the copy is ever looked at. */
#include "primitives.h"

status_t copy_in(struct span *to, const struct span *from, struct span *out) {
    if (from->size > to->size)
        return TDF_E_OUT_OF_BOUNDS;
    TDF_BARRIER();
    memcpy(to->data, from->data, from->size);
    out->data = to->data;
    out->size = from->size;
    return TDF_OK;
}
