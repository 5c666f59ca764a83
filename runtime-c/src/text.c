/* Where does a text end that the VMM put into a section? */
#include "primitives.h"

status_t text_extent(const struct span *region, struct span *out) {
    for (uint64_t size = 0; size < region->size; size++)
        PROVE_LOOP((size), size <= region->size, region->size - size) {
        if (region->data[size] == 0) {
            out->data = region->data;
            out->size = size;
            return TDF_OK;
        }
    }
    return TDF_E_TEXT_UNTERMINATED;
}
