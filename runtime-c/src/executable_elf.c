/* What does an ELF file want loaded, with which rights, and where are its relocations?
 *
 * Static programs only: linked to where they run, or position-independent with relative relocations. Source: System V ABI,
 * "Object Files" (gABI 4.2), chapters 4 and 5; AMD64 supplement 1.0, 4.4. */
#include "executable.h"

#include "formats.h"

/* What the dynamic section says; addresses as linked, 0 if it does not say it. */
struct tables {
    uint64_t rela, rela_size, rela_entry, relr, relr_size, relr_entry;
};

static status_t read_header(const struct span *file, struct elf64_header *header) {
    uint32_t magic;
    if (!tdf_read(file, 0, header, sizeof *header))
        return TDF_E_EXECUTABLE_UNKNOWN;
    memcpy(&magic, header->magic, sizeof magic);
    if (magic != ELF_MAGIC || header->file_class != ELF_CLASS_64 || header->data != ELF_DATA_LITTLE ||
        (header->type != ELF_TYPE_EXEC && header->type != ELF_TYPE_DYN) ||
        header->machine != ELF_MACHINE_X86_64 || header->program_size != sizeof(struct elf64_program_header))
        return TDF_E_EXECUTABLE_UNKNOWN;
    return TDF_OK;
}

/* An entry of the table, whose bytes lie in the file; 0 if not. Entries are read from the first one on, which lies in the
 * file, so that none is at an address that wraps. */
static int read_entry(const struct span *file, const struct elf64_header *header, uint32_t index,
                      struct elf64_program_header *part) {
    const uint64_t at = (uint64_t)index * sizeof *part;
    return tdf_read(file, header->program_offset + at, part, sizeof *part) &&
           (part->file_size == 0 || tdf_inside(file->size, part->offset, part->file_size));
}

status_t executable_elf_end(const struct span *section, uint64_t *end) {
    struct elf64_header header;
    struct elf64_program_header part;
    status_t status = read_header(section, &header);
    *end = sizeof header;
    for (uint32_t i = 0; status == TDF_OK && i < header.program_count; i++)
        PROVE_LOOP((i, part, *end),
                   i <= header.program_count && *end <= section->size &&
                       (i == 0 || header.program_offset <= section->size),
                   header.program_count - i) {
        if (!read_entry(section, &header, i, &part))
            return TDF_E_EXECUTABLE_TRUNCATED;
        const uint64_t entry_end = header.program_offset + (i + 1ull) * sizeof part;
        const uint64_t part_end = part.file_size != 0 ? part.offset + part.file_size : 0;
        *end = entry_end > *end ? entry_end : *end;
        *end = part_end > *end ? part_end : *end;
    }
    if (status != TDF_OK)
        return status;
    /* Nobody loads the table of sections, but linkers write it last: so far goes the file. */
    const uint64_t sections = (uint64_t)header.section_count * header.section_size;
    if (sections != 0 && !tdf_inside(section->size, header.section_offset, sections))
        return TDF_E_EXECUTABLE_TRUNCATED;
    if (sections != 0 && header.section_offset + sections > *end)
        *end = header.section_offset + sections;
    return TDF_OK;
}

static status_t add_segment(const struct elf64_program_header *part, struct linked *linked, struct executable *out) {
    uint32_t access;
    status_t status = executable_access((part->flags & ELF_PF_W) != 0, (part->flags & ELF_PF_X) != 0, &access);
    if (status != TDF_OK)
        return status;
    if (part->alignment > EXECUTABLE_ALIGNMENT_MAX || (part->alignment & (part->alignment - 1)) != 0)
        return TDF_E_EXECUTABLE_MALFORMED;
    if (part->alignment > linked->alignment)
        linked->alignment = part->alignment;
    return executable_add(out, linked, part->virtual, part->memory_size, part->offset, part->file_size, access);
}

static status_t read_dynamic(const struct span *file, const struct elf64_program_header *part, struct tables *tables) {
    struct elf64_dynamic entry;
    for (uint64_t at = 0; at + sizeof entry <= part->file_size; at += sizeof entry)
        PROVE_LOOP((at, entry, *tables), at <= part->file_size, part->file_size - at) {
        tdf_read(file, part->offset + at, &entry, sizeof entry);
        switch (entry.tag) {
        case ELF_DT_NULL:
            return TDF_OK;
        case ELF_DT_NEEDED:
            return TDF_E_EXECUTABLE_NOT_STATIC;
        case ELF_DT_REL:
        case ELF_DT_PLTRELSZ: /* without symbols: IRELATIVE, which calls code of the file's */
            return TDF_E_EXECUTABLE_RELOCATION;
        case ELF_DT_RELA:
            tables->rela = entry.value;
            break;
        case ELF_DT_RELASZ:
            tables->rela_size = entry.value;
            break;
        case ELF_DT_RELAENT:
            tables->rela_entry = entry.value;
            break;
        case ELF_DT_RELR:
            tables->relr = entry.value;
            break;
        case ELF_DT_RELRSZ:
            tables->relr_size = entry.value;
            break;
        case ELF_DT_RELRENT:
            tables->relr_entry = entry.value;
            break;
        }
    }
    return TDF_OK;
}

static status_t find_tables(const struct tables *tables, struct executable *out) {
    if (tables->rela_size != 0 && (tables->rela_entry != sizeof(struct elf64_rela) ||
                                   !executable_bytes(out, tables->rela, tables->rela_size, &out->rela)))
        return TDF_E_EXECUTABLE_RELOCATION;
    if (tables->relr_size != 0 && (tables->relr_entry != sizeof(uint64_t) ||
                                   !executable_bytes(out, tables->relr, tables->relr_size, &out->relr)))
        return TDF_E_EXECUTABLE_RELOCATION;
    return TDF_OK;
}

/* Whole pages of one writable part become read-only, after all else. */
static status_t add_read_only(const struct elf64_program_header *relro, struct executable *out) {
    if (relro->virtual > EXECUTABLE_ADDRESS_MAX || relro->memory_size > EXECUTABLE_ADDRESS_MAX)
        return TDF_E_EXECUTABLE_PARTS;
    const uint64_t start = tdf_align_up(relro->virtual, TDF_PAGE);
    const uint64_t end = tdf_align_down(relro->virtual + relro->memory_size, TDF_PAGE);
    for (uint64_t i = 0; start < end && i < out->parts.count; i++)
        PROVE_LOOP((i, out->parts), i <= out->parts.count && out->parts.count <= EXECUTABLE_MAX_PARTS,
                   out->parts.count - i) {
        const struct image_part *part = &out->parts.items[i];
        if (part->access != TDF_ACCESS_RW || !tdf_inside(part->length, start - part->start, end - start))
            continue;
        if (out->parts.count == EXECUTABLE_MAX_PARTS)
            return TDF_E_EXECUTABLE_PARTS;
        struct image_part *last = &out->parts.items[out->parts.count++];
        last->to = last->start = start;
        last->length = end - start;
        last->access = TDF_ACCESS_R;
        return TDF_OK;
    }
    return start < end ? TDF_E_EXECUTABLE_PARTS : TDF_OK;
}

status_t executable_read_elf(const struct span *file, struct linked *linked, struct executable *out) {
    struct elf64_header header;
    struct elf64_program_header part, relro = {0};
    struct tables tables = {0};
    status_t status = read_header(file, &header);
    for (uint32_t i = 0; status == TDF_OK && i < header.program_count; i++)
        PROVE_LOOP((i, part, relro, tables, status, *linked, out->base, out->parts),
                   i <= header.program_count && out->parts.count <= EXECUTABLE_MAX_PARTS, header.program_count - i) {
        if (!read_entry(file, &header, i, &part))
            return TDF_E_EXECUTABLE_TRUNCATED;
        if (part.type == ELF_PT_INTERP)
            return TDF_E_EXECUTABLE_NOT_STATIC;
        if (part.type == ELF_PT_DYNAMIC)
            status = read_dynamic(file, &part, &tables);
        else if (part.type == ELF_PT_GNU_RELRO)
            relro = part;
        else if (part.type == ELF_PT_LOAD && (part.memory_size != 0 || part.file_size != 0))
            status = add_segment(&part, linked, out);
    }
    if (status != TDF_OK || (status = find_tables(&tables, out)) != TDF_OK)
        return status;
    linked->fixed = header.type == ELF_TYPE_EXEC;
    out->entry = header.entry;
    return add_read_only(&relro, out);
}
