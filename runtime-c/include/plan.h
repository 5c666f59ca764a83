/* What else can be had of a RAM plan? */
#ifndef TDF_PLAN_H
#define TDF_PLAN_H

#include "primitives.h"

/* Takes whole pages, as high as they fit below what was carved last, for `size` bytes; they stay RAM in the E820.
 * Fails: ram_too_small, ram_too_fragmented. */
status_t plan_take(struct ram *ram, uint64_t size, struct span *out);
/* Makes [start, end), which is no part of the plan, a reserved one. Fails: ram_range_overlap, ram_too_fragmented. */
status_t plan_reserve(struct ram *ram, uint64_t start, uint64_t end);

#endif
