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
    uint8_t *rsdp, *xsdt;
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
/* A DSDT of ours, with the devices that the flow gave it; 0: no room. */
uint8_t *acpi_add_dsdt(struct acpi_builder *builder, const struct vmm *vmm);
/* A register of 1 to 8 bytes at an I/O port. */
struct acpi_gas acpi_port(uint32_t number, uint8_t bytes);
/* A FADT of ours, but for the DSDT's address. */
void acpi_fill_fadt(struct acpi_fadt *fadt, const struct vmm *vmm);
/* The log's table, and the two roots, whose room was reserved first. */
status_t acpi_add_ccel(struct acpi_builder *builder, const struct log *log);
status_t acpi_begin_roots(struct acpi_builder *builder);
uint64_t acpi_end_roots(struct acpi_builder *builder);

/* The only table of the VMM with this signature; size 0 if it gave none. Fails: acpi_malformed. */
status_t acpi_find(const struct vmm *vmm, const char *signature, struct span *out);

/* A MADT is the last reserved part of the area while it grows: begun (0: no room), filled, ended. */
uint8_t *acpi_madt_begin(struct acpi_builder *builder, uint64_t *size);
status_t acpi_madt_cpus(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct cpus *cpus);
status_t acpi_madt_entry(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const void *entry);
status_t acpi_madt_wakeup(struct acpi_builder *builder, uint8_t *madt, uint64_t *size, const struct span *mailbox);
void acpi_madt_end(struct acpi_builder *builder, uint8_t *madt, uint64_t size);
/* All of it, around the entries of the VMM's MADT if it gave one; without a mailbox if the CPUs do not wait there. */
status_t acpi_add_madt(struct acpi_builder *builder, const struct span *theirs, const struct cpus *cpus,
                       const struct span *mailbox);

#endif
