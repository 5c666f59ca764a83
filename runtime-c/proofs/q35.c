/* Do the tables for a q35 stay in their area, and its steps in their list? */
#include "../src/q35.c"
#include "tables.h"

/* Proved in plan.c, fadt.c, madt.c and acpi.c. */
status_t plan_reserve(struct ram *ram, uint64_t start, uint64_t end) {
    uint64_t count;
    status_t status;
    __CPROVER_assume(count <= CAPACITY(ram, ranges));
    ram->ranges.count = count;
    return status;
}

struct acpi_gas acpi_port(uint32_t number, uint8_t bytes) {
    struct acpi_gas port;
    return port;
}

uint8_t *acpi_madt_begin(struct acpi_builder *builder, uint64_t *size) {
    *size = sizeof(struct acpi_madt);
    return acpi_reserve(builder, sizeof(struct acpi_madt));
}

status_t acpi_madt_cpus(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct cpus *cpus) {
    status_t status;
    return status;
}

status_t acpi_madt_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const void *entry) {
    status_t status;
    reads(entry, sizeof(struct acpi_madt_entry));
    reads(entry, ((const struct acpi_madt_entry *)entry)->length);
    return status;
}

status_t acpi_madt_wakeup(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *mailbox) {
    status_t status;
    return status;
}

void acpi_madt_end(struct acpi_builder *builder, uint8_t *madt, uint64_t size) {
    __CPROVER_assert(builder->count < ACPI_MAX_TABLES, "room for the MADT");
    builder->count++;
}

status_t acpi_begin_roots(struct acpi_builder *builder) {
    status_t status;
    uint64_t used;
    builder->used = used;
    return status;
}

status_t acpi_add_ccel(struct acpi_builder *builder, const struct log *log) {
    status_t status;
    __CPROVER_assert(builder->count < ACPI_MAX_TABLES, "room for the CCEL");
    return status;
}

uint64_t acpi_end_roots(struct acpi_builder *builder) { return 0; }

void prove_q35_config(void) {
    struct config_access out;
    uint64_t step, answer;
    q35_config(step, answer, &out);
}

void prove_q35_acpi(void) {
    const struct span area = any_span(BOUND), mailbox = any_span(BOUND);
    const struct cpus cpus = {.ids = any_span(BOUND)};
    struct log log;
    struct ram *ram = ANY(struct ram);
    uint64_t out;
    __CPROVER_assume(ram->ranges.count <= CAPACITY(ram, ranges));
    q35_acpi(&area, ram, &cpus, &mailbox, &log, &out);
}
