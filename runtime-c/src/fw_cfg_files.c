/* Where is a file in fw_cfg's directory, and what does a machine without TDX say of its memory there?
 *
 * Source: QEMU docs/specs/fw_cfg.rst; hw/i386/fw_cfg.c, etc/e820. */
#include "fw_cfg.h"

#define E820_FILE "etc/e820"
/* Video memory, option ROMs, BIOS: SDM has no number for them, the IBM PC has. etc/e820 says RAM. */
#define LEGACY_START 0xA0000u
#define LEGACY_END 0x100000u

status_t fw_cfg_find(const struct span *directory, const char *name, uint64_t name_size, struct fw_cfg_item *out) {
    uint32_t count;
    struct fw_cfg_file file;
    out->found = 0;
    out->key = 0;
    out->size = 0;
    if (directory->size < FW_CFG_DIRECTORY_SIZE)
        return TDF_E_FW_CFG_MALFORMED;
    memcpy(&count, directory->data, sizeof count);
    count = __builtin_bswap32(count);
    if (count > FW_CFG_MAX_FILES)
        return TDF_E_FW_CFG_MALFORMED;
    TDF_BARRIER();
    for (uint32_t i = 0; i < count && !out->found; i++)
        PROVE_LOOP((i, file, *out), i <= count, count - i) {
        memcpy(&file, directory->data + sizeof count + i * sizeof file, sizeof file);
        if (memcmp(file.name, name, name_size) != 0)
            continue;
        out->found = 1;
        out->key = __builtin_bswap16(file.select);
        out->size = __builtin_bswap32(file.size);
    }
    return TDF_OK;
}

status_t fw_cfg_e820(const struct span *directory, struct fw_cfg_item *out) {
    status_t status = fw_cfg_find(directory, E820_FILE, sizeof E820_FILE, out);
    return status == TDF_OK && (!out->found || out->size > directory->size) ? TDF_E_FW_CFG_MALFORMED : status;
}

static void put(struct span *to, uint64_t *at, const void *from, uint64_t size) {
    memcpy(to->data + *at, from, size);
    *at += size;
}

static void put_ram(struct span *to, uint64_t *at, uint64_t start, uint64_t end) {
    const struct hob_resource resource = {
        .header = {HOB_TYPE_RESOURCE, sizeof resource, 0},
        .resource_type = HOB_RESOURCE_UNACCEPTED,
        .attributes = HOB_RESOURCE_ATTR_PRESENT | HOB_RESOURCE_ATTR_INITIALIZED | HOB_RESOURCE_ATTR_TESTED,
        .start = start,
        .length = end - start,
    };
    put(to, at, &resource, sizeof resource);
}

status_t ordinary_hob(const struct span *map, struct span *region) {
    struct hob_phit phit = {.header = {HOB_TYPE_PHIT, sizeof phit, 0}, .version = HOB_PHIT_VERSION};
    const struct hob_header end = {HOB_TYPE_END, sizeof end, 0};
    const uint64_t count = map->size / sizeof(struct e820_entry);
    uint64_t at = sizeof phit;
    if (region->size < sizeof phit + 2 * count * sizeof(struct hob_resource) + sizeof end)
        return TDF_E_FW_CFG_MALFORMED;
    for (uint64_t i = 0; i < count; i++)
        PROVE_LOOP((i, at, __CPROVER_object_whole(region->data)),
                   i <= count && at <= sizeof phit + 2 * i * sizeof(struct hob_resource), count - i) {
        struct e820_entry entry;
        tdf_read(map, i * sizeof entry, &entry, sizeof entry);
        uint64_t last = entry.addr + entry.size;
        if (entry.type != E820_RAM || last < entry.addr)
            continue;
        if (entry.addr < LEGACY_START && last > LEGACY_END) {
            put_ram(region, &at, entry.addr, LEGACY_START);
            entry.addr = LEGACY_END;
        }
        put_ram(region, &at, entry.addr, last);
    }
    put(region, &at, &end, sizeof end);
    phit.end_of_hob_list = tdf_gpa(region->data) + at;
    memcpy(region->data, &phit, sizeof phit);
    return TDF_OK;
}
