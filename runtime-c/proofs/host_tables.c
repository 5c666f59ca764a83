/* Are the host's tables read only in the files that they lie in, and do ours stay in their lists? */
#include "../src/host_tables.c"
#include "tables.h"

static struct span area; /* in which the copies of the files lie */

/* Any part of the area, of `least` bytes at least. */
static struct span any_part(uint64_t least) {
    struct span part;
    uint64_t start;
    __CPROVER_assume(tdf_inside(area.size, start, part.size) && part.size >= least);
    part.data = area.data + start;
    return part;
}

/* Lists of which each item is looked at by itself, so that it can be any. */
static void any_files(struct script_files *files) {
    const struct span file = any_part(0);
    __CPROVER_assume(files->count <= SCRIPT_MAX_FILES);
    for (uint32_t i = 0; i < SCRIPT_MAX_FILES; i++)
        files->copies[i] = file;
}

static void any_seen(struct seen *seen) {
    const struct span table = any_part(HEAD_SIZE);
    __CPROVER_assume(seen->count <= MAX_SEEN);
    for (uint32_t i = 0; i < MAX_SEEN; i++)
        seen->tables[i] = table;
}

void prove_host_take(void) {
    struct seen seen;
    struct span out;
    uint64_t address, least;
    area = any_span(BOUND);
    any_seen(&seen);
    const uint32_t before = seen.count;
    if (take(&area, address, least, &seen, &out) == TDF_OK) {
        __CPROVER_assert(seen.count == before + 1 && seen.count <= MAX_SEEN, "one table more");
        __CPROVER_assert(out.size >= least, "a table is as long as asked for");
        reads(out.data, out.size);
    }
}

/* Stands for take and resolve: a table of the area, which is then one that was seen, or none. No file lies at address 0. */
status_t any_table(uint64_t address, uint64_t least, struct seen *seen, struct span *out) {
    status_t status;
    __CPROVER_assert(seen->count <= MAX_SEEN, "the count is in the list");
    if (status != TDF_OK || address == 0 || seen->count == MAX_SEEN || area.size < least)
        return TDF_E_ACPI_MALFORMED;
    *out = any_part(least);
    seen->tables[seen->count++] = *out;
    return TDF_OK;
}

status_t any_take(const struct span *file, uint64_t address, uint64_t least, struct seen *seen, struct span *out) {
    return any_table(address, least, seen, out);
}

void prove_resolve(void) {
    struct script_files files;
    struct seen seen;
    struct span out;
    uint64_t address, least;
    area = any_span(BOUND);
    any_files(&files);
    any_seen(&seen);
    resolve(&files, address, least, &seen, &out);
}

status_t any_resolve(const struct script_files *files, uint64_t address, uint64_t least, struct seen *seen,
                     struct span *out) {
    return any_table(address, least, seen, out);
}

void prove_find_root(void) {
    struct script_files files;
    struct seen seen;
    struct span root;
    uint64_t width;
    area = any_span(BOUND);
    any_files(&files);
    any_seen(&seen);
    if (find_root(&files, &seen, &root, &width) == TDF_OK)
        __CPROVER_assert(width == 4 || width == 8, "an address has four bytes or eight");
}

status_t any_root(const struct script_files *files, struct seen *seen, struct span *root, uint64_t *width) {
    writes(width, sizeof *width);
    __CPROVER_assume(*width == 4 || *width == 8);
    return any_table(1, HEAD_SIZE, seen, root);
}

void prove_check_fadt(void) {
    struct script_files files;
    struct seen seen;
    area = any_span(BOUND);
    __CPROVER_assume(area.size >= HEAD_SIZE);
    any_seen(&seen);
    const struct span table = any_part(HEAD_SIZE);
    check_fadt(&files, &seen, &table);
}

status_t any_check_fadt(const struct script_files *files, struct seen *seen, const struct span *table) {
    status_t status;
    uint32_t more;
    reads(table->data, table->size);
    __CPROVER_assume(more <= MAX_SEEN - seen->count);
    seen->count += more;
    return status;
}

void prove_take_table(void) {
    struct acpi_builder builder;
    struct script_files files;
    struct seen seen;
    struct span madt;
    uint64_t address;
    area = any_span(BOUND);
    __CPROVER_assume(area.size >= HEAD_SIZE);
    any_seen(&seen);
    __CPROVER_assume(builder.count <= ACPI_MAX_TABLES - 2);
    take_table(&builder, &files, &seen, address, &madt);
    __CPROVER_assert(builder.count <= ACPI_MAX_TABLES - 2, "room for MADT and CCEL");
}

status_t any_take_table(struct acpi_builder *builder, const struct script_files *files, struct seen *seen,
                        uint64_t address, struct span *madt) {
    status_t status;
    uint32_t count, tables;
    writes(madt, sizeof *madt);
    __CPROVER_assume(count <= ACPI_MAX_TABLES - 2 && tables <= MAX_SEEN);
    builder->count = count;
    seen->count = tables;
    return status;
}

/* Proved in acpi.c, acpi_script.c and madt.c. */
status_t acpi_begin_roots(struct acpi_builder *builder) {
    status_t status;
    builder->count = 0;
    return status;
}

status_t script_run(struct acpi_builder *builder, const struct span *files, struct script_files *out) {
    status_t status;
    uint64_t used;
    builder->used = used;
    return status;
}

status_t acpi_add_madt(struct acpi_builder *builder, const struct span *theirs, const struct cpus *cpus,
                       const struct span *mailbox) {
    status_t status;
    __CPROVER_assert(builder->count < ACPI_MAX_TABLES, "room for the MADT");
    builder->count++;
    return status;
}

status_t acpi_add_ccel(struct acpi_builder *builder, const struct log *log) {
    status_t status;
    __CPROVER_assert(builder->count < ACPI_MAX_TABLES, "room for the CCEL");
    builder->count++;
    return status;
}

uint64_t acpi_end_roots(struct acpi_builder *builder) {
    uint64_t rsdp;
    __CPROVER_assert(builder->count <= ACPI_MAX_TABLES, "the count stays in the list");
    return rsdp;
}

void prove_host_tables(void) {
    struct span files;
    struct cpus cpus;
    struct span mailbox;
    struct log log;
    uint64_t out;
    area = any_span(BOUND);
    const struct span given = area;
    host_tables(&given, &files, &cpus, &mailbox, &log, &out);
}
