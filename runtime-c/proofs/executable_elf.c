/* Do the readers of an ELF program keep to its file, and do they give parts and tables that lie in it? */
#include "../src/executable_elf.c"
#include "executable_parts.h"

void prove_executable_elf_end(void) {
    const struct span section = any_span(BOUND);
    uint64_t end;
    if (executable_elf_end(&section, &end) == TDF_OK)
        __CPROVER_assert(end <= section.size, "the file lies in the section");
}

/* The bytes of an entry lie in the file. */
static int is_in_file(const struct span *file, const struct elf64_program_header *part) {
    return part->file_size == 0 || tdf_inside(file->size, part->offset, part->file_size);
}

void prove_read_entry(void) {
    const struct span file = any_span(BOUND);
    struct elf64_header header;
    struct elf64_program_header part;
    uint32_t index;
    if (read_entry(&file, &header, index, &part))
        __CPROVER_assert(is_in_file(&file, &part), "it lies in the file");
}

int any_read_entry(const struct span *file, const struct elf64_header *header, uint32_t index,
                   struct elf64_program_header *part) {
    int found;
    writes(part, sizeof *part);
    __CPROVER_assume(!found || is_in_file(file, part));
    return found;
}

void prove_add_read_only(void) {
    struct elf64_program_header relro;
    struct executable out;
    __CPROVER_assume(out.parts.count <= EXECUTABLE_MAX_PARTS);
    add_read_only(&relro, &out);
    __CPROVER_assert(out.parts.count <= EXECUTABLE_MAX_PARTS, "the count stays in the list");
}

status_t any_read_only(const struct elf64_program_header *relro, struct executable *out) {
    status_t status;
    __CPROVER_assert(out->parts.count <= EXECUTABLE_MAX_PARTS, "the count is in the list");
    return status;
}

void prove_read_dynamic(void) {
    const struct span file = any_span(BOUND);
    struct elf64_program_header part;
    struct tables tables;
    __CPROVER_assume(is_in_file(&file, &part));
    read_dynamic(&file, &part, &tables);
}

status_t any_read_dynamic(const struct span *file, const struct elf64_program_header *part, struct tables *tables) {
    status_t status;
    __CPROVER_assert(is_in_file(file, part), "it lies in the file");
    writes(tables, sizeof *tables);
    return status;
}

void prove_executable_read_elf(void) {
    struct linked linked;
    struct executable out;
    out.file = any_span(BOUND);
    out.parts.count = 0;
    const struct span file = out.file;
    if (executable_read_elf(&file, &linked, &out) == TDF_OK)
        __CPROVER_assert(out.parts.count <= EXECUTABLE_MAX_PARTS, "the count stays in the list");
}
