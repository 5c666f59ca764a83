/* Which memory did the VMM list in IGVM's parameter MEMORY_MAP? Reads the map as strictly as its writers are regular.
 *
 * Source: microsoft/igvm igvm_defs/src/lib.rs, IGVM_VHS_MEMORY_MAP_ENTRY. */
#include "formats.h"
#include "primitives.h"

#define MAX_ENTRIES (sizeof((struct vmm *)0)->resources.items / sizeof(struct resource))

status_t memory_map_extent(const struct span *region, struct span *out) {
    struct igvm_memory_map_entry entry;
    for (uint64_t offset = 0; tdf_read(region, offset, &entry, sizeof entry); offset += sizeof entry)
        PROVE_LOOP((offset, entry), offset <= region->size, region->size - offset) {
        if (entry.number_of_pages != 0)
            continue;
        out->data = region->data;
        out->size = offset + sizeof entry;
        return TDF_OK;
    }
    return TDF_E_MEMORY_MAP_MALFORMED;
}

status_t parse_memory_map(const struct span *map, struct vmm *out) {
    struct span checked;
    struct igvm_memory_map_entry entry;
    status_t status = memory_map_extent(map, &checked);
    if (status != TDF_OK)
        return status;
    const uint64_t count = checked.size / sizeof entry - 1; /* the last one ends the map */
    if (checked.size != map->size || count > MAX_ENTRIES)
        return TDF_E_MEMORY_MAP_MALFORMED;
    memset(out, 0, sizeof *out);
    for (uint64_t i = 0; i < count; i++)
        PROVE_LOOP((i, entry, out->resources), i <= count && out->resources.count == i, count - i) {
        memcpy(&entry, map->data + i * sizeof entry, sizeof entry);
        const uint64_t start = entry.starting_gpa_page_number, last = UINT64_MAX / TDF_PAGE;
        if (start > last || entry.number_of_pages > last - start || entry.flags != 0 || entry.reserved != 0 ||
            entry.entry_type > IGVM_MEMORY_VTL2_PROTECTABLE)
            return TDF_E_MEMORY_MAP_MALFORMED;
        struct resource *to = &out->resources.items[out->resources.count++];
        to->kind = entry.entry_type == IGVM_MEMORY_MEMORY ? HOB_RESOURCE_UNACCEPTED : HOB_RESOURCE_MEMORY_RESERVED;
        to->start = start * TDF_PAGE;
        to->size = entry.number_of_pages * TDF_PAGE;
    }
    return TDF_OK;
}
