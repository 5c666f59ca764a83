/* What do the makers of ACPI tables share? An area that fills up, and what every table needs. */
#ifndef TDF_ACPI_BUILD_H
#define TDF_ACPI_BUILD_H

#include "formats.h"
#include "primitives.h"

#define ACPI_ALIGNMENT 16u
#define ACPI_MAX_TABLES (3u + sizeof((struct vmm *)0)->tables.items / sizeof(struct span)) /* FADT, MADT, CCEL, VMM's */

/* The area, what is used of it, and the tables the XSDT will point to. */
struct acpi_builder {
    struct span area;
    uint64_t used;
    uint32_t count;
    uint64_t tables[ACPI_MAX_TABLES];
};

/* Cleared bytes out of the area; 0 if they do not fit. */
uint8_t *acpi_reserve(struct acpi_builder *builder, uint64_t size);
/* The byte that makes a sum of zero. */
uint8_t acpi_negated_sum(const uint8_t *data, uint64_t size);
/* Fills in everything of a header but length and checksum, which acpi_seal does. */
void acpi_name(uint8_t *table, const char *signature, uint8_t revision);
void acpi_seal(uint8_t *table, uint64_t size);

int acpi_is(const struct span *table, const char *signature);
/* A table of the VMM over its true length. Fails: acpi_malformed. */
status_t acpi_check(const struct span *hob, struct span *out);
/* The only table of the VMM with this signature; size 0 if it gave none. Fails: acpi_malformed. */
status_t acpi_find(const struct vmm *vmm, const char *signature, struct span *out);

/* Makes the MADT, the last reserved part of the area while it grows. */
status_t acpi_add_madt(struct acpi_builder *builder, const struct vmm *vmm, const struct vp_info *td,
                       const struct span *mailbox);

#endif
