"""Where are the registers of QEMU's q35 that a firmware programs, and what does tdforge set them to?

Source: QEMU hw/pci-host/q35.c, hw/isa/lpc_ich9.c, hw/acpi/ich9.c, include/hw/pci-host/q35.h and
include/hw/southbridge/ich9.h, after Intel's datasheets of the 3 Series chipsets and of ICH9.
"""

from __future__ import annotations

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC  # PCI local bus specification 3.0, 3.2.2.3.2
CONFIG_ENABLE = 1 << 31

MCH, MCH_ID = 0x00 << 11, 0x29C0_8086  # bus 0: device << 11 | function << 8, as CONFIG_ADDRESS takes it
LPC, LPC_ID = 0x1F << 11, 0x2918_8086
PCIEXBAR, PCIEXBAR_ENABLE = 0x60, 1  # bits 2:1 = 0: 256 buses, 256 MiB
PMBASE, PMBASE_IO = 0x40, 1
ACPI_CNTL, ACPI_ENABLE = 0x44, 0x80  # SCI on IRQ 9
SCI_IRQ = 9

ECAM, ECAM_SIZE = 0xE000_0000, 0x1000_0000  # as edk2's PcdPciExpressBaseAddress for TDX
PM_PORTS = 0x600
PM1_CNT, PM_TMR, GPE0 = PM_PORTS + 4, PM_PORTS + 8, PM_PORTS + 0x20
GPE0_SIZE = 16
RESET_PORT, RESET_VALUE = 0xCF9, 0x0F

IO_APIC = 0xFEC0_0000
MMIO32, MMIO32_SIZE = 0xC000_0000, 0x2000_0000  # for BARs, below the ECAM and above QEMU's low RAM
MMIO64_ALIGNMENT, MMIO64_SIZE = 1 << 35, 1 << 35  # 32 GiB, from 32 GiB or above RAM
