/* What did the VMM say in the TD HOB? Reads the list as strictly as its writers are regular.
 *
 * Source: UEFI PI specification 1.7 volume 3, chapter 5; td-shim specification, "TD HOB". */
#include "formats.h"
#include "primitives.h"

#define SMALLEST_LIST (sizeof(struct hob_phit) + sizeof(struct hob_header))
#define MAX_RESOURCES (sizeof((struct vmm *)0)->resources.items / sizeof(struct resource))
#define MAX_TABLES (sizeof((struct vmm *)0)->tables.items / sizeof(struct span))
#define RESOURCE_KINDS 8u /* PI 1.7 volume 3, 5.5: EFI_RESOURCE_MAX_MEMORY_TYPE, with PI 1.8's UNACCEPTED below it */

status_t hob_extent(const struct span *region, struct span *out) {
    struct hob_phit phit;
    if (region->size < SMALLEST_LIST || !tdf_read(region, 0, &phit, sizeof phit))
        return TDF_E_HOB_TRUNCATED;
    if (phit.header.type != HOB_TYPE_PHIT || phit.header.length != sizeof phit || phit.header.reserved != 0)
        return TDF_E_HOB_MALFORMED;
    /* Below the base the difference wraps to more than any region has. */
    uint64_t size = phit.end_of_hob_list - tdf_gpa(region->data);
    if (size > region->size)
        return TDF_E_HOB_TRUNCATED;
    if (size < SMALLEST_LIST || !tdf_aligned(size, HOB_ALIGNMENT))
        return TDF_E_HOB_MALFORMED;
    TDF_BARRIER();
    out->data = region->data;
    out->size = size;
    return TDF_OK;
}

static status_t add_resource(const struct span *hob, struct vmm *vmm) {
    struct hob_resource resource;
    if (hob->size != sizeof resource || !tdf_read(hob, 0, &resource, sizeof resource))
        return TDF_E_HOB_MALFORMED;
    if (resource.resource_type >= RESOURCE_KINDS || (resource.attributes & ~HOB_RESOURCE_ATTR_MASK) != 0 ||
        resource.length > UINT64_MAX - resource.start)
        return TDF_E_HOB_MALFORMED;
    if (vmm->resources.count == MAX_RESOURCES)
        return TDF_E_HOB_TOO_MANY;
    struct resource *to = &vmm->resources.items[vmm->resources.count++];
    to->kind = resource.resource_type;
    to->attributes = resource.attributes;
    to->start = resource.start;
    to->size = resource.length;
    return TDF_OK;
}

static status_t add_payload_info(const struct span *body, struct vmm *vmm) {
    struct hob_payload_info info;
    struct hob_payload_info_packed packed;
    if (vmm->has_payload_info)
        return TDF_E_HOB_MALFORMED;
    if (tdf_read(body, 0, &info, sizeof info)) {
        vmm->payload_kind = info.image_type;
        vmm->payload_entry = info.entry_point;
    } else if (tdf_read(body, 0, &packed, sizeof packed)) {
        vmm->payload_kind = packed.image_type;
        vmm->payload_entry = packed.entry_point;
    } else {
        return TDF_E_HOB_MALFORMED;
    }
    vmm->has_payload_info = 1;
    return TDF_OK;
}

static status_t add_extension(const struct span *hob, struct vmm *vmm) {
    static const uint8_t acpi_table[] = GUID_HOB_ACPI_TABLE;
    static const uint8_t payload_info[] = GUID_HOB_PAYLOAD_INFO;
    struct hob_guid_ext head;
    if (!tdf_read(hob, 0, &head, sizeof head))
        return TDF_E_HOB_MALFORMED;
    struct span body = {hob->data + sizeof head, hob->size - sizeof head};
    if (memcmp(head.guid, payload_info, sizeof head.guid) == 0)
        return add_payload_info(&body, vmm);
    if (memcmp(head.guid, acpi_table, sizeof head.guid) != 0)
        return TDF_OK; /* unknown GUIDs are measured with the list and mean nothing to us */
    if (vmm->tables.count == MAX_TABLES)
        return TDF_E_HOB_TOO_MANY;
    vmm->tables.items[vmm->tables.count++] = body;
    return TDF_OK;
}

status_t parse_hob(const struct span *list, struct vmm *out) {
    struct span checked;
    struct hob_phit phit;
    status_t status = hob_extent(list, &checked);
    if (status != TDF_OK)
        return status;
    tdf_read(&checked, 0, &phit, sizeof phit);
    if (checked.size != list->size || !tdf_aligned(phit.memory_top, TDF_PAGE))
        return TDF_E_HOB_MALFORMED;
    out->resources.count = 0;
    out->tables.count = 0;
    out->has_payload_info = 0;
    out->payload_kind = 0;
    out->payload_entry = 0;
    out->reserved = out->serial = out->sleep_control = out->sleep_status = out->reset = 0;
    out->serial_irq = out->off_type = out->reset_value = out->reduced = 0;
    uint64_t offset = sizeof phit;
    struct hob_header head;
    while (tdf_read(list, offset, &head, sizeof head))
        PROVE_LOOP((offset, head, status, *out),
                   offset < list->size + HOB_ALIGNMENT && out->resources.count <= MAX_RESOURCES &&
                       out->tables.count <= MAX_TABLES,
                   list->size + HOB_ALIGNMENT - offset) {
        if (head.reserved != 0 || head.length < sizeof head)
            return TDF_E_HOB_MALFORMED;
        if (!tdf_inside(list->size, offset, head.length))
            return TDF_E_HOB_TRUNCATED;
        const struct span hob = {list->data + offset, head.length};
        switch (head.type) {
        case HOB_TYPE_END:
            /* EfiEndOfHobList must be exact, or unmeasured bytes could follow. */
            return hob.size == sizeof head && offset + hob.size == list->size ? TDF_OK : TDF_E_HOB_MALFORMED;
        case HOB_TYPE_PHIT:
            return TDF_E_HOB_MALFORMED;
        case HOB_TYPE_RESOURCE:
            status = add_resource(&hob, out);
            break;
        case HOB_TYPE_GUID_EXT:
            status = add_extension(&hob, out);
            break;
        default:
            return TDF_E_HOB_UNKNOWN_TYPE;
        }
        if (status != TDF_OK)
            return status;
        offset += tdf_align_up(hob.size, HOB_ALIGNMENT);
    }
    return TDF_E_HOB_TRUNCATED;
}
