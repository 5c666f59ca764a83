/* Does mapping keep to the pool of page tables, and does it end?
 *
 * An entry that is present and no large page leads to a page of the pool: page_map wrote it, or the reset code. */
#include "../src/page_map.c"
#define WRITES_WHOLE_OBJECTS
#include "model.h"

static struct span pool;

uint64_t *any_table_at(uint64_t entry) {
    uint64_t page;
    __CPROVER_assume(page < pool.size / TDF_PAGE);
    return (uint64_t *)(pool.data + page * TDF_PAGE);
}

/* Stands for fill: any entries. */
void any_fill(uint64_t *entries, uint64_t count, uint64_t first, uint64_t step) {
    __CPROVER_assert(count <= PAGE_TABLE_ENTRIES, "no more than a table has");
    writes(entries, count * sizeof *entries);
}

/* Stands for add_table: a table more, or none left. */
status_t any_add_table(struct paging *paging, uint64_t *entry, uint32_t level) {
    __CPROVER_assert(level >= 1 && level <= LEVEL_TOP, "a level that has tables");
    if (paging->used >= paging->tables.size / TDF_PAGE)
        return TDF_E_PAGING_EXHAUSTED;
    paging->used++;
    writes(entry, sizeof *entry);
    return TDF_OK;
}

void prove_add_table(void) {
    struct paging paging;
    uint64_t at;
    uint32_t level;
    pool = paging.tables = any_span(BOUND);
    __CPROVER_assume(at < pool.size / sizeof(uint64_t) && level >= 1 && level <= LEVEL_TOP);
    add_table(&paging, (uint64_t *)pool.data + at, level);
}

void prove_fill(void) {
    const struct span table = any_span(TDF_PAGE);
    uint64_t count, first, step;
    __CPROVER_assume(count <= table.size / sizeof(uint64_t));
    fill((uint64_t *)table.data, count, first, step);
}

void prove_page_map(void) {
    struct paging paging;
    uint64_t start, physical, size;
    uint32_t access;
    pool = paging.tables = any_span(BOUND);
    page_map(&paging, start, physical, size, access);
}
