/* How does a range of addresses get the access it should have in the four-level page tables?
 *
 * Source: Intel SDM volume 3, 4.5 "4-level paging". The caller flushes the TLB. */
#include "formats.h"
#include "primitives.h"

/* As wide as an entry, so that their complements are too. */
#define PRESENT ((uint64_t)PAGE_PRESENT)
#define WRITABLE ((uint64_t)PAGE_WRITABLE)
#define LARGE ((uint64_t)PAGE_LARGE)
#define NO_EXECUTE ((uint64_t)PAGE_NO_EXECUTE)
/* Accessed and dirty are set beforehand, so that the processor has nothing to write. */
#define TABLE_FLAGS (PRESENT | WRITABLE | PAGE_ACCESSED)

#define LEVEL_2M 1u
#define LEVEL_TOP 3u
#define LOWER_HALF_END (1ull << 47)

/* Bytes that one entry of a table of `level` stands for; level 0 holds 4 KiB pages. */
static uint64_t span_of(uint32_t level) { return 1ull << (12 + 9 * level); }

static uint64_t leaf_flags(uint32_t access) {
    uint64_t flags = PRESENT | PAGE_ACCESSED | PAGE_DIRTY;
    if (access == TDF_ACCESS_RW || access == TDF_ACCESS_RWX)
        flags |= WRITABLE;
    if (access != TDF_ACCESS_RX && access != TDF_ACCESS_RWX)
        flags |= NO_EXECUTE;
    return flags;
}

static uint64_t *table_at(uint64_t entry) { return (uint64_t *)(uintptr_t)(entry & PAGE_ADDRESS); }

/* `count` entries, each `step` above the one before. Unrolled: thousands of entries are written in a boot. */
static void fill(uint64_t *entries, uint64_t count, uint64_t first, uint64_t step) {
#pragma clang loop unroll_count(8)
    for (uint64_t i = 0; i < count; i++, first += step)
        PROVE_LOOP((i, first, __CPROVER_object_whole(entries)), i <= count, count - i)
        entries[i] = first;
}

/* Puts a table in place of `entry` (absent, or a large page that keeps its meaning in smaller ones). */
static status_t add_table(struct paging *paging, uint64_t *entry, uint32_t level) {
    if (paging->used >= paging->tables.size / TDF_PAGE)
        return TDF_E_PAGING_EXHAUSTED;
    uint64_t *table = (uint64_t *)(uintptr_t)(paging->tables.data + paging->used * TDF_PAGE);
    paging->used++;
    uint64_t old = *entry;
    if (old & PRESENT) {
        uint64_t piece = span_of(level - 1);
        uint64_t first = level == LEVEL_2M ? old & ~LARGE : old;
        fill(table, PAGE_TABLE_ENTRIES, first, piece);
    } else {
        memset(table, 0, TDF_PAGE);
    }
    *entry = tdf_gpa(table) | TABLE_FLAGS;
    return TDF_OK;
}

static int same_page(uint64_t entry, uint64_t wanted) {
    const uint64_t mask = PAGE_ADDRESS | NO_EXECUTE | WRITABLE | PRESENT;
    return (entry & mask) == (wanted & mask);
}

status_t page_map(struct paging *paging, uint64_t start, uint64_t physical, uint64_t size, uint32_t access) {
    if (!tdf_aligned(start | physical | size, TDF_PAGE) || start > LOWER_HALF_END || size > LOWER_HALF_END - start ||
        physical > PAGE_ADDRESS || size > PAGE_ADDRESS + TDF_PAGE - physical || paging->used == 0 ||
        paging->used > paging->tables.size / TDF_PAGE)
        return TDF_E_PAGING_RANGE;
    const uint64_t end = start + size;
    const uint64_t flags = leaf_flags(access);
    while (start < end)
        PROVE_LOOP((start, physical, paging->used, __CPROVER_object_whole(paging->tables.data)),
                   start <= LOWER_HALF_END && start % TDF_PAGE == 0 && paging->used != 0 &&
                       paging->used <= paging->tables.size / TDF_PAGE,
                   start < end ? end - start : 0) {
        uint64_t *table = (uint64_t *)(uintptr_t)paging->tables.data;
        uint32_t level = LEVEL_TOP;
        for (;;) {
            uint64_t *entry = &table[(start >> (12 + 9 * level)) % PAGE_TABLE_ENTRIES];
            uint64_t span = span_of(level);
            int whole = tdf_aligned(start, span) && end - start >= span;
            if (access == TDF_ACCESS_NONE && (!(*entry & PRESENT) || (whole && level <= LEVEL_2M))) {
                *entry = *entry & PRESENT ? 0 : *entry;
                break;
            }
            if (level == 0 || (access != TDF_ACCESS_NONE && level == LEVEL_2M && whole && tdf_aligned(physical, span))) {
                /* The neighbours in one table at once: a walk from the top for each costs ten times as much. */
                uint64_t left = (uint64_t)(&table[PAGE_TABLE_ENTRIES] - entry), wanted = (end - start) / span;
                uint64_t count = wanted < left ? wanted : left;
                fill(entry, count, physical | flags | (level ? LARGE : 0), span);
                start += (count - 1) * span;
                physical += (count - 1) * span;
                break;
            }
            if (*entry & LARGE && *entry & PRESENT) {
                /* A large page that says the same already stays whole. */
                uint64_t wanted = (physical - start % span) | flags;
                if (access != TDF_ACCESS_NONE && start % span <= physical && same_page(*entry, wanted))
                    break;
            }
            if (!(*entry & PRESENT) || *entry & LARGE) {
                status_t status = add_table(paging, entry, level);
                if (status != TDF_OK)
                    return status;
            }
            table = table_at(*entry);
            level--;
        }
        /* On to the end of the entry that was set. */
        uint64_t next = tdf_align_down(start, span_of(level)) + span_of(level);
        physical += next - start;
        start = next;
    }
    return TDF_OK;
}
