/* What is RAM, where do the image's sections lie, and where do the flow's memory regions go?
 *
 * Each image section and each carved region stays a range of its own, never merged with a neighbour, so that later
 * steps can tell free RAM from what must survive. Rules: td-shim specification, "TD HOB"; forms of HOB by VMM. */
#include "plan.h"

#include "formats.h"

#define MAX_RANGES (sizeof((struct ram *)0)->ranges.items / sizeof(struct ram_range))
#define MAX_CARVED (sizeof((struct ram *)0)->carved.items / sizeof(struct span))
#define NO_SECTION UINT32_MAX

/* The image, the I/O APIC (0xFEC00000) and the local APIC (0xFEE00000) lie here: no RAM, whatever a list says.
 * Dragonball lists the image here as memory. td-shim-interface, TD_SHIM_FIRMWARE; SDM volume 3, 11.4.1. */
#define FIRMWARE_WINDOW (TDF_4G - 0x4000000u)

static int is_window_section(const struct layout_entry *entry) {
    return entry->kind == TDVF_TYPE_BFV || entry->kind == TDVF_TYPE_CFV;
}

static int is_ram_section(const struct layout_entry *entry) {
    return entry->kind != LAYOUT_CARVED && !is_window_section(entry);
}

/* A row without bytes, or inside the firmware window, says nothing of RAM. */
static int counts(const struct resource *resource) {
    return resource->size != 0 &&
           !(resource->start >= FIRMWARE_WINDOW && resource->start + resource->size <= TDF_4G);
}

/* RAM as the VMM lists it. Without a type 7, type 5 is RAM too, which was added: td-shim's legacy form. What was added
 * outside of the image's sections is accepted like the rest, for only the TDX module knows, and `accept` clears it. */
static int is_ram(const struct resource *resource, int legacy) {
    return resource->kind == HOB_RESOURCE_UNACCEPTED || resource->kind == HOB_RESOURCE_SYSTEM_MEMORY ||
           (legacy && resource->kind == HOB_RESOURCE_MEMORY_RESERVED);
}

/* Is nothing listed as unaccepted? */
static int is_legacy(const struct vmm *vmm) {
    for (uint64_t i = 0; i < vmm->resources.count; i++)
        PROVE_LOOP((i), i <= vmm->resources.count, vmm->resources.count - i)
        if (counts(&vmm->resources.items[i]) && vmm->resources.items[i].kind == HOB_RESOURCE_UNACCEPTED)
            return 0;
    return 1;
}

static status_t insert(struct ram *ram, uint64_t at, const struct ram_range *range) {
    if (ram->ranges.count >= MAX_RANGES || at > ram->ranges.count)
        return TDF_E_RAM_TOO_FRAGMENTED;
    struct ram_range *items = ram->ranges.items;
    memmove(&items[at + 1], &items[at], (ram->ranges.count - at) * sizeof items[0]);
    items[at] = *range;
    ram->ranges.count++;
    return TDF_OK;
}

/* Where a range that starts there belongs among those of `ram`, which are sorted. */
static uint64_t place_of(const struct ram *ram, uint64_t start) {
    uint64_t at = ram->ranges.count;
    while (at > 0 && ram->ranges.items[at - 1].start > start)
        PROVE_LOOP((at), at <= ram->ranges.count, at)
        at--;
    return at;
}

/* The VMM's RAM, sorted and disjoint, one range for each resource. */
static status_t collect(const struct vmm *vmm, uint64_t gpa_end, struct ram *ram) {
    const int legacy = is_legacy(vmm);
    for (uint64_t i = 0; i < vmm->resources.count; i++)
        PROVE_LOOP((i, ram->ranges), i <= vmm->resources.count && ram->ranges.count <= MAX_RANGES,
                   vmm->resources.count - i) {
        const struct resource *resource = &vmm->resources.items[i];
        const struct ram_range range = {resource->start, resource->start + resource->size, TDF_RAM_STATE_UNACCEPTED,
                                        E820_RAM};
        if (!counts(resource) || !is_ram(resource, legacy))
            continue;
        if (!tdf_aligned(range.start, TDF_PAGE) || !tdf_aligned(range.end, TDF_PAGE) || range.end > gpa_end)
            return TDF_E_RAM_RANGE_INVALID;
        if (tdf_overlap(range.start, range.end, FIRMWARE_WINDOW, TDF_4G))
            return TDF_E_RAM_RANGE_OVERLAP;
        uint64_t at = place_of(ram, range.start);
        if ((at > 0 && ram->ranges.items[at - 1].end > range.start) ||
            (at < ram->ranges.count && ram->ranges.items[at].start < range.end))
            return TDF_E_RAM_RANGE_OVERLAP;
        status_t status = insert(ram, at, &range);
        if (status != TDF_OK)
            return status;
    }
    return TDF_OK;
}

/* MMIO and reserved ranges may not be RAM at the same time. */
static status_t check_disjoint(const struct vmm *vmm, const struct ram *ram) {
    const int legacy = is_legacy(vmm);
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        for (uint64_t k = 0; k < vmm->resources.count; k++)
            PROVE_LOOP((k), k <= vmm->resources.count, vmm->resources.count - k) {
            const struct resource *other = &vmm->resources.items[k];
            int reserved = other->kind == HOB_RESOURCE_MEMORY_RESERVED && !legacy;
            if ((other->kind == HOB_RESOURCE_MMIO || reserved) && other->size != 0 &&
                tdf_overlap(range->start, range->end, other->start, other->start + other->size))
                return TDF_E_RAM_RANGE_OVERLAP;
        }
    }
    return TDF_OK;
}

/* Appends a range; merges it with the last one if both are in one state and of one section, or of none. */
static status_t append(struct ram *ram, struct ram_range range, uint32_t section, uint32_t *last_section) {
    uint64_t count = ram->ranges.count;
    struct ram_range *last = count > 0 ? &ram->ranges.items[count - 1] : 0;
    if (last && last->end == range.start && last->state == range.state && *last_section == section) {
        last->end = range.end;
        return TDF_OK;
    }
    *last_section = section;
    return insert(ram, count, &range);
}

/* The section that covers `at`, or the first one that starts after it; NO_SECTION if there is none. */
static uint32_t next_section(const struct layout *layout, uint64_t at) {
    uint32_t found = NO_SECTION;
    for (uint32_t i = 0; i < layout->count; i++)
        PROVE_LOOP((i, found), i <= layout->count && (found == NO_SECTION || (found < i && layout->entries[found].end > at)),
                   layout->count - i) {
        const struct layout_entry *entry = &layout->entries[i];
        if (is_ram_section(entry) && entry->end > at &&
            (found == NO_SECTION || entry->start < layout->entries[found].start))
            found = i;
    }
    return found;
}

/* Cuts the image's sections out of the RAM `from`; each must be covered wholly. */
static status_t cut_sections(const struct ram *from, const struct layout *layout, struct ram *to) {
    uint32_t last_section = NO_SECTION;
    uint64_t missing = 0;
    for (uint32_t i = 0; i < layout->count; i++)
        PROVE_LOOP((i, missing), i <= layout->count, layout->count - i)
        if (is_ram_section(&layout->entries[i]))
            missing += layout->entries[i].end - layout->entries[i].start;
    for (uint64_t i = 0; i < from->ranges.count; i++)
        PROVE_LOOP((i, missing, last_section, to->ranges), i <= from->ranges.count && to->ranges.count <= MAX_RANGES,
                   from->ranges.count - i) {
        struct ram_range rest = from->ranges.items[i];
        while (rest.start < rest.end)
            PROVE_LOOP((rest, missing, last_section, to->ranges), to->ranges.count <= MAX_RANGES,
                       rest.start < rest.end ? rest.end - rest.start : 0) {
            struct ram_range piece = rest;
            uint32_t section = next_section(layout, rest.start);
            uint32_t tag = NO_SECTION;
            if (section != NO_SECTION && layout->entries[section].start < rest.end) {
                const struct layout_entry *entry = &layout->entries[section];
                if (entry->start > rest.start) {
                    piece.end = entry->start;
                } else {
                    piece.end = entry->end < rest.end ? entry->end : rest.end;
                    piece.state = TDF_RAM_STATE_ADDED;
                    piece.e820 = entry->e820;
                    tag = section;
                    missing -= piece.end - piece.start;
                }
            }
            status_t status = append(to, piece, tag, &last_section);
            if (status != TDF_OK)
                return status;
            rest.start = piece.end;
        }
    }
    return missing == 0 ? TDF_OK : TDF_E_RAM_SECTION_OUTSIDE;
}

/* The image's part below 4 GiB: ours, never RAM, but the OS has to know of it. */
static status_t add_window(const struct layout *layout, struct ram *ram) {
    for (uint32_t i = 0; i < layout->count; i++)
        PROVE_LOOP((i, ram->ranges), i <= layout->count && ram->ranges.count <= MAX_RANGES, layout->count - i) {
        const struct layout_entry *entry = &layout->entries[i];
        if (!is_window_section(entry))
            continue;
        struct ram_range range = {entry->start, entry->end, TDF_RAM_STATE_ADDED, entry->e820};
        status_t status = insert(ram, place_of(ram, range.start), &range);
        if (status != TDF_OK)
            return status;
    }
    return TDF_OK;
}

/* Makes [start, end), which lies in range `at`, a range of its own with type `e820`. */
static status_t split(struct ram *ram, uint64_t at, uint64_t start, uint64_t end, uint32_t e820) {
    struct ram_range *range = &ram->ranges.items[at];
    struct ram_range low = *range, high = *range;
    low.end = start;
    high.start = end;
    range->start = start;
    range->end = end;
    range->e820 = e820;
    status_t status = TDF_OK;
    if (high.start < high.end)
        status = insert(ram, at + 1, &high);
    if (status == TDF_OK && low.start < low.end)
        status = insert(ram, at, &low);
    return status;
}

/* The end at or below `end` of `size` bytes that do not lie in two blocks of 2 MiB, if they fit into one: an OS that maps
 * a large page there maps all of them. */
static uint64_t end_in_block(uint64_t end, uint64_t size) {
    const uint64_t block = tdf_align_down(end, TDF_PAGE_2M);
    return end > block && end - block < size && size <= TDF_PAGE_2M ? block : end;
}

/* Carves one region as high as it fits below `limit`, which moves down to its start. Sections of the image are left
 * alone. `whole`: it lies in one block of 2 MiB if it fits. */
static status_t carve(struct ram *ram, const struct layout_entry *entry, uint64_t *limit, int whole) {
    if (entry->end == 0 || entry->end > *limit || ram->carved.count == MAX_CARVED)
        return TDF_E_RAM_TOO_SMALL;
    uint64_t size = tdf_align_up(entry->end, TDF_PAGE);
    for (uint64_t i = ram->ranges.count; i > 0; i--)
        PROVE_LOOP((i), i <= ram->ranges.count, i) {
        const struct ram_range *range = &ram->ranges.items[i - 1];
        uint64_t end = range->end < *limit ? range->end : *limit;
        end = whole ? end_in_block(end, size) : end;
        uint64_t low = range->start < LOW_MEMORY_END ? LOW_MEMORY_END : range->start;
        if (range->state != TDF_RAM_STATE_UNACCEPTED || end < low || end - low < size)
            continue;
        *limit = end - size;
        ram->carved.items[ram->carved.count].data = (uint8_t *)(uintptr_t)*limit;
        ram->carved.items[ram->carved.count].size = size;
        ram->carved.count++;
        return split(ram, i - 1, end - size, end, entry->e820);
    }
    return TDF_E_RAM_TOO_SMALL;
}

status_t plan_reserve(struct ram *ram, uint64_t start, uint64_t end) {
    const struct ram_range range = {start, end, TDF_RAM_STATE_ADDED, E820_RESERVED};
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i), i <= ram->ranges.count, ram->ranges.count - i)
        if (tdf_overlap(ram->ranges.items[i].start, ram->ranges.items[i].end, start, end))
            return TDF_E_RAM_RANGE_OVERLAP;
    return insert(ram, place_of(ram, start), &range);
}

status_t plan_take_half(struct ram *ram, struct span *out) {
    uint64_t lowest = TDF_4G, largest = 0, limit = 0;
    for (uint64_t i = 0; i < ram->carved.count; i++)
        PROVE_LOOP((i, lowest), i <= ram->carved.count, ram->carved.count - i)
        if (tdf_gpa(ram->carved.items[i].data) < lowest)
            lowest = tdf_gpa(ram->carved.items[i].data);
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, largest, limit), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        const uint64_t end = range->end < lowest ? range->end : lowest;
        const uint64_t start = range->start < LOW_MEMORY_END ? LOW_MEMORY_END : range->start;
        if (range->state != TDF_RAM_STATE_UNACCEPTED || end <= start || end - start <= largest)
            continue;
        largest = end - start;
        limit = end;
    }
    const struct layout_entry entry = {0, tdf_align_down(largest / 2, TDF_PAGE), LAYOUT_CARVED, E820_RAM};
    status_t status = carve(ram, &entry, &limit, 0);
    if (status == TDF_OK)
        *out = ram->carved.items[ram->carved.count - 1];
    return status;
}

status_t plan_memory(const struct vmm *vmm, const struct vp_info *td, const struct layout *layout, struct ram *out) {
    struct ram listed; /* only its ranges are used */
    status_t status;
    listed.ranges.count = 0;
    out->ranges.count = 0;
    out->carved.count = 0;
    if (td->gpaw < 32 || td->gpaw > 52)
        return TDF_E_RAM_RANGE_INVALID;
    /* The topmost bit of the GPA width is the shared bit: private memory lies below it. */
    out->private_end = 1ull << (td->gpaw - 1);
    if ((status = collect(vmm, out->private_end, &listed)) != TDF_OK ||
        (status = check_disjoint(vmm, &listed)) != TDF_OK ||
        (status = cut_sections(&listed, layout, out)) != TDF_OK || (status = add_window(layout, out)) != TDF_OK)
        return status;
    uint64_t limit = tdf_align_down(layout->carve_limit, TDF_PAGE);
    for (uint32_t i = 0; i < layout->count; i++)
        PROVE_LOOP((i, limit, status, out->ranges, out->carved),
                   i <= layout->count && out->ranges.count <= MAX_RANGES && out->carved.count <= MAX_CARVED,
                   layout->count - i) {
        if (layout->entries[i].kind != LAYOUT_CARVED)
            continue;
        if ((status = carve(out, &layout->entries[i], &limit, 1)) != TDF_OK)
            return status;
    }
    return TDF_OK;
}
