/* What does a PE32+ file want loaded, with which rights, and where are its base relocations?
 *
 * Source: Microsoft, "PE Format". A bzImage is one too, but its entry is for EFI: it is none here. */
#include "executable.h"

#include "formats.h"

struct headers {
    struct pe_header file;
    struct pe_optional_header optional;
    uint64_t directories, sections; /* their offsets */
};

static status_t read_headers(const struct span *file, struct headers *out) {
    struct pe_dos_header dos;
    uint32_t linux_magic = 0;
    if (!tdf_read(file, 0, &dos, sizeof dos) || dos.magic != PE_DOS_MAGIC ||
        !tdf_read(file, dos.pe_offset, &out->file, sizeof out->file) || out->file.signature != PE_SIGNATURE ||
        out->file.machine != PE_MACHINE_AMD64)
        return TDF_E_EXECUTABLE_UNKNOWN;
    tdf_read(file, LINUX_SETUP_HEADER_OFFSET + offsetof(struct setup_header, header), &linux_magic, sizeof linux_magic);
    const uint64_t optional = dos.pe_offset + sizeof out->file;
    if (linux_magic == LINUX_HEADER_MAGIC || !tdf_read(file, optional, &out->optional, sizeof out->optional) ||
        out->optional.magic != PE_MAGIC_PE32_PLUS)
        return TDF_E_EXECUTABLE_UNKNOWN;
    out->directories = optional + sizeof out->optional;
    out->sections = optional + out->file.optional_size;
    const uint64_t end = out->sections + (uint64_t)out->file.section_count * sizeof(struct pe_section);
    if (out->optional.headers_size > file->size)
        return TDF_E_EXECUTABLE_TRUNCATED;
    const uint64_t alignment = out->optional.section_alignment;
    if (out->file.optional_size < sizeof out->optional || end > out->optional.headers_size ||
        !tdf_aligned(out->optional.image_base, TDF_PAGE) || alignment < TDF_PAGE ||
        alignment > EXECUTABLE_ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
        return TDF_E_EXECUTABLE_MALFORMED;
    return TDF_OK;
}

/* A data directory; of size 0 if the file has none of this kind. The headers have room for it: they lie in the file. */
static struct pe_directory directory(const struct span *file, const struct headers *headers, uint32_t which) {
    struct pe_directory found = {0};
    const uint64_t at = headers->directories + which * sizeof found;
    if (which < headers->optional.directory_count && at + sizeof found <= headers->sections)
        tdf_read(file, at, &found, sizeof found);
    return found;
}

static struct pe_section section_at(const struct span *file, const struct headers *headers, uint32_t index) {
    struct pe_section section = {0};
    tdf_read(file, headers->sections + (uint64_t)index * sizeof section, &section, sizeof section);
    return section;
}

status_t executable_pe_end(const struct span *section, uint64_t *end) {
    struct headers headers;
    status_t status = read_headers(section, &headers);
    if (status != TDF_OK)
        return status;
    const struct pe_directory certificate = directory(section, &headers, PE_DIRECTORY_CERTIFICATE);
    const uint64_t certificate_end = (uint64_t)certificate.address + certificate.size;
    *end = headers.optional.headers_size;
    if (certificate.size != 0 && certificate_end > *end)
        *end = certificate_end;
    for (uint32_t i = 0; i < headers.file.section_count; i++)
        PROVE_LOOP((i, *end), i <= headers.file.section_count, headers.file.section_count - i) {
        const struct pe_section part = section_at(section, &headers, i);
        const uint64_t part_end = (uint64_t)part.offset + part.file_size;
        if (part.file_size != 0 && part_end > *end)
            *end = part_end;
    }
    return *end <= section->size ? TDF_OK : TDF_E_EXECUTABLE_TRUNCATED;
}

static status_t add_section(const struct headers *headers, const struct pe_section *section, struct linked *linked,
                            struct executable *out) {
    const uint64_t memory_size = section->memory_size != 0 ? section->memory_size : section->file_size;
    const uint64_t size = section->file_size < memory_size ? section->file_size : memory_size;
    uint32_t access;
    status_t status = executable_access((section->characteristics & PE_SECTION_WRITE) != 0,
                                        (section->characteristics & PE_SECTION_EXECUTE) != 0, &access);
    if (status != TDF_OK)
        return status;
    if (!tdf_aligned(section->address, headers->optional.section_alignment) ||
        section->address + memory_size > headers->optional.image_size)
        return TDF_E_EXECUTABLE_PARTS;
    if (size != 0 && !tdf_inside(out->file.size, section->offset, size))
        return TDF_E_EXECUTABLE_TRUNCATED;
    return memory_size == 0 ? TDF_OK
                            : executable_add(out, linked, headers->optional.image_base + section->address, memory_size,
                                             section->offset, size, access);
}

status_t executable_read_pe(const struct span *file, struct linked *linked, struct executable *out) {
    struct headers headers;
    status_t status = read_headers(file, &headers);
    if (status != TDF_OK)
        return status;
    const uint64_t base = headers.optional.image_base, size = headers.optional.headers_size;
    linked->alignment = headers.optional.section_alignment;
    linked->fixed = (headers.file.characteristics & PE_RELOCS_STRIPPED) != 0;
    if (base > EXECUTABLE_ADDRESS_MAX)
        return TDF_E_EXECUTABLE_PARTS;
    out->entry = base + headers.optional.entry;
    status = executable_add(out, linked, base, size, 0, size, TDF_ACCESS_R);
    for (uint32_t i = 0; status == TDF_OK && i < headers.file.section_count; i++)
        PROVE_LOOP((i, status, *linked, out->base, out->parts),
                   i <= headers.file.section_count && out->parts.count <= EXECUTABLE_MAX_PARTS,
                   headers.file.section_count - i) {
        const struct pe_section section = section_at(file, &headers, i);
        status = add_section(&headers, &section, linked, out);
    }
    if (status != TDF_OK)
        return status;
    const struct pe_directory fixups = directory(file, &headers, PE_DIRECTORY_RELOCATION);
    if (directory(file, &headers, PE_DIRECTORY_IMPORT).size != 0 ||
        directory(file, &headers, PE_DIRECTORY_DELAY_IMPORT).size != 0)
        return TDF_E_EXECUTABLE_NOT_STATIC;
    if (fixups.size != 0 && !executable_bytes(out, base + fixups.address, fixups.size, &out->blocks))
        return TDF_E_EXECUTABLE_RELOCATION;
    return TDF_OK;
}
