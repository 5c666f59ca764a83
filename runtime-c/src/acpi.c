/* Which ACPI tables does the OS get? RSDP, XSDT, FADT, DSDT, MADT and CCEL of ours, the VMM's by the flow's choice.
 *
 * What the VMM passed is measured, but no length in it is believed. Source: ACPI specification 6.5, chapter 5. */
#include "acpi_build.h"

#define HEAD_SIZE sizeof(struct acpi_header)

/* An FADT of ACPI 1.0 ends behind its flags; from revision 3 on it has X_DSDT. */
#define FADT_SIZE_MIN offsetof(struct acpi_fadt, reset_reg)
#define FADT_SIZE_64 (offsetof(struct acpi_fadt, x_dsdt) + sizeof(uint64_t))

status_t acpi_add_ccel(struct acpi_builder *builder, const struct log *log) {
    struct acpi_ccel *ccel = (struct acpi_ccel *)acpi_reserve(builder, sizeof *ccel);
    if (!ccel)
        return TDF_E_ACPI_NO_ROOM;
    acpi_name((uint8_t *)ccel, "CCEL", ACPI_CCEL_REVISION);
    ccel->cc_type = ACPI_CC_TDX;
    ccel->log_area_length = log->area.size;
    ccel->log_area_address = tdf_gpa(log->area.data);
    acpi_seal((uint8_t *)ccel, sizeof *ccel);
    builder->tables[builder->count++] = tdf_gpa(ccel);
    return TDF_OK;
}

/* A copy of a VMM's table, to be sealed by the caller. */
static status_t copy_table(struct acpi_builder *builder, const struct span *table, uint8_t **copy) {
    *copy = acpi_reserve(builder, table->size);
    if (!*copy)
        return TDF_E_ACPI_NO_ROOM;
    memcpy(*copy, table->data, table->size);
    return TDF_OK;
}

/* A DSDT without AML: enough for an OS to bring up its interpreter, and with it /sys/firmware/acpi. */
static status_t add_dsdt(struct acpi_builder *builder, const struct span *theirs, uint8_t **dsdt) {
    if (theirs->size != 0) {
        status_t status = copy_table(builder, theirs, dsdt);
        if (status == TDF_OK)
            acpi_seal(*dsdt, theirs->size);
        return status;
    }
    *dsdt = acpi_reserve(builder, HEAD_SIZE);
    if (!*dsdt)
        return TDF_E_ACPI_NO_ROOM;
    acpi_name(*dsdt, "DSDT", ACPI_DSDT_REVISION);
    acpi_seal(*dsdt, HEAD_SIZE);
    return TDF_OK;
}

static status_t add_fadt(struct acpi_builder *builder, const struct span *theirs, const uint8_t *dsdt) {
    uint64_t size = theirs->size != 0 ? theirs->size : sizeof(struct acpi_fadt);
    uint64_t address = tdf_gpa(dsdt);
    uint8_t *table;
    if (theirs->size != 0) {
        if (size < FADT_SIZE_MIN)
            return TDF_E_ACPI_MALFORMED;
        status_t status = copy_table(builder, theirs, &table);
        if (status != TDF_OK)
            return status;
    } else {
        table = acpi_reserve(builder, size);
        if (!table)
            return TDF_E_ACPI_NO_ROOM;
        acpi_name(table, "FACP", ACPI_FADT_REVISION);
        struct acpi_fadt *ours = (struct acpi_fadt *)table;
        ours->minor_revision = ACPI_FADT_MINOR_REVISION;
        ours->flags = ACPI_FADT_FLAG_HW_REDUCED;
        ours->iapc_boot_arch = ACPI_BOOT_ARCH_NO_VGA;
    }
    struct acpi_fadt *fadt = (struct acpi_fadt *)table;
    fadt->firmware_ctrl = 0; /* a FACS would lie in the VMM's memory, not in ours */
    fadt->dsdt = address < TDF_4G ? (uint32_t)address : 0;
    if (size >= FADT_SIZE_64) {
        fadt->x_firmware_ctrl = 0;
        fadt->x_dsdt = address;
    } else if (address >= TDF_4G) {
        return TDF_E_ACPI_MALFORMED;
    }
    acpi_seal(table, size);
    builder->tables[builder->count++] = tdf_gpa(table);
    return TDF_OK;
}

/* All other tables of the VMM. FACS has no common header; a MADT, a CCEL and the roots are ours alone. */
static status_t add_others(struct acpi_builder *builder, const struct vmm *vmm) {
    static const char ours[][5] = {"FACP", "DSDT", "APIC", "CCEL", "FACS", "XSDT", "RSDT"};
    for (uint64_t i = 0; i < vmm->tables.count; i++) {
        struct span table;
        uint8_t *copy;
        int skip = 0;
        status_t status = acpi_check(&vmm->tables.items[i], &table);
        for (uint32_t k = 0; status == TDF_OK && k < sizeof ours / sizeof ours[0]; k++)
            skip |= acpi_is(&table, ours[k]);
        if (status == TDF_OK && !skip) {
            status = copy_table(builder, &table, &copy);
            if (status == TDF_OK) {
                acpi_seal(copy, table.size);
                builder->tables[builder->count++] = tdf_gpa(copy);
            }
        }
        if (status != TDF_OK)
            return status;
    }
    return TDF_OK;
}

status_t acpi_begin_roots(struct acpi_builder *builder) {
    builder->rsdp = acpi_reserve(builder, sizeof(struct acpi_rsdp));
    builder->xsdt = acpi_reserve(builder, HEAD_SIZE + ACPI_MAX_TABLES * sizeof(uint64_t));
    return builder->rsdp && builder->xsdt ? TDF_OK : TDF_E_ACPI_NO_ROOM;
}

uint64_t acpi_end_roots(struct acpi_builder *builder) {
    uint64_t size = HEAD_SIZE + builder->count * sizeof(uint64_t);
    struct acpi_rsdp *rsdp = (struct acpi_rsdp *)builder->rsdp;
    memcpy(builder->xsdt + HEAD_SIZE, builder->tables, builder->count * sizeof(uint64_t));
    acpi_name(builder->xsdt, "XSDT", ACPI_XSDT_REVISION);
    acpi_seal(builder->xsdt, size);
    memcpy(rsdp->signature, ACPI_RSDP_SIGNATURE, sizeof rsdp->signature);
    memcpy(rsdp->oem_id, "TDFRG", 5);
    rsdp->revision = ACPI_RSDP_REVISION;
    rsdp->length = sizeof *rsdp;
    rsdp->xsdt_address = tdf_gpa(builder->xsdt);
    rsdp->checksum = acpi_negated_sum(builder->rsdp, ACPI_RSDP_V1_SIZE);
    rsdp->extended_checksum = acpi_negated_sum(builder->rsdp, sizeof *rsdp);
    return tdf_gpa(rsdp);
}

static status_t build(const struct span *area, const struct vmm *vmm, const struct cpus *cpus,
                      const struct span *mailbox, const struct log *log, int theirs, uint64_t *out) {
    struct acpi_builder builder = {.area = *area};
    struct span fadt = {0, 0}, dsdt = {0, 0};
    uint8_t *dsdt_at = 0;
    status_t status = acpi_begin_roots(&builder);
    if (status != TDF_OK)
        return status;
    if (theirs && ((status = acpi_find(vmm, "FACP", &fadt)) != TDF_OK ||
                   (status = acpi_find(vmm, "DSDT", &dsdt)) != TDF_OK))
        return status;
    if ((status = add_dsdt(&builder, &dsdt, &dsdt_at)) != TDF_OK ||
        (status = add_fadt(&builder, &fadt, dsdt_at)) != TDF_OK ||
        (status = acpi_add_madt(&builder, vmm, cpus, mailbox)) != TDF_OK ||
        (status = acpi_add_ccel(&builder, log)) != TDF_OK ||
        (theirs && (status = add_others(&builder, vmm)) != TDF_OK))
        return status;
    *out = acpi_end_roots(&builder);
    return TDF_OK;
}

status_t acpi_tables(const struct span *area, const struct vmm *vmm, const struct cpus *cpus,
                     const struct span *mailbox, const struct log *log, uint64_t *out) {
    return build(area, vmm, cpus, mailbox, log, 0, out);
}

status_t acpi_tables_of_vmm(const struct span *area, const struct vmm *vmm, const struct cpus *cpus,
                            const struct span *mailbox, const struct log *log, uint64_t *out) {
    return build(area, vmm, cpus, mailbox, log, 1, out);
}
