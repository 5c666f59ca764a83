/* Does a FADT of ours stay in its table? */
#include "../src/fadt.c"
#include "tables.h"

void prove_fadt(void) {
    struct acpi_fadt fadt;
    struct vmm vmm;
    uint16_t control, status, reset;
    uint8_t value;
    acpi_power(&vmm, control, status, reset, value);
    acpi_fill_fadt(&fadt, &vmm);
}
