/* Does the host's table-loader script stay in its files and in the area, and does it end? */
#include "../src/acpi_script.c"
#include "tables.h"

/* The copy of an allocated file, or none: any part of the area. */
static struct span area;
static struct span any_copy;

struct span *any_find(struct script_files *files, const uint8_t *name) {
    struct span copy;
    uint64_t start;
    int found;
    reads(name, FW_CFG_NAME_SIZE);
    __CPROVER_assume(start <= area.size && copy.size <= area.size - start && copy.size != 0);
    copy.data = area.data + start;
    any_copy = copy;
    return found ? &any_copy : 0;
}

void prove_script_find(void) {
    const struct span name = any_span(FW_CFG_NAME_SIZE), other = any_span(FW_CFG_NAME_SIZE);
    struct script_files files;
    __CPROVER_assume(name.size == FW_CFG_NAME_SIZE && other.size == FW_CFG_NAME_SIZE);
    __CPROVER_assume(files.count <= SCRIPT_MAX_FILES);
    for (uint32_t i = 0; i < SCRIPT_MAX_FILES; i++)
        files.names[i] = other.data; /* any bytes, as many as a name has */
    struct span *found = find(&files, name.data);
    __CPROVER_assert(!found || (found >= files.copies && found < files.copies + files.count), "a file of the list");
}

void prove_script_allocate(void) {
    const struct span measured = any_span(BOUND);
    struct acpi_builder builder;
    struct loader_allocate command;
    struct script_files files;
    uint64_t at;
    area = builder.area = any_span(BOUND);
    __CPROVER_assume(files.count <= SCRIPT_MAX_FILES);
    const uint32_t before = files.count;
    if (allocate(&builder, &measured, &at, &command, &files) == TDF_OK) {
        __CPROVER_assert(files.count == before + 1 && files.count <= SCRIPT_MAX_FILES, "one file more");
        reads(files.names[before], FW_CFG_NAME_SIZE);
        reads(files.copies[before].data, files.copies[before].size);
    }
}

void prove_script_commands(void) {
    struct script_files files;
    struct loader_add_pointer pointer;
    struct loader_add_checksum checksum;
    area = any_span(BOUND);
    add_pointer(&pointer, &files);
    add_checksum(&checksum, &files);
}

status_t any_allocate(struct acpi_builder *builder, const struct span *measured, uint64_t *at,
                      const struct loader_allocate *command, struct script_files *out) {
    struct script_files any;
    status_t status;
    __CPROVER_assume(any.count <= SCRIPT_MAX_FILES);
    *out = any;
    writes(at, sizeof *at);
    writes(&builder->used, sizeof builder->used);
    writes(builder->area.data, builder->area.size);
    return status;
}

status_t any_add_pointer(const struct loader_add_pointer *command, struct script_files *files) {
    status_t status;
    return status;
}

status_t any_add_checksum(const struct loader_add_checksum *command, struct script_files *files) {
    status_t status;
    return status;
}

void prove_script_run(void) {
    const struct span files = any_span(BOUND);
    struct acpi_builder builder;
    struct script_files out;
    builder.area = any_span(BOUND);
    script_run(&builder, &files, &out);
}
