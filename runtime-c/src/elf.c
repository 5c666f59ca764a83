/* What of the Payload section is a vmlinux that the VMM passes as its ELF file, and where do its segments go?
 *
 * Each lies at its physical address, with zeros behind it up to the next one: no byte of the window that the kernel gets is
 * another's. Source: System V ABI, "Object Files" (gABI 4.2), chapters 4 and 5; Linux arch/x86/kernel/vmlinux.lds.S. */
#include "formats.h"
#include "plan.h"

#define MAX_COPIES (sizeof((struct placement *)0)->copies.items / sizeof(struct copy))

static status_t read_header(const struct span *file, struct elf64_header *header) {
    uint32_t magic;
    if (!tdf_read(file, 0, header, sizeof *header))
        return TDF_E_KERNEL_NOT_ELF;
    memcpy(&magic, header->magic, sizeof magic);
    if (magic != ELF_MAGIC || header->file_class != ELF_CLASS_64 || header->data != ELF_DATA_LITTLE ||
        header->type != ELF_TYPE_EXEC || header->machine != ELF_MACHINE_X86_64 ||
        header->program_size != sizeof(struct elf64_program_header))
        return TDF_E_KERNEL_NOT_ELF;
    return TDF_OK;
}

/* The segment of an entry of the table; 0 if the entry, or what it wants loaded, does not lie in the file. Entries are read
 * from the first one on, which lies in the file, so that none is at an address that wraps. */
static int read_segment(const struct span *file, const struct elf64_header *header, uint32_t index,
                        struct elf64_program_header *part) {
    const uint64_t at = (uint64_t)index * sizeof *part;
    if (!tdf_read(file, header->program_offset + at, part, sizeof *part))
        return 0;
    if (part->type != ELF_PT_LOAD)
        part->file_size = part->memory_size = 0;
    if (part->file_size == 0)
        part->offset = 0;
    return tdf_inside(file->size, part->offset, part->file_size);
}

status_t elf_extent(const struct span *section, struct span *out) {
    struct elf64_header header;
    struct elf64_program_header part;
    status_t status = read_header(section, &header);
    if (status != TDF_OK)
        return status;
    uint64_t end = sizeof header;
    for (uint32_t i = 0; i < header.program_count; i++)
        PROVE_LOOP((i, part, end),
                   i <= header.program_count && end <= section->size &&
                       (i == 0 || header.program_offset <= section->size),
                   header.program_count - i) {
        if (!read_segment(section, &header, i, &part))
            return TDF_E_KERNEL_TRUNCATED;
        const uint64_t entry_end = header.program_offset + (i + 1ull) * sizeof part;
        const uint64_t part_end = part.offset + part.file_size;
        end = entry_end > end ? entry_end : end;
        end = part_end > end ? part_end : end;
    }
    /* Nobody loads the table of sections, but linkers write it last: so far goes the file. */
    const uint64_t sections = (uint64_t)header.section_count * header.section_size;
    if (sections != 0) {
        if (!tdf_inside(section->size, header.section_offset, sections))
            return TDF_E_KERNEL_TRUNCATED;
        end = header.section_offset + sections > end ? header.section_offset + sections : end;
    }
    TDF_BARRIER();
    out->data = section->data;
    out->size = end;
    return TDF_OK;
}

/* Adds a segment at the end of the window, which begins with the first one. */
static status_t add_segment(const struct elf64_program_header *part, const struct span *file,
                            struct placement *out) {
    struct copy *copies = out->copies.items;
    const uint64_t count = out->copies.count;
    /* One place is the initrd's. In the order of their addresses, none overlaps another. */
    if (part->file_size > part->memory_size || !tdf_aligned(part->physical, TDF_PAGE) ||
        part->physical > TDF_4G || part->memory_size > TDF_4G - part->physical ||
        part->physical < out->window_end || count + 1 >= MAX_COPIES)
        return TDF_E_KERNEL_SEGMENTS;
    if (count == 0)
        out->window_start = part->physical;
    else
        copies[count - 1].zeros += part->physical - out->window_end;
    out->window_end = tdf_align_up(part->physical + part->memory_size, TDF_PAGE);
    copies[count].to = part->physical;
    copies[count].from = tdf_gpa(file->data) + part->offset;
    copies[count].size = part->file_size;
    copies[count].zeros = out->window_end - part->physical - part->file_size;
    out->copies.count++;
    return TDF_OK;
}

status_t place_elf(const struct span *file, const struct span *initrd, const struct ram *ram, struct placement *out) {
    struct elf64_header header;
    struct elf64_program_header part;
    int entered = 0;
    memset(out, 0, sizeof *out);
    status_t status = read_header(file, &header);
    for (uint32_t i = 0; i < header.program_count && status == TDF_OK; i++)
        PROVE_LOOP((i, part, entered, status, *out), i <= header.program_count && out->copies.count < MAX_COPIES,
                   header.program_count - i) {
        if (!read_segment(file, &header, i, &part))
            return TDF_E_KERNEL_TRUNCATED;
        /* An entry below the segment is far beyond it by this difference. */
        entered |= tdf_inside(part.file_size, header.entry - part.physical, PLAN_ENTRY_SIZE);
        if (part.memory_size != 0 || part.file_size != 0)
            status = add_segment(&part, file, out);
    }
    if (status != TDF_OK)
        return status;
    if (!entered)
        return TDF_E_KERNEL_ENTRY_OUTSIDE;
    if (!plan_is_free(ram, out->window_start, out->window_end, 0))
        return TDF_E_WINDOW_NO_ROOM;
    plan_vmlinux(file, header.entry, out);
    return plan_initrd(initrd, ram, out);
}
