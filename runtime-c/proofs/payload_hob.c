/* Does a payload's HOB list stay in its area, and are tables and the plan read in their length only? */
#include "../src/payload_hob.c"
#include "tables.h"

static void any_list(struct list *list) {
    list->area = any_span(BOUND);
}

void prove_add_hob(void) {
    struct list list;
    uint16_t type;
    uint64_t size;
    any_list(&list);
    __CPROVER_assume(size >= sizeof(struct hob_header));
    uint8_t *hob = add_hob(&list, type, size);
    if (hob)
        __CPROVER_assert(__CPROVER_w_ok(hob, size), "the HOB lies in the area");
}

/* Stands for add_hob: a part of the area, or none. */
uint8_t *any_add_hob(struct list *list, uint16_t type, uint64_t size) {
    __CPROVER_assert(size >= sizeof(struct hob_header), "room for a header");
    if (!tdf_inside(list->area.size, list->used, size))
        return 0;
    list->used += size;
    return list->area.data + (list->used - size);
}

void prove_hob_table(void) {
    struct list list;
    const struct span table = any_span(BOUND);
    any_list(&list);
    add_table(&list, &table);
}

void prove_add_map(void) {
    struct list list;
    struct map map;
    any_list(&list);
    __CPROVER_assume(map.count <= E820_MAX_ENTRIES);
    add_map(&list, &map);
}

status_t any_add_table(struct list *list, const struct span *table) {
    status_t status;
    uint64_t used;
    reads(table->data, table->size);
    list->used = used;
    return status;
}

void prove_table_at(void) {
    const struct span tables = any_span(BOUND);
    struct span out;
    uint64_t address;
    if (table_at(&tables, address, &out)) {
        __CPROVER_assert(out.size >= sizeof(struct acpi_header), "a table has a header");
        reads(out.data, out.size);
    }
}

/* Stands for table_at: a part of the tables with a header, or none. */
int any_table_at(const struct span *tables, uint64_t address, struct span *out) {
    int found;
    uint64_t start;
    uint32_t size;
    __CPROVER_assume(!found || (tdf_inside(tables->size, start, size) && size >= sizeof(struct acpi_header)));
    if (found) {
        out->data = tables->data + start;
        out->size = size;
    }
    return found;
}

void prove_add_dsdt(void) {
    const struct span tables = any_span(BOUND), table = any_span(BOUND);
    struct list list;
    any_list(&list);
    add_dsdt(&list, &tables, &table);
}

status_t any_add_dsdt(struct list *list, const struct span *tables, const struct span *table) {
    return any_add_table(list, table);
}

void prove_add_tables(void) {
    const struct span tables = any_span(BOUND);
    struct list list;
    uint64_t rsdp;
    any_list(&list);
    add_tables(&list, &tables, rsdp);
}

void prove_add_range(void) {
    struct map map;
    uint64_t start, end;
    uint32_t type;
    __CPROVER_assume(map.count <= E820_MAX_ENTRIES);
    add_range(&map, start, end, type);
    __CPROVER_assert(map.count <= E820_MAX_ENTRIES, "the count stays in the list");
}

status_t any_add_range(struct map *map, uint64_t start, uint64_t end, uint32_t type) {
    status_t status;
    uint32_t count;
    __CPROVER_assert(map->count <= E820_MAX_ENTRIES && start < end, "a range for the list");
    __CPROVER_assume(count <= E820_MAX_ENTRIES);
    map->count = count;
    return status;
}

void prove_make_map(void) {
    struct ram *ram = ANY(struct ram);
    struct executable executable;
    struct paging paging;
    struct map map;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    make_map(ram, &executable, &paging, &map);
}

void prove_fill_volume(void) {
    struct ram *ram = ANY(struct ram);
    struct span file;
    struct hob_firmware_volume volume;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    fill_volume(ram, &file, &volume);
}

status_t any_add_tables(struct list *list, const struct span *tables, uint64_t rsdp) {
    status_t status;
    uint64_t used;
    list->used = used;
    return status;
}

status_t any_make_map(const struct ram *ram, const struct executable *executable, const struct paging *paging,
                      struct map *map) {
    status_t status;
    __CPROVER_assume(map->count <= E820_MAX_ENTRIES);
    return status;
}

void any_fill_volume(const struct ram *ram, const struct span *file, struct hob_firmware_volume *volume) {
    writes(volume, sizeof *volume);
}

void prove_payload_hobs(void) {
    const struct span list = any_span(BOUND);
    struct executable executable;
    struct ram *ram = ANY(struct ram);
    struct span tables;
    struct paging paging;
    uint64_t rsdp;
    payload_hobs(&list, &executable, ram, &tables, rsdp, &paging);
}
