/* What do the readers of fw_cfg share? A file by its name. */
#ifndef TDF_FW_CFG_H
#define TDF_FW_CFG_H

#include "formats.h"
#include "primitives.h"

#define NO_KEY UINT32_MAX
#define FW_CFG_MAX_FILES 63u /* QEMU has slots for 32 */
#define FW_CFG_DIRECTORY_SIZE (sizeof(uint32_t) + FW_CFG_MAX_FILES * sizeof(struct fw_cfg_file))

/* The first file called `name` (with its NUL) in a directory, which has room for all files and may change while it is
 * read: each entry is copied before it is looked at. Size 0 if there is none. Fails: fw_cfg_malformed. */
status_t fw_cfg_find(const struct span *directory, const char *name, uint64_t name_size, struct fw_cfg_item *out);

#define FW_CFG_DATA_OFFSET TDF_PAGE /* in the window; the descriptor lies at its start */

/* A request for up to `size` bytes, from the start of the item `key` or, with NO_KEY, where the last one ended. The
 * answer has a cleared place in the window, which has at least two pages; how many bytes are asked for comes back. */
uint64_t fw_cfg_ask(struct span *window, uint32_t key, uint64_t size, struct fetch_request *out);
/* After a request: what the device says of it, which it does before the request's last instruction is over. */
static inline int fw_cfg_failed(const struct span *window) { return *(const volatile uint32_t *)window->data != 0; }

#endif
