/* How is an ACPI table made, and how is one of the VMM's checked? Source: ACPI specification 6.5, 5.2.6. */
#include "acpi_build.h"

#define HEAD_SIZE sizeof(struct acpi_header)

uint8_t *acpi_reserve(struct acpi_builder *builder, uint64_t size) {
    if (!tdf_inside(builder->area.size, builder->used, size) ||
        builder->area.size - builder->used - size < ACPI_ALIGNMENT)
        return 0;
    uint8_t *at = builder->area.data + builder->used;
    builder->used += tdf_align_up(size, ACPI_ALIGNMENT);
    memset(at, 0, size);
    return at;
}

uint8_t acpi_negated_sum(const uint8_t *data, uint64_t size) {
    uint8_t sum = 0;
    for (uint64_t i = 0; i < size; i++)
        PROVE_LOOP((i, sum), i <= size, size - i)
        sum = (uint8_t)(sum + data[i]);
    return (uint8_t)-sum;
}

void acpi_seal(uint8_t *table, uint64_t size) {
    struct acpi_header *head = (struct acpi_header *)table;
    head->length = (uint32_t)size;
    head->checksum = 0;
    head->checksum = acpi_negated_sum(table, size);
}

void acpi_name(uint8_t *table, const char *signature, uint8_t revision) {
    struct acpi_header *head = (struct acpi_header *)table;
    memcpy(head->signature, signature, sizeof head->signature);
    memcpy(head->oem_id, "TDFRG", 5);
    memcpy(head->oem_table_id, "TDFORGE", 7);
    memcpy(head->creator_id, "TDFG", sizeof head->creator_id);
    head->revision = revision;
    head->oem_revision = 1;
    head->creator_revision = 1;
}

int acpi_is(const struct span *table, const char *signature) {
    return memcmp(table->data, signature, 4) == 0;
}

status_t acpi_check(const struct span *hob, struct span *out) {
    struct acpi_header head;
    if (!tdf_read(hob, 0, &head, sizeof head) || head.length < HEAD_SIZE || head.length > hob->size)
        return TDF_E_ACPI_MALFORMED;
    TDF_BARRIER();
    out->data = hob->data;
    out->size = head.length;
    return TDF_OK;
}

status_t acpi_find(const struct vmm *vmm, const char *signature, struct span *out) {
    out->size = 0;
    for (uint64_t i = 0; i < vmm->tables.count; i++)
        PROVE_LOOP((i, *out), i <= vmm->tables.count, vmm->tables.count - i) {
        struct span table;
        status_t status = acpi_check(&vmm->tables.items[i], &table);
        if (status != TDF_OK)
            return status;
        if (!acpi_is(&table, signature))
            continue;
        if (out->size != 0)
            return TDF_E_ACPI_MALFORMED;
        *out = table;
    }
    return TDF_OK;
}
