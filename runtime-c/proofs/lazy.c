/* Do the tables for a lazy OS keep to their region, and what is left to it to the plan? */
#define WRITES_WHOLE_OBJECTS
#include "../src/lazy.c"
#include "model.h"

/* Proved in zero_page.c. */
status_t zero_page(const struct span *page, const struct placement *placement, const struct ram *ram,
                   const struct span *command_line, uint64_t rsdp) {
    (void)placement, (void)ram, (void)command_line, (void)rsdp;
    status_t status;
    if (page->size < sizeof(struct boot_params))
        return TDF_E_COMMAND_LINE_TOO_LONG;
    writes(page->data, page->size);
    return status;
}

status_t any_fill_bitmap(const struct ram *ram, struct efi_unaccepted_memory *table, uint64_t room) {
    (void)ram;
    writes(table, sizeof *table + room);
    status_t status;
    return status;
}

uint32_t any_fill_map(const struct ram *ram, struct efi_tables *tables) {
    writes(tables->map, sizeof tables->map);
    uint32_t count;
    __CPROVER_assume(count <= ram->ranges.count);
    return count;
}

void any_fill_system_table(struct efi_tables *tables, uint64_t rsdp) {
    (void)rsdp;
    writes(tables, offsetof(struct efi_tables, map));
}

void any_fill_params(struct boot_params *params, const struct efi_tables *tables, uint32_t count) {
    (void)tables, (void)count;
    writes(params, sizeof *params);
}

void prove_leave_lazily(void) {
    struct ram ram;
    uint64_t limit;
    __CPROVER_assume(ram.ranges.count <= CAPACITY(ram, ranges) && ram.carved.count <= CAPACITY(ram, carved));
    leave_lazily(&ram, limit);
}

void prove_lazy_bitmap(void) {
    const struct ram *ram = ANY(struct ram);
    const struct span region = any_span(BOUND);
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    __CPROVER_assume(region.size >= sizeof(struct efi_unaccepted_memory));
    fill_bitmap(ram, (struct efi_unaccepted_memory *)region.data, region.size - sizeof(struct efi_unaccepted_memory));
}

void prove_lazy_map(void) {
    const struct ram *ram = ANY(struct ram);
    struct efi_tables *tables = ANY(struct efi_tables);
    uint64_t rsdp;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    fill_system_table(tables, rsdp);
    const uint32_t count = fill_map(ram, tables);
    __CPROVER_assert(count <= ram->ranges.count, "no more entries than ranges");
}

void prove_lazy_params(void) {
    struct boot_params params;
    struct efi_tables tables;
    uint32_t count;
    fill_params(&params, &tables, count);
}

void prove_zero_page_lazily(void) {
    const struct span page = any_span(BOUND), region = any_span(BOUND);
    const struct ram *ram = ANY(struct ram);
    struct placement placement;
    struct span command_line;
    uint64_t rsdp;
    zero_page_lazily(&page, &region, &placement, ram, &command_line, rsdp);
}
