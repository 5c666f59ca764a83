/* What does Linux read to accept RAM by itself? An EFI system table, a memory map and a bit for each 2 MiB.
 *
 * Nothing calls EFI: there are no services. Linux takes the places that its random address is drawn from out of the memory
 * map, and RAM out of the E820. Source: UEFI 2.10, 4.3, 4.6, 7.2; Linux drivers/firmware/efi/unaccepted_memory.c, libstub. */
#include "formats.h"
#include "plan.h"

#define MAX_RANGES (sizeof((struct ram *)0)->ranges.items / sizeof(struct ram_range))

void leave_lazily(struct ram *ram, uint64_t limit) {
    if (limit > UINT64_MAX - EFI_UNACCEPTED_UNIT)
        return;
    /* The first MiB is never left: the OS starts its APs there before it can accept. */
    limit = tdf_align_up(limit < LOW_MEMORY_END ? LOW_MEMORY_END : limit, EFI_UNACCEPTED_UNIT);
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, ram->ranges), i <= ram->ranges.count && ram->ranges.count <= MAX_RANGES,
                   MAX_RANGES - ram->ranges.count, ram->ranges.count - i) {
        struct ram_range *range = &ram->ranges.items[i];
        const uint64_t start = tdf_align_up(range->start < limit ? limit : range->start, EFI_UNACCEPTED_UNIT);
        const uint64_t end = tdf_align_down(range->end, EFI_UNACCEPTED_UNIT);
        if (range->state != TDF_RAM_STATE_UNACCEPTED || start >= end || plan_is_carved(ram, range))
            continue;
        /* One end of it, then the other is cut off. With no entry free the range is accepted like the rest. */
        if (range->start != start || range->end != end) {
            if (ram->ranges.count == MAX_RANGES)
                continue;
            struct ram_range above = *range;
            range->end = above.start = range->start != start ? start : end;
            memmove(range + 2, range + 1, (ram->ranges.count - i - 1) * sizeof *range);
            range[1] = above;
            ram->ranges.count++;
            if (above.start == start)
                continue;
        }
        range->state = TDF_RAM_STATE_ADDED;
        range->e820 = PLAN_LAZY;
    }
}

/* The E820's types in the words of EFI. */
static uint32_t memory_type(const struct ram_range *range) {
    switch (range->e820) {
    case E820_RAM:
        return EFI_MEMORY_CONVENTIONAL;
    case PLAN_LAZY:
        return EFI_MEMORY_UNACCEPTED;
    case E820_ACPI:
        return EFI_MEMORY_ACPI_RECLAIM;
    case E820_NVS:
        return EFI_MEMORY_ACPI_NVS;
    default:
        return EFI_MEMORY_RESERVED;
    }
}

/* Returns how many entries there are: no more than the plan has ranges. */
static uint32_t fill_map(const struct ram *ram, struct efi_tables *tables) {
    uint32_t count = 0;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, count, tables->map), i <= ram->ranges.count && count <= i, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->state == TDF_RAM_STATE_LEFT_OUT)
            continue;
        struct efi_memory_descriptor *entry = &tables->map[count++];
        entry->type = memory_type(range);
        entry->physical_start = range->start;
        entry->number_of_pages = (range->end - range->start) / TDF_PAGE;
        entry->attribute = EFI_MEMORY_WB;
    }
    return count;
}

/* Sets bits [from, to). */
static void set_bits(uint8_t *bitmap, uint64_t from, uint64_t to) {
    for (; from < to && from % 8 != 0; from++)
        PROVE_LOOP((from, __CPROVER_object_whole(bitmap)), from <= to, to - from)
        bitmap[from / 8] |= (uint8_t)(1u << from % 8);
    if (from < to)
        memset(bitmap + from / 8, 0xFF, (to - from) / 8);
    for (from += (to - from) / 8 * 8; from < to; from++)
        PROVE_LOOP((from, __CPROVER_object_whole(bitmap)), from <= to, to - from)
        bitmap[from / 8] |= (uint8_t)(1u << from % 8);
}

/* A bit for each unit from the first lazy one to the last. `room`: bytes behind the table's head. */
static status_t fill_bitmap(const struct ram *ram, struct efi_unaccepted_memory *table, uint64_t room) {
    uint8_t *bitmap = (uint8_t *)(table + 1);
    uint64_t base = 0;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, base, __CPROVER_object_whole(table)), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->e820 != PLAN_LAZY)
            continue;
        base = base ? base : range->start;
        const uint64_t from = (range->start - base) / EFI_UNACCEPTED_UNIT, to = (range->end - base) / EFI_UNACCEPTED_UNIT;
        if (from > to || to > 8 * room)
            return TDF_E_LAZY_NO_ROOM;
        set_bits(bitmap, from, to);
    }
    table->version = EFI_UNACCEPTED_VERSION;
    table->unit_size = EFI_UNACCEPTED_UNIT;
    table->phys_base = base;
    table->size = room; /* to the end of its last page, as Linux reserves it */
    return TDF_OK;
}

static uint32_t crc32(const void *bytes, uint64_t size) {
    uint32_t sum = UINT32_MAX;
    for (uint64_t bit = 0; bit < 8 * size; bit++)
        PROVE_LOOP((bit, sum), bit <= 8 * size, 8 * size - bit) {
        sum ^= (uint32_t)((const uint8_t *)bytes)[bit / 8] >> bit % 8 & 1;
        sum = sum >> 1 ^ (sum & 1 ? EFI_CRC32_POLYNOMIAL : 0);
    }
    return ~sum;
}

static void fill_system_table(struct efi_tables *tables, uint64_t rsdp) {
    static const uint8_t vendor[] = {'t', 0, 'd', 0, 'f', 0, 'o', 0, 'r', 0, 'g', 0, 'e', 0, 0, 0};
    static const uint8_t acpi[] = GUID_EFI_ACPI_20, unaccepted[] = GUID_EFI_UNACCEPTED_MEMORY;
    memcpy(tables->vendor, vendor, sizeof vendor);
    memcpy(tables->configuration[0].vendor_guid, acpi, sizeof acpi);
    tables->configuration[0].vendor_table = rsdp;
    memcpy(tables->configuration[1].vendor_guid, unaccepted, sizeof unaccepted);
    tables->configuration[1].vendor_table = tdf_gpa(&tables->unaccepted);
    struct efi_system_table *system = &tables->system;
    system->signature = EFI_SYSTEM_TABLE_SIGNATURE;
    system->revision = EFI_SYSTEM_TABLE_REVISION;
    system->header_size = sizeof *system;
    system->firmware_vendor = tdf_gpa(tables->vendor);
    system->number_of_table_entries = sizeof tables->configuration / sizeof tables->configuration[0];
    system->configuration_table = tdf_gpa(tables->configuration);
    system->crc32 = crc32(system, sizeof *system);
}

/* boot_params with `count` entries of the map; in the E820, what is left to the OS is RAM. */
static void fill_params(struct boot_params *params, const struct efi_tables *tables, uint32_t count) {
    struct efi_info *info = &params->efi_info;
    const uint64_t map = tdf_gpa(tables->map);
    memcpy(info->loader_signature, EFI_LOADER_SIGNATURE, sizeof info->loader_signature);
    info->systab = (uint32_t)tdf_gpa(tables);
    info->systab_hi = (uint32_t)(tdf_gpa(tables) >> 32);
    info->memdesc_size = sizeof tables->map[0];
    info->memdesc_version = EFI_MEMORY_DESCRIPTOR_VERSION;
    info->memmap = (uint32_t)map;
    info->memmap_hi = (uint32_t)(map >> 32);
    info->memmap_size = count * sizeof tables->map[0];
    params->secure_boot = EFI_SECURE_BOOT_DISABLED;
    for (uint32_t i = 0; i < E820_MAX_ENTRIES; i++)
        PROVE_LOOP((i, params->e820_table), i <= E820_MAX_ENTRIES, E820_MAX_ENTRIES - i)
        if (params->e820_table[i].type == PLAN_LAZY)
            params->e820_table[i].type = E820_RAM;
}

status_t zero_page_lazily(const struct span *page, const struct span *region, const struct placement *placement,
                          const struct ram *ram, const struct span *command_line, uint64_t rsdp) {
    status_t status = zero_page(page, placement, ram, command_line, rsdp);
    if (status != TDF_OK)
        return status;
    if (region->size < sizeof(struct efi_tables))
        return TDF_E_OUT_OF_BOUNDS;
    struct efi_tables *tables = (struct efi_tables *)region->data;
    memset(tables, 0, region->size);
    status = fill_bitmap(ram, &tables->unaccepted, region->size - sizeof *tables);
    if (status != TDF_OK)
        return status;
    fill_system_table(tables, rsdp);
    fill_params((struct boot_params *)page->data, tables, fill_map(ram, tables));
    return TDF_OK;
}
