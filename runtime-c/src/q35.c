/* How is QEMU's q35 made ready, and what do our ACPI tables say of it? Nothing of the host's tables is read: what they
 * say of the chipset is constant, and CPUs and RAM are known from elsewhere.
 *
 * Not HW_REDUCED: that would take IRQ 0 to 15 and the PM timer from Linux, and its reboot would go to real mode.
 * Source: formats/q35.py; ACPI specification 6.5, 5.2.9; Linux arch/x86/kernel/reboot.c. */
#include "acpi_build.h"
#include "plan.h"

#define HEAD_SIZE sizeof(struct acpi_header)

/* ---- the chipset */

struct config_row {
    uint32_t device, reg, size, write, value;
};

static const struct config_row accesses[] = {
    {Q35_MCH, 0, 4, 0, Q35_MCH_ID},
    {Q35_LPC, 0, 4, 0, Q35_LPC_ID},
    {Q35_MCH, Q35_PCIEXBAR, 4, 1, 0}, /* off while the upper half changes */
    {Q35_MCH, Q35_PCIEXBAR + 4, 4, 1, 0},
    {Q35_MCH, Q35_PCIEXBAR, 4, 1, Q35_ECAM | Q35_PCIEXBAR_ENABLE},
    {Q35_LPC, Q35_PMBASE, 4, 1, Q35_PM_PORTS | Q35_PMBASE_IO},
    {Q35_LPC, Q35_ACPI_CNTL, 1, 1, Q35_ACPI_ENABLE},
    {Q35_MCH, Q35_PCIEXBAR, 4, 0, Q35_ECAM | Q35_PCIEXBAR_ENABLE},
    {Q35_MCH, Q35_PCIEXBAR + 4, 4, 0, 0},
    {Q35_LPC, Q35_PMBASE, 4, 0, Q35_PM_PORTS | Q35_PMBASE_IO},
    {Q35_LPC, Q35_ACPI_CNTL, 1, 0, Q35_ACPI_ENABLE},
};

status_t q35_config(uint64_t step, uint64_t answer, struct config_access *out) {
    const uint64_t count = sizeof accesses / sizeof accesses[0];
    memset(out, 0, sizeof *out);
    if (step > 0 && step <= count) {
        const struct config_row *last = &accesses[step - 1];
        const uint64_t mask = last->size == 4 ? UINT32_MAX : UINT8_MAX;
        if (!last->write && (answer & mask) != last->value)
            return TDF_E_Q35_MISSING;
    }
    if (step >= count) {
        out->done = 1;
        return TDF_OK;
    }
    const struct config_row *next = &accesses[step];
    out->address = Q35_CONFIG_ENABLE | next->device | next->reg;
    out->port = Q35_CONFIG_DATA;
    out->size = next->size;
    out->write = next->write;
    out->value = next->value;
    return TDF_OK;
}

/* ---- the tables */

/* runtime-c/acpi/q35.asl behind its header, as iasl compiles it; a test compares. */
static const uint8_t aml[] = {
    0x08, 0x5F, 0x53, 0x35, 0x5F, 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00, 0x5B, 0x82, 0x30, 0x2E,
    0x5F, 0x53, 0x42, 0x5F, 0x43, 0x4F, 0x4D, 0x31, 0x08, 0x5F, 0x48, 0x49, 0x44, 0x0C, 0x41, 0xD0,
    0x05, 0x01, 0x08, 0x5F, 0x55, 0x49, 0x44, 0x01, 0x08, 0x5F, 0x43, 0x52, 0x53, 0x11, 0x10, 0x0A,
    0x0D, 0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x00, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00, 0x5B, 0x82,
    0x41, 0x0A, 0x2E, 0x5F, 0x53, 0x42, 0x5F, 0x50, 0x43, 0x49, 0x30, 0x08, 0x5F, 0x48, 0x49, 0x44,
    0x0C, 0x41, 0xD0, 0x0A, 0x08, 0x08, 0x5F, 0x43, 0x49, 0x44, 0x0C, 0x41, 0xD0, 0x0A, 0x03, 0x08,
    0x5F, 0x55, 0x49, 0x44, 0x00, 0x08, 0x5F, 0x43, 0x52, 0x53, 0x11, 0x46, 0x07, 0x0A, 0x72, 0x88,
    0x0D, 0x00, 0x02, 0x0C, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0x00, 0x00, 0x00, 0x00, 0x01, 0x47,
    0x01, 0xF8, 0x0C, 0xF8, 0x0C, 0x01, 0x08, 0x88, 0x0D, 0x00, 0x01, 0x0C, 0x03, 0x00, 0x00, 0x00,
    0x10, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xF0, 0x87, 0x17, 0x00, 0x00, 0x0C, 0x01, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xC0, 0xFF, 0xFF, 0xFF, 0xDF, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x8A, 0x2B, 0x00, 0x00, 0x0C, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x79,
    0x00,
};
#define LEAST_PRIVATE_END (1ull << 47) /* GPAW 48 or 52: TDX module ABI, TD_PARAMS CONFIG_FLAGS */
#define MMIO64_AT (227u - HEAD_SIZE) /* minimum, maximum, translation, length: u64 each */

/* The 64-bit window for BARs: above all RAM, below the end of private addresses of any TD, for no register records
 * the width that the VMM chose; none if there is no room. */
static void write_window(uint8_t *dsdt, const struct ram *ram) {
    const uint64_t limit = ram->private_end < LEAST_PRIVATE_END ? ram->private_end : LEAST_PRIVATE_END;
    uint64_t start = Q35_MMIO64_ALIGNMENT;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, start), i <= ram->ranges.count, ram->ranges.count - i)
        if (ram->ranges.items[i].end > start)
            start = tdf_align_up(ram->ranges.items[i].end, Q35_MMIO64_ALIGNMENT);
    const uint64_t size = start < limit && limit - start >= Q35_MMIO64_SIZE ? Q35_MMIO64_SIZE : 0;
    const uint64_t window[] = {size ? start : 0, size ? start + size - 1 : 0, 0, size};
    memcpy(dsdt + HEAD_SIZE + MMIO64_AT, window, sizeof window);
}

static uint8_t *add_dsdt(struct acpi_builder *builder, const struct ram *ram) {
    uint8_t *dsdt = acpi_reserve(builder, HEAD_SIZE + sizeof aml);
    if (!dsdt)
        return 0;
    acpi_name(dsdt, "DSDT", ACPI_DSDT_REVISION);
    memcpy(dsdt + HEAD_SIZE, aml, sizeof aml);
    write_window(dsdt, ram);
    acpi_seal(dsdt, HEAD_SIZE + sizeof aml);
    return dsdt;
}

static status_t add_fadt(struct acpi_builder *builder, const uint8_t *dsdt) {
    struct acpi_fadt *fadt = (struct acpi_fadt *)acpi_reserve(builder, sizeof *fadt);
    if (!fadt)
        return TDF_E_ACPI_NO_ROOM;
    acpi_name((uint8_t *)fadt, "FACP", ACPI_FADT_REVISION);
    fadt->minor_revision = ACPI_FADT_MINOR_REVISION;
    fadt->dsdt = tdf_gpa(dsdt) < TDF_4G ? (uint32_t)tdf_gpa(dsdt) : 0;
    fadt->x_dsdt = tdf_gpa(dsdt);
    fadt->sci_int = Q35_SCI_IRQ;
    fadt->pm1a_evt_blk = Q35_PM_PORTS;
    fadt->pm1_evt_len = 4;
    fadt->pm1a_cnt_blk = Q35_PM1_CNT;
    fadt->pm1_cnt_len = 2;
    fadt->pm_tmr_blk = Q35_PM_TMR;
    fadt->pm_tmr_len = 4;
    fadt->gpe0_blk = Q35_GPE0;
    fadt->gpe0_blk_len = Q35_GPE0_SIZE;
    fadt->p_lvl2_lat = ACPI_NO_C2;
    fadt->p_lvl3_lat = ACPI_NO_C3;
    fadt->iapc_boot_arch = ACPI_BOOT_ARCH_NO_VGA;
    fadt->flags = ACPI_FADT_FLAG_WBINVD | ACPI_FADT_FLAG_PROC_C1 | ACPI_FADT_FLAG_PWR_BUTTON |
                  ACPI_FADT_FLAG_SLP_BUTTON | ACPI_FADT_FLAG_RESET_REG_SUP;
    fadt->reset_reg = acpi_port(Q35_RESET_PORT, 1);
    fadt->reset_value = Q35_RESET_VALUE;
    fadt->x_pm1a_evt_blk = acpi_port(Q35_PM_PORTS, 4);
    fadt->x_pm1a_cnt_blk = acpi_port(Q35_PM1_CNT, 2);
    fadt->x_pm_tmr_blk = acpi_port(Q35_PM_TMR, 4);
    fadt->x_gpe0_blk = acpi_port(Q35_GPE0, Q35_GPE0_SIZE);
    acpi_seal((uint8_t *)fadt, sizeof *fadt);
    builder->tables[builder->count++] = tdf_gpa(fadt);
    return TDF_OK;
}

static status_t add_mcfg(struct acpi_builder *builder) {
    struct acpi_mcfg *mcfg = (struct acpi_mcfg *)acpi_reserve(builder, sizeof *mcfg);
    if (!mcfg)
        return TDF_E_ACPI_NO_ROOM;
    acpi_name((uint8_t *)mcfg, "MCFG", ACPI_MCFG_REVISION);
    mcfg->base = Q35_ECAM;
    mcfg->end_bus = UINT8_MAX;
    acpi_seal((uint8_t *)mcfg, sizeof *mcfg);
    builder->tables[builder->count++] = tdf_gpa(mcfg);
    return TDF_OK;
}

/* The CPUs, q35's I/O APIC, IRQ 0 at its pin 2, the SCI level triggered and active high; the mailbox in a TD alone. */
static status_t add_madt(struct acpi_builder *builder, const struct cpus *cpus, const struct span *mailbox) {
    static const struct acpi_madt_ioapic ioapic = {
        .type = ACPI_MADT_IOAPIC, .length = sizeof ioapic, .address = Q35_IO_APIC};
    static const struct acpi_madt_iso timer = {.type = ACPI_MADT_ISO, .length = sizeof timer, .source = 0, .gsi = 2};
    static const struct acpi_madt_iso sci = {.type = ACPI_MADT_ISO,
                                             .length = sizeof sci,
                                             .source = Q35_SCI_IRQ,
                                             .gsi = Q35_SCI_IRQ,
                                             .flags = ACPI_INTI_LEVEL_HIGH};
    uint64_t size = 0;
    status_t status;
    uint8_t *madt = acpi_madt_begin(builder, &size);
    if (!madt)
        return TDF_E_ACPI_NO_ROOM;
    if ((status = acpi_madt_cpus(builder, madt, &size, cpus)) != TDF_OK ||
        (status = acpi_madt_entry(builder, madt, &size, &ioapic)) != TDF_OK ||
        (status = acpi_madt_entry(builder, madt, &size, &timer)) != TDF_OK ||
        (status = acpi_madt_entry(builder, madt, &size, &sci)) != TDF_OK ||
        (cpus->wait && (status = acpi_madt_wakeup(builder, madt, &size, mailbox)) != TDF_OK))
        return status;
    acpi_madt_end(builder, madt, size);
    return TDF_OK;
}

status_t q35_acpi(const struct span *area, struct ram *ram, const struct cpus *cpus, const struct span *mailbox,
                  const struct log *log, uint64_t *out) {
    struct acpi_builder builder = {.area = *area};
    uint8_t *dsdt;
    status_t status = plan_reserve(ram, Q35_ECAM, (uint64_t)Q35_ECAM + Q35_ECAM_SIZE);
    if (status != TDF_OK || (status = acpi_begin_roots(&builder)) != TDF_OK)
        return status;
    dsdt = add_dsdt(&builder, ram);
    if (!dsdt)
        return TDF_E_ACPI_NO_ROOM;
    if ((status = add_fadt(&builder, dsdt)) != TDF_OK || (status = add_madt(&builder, cpus, mailbox)) != TDF_OK ||
        (status = add_mcfg(&builder)) != TDF_OK || (status = acpi_add_ccel(&builder, log)) != TDF_OK)
        return status;
    *out = acpi_end_roots(&builder);
    return TDF_OK;
}
