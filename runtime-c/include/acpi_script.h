/* Where do the files of a loader script lie once it was run? */
#ifndef TDF_ACPI_SCRIPT_H
#define TDF_ACPI_SCRIPT_H

#include "acpi_build.h"

#define SCRIPT_MAX_FILES 16u  /* QEMU has two, five with vmgenid, TPM and error records */
#define SCRIPT_MAX_SIZE 0x10000u /* 512 commands; QEMU writes 17 for a bare machine */

/* The files that were allocated, in their order: the name where it was measured, and the copy in the area. */
struct script_files {
    uint32_t count;
    const uint8_t *names[SCRIPT_MAX_FILES];
    struct span copies[SCRIPT_MAX_FILES];
};

/* Copies `files` (dsl/prelude/host_acpi.tdf, fw_cfg_acpi), which begin with the script, out of the builder's area and
 * runs the script. Fails: acpi_script, acpi_no_room. */
status_t script_run(struct acpi_builder *builder, const struct span *files, struct script_files *out);

#endif
