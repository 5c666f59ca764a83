"""What of EFI does an OS read that no EFI firmware started: tables that lie still, without any service?

Source: UEFI 2.10, sections 4.3 (system table), 4.6 (configuration tables), 7.2 (memory map); for the
unaccepted-memory table, Linux drivers/firmware/efi/unaccepted_memory.c and include/linux/efi.h.
"""

from __future__ import annotations

from enum import IntEnum
from uuid import UUID

import construct as c
from construct import Bytes, Int32ul, Int64ul

from formats.structs import spaced
from formats.units import LARGE_PAGE, PAGE

LOADER_SIGNATURE = b"EL64"  # Linux include/linux/efi.h EFI64_LOADER_SIGNATURE
SYSTEM_TABLE_SIGNATURE = int.from_bytes(b"IBI SYST", "little")
SYSTEM_TABLE_REVISION = 0x0002_0064  # 2.100
CRC32_POLYNOMIAL = 0xEDB8_8320  # of IEEE 802.3, lowest bit first
MEMORY_DESCRIPTOR_VERSION = 1
MEMORY_WB = 8  # write-back
UNACCEPTED_VERSION = 1
UNACCEPTED_UNIT = LARGE_PAGE
SECURE_BOOT_DISABLED = 2  # Linux include/linux/efi.h enum efi_secureboot_mode
MAX_DESCRIPTORS = 256  # as many as a RAM plan has ranges

ACPI_20 = UUID("8868e871-e4f1-11d3-bc22-0080c73c8881")
UNACCEPTED_MEMORY = UUID("d5d1de3c-105c-44f9-9ea9-bcef98120031")  # LINUX_EFI_UNACCEPTED_MEM_TABLE_GUID


class MemoryType(IntEnum):
    """UEFI 2.10, 7.2.1, EFI_MEMORY_TYPE: those that a memory map of ours has."""

    RESERVED = 0
    CONVENTIONAL = 7
    ACPI_RECLAIM = 9
    ACPI_NVS = 10
    UNACCEPTED = 15


SYSTEM_TABLE = (
    "efi_system_table"
    / spaced(
        0x78,
        {
            0x00: "signature" / Int64ul,
            0x08: "revision" / Int32ul,
            0x0C: "header_size" / Int32ul,
            0x10: "crc32" / Int32ul,
            0x18: "firmware_vendor" / Int64ul,
            0x20: "firmware_revision" / Int32ul,
            0x58: "runtime_services" / Int64ul,
            0x60: "boot_services" / Int64ul,
            0x68: "number_of_table_entries" / Int64ul,
            0x70: "configuration_table" / Int64ul,
        },
    )
) * "EFI_SYSTEM_TABLE, UEFI 4.3"

CONFIGURATION_TABLE = (
    "efi_configuration_table" / c.Struct("vendor_guid" / Bytes(16), "vendor_table" / Int64ul)
) * "EFI_CONFIGURATION_TABLE, UEFI 4.6"

MEMORY_DESCRIPTOR = (
    "efi_memory_descriptor"
    / c.Struct(
        "type" / Int32ul,
        "reserved" / Int32ul,
        "physical_start" / Int64ul,
        "virtual_start" / Int64ul,
        "number_of_pages" / Int64ul,
        "attribute" / Int64ul,
        "padding" / Int64ul,
    )
) * "EFI_MEMORY_DESCRIPTOR in the 48 bytes that firmware gives each, UEFI 7.2.3"

UNACCEPTED_TABLE = (
    "efi_unaccepted_memory"
    / c.Struct("version" / Int32ul, "unit_size" / Int32ul, "phys_base" / Int64ul, "size" / Int64ul)
) * "Head of LINUX_EFI_UNACCEPTED_MEM_TABLE; `size` bytes follow, a bit for each unit, 1 = unaccepted"

# The order is ours. The map and the bitmap begin at pages of their own, for an OS reserves whole pages of
# both. 200 bytes are read at the vendor's name, whatever its length.
TABLES = (
    "efi_tables"
    / spaced(
        PAGE + MAX_DESCRIPTORS * MEMORY_DESCRIPTOR.sizeof() + UNACCEPTED_TABLE.sizeof(),
        {
            0x000: "system" / SYSTEM_TABLE,
            0x078: "configuration" / c.Array(2, CONFIGURATION_TABLE),
            0x0A8: "vendor" / Bytes(16),
            PAGE: "map" / c.Array(MAX_DESCRIPTORS, MEMORY_DESCRIPTOR),
            PAGE + MAX_DESCRIPTORS * MEMORY_DESCRIPTOR.sizeof(): "unaccepted" / UNACCEPTED_TABLE,
        },
    )
) * "What `zero_page_lazily` writes, in front of the bitmap"
