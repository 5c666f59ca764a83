/* Which pages are accepted next, given how TDG.MEM.PAGE.ACCEPT answered for the last ones?
 *
 * Runs are as long as they can be, across ranges that touch, so that the TDCALL loop is what costs.
 * Source: Intel TDX module ABI, TDG.MEM.PAGE.ACCEPT and table "Completion status codes". */
#include "formats.h"
#include "plan.h"

#define MAX_RANGES (sizeof((struct ram *)0)->ranges.items / sizeof(struct ram_range))
#define STATUS_CLASS(status) ((uint32_t)((status) >> 32))
#define STATUS_LEVEL(status) ((uint32_t)(status) & 7)
#define LEVEL_1G 2u

/* The word `fallback`: was the 2 MiB page at `next` refused, busy answers in a row, the level asked. */
#define REFUSED(at) ((at)->fallback & 1u)
#define BUSY(at) (((at)->fallback >> 12) & 0xFFFFu)
#define ASKED(at) ((at)->fallback >> 28)
#define PACK(refused, busy, asked) ((uint32_t)(refused) | (uint32_t)(busy) << 12 | (uint32_t)(asked) << 28)
#define NOT_ASKED 15u

static uint64_t page_size(uint32_t level) { return level ? TDF_PAGE_2M : TDF_PAGE; }

/* Cuts an entry in two at `at`. With no entry free the upper part is simply not listed, which leaves it out. */
static void cut(struct ram *ram, uint64_t index, uint64_t at) {
    struct ram_range *range = &ram->ranges.items[index];
    if (at <= range->start || at >= range->end)
        return;
    struct ram_range above = *range;
    above.start = at;
    range->end = at;
    if (ram->ranges.count == MAX_RANGES)
        return;
    memmove(range + 2, range + 1, (ram->ranges.count - index - 1) * sizeof *range);
    range[1] = above;
    ram->ranges.count++;
}

void leave_out(struct ram *ram, uint64_t start, uint64_t end) {
    /* Below 1 MiB an OS looks for tables of a BIOS, whatever the E820 says: what is RAM there becomes zero. */
    start = start < LOW_MEMORY_END ? LOW_MEMORY_END : tdf_align_down(start, TDF_PAGE);
    end = end > UINT64_MAX - TDF_PAGE ? UINT64_MAX : tdf_align_up(end, TDF_PAGE);
    if (end <= start)
        return;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, ram->ranges), i <= ram->ranges.count && ram->ranges.count <= MAX_RANGES,
                   MAX_RANGES - ram->ranges.count, ram->ranges.count - i) {
        struct ram_range *range = &ram->ranges.items[i];
        /* Carved regions are needed wherever they lie; what was added at launch needs no acceptance. */
        if (range->state != TDF_RAM_STATE_UNACCEPTED || range->end <= start || range->start >= end ||
            plan_is_carved(ram, range))
            continue;
        if (range->start < start) {
            cut(ram, i, start); /* what is to go is the next entry */
        } else {
            cut(ram, i, end);
            range->state = TDF_RAM_STATE_LEFT_OUT;
        }
    }
}

void accept_begin(struct ram *ram, uint64_t limit, uint32_t level, struct acceptance *out) {
    leave_out(ram, limit, UINT64_MAX);
    out->range = 0;
    out->next = 0;
    out->level = level ? 1 : 0;
    out->fallback = PACK(0, 0, NOT_ASKED);
    out->pages_4k = 0;
    out->pages_2m = 0;
    out->found_start = out->found_end = 0;
}

/* Takes `done` accepted pages of the level asked into the books. */
static status_t advance(struct acceptance *at, uint64_t done) {
    uint32_t asked = ASKED(at);
    if (done == 0)
        return TDF_OK;
    if (asked == NOT_ASKED || done > (UINT64_MAX - at->next) / page_size(asked))
        return TDF_E_ACCEPT_FAILED;
    at->next += done * page_size(asked);
    if (asked)
        at->pages_2m += done;
    else
        at->pages_4k += done;
    at->fallback = PACK(0, 0, asked);
    return TDF_OK;
}

/* The end of unaccepted memory from at->next on, over all ranges that touch; 0 if none is left. */
static uint64_t find_end(const struct ram *ram, struct acceptance *at) {
    for (; at->range < ram->ranges.count; at->range++)
        PROVE_LOOP((at->range), 1, ram->ranges.count - at->range) {
        const struct ram_range *range = &ram->ranges.items[at->range];
        if (range->state == TDF_RAM_STATE_UNACCEPTED && at->next < range->end)
            break;
    }
    if (at->range >= ram->ranges.count)
        return 0;
    const struct ram_range *range = &ram->ranges.items[at->range];
    if (at->next < range->start)
        at->next = range->start;
    uint64_t end = range->end;
    for (uint64_t i = at->range + 1; i < ram->ranges.count; i++)
        PROVE_LOOP((i, range, end), i <= ram->ranges.count, ram->ranges.count - i) {
        range = &ram->ranges.items[i];
        if (range->start != end || range->state != TDF_RAM_STATE_UNACCEPTED)
            break;
        end = range->end;
    }
    return end;
}

/* A page that is mapped already, at level `found`: the VMM added it, for a range is never accepted twice. What it holds
 * is the VMM's choice, and it is not a section's, so it is to be cleared: of a large page what lies before the next
 * section, in steps of 2 MiB. */
static status_t take_added(const struct ram *ram, struct acceptance *at, uint32_t found) {
    uint32_t asked = ASKED(at);
    uint64_t end = find_end(ram, at);
    if (found > LEVEL_1G || found < asked || end == 0)
        return TDF_E_ACCEPT_FAILED;
    uint64_t size = page_size(found);
    uint64_t next = tdf_align_down(at->next, size) + size;
    if (next <= at->next)
        return TDF_E_ACCEPT_FAILED;
    if (at->found_end != at->next)
        at->found_start = at->next;
    at->next = at->found_end = next < end ? next : end;
    at->fallback = PACK(0, 0, asked);
    return TDF_OK;
}

static status_t digest_status(const struct ram *ram, struct acceptance *at, uint64_t status) {
    if (status == 0)
        return TDF_OK;
    if (ASKED(at) == NOT_ASKED)
        return TDF_E_ACCEPT_FAILED;
    switch (STATUS_CLASS(status)) {
    case TDX_PAGE_ALREADY_ACCEPTED:
        return take_added(ram, at, STATUS_LEVEL(status));
    case TDX_PAGE_SIZE_MISMATCH:
        if (ASKED(at) == 0)
            return TDF_E_ACCEPT_FAILED;
        at->fallback = PACK(1, 0, 1);
        return TDF_OK;
    case TDX_OPERAND_BUSY:
        if (BUSY(at) == TDX_BUSY_RETRIES)
            return TDF_E_ACCEPT_FAILED;
        at->fallback += PACK(0, 1, 0);
        return TDF_OK;
    default:
        return TDF_E_ACCEPT_FAILED;
    }
}

/* Found pages are cleared together, as far as they touch and lie in one area of 2 MiB. While some wait for that, pages
 * are asked for one by one, so that the answer is for the next one. */
static void plan_clear(struct acceptance *at, int found, struct accept_run *out) {
    out->clear = at->found_start;
    out->clear_size = 0;
    if (found && out->count != 0 && out->start == at->found_end && !tdf_aligned(at->found_end, TDF_PAGE_2M)) {
        out->count = 1;
        return;
    }
    out->clear_size = at->found_end - at->found_start;
    at->found_start = at->found_end;
}

status_t accept_next(const struct ram *ram, struct acceptance *at, uint64_t done, uint64_t status,
                     struct accept_run *out) {
    status_t result = advance(at, done);
    if (result == TDF_OK)
        result = digest_status(ram, at, status);
    if (result != TDF_OK)
        return result;
    out->count = 0;
    out->level = 0;
    uint64_t end = find_end(ram, at);
    out->start = at->next;
    const int found = STATUS_CLASS(status) == TDX_PAGE_ALREADY_ACCEPTED;
    if (end == 0) {
        plan_clear(at, found, out);
        return TDF_OK;
    }
    uint64_t stop = end;
    if (REFUSED(at)) {
        if (end - at->next > TDF_PAGE_2M)
            stop = at->next + TDF_PAGE_2M;
    } else if (at->level) {
        uint64_t aligned = tdf_align_up(at->next, TDF_PAGE_2M);
        if (aligned == at->next && end - at->next >= TDF_PAGE_2M) {
            out->level = 1; /* as many whole pages as fit before `end` */
        } else if (aligned > at->next && aligned < end) {
            stop = aligned;
        }
    }
    out->count = (stop - at->next) / page_size((uint32_t)out->level);
    plan_clear(at, found, out);
    at->fallback = PACK(REFUSED(at), BUSY(at), out->level);
    return TDF_OK;
}
