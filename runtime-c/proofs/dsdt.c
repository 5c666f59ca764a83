/* Does a DSDT of ours stay in its table? */
#include "../src/dsdt.c"
#include "tables.h"

void prove_dsdt(void) {
    struct acpi_builder builder;
    struct vmm vmm;
    uint16_t serial;
    uint8_t irq, off;
    builder.area = any_span(BOUND);
    if (acpi_devices(&vmm, serial, irq, off) == TDF_OK)
        acpi_add_dsdt(&builder, &vmm);
}
