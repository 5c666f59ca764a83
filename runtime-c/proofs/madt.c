/* Does a MADT stay in its area, and do the readers of the VMM's MADT keep to that? */
#include "../src/madt.c"
#define COPIES_FIRST_TWO
#include "tables.h"

/* A builder whose MADT has begun. */
static uint8_t *any_madt(struct acpi_builder *builder, uint64_t *size) {
    uint64_t start;
    builder->area = any_span(BOUND);
    __CPROVER_assume(start <= builder->area.size && builder->area.size - start >= sizeof(struct acpi_madt));
    __CPROVER_assume(*size <= builder->area.size - start && *size >= sizeof(struct acpi_madt));
    return builder->area.data + start;
}

/* Stands for next_entry: its contract, which prove_next_entry shows. */
status_t any_next_entry(const struct span *from, uint64_t *offset, struct span *out) {
    const uint64_t start = *offset;
    uint64_t end, size;
    status_t status;
    out->size = 0;
    if (status != TDF_OK)
        return status;
    __CPROVER_assume(end >= start && (end == start || end <= from->size) && size <= end - start);
    *offset = end;
    if (size == 0)
        return TDF_OK;
    out->data = from->data + (end - size);
    out->size = size;
    __CPROVER_assume(IS_NEXT_ENTRY(from, end, out, start));
    return TDF_OK;
}

void prove_next_entry(void) {
    const struct span from = any_span(BOUND);
    struct span entry;
    uint64_t offset;
    const uint64_t start = offset;
    if (next_entry(&from, &offset, &entry) == TDF_OK)
        __CPROVER_assert(IS_NEXT_ENTRY(&from, offset, &entry, start), "the entry is what the others take it for");
}

void prove_find_uid(void) {
    const struct span from = any_span(BOUND);
    uint32_t wanted, uid;
    find_uid(&from, wanted, &uid);
}

status_t any_find_uid(const struct span *from, uint32_t wanted, uint32_t *uid) {
    status_t status;
    writes(uid, sizeof *uid);
    return status;
}

/* Stands for add_cpu and acpi_madt_entry: some bytes more, or none. Nobody reads them. */
static status_t any_more(const struct acpi_builder *builder, const uint8_t *madt, uint64_t *size) {
    uint64_t more;
    status_t status;
    __CPROVER_assume(more <= builder->area.size - (uint64_t)(madt - builder->area.data) - *size);
    *size += more;
    return status;
}

status_t any_add_cpu(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, uint32_t id, uint32_t uid) {
    return any_more(builder, madt, size);
}

status_t any_madt_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const void *entry) {
    reads(entry, sizeof(struct acpi_madt_entry));
    reads(entry, ((const struct acpi_madt_entry *)entry)->length);
    return any_more(builder, madt, size);
}

void prove_take_entries(void) {
    const struct span from = any_span(BOUND);
    const struct cpus cpus = {.ids = any_span(BOUND)};
    struct acpi_builder builder;
    uint64_t size;
    uint8_t *madt = any_madt(&builder, &size);
    take_entries(&builder, madt, &size, &from, &cpus);
    __CPROVER_assert(IS_MADT(&builder, madt, size), "it stays in the area");
}

void prove_add_entry(void) {
    const struct span entry = any_span(UINT8_MAX);
    struct acpi_builder builder;
    uint64_t size;
    uint8_t *madt = any_madt(&builder, &size);
    uint32_t id, uid;
    int which;
    if (which) {
        add_cpu(&builder, madt, &size, id, uid);
    } else {
        __CPROVER_assume(entry.size >= sizeof(struct acpi_madt_entry) && entry.size >= entry.data[1]);
        acpi_madt_entry(&builder, madt, &size, entry.data);
    }
    __CPROVER_assert(IS_MADT(&builder, madt, size), "it stays in the area");
}

void prove_madt_cpus(void) {
    const struct cpus cpus = {.ids = any_span(BOUND)};
    struct acpi_builder builder;
    uint64_t size;
    uint8_t *madt = any_madt(&builder, &size);
    acpi_madt_cpus(&builder, madt, &size, &cpus);
    __CPROVER_assert(IS_MADT(&builder, madt, size), "it stays in the area");
}

void prove_madt_wakeup(void) {
    const struct span mailbox = any_span(BOUND);
    struct acpi_builder builder;
    uint64_t size;
    uint8_t *madt = any_madt(&builder, &size);
    acpi_madt_wakeup(&builder, madt, &size, &mailbox);
    __CPROVER_assert(IS_MADT(&builder, madt, size), "it stays in the area");
}

status_t any_take_entries(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *from,
                          const struct cpus *cpus) {
    return any_more(builder, madt, size);
}

status_t any_madt_cpus(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct cpus *cpus) {
    return any_more(builder, madt, size);
}

status_t any_madt_wakeup(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *mailbox) {
    return any_more(builder, madt, size);
}

void prove_add_madt(void) {
    const struct span from = any_span(BOUND), mailbox = any_span(BOUND);
    const struct cpus cpus = {.ids = any_span(BOUND)};
    struct acpi_builder builder;
    builder.area = any_span(BOUND);
    __CPROVER_assume(builder.count < ACPI_MAX_TABLES);
    acpi_add_madt(&builder, &from, &cpus, &mailbox);
    __CPROVER_assert(builder.count <= ACPI_MAX_TABLES, "the count stays in the list");
}
