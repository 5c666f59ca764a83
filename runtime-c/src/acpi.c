/* Which ACPI tables does the OS get? RSDP, XSDT, DSDT, MADT and CCEL of ours, what describes the VMM's hardware, its AML
 * by the flow's choice.
 *
 * What the VMM passed is measured, but no length in it is believed. Source: ACPI specification 6.5, chapter 5. */
#include "acpi_build.h"

#define HEAD_SIZE sizeof(struct acpi_header)

/* An FADT of ACPI 1.0 ends behind its flags; one of revision 2 before X_FIRMWARE_CTRL; from 3 on it has X_DSDT. */
#define FADT_SIZE_MIN offsetof(struct acpi_fadt, reset_reg)
#define FADT_SIZE_32 offsetof(struct acpi_fadt, x_firmware_ctrl)
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

/* The VMM's DSDT by the flow's choice, else ours. */
static status_t add_dsdt(struct acpi_builder *builder, const struct vmm *vmm, const struct span *theirs,
                         uint8_t **dsdt) {
    status_t status = TDF_OK;
    if (theirs->size == 0)
        *dsdt = acpi_add_dsdt(builder, vmm);
    else if ((status = copy_table(builder, theirs, dsdt)) == TDF_OK)
        acpi_seal(*dsdt, theirs->size);
    return status == TDF_OK && !*dsdt ? TDF_E_ACPI_NO_ROOM : status;
}

/* Where a FADT has registers. */
static const uint16_t registers[] = {
    offsetof(struct acpi_fadt, reset_reg),         offsetof(struct acpi_fadt, x_pm1a_evt_blk),
    offsetof(struct acpi_fadt, x_pm1b_evt_blk),    offsetof(struct acpi_fadt, x_pm1a_cnt_blk),
    offsetof(struct acpi_fadt, x_pm1b_cnt_blk),    offsetof(struct acpi_fadt, x_pm2_cnt_blk),
    offsetof(struct acpi_fadt, x_pm_tmr_blk),      offsetof(struct acpi_fadt, x_gpe0_blk),
    offsetof(struct acpi_fadt, x_gpe1_blk),        offsetof(struct acpi_fadt, sleep_control_reg),
    offsetof(struct acpi_fadt, sleep_status_reg),
};

/* An OS writes to these. One that is no port could be any memory of the TD. Of a register in which the table ends, the
 * OS reads zeros for the rest (ACPICA tbfadt.c, acpi_tb_create_local_fadt). */
static int only_ports(const struct span *fadt) {
    for (uint32_t i = 0; i < sizeof registers / sizeof registers[0]; i++) {
        struct acpi_gas gas = {0};
        if (fadt->size <= registers[i])
            continue;
        const uint64_t left = fadt->size - registers[i];
        memcpy(&gas, fadt->data + registers[i], left < sizeof gas ? left : sizeof gas);
        if (gas.address != 0 && (gas.space_id != ACPI_SPACE_IO || gas.address > UINT16_MAX))
            return 0;
    }
    return 1;
}

static status_t add_fadt(struct acpi_builder *builder, const struct vmm *vmm, const struct span *theirs,
                         const uint8_t *dsdt) {
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
        acpi_fill_fadt((struct acpi_fadt *)table, vmm);
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

/* Is it a table without AML that only describes hardware? */
static int is_data(const struct span *table) {
    return acpi_is(table, "MCFG") || acpi_is(table, "SRAT") || acpi_is(table, "SLIT");
}

#define OURS 3u /* FADT, MADT, CCEL: those before the VMM's */

/* All other tables of the VMM, or those without AML. FACS has no common header; a MADT, a CCEL and the roots are ours
 * alone. */
static status_t add_others(struct acpi_builder *builder, const struct vmm *vmm, int aml) {
    static const char ours[][5] = {"FACP", "DSDT", "APIC", "CCEL", "FACS", "XSDT", "RSDT"};
    for (uint64_t i = 0; i < vmm->tables.count; i++)
        PROVE_LOOP((i, builder->used, builder->count, builder->tables, __CPROVER_object_whole(builder->area.data)),
                   i <= vmm->tables.count && builder->count <= OURS + i, vmm->tables.count - i) {
        struct span table;
        uint8_t *copy;
        int skip = 0;
        status_t status = acpi_check(&vmm->tables.items[i], &table);
        if (status == TDF_OK)
            skip = !aml && !is_data(&table);
        for (uint32_t k = 0; status == TDF_OK && k < sizeof ours / sizeof ours[0]; k++)
            PROVE_LOOP((k, skip), k <= sizeof ours / sizeof ours[0], sizeof ours / sizeof ours[0] - k)
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

/* `aml`: the VMM's DSDT and SSDTs too, and any FADT. */
static status_t build(const struct span *area, const struct vmm *vmm, const struct cpus *cpus,
                      const struct span *mailbox, const struct log *log, int aml, uint64_t *out) {
    struct acpi_builder builder = {.area = *area};
    struct span fadt = {0, 0}, dsdt = {0, 0}, madt;
    uint8_t *dsdt_at = 0;
    status_t status = acpi_begin_roots(&builder);
    if (status != TDF_OK || (status = acpi_find(vmm, "FACP", &fadt)) != TDF_OK ||
        (aml && (status = acpi_find(vmm, "DSDT", &dsdt)) != TDF_OK))
        return status;
    /* It would end in an address of a FACS or DSDT, whose lower bytes an OS takes, and which would be the VMM's. */
    if (fadt.size > FADT_SIZE_32 && fadt.size < FADT_SIZE_64)
        fadt.size = FADT_SIZE_32;
    if (!aml) {
        if (!only_ports(&fadt))
            return TDF_E_ACPI_MALFORMED;
        if (fadt.size > sizeof(struct acpi_fadt)) /* a newer one, with registers that are not known here */
            fadt.size = sizeof(struct acpi_fadt);
    }
    if ((status = add_dsdt(&builder, vmm, &dsdt, &dsdt_at)) != TDF_OK ||
        (status = add_fadt(&builder, vmm, &fadt, dsdt_at)) != TDF_OK ||
        (status = acpi_find(vmm, "APIC", &madt)) != TDF_OK ||
        (status = acpi_add_madt(&builder, &madt, cpus, mailbox)) != TDF_OK ||
        (status = acpi_add_ccel(&builder, log)) != TDF_OK || (status = add_others(&builder, vmm, aml)) != TDF_OK)
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
