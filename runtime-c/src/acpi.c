/* Which ACPI tables does the OS get? RSDP, XSDT, FADT, DSDT, MADT and CCEL of ours, the VMM's by the flow's choice.
 *
 * What the VMM passed is measured, but no length in it is believed. Source: ACPI specification 6.5, chapter 5. */
#include "formats.h"
#include "primitives.h"

#define TABLE_ALIGNMENT 16u
#define HEAD_SIZE sizeof(struct acpi_header)
#define MAX_TABLES (3u + sizeof((struct vmm *)0)->tables.items / sizeof(struct span)) /* FADT, MADT, CCEL, the VMM's */
#define BROADCAST_ID 0xFFFFFFFFu /* SDM volume 3, 11.12.9: x2APIC id of a broadcast */
#define LAPIC_UID_MAX 0xFFu

/* An FADT of ACPI 1.0 ends behind its flags; from revision 3 on it has X_DSDT. */
#define FADT_SIZE_MIN offsetof(struct acpi_fadt, reset_reg)
#define FADT_SIZE_64 (offsetof(struct acpi_fadt, x_dsdt) + sizeof(uint64_t))

/* Bump allocator over the area, and the tables the XSDT will point to. */
struct builder {
    struct span area;
    uint64_t used;
    uint32_t count;
    uint64_t tables[MAX_TABLES];
};

static uint8_t *reserve(struct builder *builder, uint64_t size) {
    if (!tdf_inside(builder->area.size, builder->used, size) ||
        builder->area.size - builder->used - size < TABLE_ALIGNMENT)
        return 0;
    uint8_t *at = builder->area.data + builder->used;
    builder->used += tdf_align_up(size, TABLE_ALIGNMENT);
    memset(at, 0, size);
    return at;
}

static uint8_t negated_sum(const uint8_t *data, uint64_t size) {
    uint8_t sum = 0;
    for (uint64_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + data[i]);
    return (uint8_t)-sum;
}

static void seal(uint8_t *table, uint64_t size) {
    struct acpi_header *head = (struct acpi_header *)table;
    head->length = (uint32_t)size;
    head->checksum = 0;
    head->checksum = negated_sum(table, size);
}

static void name_table(uint8_t *table, const char *signature, uint8_t revision) {
    struct acpi_header *head = (struct acpi_header *)table;
    memcpy(head->signature, signature, sizeof head->signature);
    memcpy(head->oem_id, "TDFRG", 5);
    memcpy(head->oem_table_id, "TDFORGE", 7);
    memcpy(head->creator_id, "TDFG", sizeof head->creator_id);
    head->revision = revision;
    head->oem_revision = 1;
    head->creator_revision = 1;
}

static int is_signed(const struct span *table, const char *signature) {
    return memcmp(table->data, signature, 4) == 0;
}

/* A table of the VMM over its true length. */
static status_t check_table(const struct span *hob, struct span *out) {
    struct acpi_header head;
    if (!tdf_read(hob, 0, &head, sizeof head) || head.length < HEAD_SIZE || head.length > hob->size)
        return TDF_E_ACPI_MALFORMED;
    out->data = hob->data;
    out->size = head.length;
    return TDF_OK;
}

/* The only table of the VMM with this signature; size 0 if it gave none. */
static status_t find_table(const struct vmm *vmm, const char *signature, struct span *out) {
    out->size = 0;
    for (uint64_t i = 0; i < vmm->tables.count; i++) {
        struct span table;
        status_t status = check_table(&vmm->tables.items[i], &table);
        if (status != TDF_OK)
            return status;
        if (!is_signed(&table, signature))
            continue;
        if (out->size != 0)
            return TDF_E_ACPI_MALFORMED;
        *out = table;
    }
    return TDF_OK;
}

/* Adds room for one more MADT entry behind the `size` bytes that are there; 0 if the area is full. */
static uint8_t *add_entry(struct builder *builder, uint8_t *madt, uint64_t *size, uint64_t entry_size) {
    uint64_t start = (uint64_t)(madt - builder->area.data);
    if (!tdf_inside(builder->area.size - start, *size, entry_size))
        return 0;
    uint8_t *at = madt + *size;
    memset(at, 0, entry_size);
    *size += entry_size;
    return at;
}

/* An enabled CPU: a local APIC entry up to id 254, an x2APIC entry above, which is what operating systems expect. */
static status_t add_cpu(struct builder *builder, uint8_t *madt, uint64_t *size, uint32_t id, uint32_t uid) {
    if (id < ACPI_TYPE0_APIC_ID_LIMIT && uid <= LAPIC_UID_MAX) {
        struct acpi_madt_lapic *entry = (struct acpi_madt_lapic *)add_entry(builder, madt, size, sizeof *entry);
        if (!entry)
            return TDF_E_ACPI_NO_ROOM;
        entry->type = ACPI_MADT_LAPIC;
        entry->length = sizeof *entry;
        entry->processor_uid = (uint8_t)uid;
        entry->apic_id = (uint8_t)id;
        entry->flags = ACPI_LAPIC_ENABLED;
        return TDF_OK;
    }
    struct acpi_madt_x2apic *entry = (struct acpi_madt_x2apic *)add_entry(builder, madt, size, sizeof *entry);
    if (!entry)
        return TDF_E_ACPI_NO_ROOM;
    entry->type = ACPI_MADT_X2APIC;
    entry->length = sizeof *entry;
    entry->x2apic_id = id;
    entry->flags = ACPI_LAPIC_ENABLED;
    entry->processor_uid = uid;
    return TDF_OK;
}

/* One entry of the VMM's MADT into ours: enabled CPUs by id, interrupt wiring as it is, all else dropped. */
static status_t take_entry(struct builder *builder, uint8_t *madt, uint64_t *size, const struct span *entry,
                           uint32_t *cpus) {
    static const uint8_t sizes[] = {
        [ACPI_MADT_LAPIC] = sizeof(struct acpi_madt_lapic),
        [ACPI_MADT_IOAPIC] = sizeof(struct acpi_madt_ioapic),
        [ACPI_MADT_ISO] = sizeof(struct acpi_madt_iso),
        [ACPI_MADT_LAPIC_NMI] = sizeof(struct acpi_madt_lapic_nmi),
        [ACPI_MADT_X2APIC] = sizeof(struct acpi_madt_x2apic),
        [ACPI_MADT_X2APIC_NMI] = sizeof(struct acpi_madt_x2apic_nmi),
    };
    uint8_t type = entry->data[0];
    if (type >= sizeof sizes || sizes[type] == 0)
        return TDF_OK;
    if (entry->size != sizes[type])
        return TDF_E_ACPI_MALFORMED;
    struct acpi_madt_lapic lapic;
    struct acpi_madt_x2apic x2apic;
    uint32_t id, uid, flags;
    if (type == ACPI_MADT_LAPIC) {
        memcpy(&lapic, entry->data, sizeof lapic);
        id = lapic.apic_id == ACPI_TYPE0_APIC_ID_LIMIT ? BROADCAST_ID : lapic.apic_id;
        uid = lapic.processor_uid;
        flags = lapic.flags;
    } else if (type == ACPI_MADT_X2APIC) {
        memcpy(&x2apic, entry->data, sizeof x2apic);
        id = x2apic.x2apic_id;
        uid = x2apic.processor_uid;
        flags = x2apic.flags;
    } else {
        uint8_t *to = add_entry(builder, madt, size, entry->size);
        if (!to)
            return TDF_E_ACPI_NO_ROOM;
        memcpy(to, entry->data, entry->size);
        return TDF_OK;
    }
    if (!(flags & ACPI_LAPIC_ENABLED))
        return TDF_OK;
    if (id == BROADCAST_ID)
        return TDF_E_ACPI_MALFORMED;
    ++*cpus;
    return add_cpu(builder, madt, size, id, uid);
}

static status_t take_entries(struct builder *builder, uint8_t *madt, uint64_t *size, const struct span *from,
                             uint32_t num_vcpus) {
    struct acpi_madt head;
    uint32_t cpus = 0;
    if (!tdf_read(from, 0, &head, sizeof head))
        return TDF_E_ACPI_MALFORMED;
    ((struct acpi_madt *)madt)->flags = head.flags & ACPI_MADT_FLAG_PCAT_COMPAT;
    for (uint64_t offset = sizeof head; offset < from->size;) {
        struct acpi_madt_entry next;
        if (!tdf_read(from, offset, &next, sizeof next) || next.length < sizeof next ||
            !tdf_inside(from->size, offset, next.length))
            return TDF_E_ACPI_MALFORMED;
        const struct span entry = {from->data + offset, next.length};
        status_t status = take_entry(builder, madt, size, &entry, &cpus);
        if (status != TDF_OK)
            return status;
        offset += next.length;
    }
    return cpus == num_vcpus ? TDF_OK : TDF_E_CPUS_MISMATCH;
}

/* Written last, as its length is known only in the end. */
static status_t add_madt(struct builder *builder, const struct vmm *vmm, const struct vp_info *td,
                         const struct span *mailbox) {
    struct span theirs;
    uint64_t size = sizeof(struct acpi_madt);
    status_t status = find_table(vmm, "APIC", &theirs);
    uint8_t *madt = reserve(builder, size);
    if (status == TDF_OK && !madt)
        status = TDF_E_ACPI_NO_ROOM;
    if (status == TDF_OK && td->num_vcpus == 0)
        status = TDF_E_CPUS_MISMATCH;
    if (status != TDF_OK)
        return status;
    name_table(madt, "APIC", ACPI_MADT_REVISION);
    ((struct acpi_madt *)madt)->lapic_address = ACPI_LAPIC_ADDRESS;
    if (theirs.size != 0)
        status = take_entries(builder, madt, &size, &theirs, td->num_vcpus);
    for (uint32_t i = 0; theirs.size == 0 && status == TDF_OK && i < td->num_vcpus; i++)
        status = add_cpu(builder, madt, &size, i, i);
    if (status != TDF_OK)
        return status;
    struct acpi_madt_mp_wakeup *wakeup =
        (struct acpi_madt_mp_wakeup *)add_entry(builder, madt, &size, sizeof *wakeup);
    if (!wakeup)
        return TDF_E_ACPI_NO_ROOM;
    wakeup->type = ACPI_MADT_MP_WAKEUP;
    wakeup->length = sizeof *wakeup;
    wakeup->mailbox_address = tdf_gpa(mailbox->data);
    seal(madt, size);
    builder->used = tdf_align_up((uint64_t)(madt - builder->area.data) + size, TABLE_ALIGNMENT);
    builder->tables[builder->count++] = tdf_gpa(madt);
    return TDF_OK;
}

static status_t add_ccel(struct builder *builder, const struct log *log) {
    struct acpi_ccel *ccel = (struct acpi_ccel *)reserve(builder, sizeof *ccel);
    if (!ccel)
        return TDF_E_ACPI_NO_ROOM;
    name_table((uint8_t *)ccel, "CCEL", ACPI_CCEL_REVISION);
    ccel->cc_type = ACPI_CC_TDX;
    ccel->log_area_length = log->area.size;
    ccel->log_area_address = tdf_gpa(log->area.data);
    seal((uint8_t *)ccel, sizeof *ccel);
    builder->tables[builder->count++] = tdf_gpa(ccel);
    return TDF_OK;
}

/* A copy of a VMM's table, to be sealed by the caller. */
static status_t copy_table(struct builder *builder, const struct span *table, uint8_t **copy) {
    *copy = reserve(builder, table->size);
    if (!*copy)
        return TDF_E_ACPI_NO_ROOM;
    memcpy(*copy, table->data, table->size);
    return TDF_OK;
}

/* A DSDT without AML: enough for an OS to bring up its interpreter, and with it /sys/firmware/acpi. */
static status_t add_dsdt(struct builder *builder, const struct span *theirs, uint8_t **dsdt) {
    if (theirs->size != 0) {
        status_t status = copy_table(builder, theirs, dsdt);
        if (status == TDF_OK)
            seal(*dsdt, theirs->size);
        return status;
    }
    *dsdt = reserve(builder, HEAD_SIZE);
    if (!*dsdt)
        return TDF_E_ACPI_NO_ROOM;
    name_table(*dsdt, "DSDT", ACPI_DSDT_REVISION);
    seal(*dsdt, HEAD_SIZE);
    return TDF_OK;
}

static status_t add_fadt(struct builder *builder, const struct span *theirs, const uint8_t *dsdt) {
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
        table = reserve(builder, size);
        if (!table)
            return TDF_E_ACPI_NO_ROOM;
        name_table(table, "FACP", ACPI_FADT_REVISION);
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
    seal(table, size);
    builder->tables[builder->count++] = tdf_gpa(table);
    return TDF_OK;
}

/* All other tables of the VMM. FACS has no common header; a MADT, a CCEL and the roots are ours alone. */
static status_t add_others(struct builder *builder, const struct vmm *vmm) {
    static const char ours[][5] = {"FACP", "DSDT", "APIC", "CCEL", "FACS", "XSDT", "RSDT"};
    for (uint64_t i = 0; i < vmm->tables.count; i++) {
        struct span table;
        uint8_t *copy;
        int skip = 0;
        status_t status = check_table(&vmm->tables.items[i], &table);
        for (uint32_t k = 0; status == TDF_OK && k < sizeof ours / sizeof ours[0]; k++)
            skip |= is_signed(&table, ours[k]);
        if (status == TDF_OK && !skip) {
            status = copy_table(builder, &table, &copy);
            if (status == TDF_OK) {
                seal(copy, table.size);
                builder->tables[builder->count++] = tdf_gpa(copy);
            }
        }
        if (status != TDF_OK)
            return status;
    }
    return TDF_OK;
}

static void fill_roots(struct builder *builder, uint8_t *rsdp_at, uint8_t *xsdt) {
    uint64_t size = HEAD_SIZE + builder->count * sizeof(uint64_t);
    struct acpi_rsdp *rsdp = (struct acpi_rsdp *)rsdp_at;
    memcpy(xsdt + HEAD_SIZE, builder->tables, builder->count * sizeof(uint64_t));
    name_table(xsdt, "XSDT", ACPI_XSDT_REVISION);
    seal(xsdt, size);
    memcpy(rsdp->signature, ACPI_RSDP_SIGNATURE, sizeof rsdp->signature);
    memcpy(rsdp->oem_id, "TDFRG", 5);
    rsdp->revision = ACPI_RSDP_REVISION;
    rsdp->length = sizeof *rsdp;
    rsdp->xsdt_address = tdf_gpa(xsdt);
    rsdp->checksum = negated_sum(rsdp_at, ACPI_RSDP_V1_SIZE);
    rsdp->extended_checksum = negated_sum(rsdp_at, sizeof *rsdp);
}

static status_t build(const struct span *area, const struct vmm *vmm, const struct vp_info *td,
                      const struct span *mailbox, const struct log *log, int theirs, uint64_t *out) {
    struct builder builder = {.area = *area};
    struct span fadt = {0, 0}, dsdt = {0, 0};
    uint8_t *dsdt_at = 0;
    status_t status = TDF_OK;
    uint8_t *rsdp = reserve(&builder, sizeof(struct acpi_rsdp));
    uint8_t *xsdt = reserve(&builder, HEAD_SIZE + MAX_TABLES * sizeof(uint64_t));
    if (!rsdp || !xsdt)
        return TDF_E_ACPI_NO_ROOM;
    if (theirs && ((status = find_table(vmm, "FACP", &fadt)) != TDF_OK ||
                   (status = find_table(vmm, "DSDT", &dsdt)) != TDF_OK))
        return status;
    if ((status = add_dsdt(&builder, &dsdt, &dsdt_at)) != TDF_OK ||
        (status = add_fadt(&builder, &fadt, dsdt_at)) != TDF_OK ||
        (status = add_madt(&builder, vmm, td, mailbox)) != TDF_OK || (status = add_ccel(&builder, log)) != TDF_OK ||
        (theirs && (status = add_others(&builder, vmm)) != TDF_OK))
        return status;
    fill_roots(&builder, rsdp, xsdt);
    *out = tdf_gpa(rsdp);
    return TDF_OK;
}

status_t acpi_tables(const struct span *area, const struct vmm *vmm, const struct vp_info *td,
                     const struct span *mailbox, const struct log *log, uint64_t *out) {
    return build(area, vmm, td, mailbox, log, 0, out);
}

status_t acpi_tables_of_vmm(const struct span *area, const struct vmm *vmm, const struct vp_info *td,
                            const struct span *mailbox, const struct log *log, uint64_t *out) {
    return build(area, vmm, td, mailbox, log, 1, out);
}
