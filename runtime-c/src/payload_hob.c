/* What does an executable payload learn of the machine? The HOB list of the td-shim specification, byte for byte.
 *
 * Source: td-shim specification, "payload HOB"; UEFI PI 1.7 volume 3, chapter 5; of td-shim's own list, payload_hob.rs. */
#include "acpi_build.h"
#include "formats.h"

#define GUID_HEAD sizeof(struct hob_guid_ext)

struct list {
    struct span area;
    uint64_t used;
};

/* The next HOB, cleared, with its header; 0 if it does not fit. `size` is a multiple of 8. */
static uint8_t *add_hob(struct list *list, uint16_t type, uint64_t size) {
    if (!tdf_inside(list->area.size, list->used, size))
        return 0;
    uint8_t *at = list->area.data + list->used;
    struct hob_header *header = (struct hob_header *)at;
    memset(at, 0, size);
    header->type = type;
    header->length = (uint16_t)size;
    list->used += size;
    return at;
}

static status_t add_table(struct list *list, const struct span *table) {
    static const uint8_t guid[] = GUID_HOB_ACPI_TABLE;
    if (table->size > HOB_MAX_LENGTH - GUID_HEAD)
        return TDF_E_HOBS_TABLE_TOO_LARGE;
    uint8_t *hob = add_hob(list, HOB_TYPE_GUID_EXT, GUID_HEAD + tdf_align_up(table->size, HOB_ALIGNMENT));
    if (!hob)
        return TDF_E_HOBS_NO_ROOM;
    memcpy(((struct hob_guid_ext *)hob)->guid, guid, sizeof guid);
    memcpy(hob + GUID_HEAD, table->data, table->size);
    return TDF_OK;
}

/* The table at an address, over its length; 0 if not all of it lies in `tables`. */
static int table_at(const struct span *tables, uint64_t address, struct span *out) {
    struct acpi_header head;
    const uint64_t offset = address - tdf_gpa(tables->data);
    if (!tdf_read(tables, offset, &head, sizeof head) || head.length < sizeof head ||
        !tdf_inside(tables->size, offset, head.length))
        return 0;
    out->data = tables->data + offset;
    out->size = head.length;
    return 1;
}

/* A FADT's DSDT has no other table that leads to it. */
static status_t add_dsdt(struct list *list, const struct span *tables, const struct span *table) {
    struct acpi_fadt fadt = {0};
    struct span dsdt;
    memcpy(&fadt, table->data, table->size < sizeof fadt ? table->size : sizeof fadt);
    const uint64_t address = fadt.x_dsdt != 0 ? fadt.x_dsdt : fadt.dsdt;
    if (address == 0)
        return TDF_OK;
    return table_at(tables, address, &dsdt) ? add_table(list, &dsdt) : TDF_E_OUT_OF_BOUNDS;
}

/* 0: the tables that are neither; 1: the MADT; 2: the CCEL. In this order they come. */
static uint32_t turn_of(const struct span *table) { return acpi_is(table, "APIC") ? 1 : acpi_is(table, "CCEL") ? 2 : 0; }

static status_t add_tables(struct list *list, const struct span *tables, uint64_t rsdp_address) {
    struct acpi_rsdp rsdp;
    struct span xsdt, table;
    uint64_t address;
    if (rsdp_address == 0)
        return TDF_OK;
    if (!tdf_read(tables, rsdp_address - tdf_gpa(tables->data), &rsdp, sizeof rsdp) ||
        !table_at(tables, rsdp.xsdt_address, &xsdt))
        return TDF_E_OUT_OF_BOUNDS;
    for (uint32_t turn = 0; turn < 3; turn++)
        PROVE_LOOP((turn, address, table, list->used, __CPROVER_object_whole(list->area.data)), turn <= 3, 3 - turn) {
        for (uint64_t at = sizeof(struct acpi_header); tdf_read(&xsdt, at, &address, sizeof address); at += sizeof address)
            PROVE_LOOP((at, address, table, list->used, __CPROVER_object_whole(list->area.data)), at <= UINT32_MAX,
                       UINT32_MAX - at) {
            if (!table_at(tables, address, &table))
                return TDF_E_OUT_OF_BOUNDS;
            if (turn_of(&table) != turn)
                continue;
            status_t status = add_table(list, &table);
            if (status == TDF_OK && acpi_is(&table, "FACP"))
                status = add_dsdt(list, tables, &table);
            if (status != TDF_OK)
                return status;
        }
    }
    return TDF_OK;
}

struct map {
    struct e820_entry entries[E820_MAX_ENTRIES];
    uint32_t count;
};

/* Neighbours of one type become one entry. */
static status_t add_range(struct map *map, uint64_t start, uint64_t end, uint32_t type) {
    struct e820_entry *last = map->count != 0 ? &map->entries[map->count - 1] : 0;
    if (last && last->addr + last->size == start && last->type == type) {
        last->size += end - start;
        return TDF_OK;
    }
    if (map->count == E820_MAX_ENTRIES)
        return TDF_E_HOBS_TOO_MANY;
    struct e820_entry *entry = &map->entries[map->count++];
    entry->addr = start;
    entry->size = end - start;
    entry->type = type;
    return TDF_OK;
}

/* What is not left out. The payload itself, and the page tables it runs on, are not RAM for it to take. */
static status_t make_map(const struct ram *ram, const struct executable *executable, const struct paging *paging,
                         struct map *map) {
    const uint64_t tables = tdf_gpa(paging->tables.data);
    const uint64_t kept[][2] = {{executable->load, executable->load + executable->size},
                                {tables, tables + paging->tables.size}};
    status_t status = TDF_OK;
    map->count = 0;
    for (uint64_t i = 0; status == TDF_OK && i < ram->ranges.count; i++)
        PROVE_LOOP((i, status, *map), i <= ram->ranges.count && map->count <= E820_MAX_ENTRIES, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        for (uint64_t at = range->start, stop; range->state != TDF_RAM_STATE_LEFT_OUT && at < range->end; at = stop)
            PROVE_LOOP((at, stop, status, *map), map->count <= E820_MAX_ENTRIES, at < range->end ? range->end - at : 0) {
            uint32_t type = range->e820;
            stop = range->end;
            for (uint32_t k = 0; k < sizeof kept / sizeof kept[0]; k++) {
                if (at < kept[k][0] && kept[k][0] < stop)
                    stop = kept[k][0];
                if (kept[k][0] <= at && at < kept[k][1]) {
                    type = E820_RESERVED;
                    stop = kept[k][1] < stop ? kept[k][1] : stop;
                }
            }
            if ((status = add_range(map, at, stop, type)) != TDF_OK)
                break;
        }
    }
    return status;
}

static status_t add_map(struct list *list, const struct map *map) {
    static const uint8_t guid[] = GUID_HOB_E820_TABLE;
    const uint64_t size = map->count * sizeof map->entries[0];
    uint8_t *hob = add_hob(list, HOB_TYPE_GUID_EXT, GUID_HEAD + tdf_align_up(size, HOB_ALIGNMENT));
    if (!hob)
        return TDF_E_HOBS_NO_ROOM;
    memcpy(((struct hob_guid_ext *)hob)->guid, guid, sizeof guid);
    memcpy(hob + GUID_HEAD, map->entries, size);
    return TDF_OK;
}

/* The section in which the file lies, or the file where it lies in none. */
static void fill_volume(const struct ram *ram, const struct span *file, struct hob_firmware_volume *fv) {
    const uint64_t at = tdf_gpa(file->data);
    fv->start = at;
    fv->length = file->size;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, fv->start, fv->length), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->state == TDF_RAM_STATE_ADDED && range->start <= at && at < range->end) {
            fv->start = range->start;
            fv->length = range->end - range->start;
        }
    }
}

status_t payload_hobs(const struct span *list, const struct executable *executable, const struct ram *ram,
                      const struct span *tables, uint64_t rsdp, const struct paging *paging) {
    struct list hobs = {*list, 0};
    struct map map;
    struct hob_phit *phit = (struct hob_phit *)add_hob(&hobs, HOB_TYPE_PHIT, sizeof *phit);
    struct hob_cpu *cpu = (struct hob_cpu *)add_hob(&hobs, HOB_TYPE_CPU, sizeof *cpu);
    struct hob_firmware_volume *fv = (struct hob_firmware_volume *)add_hob(&hobs, HOB_TYPE_FIRMWARE_VOLUME, sizeof *fv);
    if (!phit || !cpu || !fv)
        return TDF_E_HOBS_NO_ROOM;
    cpu->memory_bits = HOB_MEMORY_BITS;
    cpu->io_bits = HOB_IO_BITS;
    fill_volume(ram, &executable->file, fv);
    status_t status = add_tables(&hobs, tables, rsdp);
    if (status != TDF_OK || (status = make_map(ram, executable, paging, &map)) != TDF_OK ||
        (status = add_map(&hobs, &map)) != TDF_OK)
        return status;
    if (!add_hob(&hobs, HOB_TYPE_END, sizeof(struct hob_header)))
        return TDF_E_HOBS_NO_ROOM;
    phit->version = HOB_PHIT_VERSION;
    if (map.count != 0) {
        const struct e820_entry *last = &map.entries[map.count - 1];
        phit->memory_top = phit->free_memory_top = last->addr + last->size;
        phit->memory_bottom = phit->free_memory_bottom = map.entries[0].addr;
    }
    phit->end_of_hob_list = tdf_gpa(list->data) + hobs.used;
    return TDF_OK;
}
