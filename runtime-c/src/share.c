/* Which parts of RAM are accepted by whichever vCPU comes, and what is left of a part that one of them could not finish?
 *
 * A part, a chunk, is what one area of 2 MiB has of RAM that touches: where that is all of it, one large page. */
#include "formats.h"
#include "primitives.h"

void accept_shares(const struct ram *ram, uint32_t level, struct shares *out) {
    out->chunks = 0;
    out->list.count = 0;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, *out), i <= ram->ranges.count && out->list.count <= i, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->state != TDF_RAM_STATE_UNACCEPTED)
            continue;
        struct share *share = &out->list.items[out->list.count];
        if (out->list.count != 0 && (share - 1)->end == range->start) {
            share--;
            out->chunks -= share->chunks;
        } else {
            out->list.count++;
            share->start = range->start;
            share->large = level ? TDF_PAGE_2M : 0;
        }
        share->end = range->end;
        uint64_t areas = tdf_align_up(share->end, TDF_PAGE_2M) - tdf_align_down(share->start, TDF_PAGE_2M);
        share->chunks = (uint32_t)(areas / TDF_PAGE_2M);
        out->chunks += share->chunks;
    }
}

status_t accept_rest(const struct ram *ram, struct acceptance *at, uint64_t end, uint64_t done, uint64_t status,
                     struct accept_run *out) {
    status_t result = accept_next(ram, at, done, status, out);
    if (result != TDF_OK)
        return result;
    /* What lies behind the chunk is others'; a large page is never more than it. */
    uint64_t left = out->start < end ? (end - out->start) / (out->level ? TDF_PAGE_2M : TDF_PAGE) : 0;
    if (out->count > left)
        out->count = left;
    return TDF_OK;
}
