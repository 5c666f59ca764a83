/* What does a FADT of ours say of a host that gives none? Power control as the flow has it, or none.
 *
 * Source: ACPI specification 6.5, 4.8.3.7 and 5.2.9; Linux drivers/acpi/acpica/hwesleep.c. */
#include "acpi_build.h"

status_t acpi_power(struct vmm *vmm, uint16_t control, uint16_t status, uint16_t reset, uint8_t value) {
    /* An OS uses neither sleep register without the other. */
    if (control == 0 || status == 0 || (reset == 0 && value != 0))
        return TDF_E_OUT_OF_BOUNDS;
    vmm->sleep_control = control;
    vmm->sleep_status = status;
    vmm->reset = reset;
    vmm->reset_value = value;
    vmm->reduced = 1;
    return TDF_OK;
}

struct acpi_gas acpi_port(uint32_t number, uint8_t bytes) {
    const struct acpi_gas gas = {ACPI_SPACE_IO, (uint8_t)(bytes * 8), 0, 0, number};
    return gas;
}

/* Not hardware reduced, or Linux would take IRQ 0 to 15 from virtio_mmio.device= of the command line; so there is an
 * SCI and a PM1 block, but at ports where nothing is. No power-off, no reset register. */
static void without_power(struct acpi_fadt *fadt) {
    const struct acpi_gas events = {ACPI_SPACE_IO, 32, 0, 3, ACPI_UNUSED_PM1_EVT};
    const struct acpi_gas control = {ACPI_SPACE_IO, 16, 0, 2, ACPI_UNUSED_PM1_CNT};
    fadt->sci_int = ACPI_SCI_IRQ;
    fadt->pm1a_evt_blk = ACPI_UNUSED_PM1_EVT;
    fadt->pm1_evt_len = 4;
    fadt->pm1a_cnt_blk = ACPI_UNUSED_PM1_CNT;
    fadt->pm1_cnt_len = 2;
    fadt->flags = ACPI_FADT_FLAG_WBINVD | ACPI_FADT_FLAG_PWR_BUTTON | ACPI_FADT_FLAG_SLP_BUTTON; /* no fixed buttons */
    fadt->x_pm1a_evt_blk = events;
    fadt->x_pm1a_cnt_blk = control;
}

void acpi_fill_fadt(struct acpi_fadt *fadt, const struct vmm *vmm) {
    acpi_name((uint8_t *)fadt, "FACP", ACPI_FADT_REVISION);
    fadt->minor_revision = ACPI_FADT_MINOR_REVISION;
    fadt->iapc_boot_arch = ACPI_BOOT_ARCH_NO_VGA;
    if (!vmm->reduced) {
        without_power(fadt);
        return;
    }
    fadt->flags = ACPI_FADT_FLAG_WBINVD | ACPI_FADT_FLAG_HW_REDUCED;
    fadt->sleep_control_reg = acpi_port(vmm->sleep_control, 1);
    fadt->sleep_status_reg = acpi_port(vmm->sleep_status, 1);
    if (vmm->reset != 0) {
        fadt->flags |= ACPI_FADT_FLAG_RESET_REG_SUP;
        fadt->reset_reg = acpi_port(vmm->reset, 1);
        fadt->reset_value = vmm->reset_value;
    }
}
