/* Do the tables for the OS stay in their area, and is a FADT of the VMM read in its length only? */
#include "../src/acpi.c"
#include "tables.h"

static struct span hob; /* in which the VMM's tables lie */

static struct span any_table(void) {
    struct span table;
    uint64_t start;
    __CPROVER_assume(tdf_inside(hob.size, start, table.size) && table.size >= HEAD_SIZE);
    table.data = hob.data + start;
    return table;
}

status_t acpi_check(const struct span *body, struct span *out) {
    status_t status;
    reads(body, sizeof *body);
    *out = any_table();
    return status;
}

status_t acpi_find(const struct vmm *vmm, const char *signature, struct span *out) {
    status_t status;
    int found;
    *out = any_table();
    if (!found)
        out->size = 0;
    return status;
}

/* Proved in dsdt.c, fadt.c and madt.c. */
uint8_t *acpi_add_dsdt(struct acpi_builder *builder, const struct vmm *vmm) {
    return acpi_reserve(builder, HEAD_SIZE);
}

void acpi_fill_fadt(struct acpi_fadt *fadt, const struct vmm *vmm) { writes(fadt, sizeof *fadt); }

status_t acpi_add_madt(struct acpi_builder *builder, const struct span *theirs, const struct cpus *cpus,
                       const struct span *mailbox) {
    status_t status;
    uint64_t used;
    __CPROVER_assert(builder->count < ACPI_MAX_TABLES, "room for the MADT");
    if (status == TDF_OK) {
        builder->used = used;
        builder->tables[builder->count++] = 0;
    }
    return status;
}

static void any_hob(struct vmm *vmm) {
    hob = any_span(BOUND);
    __CPROVER_assume(hob.size >= HEAD_SIZE && vmm->tables.count <= CAPACITY(vmm, tables));
}

void prove_acpi_others(void) {
    struct acpi_builder builder;
    struct vmm vmm;
    int aml;
    any_hob(&vmm);
    builder.area = any_span(BOUND);
    __CPROVER_assume(builder.count <= OURS);
    add_others(&builder, &vmm, aml);
    __CPROVER_assert(builder.count <= ACPI_MAX_TABLES, "the count stays in the list");
}

status_t any_add_others(struct acpi_builder *builder, const struct vmm *vmm, int aml) {
    uint32_t more;
    status_t status;
    __CPROVER_assert(builder->count <= OURS, "no more than ours so far");
    __CPROVER_assume(more <= CAPACITY(vmm, tables));
    builder->count += more;
    return status;
}

void prove_acpi_tables(void) {
    const struct span area = any_span(BOUND), mailbox = any_span(BOUND);
    const struct cpus cpus = {.ids = any_span(BOUND)};
    struct log log;
    struct vmm vmm;
    uint64_t out;
    int aml;
    any_hob(&vmm);
    if (aml)
        acpi_tables_of_vmm(&area, &vmm, &cpus, &mailbox, &log, &out);
    else
        acpi_tables(&area, &vmm, &cpus, &mailbox, &log, &out);
}
