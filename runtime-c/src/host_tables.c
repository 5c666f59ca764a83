/* Which of the host's ACPI tables does the OS find? All that the RSDP leads to, where the loader script put them; but
 * RSDP, XSDT, MADT and CCEL are ours.
 *
 * Each pointer of the host's has to lead to a table that lies whole in one of its files, apart from all others; its
 * checksum is made anew. Source: ACPI specification 6.5, 5.2. */
#include "acpi_script.h"

#define HEAD_SIZE sizeof(struct acpi_header)
#define MAX_SEEN (ACPI_MAX_TABLES + 3u) /* DSDT, FACS, RSDT */
#define FADT_SIZE_DSDT (offsetof(struct acpi_fadt, dsdt) + sizeof(uint32_t))
#define FACS_SIZE 64u

/* The tables so far: none may share a byte with another, so that sealing one does not change another. */
struct seen {
    struct span tables[MAX_SEEN];
    uint32_t count;
    uint32_t fadts;
};

/* The table at an address in a file: its length is at offset 4, and at least `least`. */
static status_t take(const struct span *file, uint64_t address, uint64_t least, struct seen *seen, struct span *out) {
    const uint64_t start = tdf_gpa(file->data);
    uint32_t length;
    if (!tdf_read(file, address - start + sizeof(uint32_t), &length, sizeof length) || length < least ||
        !tdf_inside(file->size, address - start, length) || seen->count == MAX_SEEN)
        return TDF_E_ACPI_MALFORMED;
    out->data = file->data + (address - start);
    out->size = length;
    for (uint32_t k = 0; k < seen->count; k++)
        PROVE_LOOP((k), k <= seen->count, seen->count - k) {
        const uint64_t other = tdf_gpa(seen->tables[k].data);
        if (tdf_overlap(address, address + length, other, other + seen->tables[k].size))
            return TDF_E_ACPI_MALFORMED;
    }
    seen->tables[seen->count++] = *out;
    return TDF_OK;
}

/* The table at an address of the host's. */
static status_t resolve(const struct script_files *files, uint64_t address, uint64_t least, struct seen *seen,
                        struct span *out) {
    for (uint32_t i = 0; i < files->count; i++)
        PROVE_LOOP((i, *out, seen->tables, seen->count), i <= files->count && seen->count <= MAX_SEEN, files->count - i) {
        const struct span *file = &files->copies[i];
        const uint64_t start = tdf_gpa(file->data);
        if (address < start || address - start >= file->size)
            continue;
        return take(file, address, least, seen, out);
    }
    return TDF_E_ACPI_MALFORMED;
}

/* The only file that begins with an RSDP; the table that it names. */
static status_t find_root(const struct script_files *files, struct seen *seen, struct span *root, uint64_t *width) {
    struct acpi_rsdp rsdp;
    uint64_t address = 0;
    for (uint32_t i = 0; i < files->count; i++)
        PROVE_LOOP((i, rsdp, address, *width), i <= files->count && (address == 0 || *width == 4 || *width == 8),
                   files->count - i) {
        const struct span *file = &files->copies[i];
        if (file->size < ACPI_RSDP_V1_SIZE || memcmp(file->data, ACPI_RSDP_SIGNATURE, sizeof rsdp.signature) != 0)
            continue;
        if (address != 0)
            return TDF_E_ACPI_MALFORMED;
        memset(&rsdp, 0, sizeof rsdp);
        memcpy(&rsdp, file->data, file->size < sizeof rsdp ? file->size : sizeof rsdp);
        *width = rsdp.revision >= ACPI_RSDP_REVISION && rsdp.xsdt_address != 0 ? 8 : 4;
        address = *width == 8 ? rsdp.xsdt_address : rsdp.rsdt_address;
    }
    status_t status = resolve(files, address, HEAD_SIZE, seen, root);
    if (status == TDF_OK && !acpi_is(root, *width == 8 ? "XSDT" : "RSDT"))
        status = TDF_E_ACPI_MALFORMED;
    return status;
}

/* A FADT leads to a DSDT, by one address or the same one twice, and to a FACS or to none. Of an address in which it
 * ends, an OS takes what is there and zeros (ACPICA tbfadt.c, acpi_tb_create_local_fadt). */
static status_t check_fadt(const struct script_files *files, struct seen *seen, const struct span *table) {
    struct acpi_fadt fadt;
    struct span dsdt, facs;
    if (table->size < FADT_SIZE_DSDT)
        return TDF_E_ACPI_MALFORMED;
    memset(&fadt, 0, sizeof fadt);
    memcpy(&fadt, table->data, table->size < sizeof fadt ? table->size : sizeof fadt);
    const uint64_t address = fadt.x_dsdt ? fadt.x_dsdt : fadt.dsdt;
    const uint64_t control = fadt.x_firmware_ctrl ? fadt.x_firmware_ctrl : fadt.firmware_ctrl;
    if ((fadt.dsdt != 0 && fadt.dsdt != address) || (fadt.firmware_ctrl != 0 && fadt.firmware_ctrl != control))
        return TDF_E_ACPI_MALFORMED;
    status_t status = resolve(files, address, HEAD_SIZE, seen, &dsdt);
    if (status == TDF_OK && !acpi_is(&dsdt, "DSDT"))
        status = TDF_E_ACPI_MALFORMED;
    if (status != TDF_OK)
        return status;
    acpi_seal(dsdt.data, dsdt.size);
    if (control == 0)
        return TDF_OK;
    status = resolve(files, control, FACS_SIZE, seen, &facs); /* the one table without a checksum */
    return status == TDF_OK && !acpi_is(&facs, "FACS") ? TDF_E_ACPI_MALFORMED : status;
}

/* One entry of the host's root; its MADT comes back in `madt`. */
static status_t take_table(struct acpi_builder *builder, const struct script_files *files, struct seen *seen,
                           uint64_t address, struct span *madt) {
    static const char roots[][5] = {"RSDT", "XSDT", "DSDT", "FACS"};
    struct span table;
    status_t status = resolve(files, address, HEAD_SIZE, seen, &table);
    if (status != TDF_OK)
        return status;
    for (uint32_t i = 0; i < sizeof roots / sizeof roots[0]; i++)
        if (acpi_is(&table, roots[i]))
            return TDF_E_ACPI_MALFORMED;
    for (uint32_t i = 0; i + 1 < seen->count && !acpi_is(&table, "SSDT"); i++)
        PROVE_LOOP((i), i < seen->count, seen->count - i)
        if (memcmp(seen->tables[i].data, table.data, 4) == 0)
            return TDF_E_ACPI_MALFORMED;
    if (acpi_is(&table, "CCEL"))
        return TDF_OK;
    if (acpi_is(&table, "APIC")) {
        *madt = table;
        return TDF_OK;
    }
    if (acpi_is(&table, "FACP")) {
        if ((status = check_fadt(files, seen, &table)) != TDF_OK)
            return status;
        seen->fadts++;
    }
    if (builder->count + 2 >= ACPI_MAX_TABLES) /* MADT and CCEL follow */
        return TDF_E_ACPI_MALFORMED;
    acpi_seal(table.data, table.size);
    builder->tables[builder->count++] = tdf_gpa(table.data);
    return TDF_OK;
}

status_t host_tables(const struct span *area, const struct span *files, const struct cpus *cpus,
                     const struct span *mailbox, const struct log *log, uint64_t *out) {
    struct acpi_builder builder = {.area = *area};
    struct script_files copies;
    struct seen seen = {.count = 0};
    struct span root = {0, 0}, madt = {0, 0};
    uint64_t width = 0;
    status_t status = acpi_begin_roots(&builder);
    if (status != TDF_OK || (status = script_run(&builder, files, &copies)) != TDF_OK ||
        (status = find_root(&copies, &seen, &root, &width)) != TDF_OK)
        return status;
    for (uint64_t at = HEAD_SIZE; status == TDF_OK && at + width <= root.size; at += width)
        PROVE_LOOP((at, status, builder.count, builder.tables, seen, madt),
                   at <= root.size && seen.count <= MAX_SEEN && builder.count <= ACPI_MAX_TABLES - 2, root.size - at) {
        uint64_t address = 0;
        memcpy(&address, root.data + at, width);
        status = take_table(&builder, &copies, &seen, address, &madt);
    }
    if (status == TDF_OK && seen.fadts == 0)
        return TDF_E_ACPI_MALFORMED; /* without one there is no DSDT */
    if (status != TDF_OK || (status = acpi_add_madt(&builder, &madt, cpus, mailbox)) != TDF_OK ||
        (status = acpi_add_ccel(&builder, log)) != TDF_OK)
        return status;
    *out = acpi_end_roots(&builder);
    return TDF_OK;
}
