/* What do the makers of tables take the parts of a table for? Each is proved in acpi_build.c. */
#ifndef TDF_PROOFS_TABLES_H
#define TDF_PROOFS_TABLES_H

#include "acpi_build.h"
#include "model.h"

uint8_t *acpi_reserve(struct acpi_builder *builder, uint64_t size) {
    if (!tdf_inside(builder->area.size, builder->used, size) ||
        builder->area.size - builder->used - size < ACPI_ALIGNMENT)
        return 0;
    uint8_t *at = builder->area.data + builder->used;
    builder->used += tdf_align_up(size, ACPI_ALIGNMENT);
    return at; /* nobody reads what is there */
}

void acpi_seal(uint8_t *table, uint64_t size) {
    __CPROVER_assert(size >= sizeof(struct acpi_header) && __CPROVER_w_ok(table, size), "seals a table that is there");
}

uint8_t acpi_negated_sum(const uint8_t *data, uint64_t size) {
    uint8_t sum;
    reads(data, size);
    return sum;
}

void acpi_name(uint8_t *table, const char *signature, uint8_t revision) {
    __CPROVER_assert(__CPROVER_w_ok(table, sizeof(struct acpi_header)), "names a table that is there");
}

int acpi_is(const struct span *table, const char *signature) {
    int found;
    reads(table->data, 4);
    return found;
}

#endif
