/* What does QEMU's table-loader script make of the files that it allocates?
 *
 * Addresses are those of the copies, all below 4 GiB. Every number of the script is bounded by the file that it is
 * about; a command that we do not know, or one that uses a file before it was allocated, refuses the whole script.
 * WRITE_POINTER would let the host choose where its own memory is written: it is skipped.
 * Source: QEMU hw/acpi/bios-linker-loader.c. */
#include "acpi_script.h"

#define MAX_ALIGNMENT TDF_PAGE

/* The next file of the measured ones. */
static status_t next_measured(const struct span *files, uint64_t *at, const uint8_t **name, struct span *content) {
    struct loader_file head;
    if (!tdf_read(files, *at, &head, sizeof head))
        return TDF_E_ACPI_SCRIPT;
    const uint64_t start = *at + sizeof head;
    if (!tdf_inside(files->size, start, head.size) ||
        !tdf_inside(files->size, start, tdf_align_up(head.size, LOADER_FILE_ALIGNMENT)))
        return TDF_E_ACPI_SCRIPT;
    *name = files->data + *at;
    content->data = files->data + start;
    content->size = head.size;
    *at = start + tdf_align_up(head.size, LOADER_FILE_ALIGNMENT);
    return TDF_OK;
}

/* The copy of a file that was allocated; 0 if the name is none, or has no end. */
static struct span *find(struct script_files *files, const uint8_t *name) {
    if (name[0] == 0 || name[FW_CFG_NAME_SIZE - 1] != 0)
        return 0;
    for (uint32_t i = 0; i < files->count; i++)
        PROVE_LOOP((i), i <= files->count, files->count - i)
        if (memcmp(files->names[i], name, FW_CFG_NAME_SIZE) == 0)
            return &files->copies[i];
    return 0;
}

static status_t allocate(struct acpi_builder *builder, const struct span *measured, uint64_t *at,
                         const struct loader_allocate *command, struct script_files *out) {
    const uint8_t *name;
    struct span content;
    status_t status = next_measured(measured, at, &name, &content);
    if (status != TDF_OK)
        return status;
    if (command->file[0] == 0 || command->file[FW_CFG_NAME_SIZE - 1] != 0 ||
        memcmp(command->file, name, FW_CFG_NAME_SIZE) != 0 || find(out, name) || out->count == SCRIPT_MAX_FILES)
        return TDF_E_ACPI_SCRIPT;
    if (command->align == 0 || (command->align & (command->align - 1)) != 0 || command->align > MAX_ALIGNMENT ||
        (command->zone != LOADER_ZONE_HIGH && command->zone != LOADER_ZONE_FSEG) || content.size == 0)
        return TDF_E_ACPI_SCRIPT;
    const uint64_t here = tdf_gpa(builder->area.data) + builder->used;
    if (command->align > ACPI_ALIGNMENT && !tdf_aligned(here, command->align) &&
        !acpi_reserve(builder, tdf_align_up(here, command->align) - here))
        return TDF_E_ACPI_NO_ROOM;
    uint8_t *copy = acpi_reserve(builder, content.size);
    if (!copy)
        return TDF_E_ACPI_NO_ROOM;
    memcpy(copy, content.data, content.size);
    out->names[out->count] = name;
    out->copies[out->count].data = copy;
    out->copies[out->count].size = content.size;
    out->count++;
    return TDF_OK;
}

static status_t add_pointer(const struct loader_add_pointer *command, struct script_files *files) {
    const struct span *to = find(files, command->dest), *from = find(files, command->src);
    const uint64_t size = command->size;
    uint64_t value = 0;
    if (!to || !from || (size != 1 && size != 2 && size != 4 && size != 8) ||
        !tdf_inside(to->size, command->offset, size))
        return TDF_E_ACPI_SCRIPT;
    memcpy(&value, to->data + command->offset, size);
    if (value >= from->size)
        return TDF_E_ACPI_SCRIPT;
    value += tdf_gpa(from->data);
    if (size < sizeof value && value >> 8 * size != 0)
        return TDF_E_ACPI_SCRIPT;
    memcpy(to->data + command->offset, &value, size);
    return TDF_OK;
}

/* The field is no part of the sum before; QEMU has it inside of the range. */
static status_t add_checksum(const struct loader_add_checksum *command, struct script_files *files) {
    const struct span *file = find(files, command->file);
    if (!file || !tdf_inside(file->size, command->start, command->length) || command->offset < command->start ||
        command->offset - command->start >= command->length)
        return TDF_E_ACPI_SCRIPT;
    TDF_BARRIER();
    uint8_t *field = file->data + command->offset;
    *field = (uint8_t)(*field + acpi_negated_sum(file->data + command->start, command->length));
    return TDF_OK;
}

status_t script_run(struct acpi_builder *builder, const struct span *files, struct script_files *out) {
    struct span script;
    const uint8_t *name;
    uint64_t at = 0;
    status_t status = next_measured(files, &at, &name, &script);
    out->count = 0;
    if (status != TDF_OK)
        return status;
    if (memcmp(name, LOADER_FILE_NAME, sizeof LOADER_FILE_NAME) != 0 || script.size == 0 ||
        script.size > SCRIPT_MAX_SIZE || script.size % LOADER_ENTRY_SIZE != 0)
        return TDF_E_ACPI_SCRIPT;
    for (uint64_t row = 0; row < script.size && status == TDF_OK; row += LOADER_ENTRY_SIZE)
        PROVE_LOOP((row, status, at, *out, builder->used, __CPROVER_object_whole(builder->area.data)),
                   row <= script.size && row % LOADER_ENTRY_SIZE == 0 && out->count <= SCRIPT_MAX_FILES,
                   script.size - row) {
        union {
            uint32_t kind;
            struct loader_allocate allocate;
            struct loader_add_pointer pointer;
            struct loader_add_checksum checksum;
        } command;
        memcpy(&command, script.data + row, sizeof command);
        switch (command.kind) {
        case 0: /* padding, as in the rest of QEMU's last page */
        case LOADER_WRITE_POINTER:
            break;
        case LOADER_ALLOCATE:
            status = allocate(builder, files, &at, &command.allocate, out);
            break;
        case LOADER_ADD_POINTER:
            status = add_pointer(&command.pointer, out);
            break;
        case LOADER_ADD_CHECKSUM:
            status = add_checksum(&command.checksum, out);
            break;
        default:
            return TDF_E_ACPI_SCRIPT;
        }
    }
    return status == TDF_OK && at != files->size ? TDF_E_ACPI_SCRIPT : status;
}
