/* Do the parts of an ACPI table stay in its area, and is a table of the VMM read in its length only? */
#include "../src/acpi_build.c"
#include "model.h"

void prove_acpi_build(void) {
    const struct span hob = any_span(BOUND);
    struct acpi_builder builder;
    struct span table;
    uint64_t size;
    builder.area = any_span(BOUND);
    uint8_t *at = acpi_reserve(&builder, size);
    if (at && size >= HEAD_SIZE) {
        acpi_name(at, "TEST", 1);
        acpi_seal(at, size);
    }
    if (acpi_check(&hob, &table) == TDF_OK) {
        acpi_is(&table, "TEST");
        reads(table.data, table.size);
    }
}

static struct span list; /* in which the VMM's tables lie */

/* Stands for acpi_check: a part of the list, or an error. */
status_t any_check(const struct span *hob, struct span *out) {
    status_t status;
    uint64_t start;
    reads(hob, sizeof *hob);
    __CPROVER_assume(tdf_inside(list.size, start, out->size) && out->size >= HEAD_SIZE);
    out->data = list.data + start;
    return status;
}

void prove_acpi_find(void) {
    struct vmm vmm;
    struct span out;
    list = any_span(BOUND);
    __CPROVER_assume(list.size >= HEAD_SIZE && vmm.tables.count <= CAPACITY(vmm, tables));
    acpi_find(&vmm, "TEST", &out);
}
