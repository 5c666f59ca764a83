/* Do the answers of fw_cfg stay in the store? */
#include "../src/fw_cfg_tables.c"
#include "model.h"

/* Proved in fw_cfg.c and fw_cfg_files.c. */
uint64_t fw_cfg_ask(struct span *window, uint32_t key, uint64_t size, struct fetch_request *out) {
    const uint64_t room = window->size - FW_CFG_DATA_OFFSET;
    const uint64_t chunk = size < room ? size : room;
    writes(window->data, window->size);
    writes(out, sizeof *out);
    return chunk;
}

status_t fw_cfg_find(const struct span *directory, const char *name, uint64_t name_size, struct fw_cfg_item *out) {
    status_t status;
    reads(directory->data, directory->size);
    reads(name, name_size);
    writes(out, sizeof *out);
    return status;
}

/* What fw_cfg_ask gave lies in the window. */
static int is_sound(const struct table_fetch *fetch, const struct span *window) {
    return window->size < FW_CFG_DATA_OFFSET || fetch->chunk <= window->size - FW_CFG_DATA_OFFSET;
}

void prove_fw_cfg_tables(void) {
    struct span window = any_span(BOUND), store = any_span(BOUND);
    struct table_fetch fetch;
    struct fetch_request out;
    __CPROVER_assume(is_sound(&fetch, &window));
    tables_next(&fetch, &window, &store, &out);
    __CPROVER_assert(is_sound(&fetch, &window), "the same holds for the next call");
}
