/* Do the readers of fw_cfg's directory and of etc/e820 keep to what they read, and the list of memory to its region? */
#include "../src/fw_cfg_files.c"
#include "model.h"

void prove_fw_cfg_files(void) {
    const struct span directory = any_span(BOUND), name = any_span(FW_CFG_NAME_SIZE);
    struct fw_cfg_item found, e820;
    fw_cfg_find(&directory, (const char *)name.data, name.size, &found);
    fw_cfg_e820(&directory, &e820);
}

void prove_ordinary_hob(void) {
    const struct span map = any_span(BOUND);
    struct span region = any_span(BOUND);
    ordinary_hob(&map, &region);
}
