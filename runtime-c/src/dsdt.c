/* Which devices does a DSDT of ours name? A serial port and soft off, as the flow has them. */
#include "acpi_build.h"

#define HEAD_SIZE sizeof(struct acpi_header)
#define IRQ_COUNT 16u
#define SLEEP_TYPES 8u

/* runtime-c/acpi/devices.asl behind its header, as iasl compiles it, in two parts; a test compares. */
static const uint8_t soft_off[] = {
    0x08, 0x5F, 0x53, 0x35, 0x5F, 0x12, 0x07, 0x04, 0x0A, 0x05, 0x00, 0x00, 0x00,
};
#define OFF_TYPE_AT 9u
static const uint8_t serial_port[] = {
    0x5B, 0x82, 0x30, 0x2E, 0x5F, 0x53, 0x42, 0x5F, 0x43, 0x4F, 0x4D, 0x31, 0x08, 0x5F, 0x48, 0x49, 0x44,
    0x0C, 0x41, 0xD0, 0x05, 0x01, 0x08, 0x5F, 0x55, 0x49, 0x44, 0x01, 0x08, 0x5F, 0x43, 0x52, 0x53, 0x11,
    0x10, 0x0A, 0x0D, 0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x00, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00,
};
#define PORT_MIN_AT 39u
#define PORT_MAX_AT 41u
#define IRQ_MASK_AT 46u

status_t acpi_devices(struct vmm *vmm, uint16_t serial, uint8_t irq, uint8_t off) {
    if (irq >= IRQ_COUNT || (off >= SLEEP_TYPES && off != TDF_NO_POWER_OFF))
        return TDF_E_OUT_OF_BOUNDS;
    vmm->serial = serial;
    vmm->serial_irq = irq;
    vmm->off_type = off == TDF_NO_POWER_OFF ? 0 : off + 1u;
    return TDF_OK;
}

uint8_t *acpi_add_dsdt(struct acpi_builder *builder, const struct vmm *vmm) {
    const uint64_t off_size = vmm->off_type ? sizeof soft_off : 0;
    const uint64_t size = HEAD_SIZE + off_size + (vmm->serial ? sizeof serial_port : 0);
    uint8_t *dsdt = acpi_reserve(builder, size);
    if (!dsdt)
        return 0;
    acpi_name(dsdt, "DSDT", ACPI_DSDT_REVISION);
    if (vmm->off_type) {
        memcpy(dsdt + HEAD_SIZE, soft_off, sizeof soft_off);
        dsdt[HEAD_SIZE + OFF_TYPE_AT] = (uint8_t)(vmm->off_type - 1);
    }
    if (vmm->serial) {
        uint8_t *device = dsdt + HEAD_SIZE + off_size;
        const uint16_t port = (uint16_t)vmm->serial, mask = (uint16_t)(1u << vmm->serial_irq);
        memcpy(device, serial_port, sizeof serial_port);
        memcpy(device + PORT_MIN_AT, &port, sizeof port);
        memcpy(device + PORT_MAX_AT, &port, sizeof port);
        memcpy(device + IRQ_MASK_AT, &mask, sizeof mask);
    }
    acpi_seal(dsdt, size);
    return dsdt;
}
