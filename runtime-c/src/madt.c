/* Which CPUs and interrupt controllers does the MADT list? As many CPUs as the TD has, woken through our mailbox.
 *
 * What the VMM's MADT says is measured, but no length in it is believed and its own mailbox is dropped.
 * Source: ACPI specification 6.5, 5.2.12. */
#include "acpi_build.h"

#define BROADCAST_ID 0xFFFFFFFFu /* SDM volume 3, 11.12.9: x2APIC id of a broadcast */
#define LAPIC_UID_MAX 0xFFu

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

/* Is there a CPU with this id among our entries already? */
static int has_cpu(const uint8_t *madt, uint64_t size, uint32_t id) {
    for (uint64_t offset = sizeof(struct acpi_madt); offset < size;) {
        const struct acpi_madt_entry *entry = (const struct acpi_madt_entry *)(madt + offset);
        if ((entry->type == ACPI_MADT_LAPIC && ((const struct acpi_madt_lapic *)entry)->apic_id == id) ||
            (entry->type == ACPI_MADT_X2APIC && ((const struct acpi_madt_x2apic *)entry)->x2apic_id == id))
            return 1;
        offset += entry->length;
    }
    return 0;
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

/* One entry of the VMM's MADT into ours: enabled CPUs by id, interrupt wiring as it is, all else dropped.
 *
 * An AP in the park loop answers to its vCPU index, so the ids must be 0 to num_vcpus - 1: an OS would wait forever for
 * a CPU of another id, or wake the wrong one. */
static status_t take_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *entry,
                           uint32_t num_vcpus, uint32_t *cpus) {
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
    if (id >= num_vcpus || has_cpu(madt, *size, id))
        return TDF_E_CPUS_MISMATCH;
    ++*cpus;
    return add_cpu(builder, madt, size, id, uid);
}

static status_t take_entries(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *from,
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
        status_t status = take_entry(builder, madt, size, &entry, num_vcpus, &cpus);
        if (status != TDF_OK)
            return status;
        offset += next.length;
    }
    return cpus == num_vcpus ? TDF_OK : TDF_E_CPUS_MISMATCH;
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

status_t acpi_madt_cpus(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, uint32_t count) {
    status_t status = TDF_OK;
    for (uint32_t i = 0; status == TDF_OK && i < count; i++)
        status = add_cpu(builder, madt, size, i, i);
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
    const struct acpi_madt_mp_wakeup wakeup = {
        .type = ACPI_MADT_MP_WAKEUP, .length = sizeof wakeup, .mailbox_address = tdf_gpa(mailbox->data)};
    return acpi_madt_entry(builder, madt, size, &wakeup);
}

status_t acpi_add_madt(struct acpi_builder *builder, const struct vmm *vmm, const struct vp_info *td,
                       const struct span *mailbox) {
    struct span theirs;
    uint64_t size = 0;
    status_t status = acpi_find(vmm, "APIC", &theirs);
    uint8_t *madt = acpi_madt_begin(builder, &size);
    if (status == TDF_OK && !madt)
        status = TDF_E_ACPI_NO_ROOM;
    if (status == TDF_OK && td->num_vcpus == 0)
        status = TDF_E_CPUS_MISMATCH;
    if (status != TDF_OK)
        return status;
    if (theirs.size != 0)
        status = take_entries(builder, madt, &size, &theirs, td->num_vcpus);
    else
        status = acpi_madt_cpus(builder, madt, &size, td->num_vcpus);
    if (status == TDF_OK)
        status = acpi_madt_wakeup(builder, madt, &size, mailbox);
    if (status == TDF_OK)
        acpi_madt_end(builder, madt, size);
    return status;
}
