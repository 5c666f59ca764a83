/* Which CPUs and interrupt controllers does the MADT list? As many CPUs as the TD has, woken through our mailbox.
 *
 * What the VMM's MADT says is measured, but no length in it is believed and its own mailbox is dropped.
 * Source: ACPI specification 6.5, 5.2.12; 6.6, 5.2.12.19 for a mailbox with reset vector. */
#include "acpi_build.h"

#define LAPIC_UID_MAX 0xFFu
/* Where the mailbox names the reset vector: ours, or 0. */
#define RESET_VECTOR (offsetof(struct acpi_mp_mailbox, firmware_reserved) + \
                      offsetof(struct acpi_mp_mailbox_ours, reset_vector))

/* For the proofs: what is there of it lies in the area. */
#define IS_MADT(builder, madt, bytes) ((bytes) <= (builder)->area.size - (uint64_t)((madt) - (builder)->area.data))

/* Adds room for one more MADT entry behind the `size` bytes that are there; 0 if the area is full. */
static uint8_t *add_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, uint64_t entry_size) {
    uint64_t start = (uint64_t)(madt - builder->area.data);
    if (!tdf_inside(builder->area.size - start, *size, entry_size))
        return 0;
    uint8_t *at = madt + *size;
    memset(at, 0, entry_size);
    *size += entry_size;
    return at;
}

/* An enabled CPU: a local APIC entry up to id 254, an x2APIC entry above, which is what operating systems expect. */
static status_t add_cpu(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, uint32_t id, uint32_t uid) {
    if (id < ACPI_TYPE0_APIC_ID_LIMIT) {
        struct acpi_madt_lapic *entry = (struct acpi_madt_lapic *)add_entry(builder, madt, size, sizeof *entry);
        if (!entry)
            return TDF_E_ACPI_NO_ROOM;
        entry->type = ACPI_MADT_LAPIC;
        entry->length = sizeof *entry;
        entry->processor_uid = (uint8_t)(uid <= LAPIC_UID_MAX ? uid : id);
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

/* Entries of the VMM's MADT that mean something to us, by type: their sizes. Its mailbox is dropped. */
static const uint8_t known_sizes[] = {
    [ACPI_MADT_LAPIC] = sizeof(struct acpi_madt_lapic),
    [ACPI_MADT_IOAPIC] = sizeof(struct acpi_madt_ioapic),
    [ACPI_MADT_ISO] = sizeof(struct acpi_madt_iso),
    [ACPI_MADT_LAPIC_NMI] = sizeof(struct acpi_madt_lapic_nmi),
    [ACPI_MADT_X2APIC] = sizeof(struct acpi_madt_x2apic),
    [ACPI_MADT_X2APIC_NMI] = sizeof(struct acpi_madt_x2apic_nmi),
};

/* For the proofs: after the search began at `start`, `offset` has not gone back or beyond the end, and behind an entry that
 * was found it has gone on; that one has the size of its type and lies in `from`. */
#define IS_NEXT_ENTRY(from, offset, entry, start)                                                                      \
    ((offset) >= (start) && ((offset) == (start) || (offset) <= (from)->size) &&                                       \
     ((entry)->size == 0 ||                                                                                            \
      ((offset) > (start) && (entry)->size <= (offset) - (start) &&                                                    \
       (entry)->data == (from)->data + ((offset) - (entry)->size) &&                                                   \
       (from)->data[(offset) - (entry)->size] < sizeof known_sizes &&                                                  \
       (entry)->size == known_sizes[(from)->data[(offset) - (entry)->size]] &&                                         \
       (entry)->size == (from)->data[(offset) - (entry)->size + 1])))

/* The next entry of a known type from *offset on; size 0 at the end. */
static status_t next_entry(const struct span *from, uint64_t *offset, struct span *out) {
    out->size = 0;
    while (out->size == 0 && *offset < from->size)
        PROVE_LOOP((*offset, *out), IS_NEXT_ENTRY(from, *offset, out, __CPROVER_loop_entry(*offset)),
                   *offset < from->size ? from->size - *offset : 0) {
        struct acpi_madt_entry head;
        if (!tdf_read(from, *offset, &head, sizeof head) || head.length < sizeof head ||
            !tdf_inside(from->size, *offset, head.length))
            return TDF_E_ACPI_MALFORMED;
        if (head.type < sizeof known_sizes && known_sizes[head.type] != 0) {
            if (head.length != known_sizes[head.type])
                return TDF_E_ACPI_MALFORMED;
            out->data = from->data + *offset;
            out->size = head.length;
        }
        *offset += head.length;
    }
    return TDF_OK;
}

/* Is this entry, which has the size of its type, an enabled CPU, and which? A type 0 entry with id 255 names none. */
static int is_cpu(const struct span *entry, uint32_t *id, uint32_t *uid) {
    struct acpi_madt_lapic lapic;
    struct acpi_madt_x2apic x2apic;
    if (entry->data[0] == ACPI_MADT_LAPIC) {
        memcpy(&lapic, entry->data, sizeof lapic);
        *id = lapic.apic_id == ACPI_TYPE0_APIC_ID_LIMIT ? APIC_BROADCAST_ID : lapic.apic_id;
        *uid = lapic.processor_uid;
        return (lapic.flags & ACPI_LAPIC_ENABLED) != 0;
    }
    if (entry->data[0] == ACPI_MADT_X2APIC) {
        memcpy(&x2apic, entry->data, sizeof x2apic);
        *id = x2apic.x2apic_id;
        *uid = x2apic.processor_uid;
        return (x2apic.flags & ACPI_LAPIC_ENABLED) != 0;
    }
    return 0;
}

static uint32_t cpu_count(const struct cpus *cpus) { return (uint32_t)(cpus->ids.size / sizeof(uint32_t)); }

static uint32_t cpu_id(const struct cpus *cpus, uint32_t index) {
    uint32_t id;
    memcpy(&id, cpus->ids.data + (uint64_t)index * sizeof id, sizeof id);
    return id;
}

/* The one enabled CPU of the VMM's MADT with this id, by its processor UID. */
static status_t find_uid(const struct span *from, uint32_t wanted, uint32_t *uid) {
    uint32_t found = 0, id, other;
    struct span entry;
    status_t status;
    for (uint64_t offset = sizeof(struct acpi_madt);;)
        PROVE_LOOP((offset, status, entry, id, other, *uid, found), 1, offset < from->size ? from->size - offset : 0) {
        if ((status = next_entry(from, &offset, &entry)) != TDF_OK)
            return status;
        if (entry.size == 0)
            return found == 1 ? TDF_OK : TDF_E_CPUS_MISMATCH;
        if (is_cpu(&entry, &id, &other) && id == wanted) {
            *uid = other;
            found++;
        }
    }
}

/* The CPUs with the VMM's UIDs, then everything of its MADT that is no CPU: interrupt wiring. */
static status_t take_entries(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *from,
                             const struct cpus *cpus) {
    struct acpi_madt head;
    struct span entry;
    uint32_t id, uid, theirs = 0;
    status_t status = TDF_OK;
    if (!tdf_read(from, 0, &head, sizeof head))
        return TDF_E_ACPI_MALFORMED;
    ((struct acpi_madt *)madt)->flags = head.flags & ACPI_MADT_FLAG_PCAT_COMPAT;
    for (uint32_t i = 0; status == TDF_OK && i < cpu_count(cpus); i++)
        PROVE_LOOP((i, status, uid, *size, __CPROVER_object_whole(madt)),
                   i <= cpus->ids.size / sizeof i && IS_MADT(builder, madt, *size),
                   cpus->ids.size / sizeof i - i)
        if ((status = find_uid(from, cpu_id(cpus, i), &uid)) == TDF_OK)
            status = add_cpu(builder, madt, size, cpu_id(cpus, i), uid);
    for (uint64_t offset = sizeof head; status == TDF_OK;)
        PROVE_LOOP((offset, status, entry, id, uid, theirs, *size, __CPROVER_object_whole(madt)),
                   IS_MADT(builder, madt, *size), offset < from->size ? from->size - offset : 0) {
        if ((status = next_entry(from, &offset, &entry)) != TDF_OK || entry.size == 0)
            break;
        if (is_cpu(&entry, &id, &uid))
            theirs++;
        else if (entry.data[0] != ACPI_MADT_LAPIC && entry.data[0] != ACPI_MADT_X2APIC)
            status = acpi_madt_entry(builder, madt, size, entry.data);
    }
    return status == TDF_OK && theirs != cpu_count(cpus) ? TDF_E_CPUS_MISMATCH : status;
}

uint8_t *acpi_madt_begin(struct acpi_builder *builder, uint64_t *size) {
    uint8_t *madt = acpi_reserve(builder, sizeof(struct acpi_madt));
    if (!madt)
        return 0;
    *size = sizeof(struct acpi_madt);
    acpi_name(madt, "APIC", ACPI_MADT_REVISION);
    ((struct acpi_madt *)madt)->lapic_address = ACPI_LAPIC_ADDRESS;
    return madt;
}

status_t acpi_madt_cpus(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct cpus *cpus) {
    status_t status = TDF_OK;
    for (uint32_t i = 0; status == TDF_OK && i < cpu_count(cpus); i++)
        PROVE_LOOP((i, status, *size, __CPROVER_object_whole(madt)),
                   i <= cpus->ids.size / sizeof i && IS_MADT(builder, madt, *size),
                   cpus->ids.size / sizeof i - i)
        status = add_cpu(builder, madt, size, cpu_id(cpus, i), i);
    return status;
}

status_t acpi_madt_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const void *entry) {
    const struct acpi_madt_entry *head = entry;
    uint8_t *to = add_entry(builder, madt, size, head->length);
    if (!to)
        return TDF_E_ACPI_NO_ROOM;
    memcpy(to, entry, head->length);
    return TDF_OK;
}

void acpi_madt_end(struct acpi_builder *builder, uint8_t *madt, uint64_t size) {
    acpi_seal(madt, size);
    builder->used = tdf_align_up((uint64_t)(madt - builder->area.data) + size, ACPI_ALIGNMENT);
    builder->tables[builder->count++] = tdf_gpa(madt);
}

status_t acpi_madt_wakeup(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *mailbox) {
    struct acpi_madt_mp_wakeup_v1 wakeup = {.type = ACPI_MADT_MP_WAKEUP,
                                            .length = sizeof(struct acpi_madt_mp_wakeup),
                                            .mailbox_address = tdf_gpa(mailbox->data)};
    if (!tdf_read(mailbox, RESET_VECTOR, &wakeup.reset_vector, sizeof wakeup.reset_vector))
        return TDF_E_OUT_OF_BOUNDS;
    if (wakeup.reset_vector != 0) {
        wakeup.length = sizeof wakeup;
        wakeup.mailbox_version = ACPI_MAILBOX_WITH_RESET;
    }
    return acpi_madt_entry(builder, madt, size, &wakeup);
}

status_t acpi_add_madt(struct acpi_builder *builder, const struct span *theirs, const struct cpus *cpus,
                       const struct span *mailbox) {
    static const struct acpi_madt_ioapic ioapic = {
        .type = ACPI_MADT_IOAPIC, .length = sizeof ioapic, .address = ACPI_IO_APIC};
    uint64_t size = 0;
    status_t status;
    uint8_t *madt = acpi_madt_begin(builder, &size);
    if (!madt)
        return TDF_E_ACPI_NO_ROOM;
    if (theirs->size != 0)
        status = take_entries(builder, madt, &size, theirs, cpus);
    else if ((status = acpi_madt_cpus(builder, madt, &size, cpus)) == TDF_OK)
        status = acpi_madt_entry(builder, madt, &size, &ioapic);
    if (status == TDF_OK && cpus->wait)
        status = acpi_madt_wakeup(builder, madt, &size, mailbox);
    if (status == TDF_OK)
        acpi_madt_end(builder, madt, size);
    return status;
}
