/* How do the host's ACPI tables come out of fw_cfg? First its loader script, then each file that the script allocates.
 *
 * The script decides which files are fetched before it is measured: script, names, sizes and contents lie in one piece,
 * which is measured whole. Source: QEMU hw/acpi/bios-linker-loader.c; requests as in fw_cfg.c. */
#include "fw_cfg.h"

enum step { STEP_SIGNATURE, STEP_DIRECTORY, STEP_DATA };

/* Where the script lies in the store, once it is there. */
static struct span script_of(const struct span *store) {
    struct loader_file head;
    struct span script = {store->data, 0};
    if (tdf_read(store, 0, &head, sizeof head) && tdf_inside(store->size, sizeof head, head.size)) {
        script.data += sizeof head;
        script.size = head.size;
    }
    return script;
}

/* The file that is fetched next: the script, then that of each ALLOCATE from `row` on; 0 if there is none. */
static int next_file(struct table_fetch *fetch, const struct span *store, char name[FW_CFG_NAME_SIZE]) {
    if (fetch->used == 0) {
        memset(name, 0, FW_CFG_NAME_SIZE);
        memcpy(name, LOADER_FILE_NAME, sizeof LOADER_FILE_NAME);
        return 1;
    }
    const struct span script = script_of(store);
    struct loader_allocate command;
    while (tdf_read(&script, (uint64_t)fetch->row * LOADER_ENTRY_SIZE, &command, sizeof command))
        PROVE_LOOP((fetch->row, command, __CPROVER_object_whole(name)), 1, UINT32_MAX - fetch->row) {
        if (command.command == LOADER_ALLOCATE) {
            memcpy(name, command.file, FW_CFG_NAME_SIZE);
            return 1;
        }
        fetch->row++;
    }
    return 0;
}

static status_t ask(struct table_fetch *fetch, struct span *window, uint32_t key, uint64_t size,
                    struct fetch_request *out) {
    fetch->chunk = fw_cfg_ask(window, key, size, out);
    return TDF_OK;
}

/* Looks the next file up; its head and its room in the store. */
static status_t begin_file(struct table_fetch *fetch, struct span *window, struct span *store,
                           struct fetch_request *out) {
    const struct span directory = {window->data + FW_CFG_DATA_OFFSET, fetch->chunk};
    struct loader_file head;
    struct fw_cfg_item item;
    memset(&head, 0, sizeof head);
    if (!next_file(fetch, store, (char *)head.name) || head.name[FW_CFG_NAME_SIZE - 1] != 0)
        return TDF_E_FW_CFG_MALFORMED;
    status_t status = fw_cfg_find(&directory, (const char *)head.name, FW_CFG_NAME_SIZE, &item);
    if (status != TDF_OK)
        return status;
    if (item.size == 0)
        return TDF_E_FW_CFG_MALFORMED;
    head.size = item.size;
    const uint64_t room = sizeof head + tdf_align_up(head.size, LOADER_FILE_ALIGNMENT);
    if (!tdf_inside(store->size, fetch->used, room))
        return TDF_E_FW_CFG_NO_ROOM;
    memset(store->data + fetch->used, 0, room);
    memcpy(store->data + fetch->used, &head, sizeof head);
    if (fetch->used != 0)
        fetch->row++;
    fetch->at = fetch->used + sizeof head;
    fetch->used += room;
    fetch->left = head.size;
    fetch->step = STEP_DATA;
    return ask(fetch, window, item.key, fetch->left, out);
}

/* Copies the answer to its place. */
static status_t take(struct table_fetch *fetch, struct span *window, struct span *store, struct fetch_request *out) {
    char name[FW_CFG_NAME_SIZE];
    if (fetch->chunk > fetch->left || !tdf_inside(store->size, fetch->at, fetch->chunk))
        return TDF_E_FW_CFG_FAILED; /* `begin_file` rules it out */
    memcpy(store->data + fetch->at, window->data + FW_CFG_DATA_OFFSET, fetch->chunk);
    fetch->at += fetch->chunk;
    fetch->left -= fetch->chunk;
    if (fetch->left != 0)
        return ask(fetch, window, NO_KEY, fetch->left, out);
    if (!next_file(fetch, store, name)) {
        out->action = TDF_FETCH_ACTION_DONE;
        return TDF_OK;
    }
    fetch->step = STEP_DIRECTORY;
    return ask(fetch, window, FW_CFG_FILE_DIR, FW_CFG_DIRECTORY_SIZE, out);
}

status_t tables_next(struct table_fetch *fetch, struct span *window, struct span *store, struct fetch_request *out) {
    if (window->size < 2 * FW_CFG_DATA_OFFSET)
        return TDF_E_OUT_OF_BOUNDS;
    if (fetch->chunk == 0)
        return ask(fetch, window, FW_CFG_SIGNATURE, sizeof(uint32_t), out);
    if (fw_cfg_failed(window))
        return fetch->step == STEP_SIGNATURE ? TDF_E_FW_CFG_MISSING : TDF_E_FW_CFG_FAILED;
    switch (fetch->step) {
    case STEP_SIGNATURE:
        if (memcmp(window->data + FW_CFG_DATA_OFFSET, FW_CFG_TEXT, sizeof(uint32_t)) != 0)
            return TDF_E_FW_CFG_MISSING;
        fetch->step = STEP_DIRECTORY;
        return ask(fetch, window, FW_CFG_FILE_DIR, FW_CFG_DIRECTORY_SIZE, out);
    case STEP_DIRECTORY:
        return begin_file(fetch, window, store, out);
    case STEP_DATA:
        return take(fetch, window, store, out);
    default:
        return TDF_E_FW_CFG_FAILED;
    }
}
