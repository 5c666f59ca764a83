/* Do the answers of fw_cfg stay in the room of their files? */
#include "../src/fw_cfg.c"
#include "model.h"

#define FILES_MOST (1ull << 40) /* of the plan's room */

/* Proved in fw_cfg_files.c, plan.c and linux.c. */
status_t fw_cfg_find(const struct span *directory, const char *name, uint64_t name_size, struct fw_cfg_item *out) {
    status_t status;
    reads(directory->data, directory->size);
    reads(name, name_size);
    writes(out, sizeof *out);
    return status;
}

status_t plan_take_half(struct ram *ram, struct span *out) {
    status_t status;
    *out = any_span(FILES_MOST);
    return status;
}

status_t linux_extent(const struct span *section, struct span *out) {
    status_t status;
    out->data = section->data;
    __CPROVER_assume(out->size <= section->size && out->size >= LINUX_SETUP_HEADER_OFFSET + sizeof(struct setup_header));
    return status;
}

/* Files that lie in one room, as make_room leaves them: the kernel in front of the initrd. */
static void any_files(struct linux_files *files) {
    const struct span room = any_span(FILES_MOST);
    uint64_t initrd;
    __CPROVER_assume(initrd <= room.size && files->kernel.size <= initrd && files->initrd.size <= room.size - initrd);
    files->kernel.data = room.data;
    files->initrd.data = room.data + initrd;
    files->command_line = any_span(COMMAND_LINE_ROOM);
}

/* What holds from one call to the next while there is a next one. */
static int is_sound(const struct fetch *fetch, const struct span *window, const struct linux_files *files) {
    const uint64_t *sizes = fetch->sizes.items;
    const uint64_t room = tdf_gpa(files->initrd.data) - tdf_gpa(files->kernel.data);
    return (window->size < DATA_OFFSET || fetch->chunk <= window->size - DATA_OFFSET) &&
           fetch->part <= PARTS && (fetch->part < PARTS || (fetch->step == STEP_DATA && fetch->chunk == 0)) &&
           sizes[0] <= UINT32_MAX && sizes[1] <= UINT32_MAX && sizes[2] <= UINT32_MAX && sizes[3] <= UINT32_MAX &&
           (fetch->step != STEP_DATA || sizes[PART_SETUP] <= room);
}

void prove_fetch_next(void) {
    struct span window = any_span(BOUND);
    struct fetch fetch;
    struct linux_files files;
    struct fetch_request out;
    struct ram ram;
    any_files(&files);
    __CPROVER_assume(is_sound(&fetch, &window, &files));
    if (fetch_next(&fetch, &window, &ram, &files, &out) == TDF_OK && out.action != TDF_FETCH_ACTION_DONE)
        __CPROVER_assert(is_sound(&fetch, &window, &files), "the same holds for the next call");
}

void prove_fetch_end(void) {
    struct fetch fetch;
    struct linux_files files;
    any_files(&files);
    fetch_end(&fetch, &files);
}
