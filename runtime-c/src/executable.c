/* Where in RAM does an executable run, with which rights for each page, and what of it is relocated?
 *
 * Its parts are whole pages, each of one access, in the order of their addresses. Source: docs/decisions/0028. */
#include "executable.h"

#include "formats.h"

static int is_elf(const struct span *file) {
    uint32_t magic;
    return tdf_read(file, 0, &magic, sizeof magic) && magic == ELF_MAGIC;
}

status_t executable_extent(const struct span *section, struct span *out) {
    out->data = section->data;
    return is_elf(section) ? executable_elf_end(section, &out->size) : executable_pe_end(section, &out->size);
}

status_t executable_access(int writable, int executable, uint32_t *access) {
    if (writable && executable)
        return TDF_E_EXECUTABLE_RIGHTS;
    *access = writable ? TDF_ACCESS_RW : executable ? TDF_ACCESS_RX : TDF_ACCESS_R;
    return TDF_OK;
}

static struct image_part *push(struct executable *out, uint64_t start, uint64_t end, uint32_t access) {
    if (out->parts.count == EXECUTABLE_MAX_PARTS)
        return 0;
    struct image_part *part = &out->parts.items[out->parts.count++];
    part->to = part->start = start;
    part->length = end - start;
    part->access = access;
    return part;
}

status_t executable_add(struct executable *out, struct linked *linked, uint64_t at, uint64_t memory_size,
                        uint64_t offset, uint64_t size, uint32_t access) {
    const uint64_t start = tdf_align_down(at, TDF_PAGE);
    if (size > memory_size || at > EXECUTABLE_ADDRESS_MAX || memory_size > EXECUTABLE_ADDRESS_MAX - at ||
        start < linked->end)
        return TDF_E_EXECUTABLE_PARTS;
    if (out->parts.count == 0)
        out->base = linked->end = start;
    if (start > linked->end && !push(out, linked->end, start, TDF_ACCESS_NONE))
        return TDF_E_EXECUTABLE_PARTS;
    linked->end = tdf_align_up(at + memory_size, TDF_PAGE);
    struct image_part *part = push(out, start, linked->end, access);
    if (!part)
        return TDF_E_EXECUTABLE_PARTS;
    part->to = at;
    part->from = tdf_gpa(out->file.data) + offset;
    part->size = size;
    return TDF_OK;
}

int executable_bytes(const struct executable *executable, uint64_t at, uint64_t size, struct span *out) {
    for (uint64_t i = 0; i < executable->parts.count; i++)
        PROVE_LOOP((i, *out), i <= executable->parts.count, executable->parts.count - i) {
        const struct image_part *part = &executable->parts.items[i];
        /* An address below the part is far beyond it by this difference. */
        if (!tdf_inside(part->size, at - part->to, size))
            continue;
        out->data = executable->file.data + (part->from - tdf_gpa(executable->file.data)) + (at - part->to);
        out->size = size;
        return 1;
    }
    return 0;
}

static int has_entry(const struct executable *executable) {
    for (uint64_t i = 0; i < executable->parts.count; i++)
        PROVE_LOOP((i), i <= executable->parts.count, executable->parts.count - i) {
        const struct image_part *part = &executable->parts.items[i];
        if (part->access == TDF_ACCESS_RX && tdf_inside(part->size, executable->entry - part->to, 1))
            return 1;
    }
    return 0;
}

/* The lowest free RAM for the image whose address is `offset` above a multiple of `alignment`; 0 if there is none. */
static uint64_t lowest(const struct ram *ram, uint64_t size, uint64_t alignment, uint64_t offset) {
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        const uint64_t from = range->start > LOW_MEMORY_END ? range->start : LOW_MEMORY_END;
        const uint64_t at = tdf_align_up(from, alignment) + offset;
        if (at < range->end && plan_is_free(ram, at, at + size, 0))
            return at;
    }
    return 0;
}

status_t place_executable(const struct span *file, const struct ram *ram, struct executable *out) {
    struct linked linked = {.alignment = TDF_PAGE};
    memset(out, 0, sizeof *out);
    out->file = *file;
    status_t status = is_elf(file) ? executable_read_elf(file, &linked, out) : executable_read_pe(file, &linked, out);
    if (status != TDF_OK)
        return status;
    if (!has_entry(out))
        return TDF_E_EXECUTABLE_ENTRY;
    out->size = linked.end - out->base;
    out->load = out->base;
    if (!linked.fixed)
        out->load = lowest(ram, out->size, linked.alignment, out->base & (linked.alignment - 1));
    if (out->load == 0 || !plan_is_free(ram, out->load, out->load + out->size, 0))
        return TDF_E_EXECUTABLE_NO_ROOM;
    const uint64_t delta = out->load - out->base;
    out->entry += delta;
    for (uint64_t i = 0; i < out->parts.count; i++)
        PROVE_LOOP((i, out->parts.items), i <= out->parts.count, out->parts.count - i) {
        out->parts.items[i].to += delta;
        out->parts.items[i].start += delta;
    }
    return TDF_OK;
}
