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

#endif
