/* Generated from gen/formats; do not edit. Binary structures a TD firmware reads and writes. */
#ifndef TDFORGE_FORMATS_H
#define TDFORGE_FORMATS_H

#include <stddef.h>
#include <stdint.h>

/* TDVF Design Guide table "section types"; 5 to 8 td-shim specification. */
#define TDVF_TYPE_BFV 0u
#define TDVF_TYPE_CFV 1u
#define TDVF_TYPE_TD_HOB 2u
#define TDVF_TYPE_TEMP_MEM 3u
#define TDVF_TYPE_PERM_MEM 4u
#define TDVF_TYPE_PAYLOAD 5u
#define TDVF_TYPE_PAYLOAD_PARAM 6u
#define TDVF_TYPE_TD_INFO 7u
#define TDVF_TYPE_TD_PARAMS 8u

/* TDVF Design Guide, section attributes. */
#define TDVF_ATTR_MR_EXTEND 1u
#define TDVF_ATTR_PAGE_AUG 2u

/* PI 1.7 volume 3, 5.1; the types a TD HOB may hold. */
#define HOB_TYPE_PHIT 1u
#define HOB_TYPE_RESOURCE 3u
#define HOB_TYPE_GUID_EXT 4u
#define HOB_TYPE_END 0xFFFFu

/* PI 1.7 volume 3, 5.5 and, for UNACCEPTED, PI 1.8. */
#define HOB_RESOURCE_SYSTEM_MEMORY 0u
#define HOB_RESOURCE_MMIO 1u
#define HOB_RESOURCE_IO 2u
#define HOB_RESOURCE_MEMORY_RESERVED 5u
#define HOB_RESOURCE_UNACCEPTED 7u

/* PI 1.7 volume 3, 5.5, resource attributes. */
#define HOB_RESOURCE_ATTR_PRESENT 1u
#define HOB_RESOURCE_ATTR_INITIALIZED 2u
#define HOB_RESOURCE_ATTR_TESTED 4u
#define HOB_RESOURCE_ATTR_UNCACHEABLE 0x400u

/* Payload image types as VMMs write them (the td-shim specification numbers 2 and 3 differently). */
#define HOB_PAYLOAD_EXECUTABLE 0u
#define HOB_PAYLOAD_BZIMAGE 1u
#define HOB_PAYLOAD_RAW_VMLINUX 2u

/* PFP table 27. */
#define EV_PREBOOT_CERT 0u
#define EV_POST_CODE 1u
#define EV_NO_ACTION 3u
#define EV_SEPARATOR 4u
#define EV_ACTION 5u
#define EV_EVENT_TAG 6u
#define EV_S_CRTM_CONTENTS 7u
#define EV_S_CRTM_VERSION 8u
#define EV_CPU_MICROCODE 9u
#define EV_PLATFORM_CONFIG_FLAGS 0xAu
#define EV_TABLE_OF_DEVICES 0xBu
#define EV_COMPACT_HASH 0xCu
#define EV_IPL 0xDu
#define EV_POST_CODE2 0x13u
#define EV_EFI_VARIABLE_DRIVER_CONFIG 0x80000001u
#define EV_EFI_VARIABLE_BOOT 0x80000002u
#define EV_EFI_BOOT_SERVICES_APPLICATION 0x80000003u
#define EV_EFI_BOOT_SERVICES_DRIVER 0x80000004u
#define EV_EFI_GPT_EVENT 0x80000006u
#define EV_EFI_ACTION 0x80000007u
#define EV_EFI_PLATFORM_FIRMWARE_BLOB 0x80000008u
#define EV_EFI_HANDOFF_TABLES 0x80000009u
#define EV_EFI_PLATFORM_FIRMWARE_BLOB2 0x8000000Au
#define EV_EFI_HANDOFF_TABLES2 0x8000000Bu
#define EV_EFI_VARIABLE_AUTHORITY 0x800000E0u

/* PFP 10.4.1, value of a separator. */
#define EV_SEPARATOR_VALUE_OK 0u
#define EV_SEPARATOR_VALUE_ERROR 1u

/* Interrupt controller structure types, table 5.21. */
#define ACPI_MADT_LAPIC 0u
#define ACPI_MADT_IOAPIC 1u
#define ACPI_MADT_ISO 2u
#define ACPI_MADT_LAPIC_NMI 4u
#define ACPI_MADT_X2APIC 9u
#define ACPI_MADT_X2APIC_NMI 0xAu
#define ACPI_MADT_MP_WAKEUP 0x10u

/* Table 5.23. */
#define ACPI_LAPIC_ENABLED 1u
#define ACPI_LAPIC_ONLINE_CAPABLE 2u

/* Table 5.20. */
#define ACPI_MADT_FLAG_PCAT_COMPAT 1u

/* Table 5.10, fixed feature flags. */
#define ACPI_FADT_FLAG_WBINVD 1u
#define ACPI_FADT_FLAG_SLP_BUTTON 0x20u
#define ACPI_FADT_FLAG_RESET_REG_SUP 0x400u
#define ACPI_FADT_FLAG_HW_REDUCED 0x100000u

/* Table 5.11, IA-PC boot architecture flags. */
#define ACPI_BOOT_ARCH_LEGACY_DEVICES 1u
#define ACPI_BOOT_ARCH_I8042 2u
#define ACPI_BOOT_ARCH_NO_VGA 4u
#define ACPI_BOOT_ARCH_NO_MSI 8u
#define ACPI_BOOT_ARCH_NO_CMOS_RTC 0x20u

/* Table 5.80, confidential computing type. */
#define ACPI_CC_SEV 1u
#define ACPI_CC_TDX 2u

/* Table 5.44, multiprocessor wakeup mailbox. */
#define ACPI_MAILBOX_NOOP 0u
#define ACPI_MAILBOX_WAKEUP 1u
#define ACPI_MAILBOX_TEST 2u

/* boot.rst, loadflags. */
#define LINUX_LOADFLAG_LOADED_HIGH 1u
#define LINUX_LOADFLAG_KASLR 2u
#define LINUX_LOADFLAG_QUIET 0x20u
#define LINUX_LOADFLAG_CAN_USE_HEAP 0x80u

/* boot.rst, xloadflags. */
#define LINUX_XLF_KERNEL_64 1u
#define LINUX_XLF_CAN_BE_LOADED_ABOVE_4G 2u
#define LINUX_XLF_EFI_HANDOVER_32 4u
#define LINUX_XLF_EFI_HANDOVER_64 8u
#define LINUX_XLF_EFI_KEXEC 0x10u
#define LINUX_XLF_FIVE_LEVEL 0x20u
#define LINUX_XLF_FIVE_LEVEL_ENABLED 0x40u
#define LINUX_XLF_MEM_ENCRYPTION 0x80u

/* arch/x86/include/asm/e820/types.h; ACPI specification table 15.6 for 1 to 5. */
#define E820_RAM 1u
#define E820_RESERVED 2u
#define E820_ACPI 3u
#define E820_NVS 4u
#define E820_UNUSABLE 5u

/* arch/x86/include/uapi/asm/setup_data.h. */
#define LINUX_SETUP_DATA_NONE 0u
#define LINUX_SETUP_DATA_E820_EXT 1u
#define LINUX_SETUP_DATA_RNG_SEED 9u

#define TDVF_VERSION 1u
#define HOB_PHIT_VERSION 9u
#define HOB_ALIGNMENT 8u
#define HOB_RESOURCE_ATTR_MASK 0x7FFFFFFu
#define CC_SPEC_MINOR 0u
#define CC_SPEC_MAJOR 2u
#define CC_SPEC_ERRATA 0x69u
#define CC_UINTN_64_BIT 2u
#define CC_ALG_SHA384 0xCu
#define CC_DIGEST_SIZE 0x30u
#define CC_LOG_FILL 0xFFu
#define CC_LOG_END_SIZE 8u
#define CC_DESCRIPTOR_SIZE 0x10u
#define ACPI_RSDP_REVISION 2u
#define ACPI_RSDP_V1_SIZE 0x14u
#define ACPI_XSDT_REVISION 1u
#define ACPI_FADT_REVISION 6u
#define ACPI_FADT_MINOR_REVISION 5u
#define ACPI_MADT_REVISION 5u
#define ACPI_DSDT_REVISION 2u
#define ACPI_CCEL_REVISION 1u
#define ACPI_LAPIC_ADDRESS 0xFEE00000u
#define ACPI_TYPE0_APIC_ID_LIMIT 0xFFu
#define LINUX_SETUP_HEADER_OFFSET 0x1F1u
#define LINUX_SETUP_HEADER_END_MAX 0x290u
#define LINUX_BOOT_FLAG 0xAA55u
#define LINUX_HEADER_MAGIC 0x53726448u
#define LINUX_MIN_PROTOCOL 0x20Cu
#define LINUX_SECTOR_SIZE 0x200u
#define LINUX_DEFAULT_SETUP_SECTS 4u
#define LINUX_SYSSIZE_UNIT 0x10u
#define LINUX_ENTRY64_OFFSET 0x200u
#define LINUX_LOADER_UNDEFINED 0xFFu
#define LINUX_MIN_PREFERRED_ADDRESS 0x1000000u
#define LINUX_CMDLINE_COPY_SIZE 0x800u
#define E820_MAX_ENTRIES 0x80u
#define PAYLOAD_BUNDLE_ALIGNMENT 0x1000u

#define TDVF_SIGNATURE "TDVF"
#define CC_SPEC_ID_SIGNATURE "Spec ID Event03"
#define ACPI_RSDP_SIGNATURE "RSD PTR "
#define GUID_TDX_METADATA {0xF3, 0xF9, 0xEA, 0xE9, 0x8E, 0x16, 0xD5, 0x44, 0xA8, 0xEB, 0x7F, 0x4D, 0x87, 0x38, 0xF6, 0xAE} /* e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae */
#define GUID_HOB_ACPI_TABLE {0x70, 0x58, 0x0C, 0x6A, 0xED, 0xD4, 0xF4, 0x44, 0xA1, 0x35, 0xDD, 0x23, 0x8B, 0x6F, 0x0C, 0x8D} /* 6a0c5870-d4ed-44f4-a135-dd238b6f0c8d */
#define GUID_HOB_PAYLOAD_INFO {0x12, 0xA4, 0x6F, 0xB9, 0x1F, 0x46, 0xE3, 0x4B, 0x8C, 0x0D, 0xAD, 0x80, 0x5A, 0x49, 0x7A, 0xC0} /* b96fa412-461f-4be3-8c0d-ad805a497ac0 */
#define GUID_HOB_E820_TABLE {0xEA, 0x72, 0x80, 0x8F, 0x86, 0x34, 0x47, 0x4B, 0x86, 0xA7, 0x23, 0x53, 0xB8, 0x8A, 0x87, 0x73} /* 8f8072ea-3486-4b47-86a7-2353b88a8773 */
#define GUID_PAYLOAD_BUNDLE {0x52, 0x3C, 0x1B, 0x7D, 0xA4, 0x86, 0x0F, 0x4E, 0x9D, 0x3A, 0x5C, 0x1F, 0xE2, 0xB0, 0xA7, 0x64} /* 7d1b3c52-86a4-4e0f-9d3a-5c1fe2b0a764 */

/* TDVF descriptor; the sections follow, the metadata GUID precedes */
struct tdvf_descriptor {
    uint8_t signature[4];
    uint32_t length;
    uint32_t version;
    uint32_t section_count;
} __attribute__((packed));
_Static_assert(offsetof(struct tdvf_descriptor, signature) == 0, "tdvf_descriptor.signature");
_Static_assert(offsetof(struct tdvf_descriptor, length) == 4, "tdvf_descriptor.length");
_Static_assert(offsetof(struct tdvf_descriptor, version) == 8, "tdvf_descriptor.version");
_Static_assert(offsetof(struct tdvf_descriptor, section_count) == 12, "tdvf_descriptor.section_count");
_Static_assert(sizeof(struct tdvf_descriptor) == 16, "tdvf_descriptor");

/* TDVF section */
struct tdvf_section {
    uint32_t data_offset;
    uint32_t raw_size;
    uint64_t memory_address;
    uint64_t memory_size;
    uint32_t type;
    uint32_t attributes;
} __attribute__((packed));
_Static_assert(offsetof(struct tdvf_section, data_offset) == 0, "tdvf_section.data_offset");
_Static_assert(offsetof(struct tdvf_section, raw_size) == 4, "tdvf_section.raw_size");
_Static_assert(offsetof(struct tdvf_section, memory_address) == 8, "tdvf_section.memory_address");
_Static_assert(offsetof(struct tdvf_section, memory_size) == 16, "tdvf_section.memory_size");
_Static_assert(offsetof(struct tdvf_section, type) == 24, "tdvf_section.type");
_Static_assert(offsetof(struct tdvf_section, attributes) == 28, "tdvf_section.attributes");
_Static_assert(sizeof(struct tdvf_section) == 32, "tdvf_section");

/* What every HOB starts with, PI 1.7 volume 3, 5.1 */
struct hob_header {
    uint16_t type;
    uint16_t length;
    uint32_t reserved;
} __attribute__((packed));
_Static_assert(offsetof(struct hob_header, type) == 0, "hob_header.type");
_Static_assert(offsetof(struct hob_header, length) == 2, "hob_header.length");
_Static_assert(offsetof(struct hob_header, reserved) == 4, "hob_header.reserved");
_Static_assert(sizeof(struct hob_header) == 8, "hob_header");

/* Phase handoff information table, the first HOB, PI 1.7 volume 3, 5.2 */
struct hob_phit {
    struct hob_header header;
    uint32_t version;
    uint32_t boot_mode;
    uint64_t memory_top;
    uint64_t memory_bottom;
    uint64_t free_memory_top;
    uint64_t free_memory_bottom;
    uint64_t end_of_hob_list;
} __attribute__((packed));
_Static_assert(offsetof(struct hob_phit, header) == 0, "hob_phit.header");
_Static_assert(offsetof(struct hob_phit, version) == 8, "hob_phit.version");
_Static_assert(offsetof(struct hob_phit, boot_mode) == 12, "hob_phit.boot_mode");
_Static_assert(offsetof(struct hob_phit, memory_top) == 16, "hob_phit.memory_top");
_Static_assert(offsetof(struct hob_phit, memory_bottom) == 24, "hob_phit.memory_bottom");
_Static_assert(offsetof(struct hob_phit, free_memory_top) == 32, "hob_phit.free_memory_top");
_Static_assert(offsetof(struct hob_phit, free_memory_bottom) == 40, "hob_phit.free_memory_bottom");
_Static_assert(offsetof(struct hob_phit, end_of_hob_list) == 48, "hob_phit.end_of_hob_list");
_Static_assert(sizeof(struct hob_phit) == 56, "hob_phit");

/* Resource descriptor, PI 1.7 volume 3, 5.5 */
struct hob_resource {
    struct hob_header header;
    uint8_t owner[16];
    uint32_t resource_type;
    uint32_t attributes;
    uint64_t start;
    uint64_t length;
} __attribute__((packed));
_Static_assert(offsetof(struct hob_resource, header) == 0, "hob_resource.header");
_Static_assert(offsetof(struct hob_resource, owner) == 8, "hob_resource.owner");
_Static_assert(offsetof(struct hob_resource, resource_type) == 24, "hob_resource.resource_type");
_Static_assert(offsetof(struct hob_resource, attributes) == 28, "hob_resource.attributes");
_Static_assert(offsetof(struct hob_resource, start) == 32, "hob_resource.start");
_Static_assert(offsetof(struct hob_resource, length) == 40, "hob_resource.length");
_Static_assert(sizeof(struct hob_resource) == 48, "hob_resource");

/* Head of a GUID extension, PI 1.7 volume 3, 5.6 */
struct hob_guid_ext {
    struct hob_header header;
    uint8_t guid[16];
} __attribute__((packed));
_Static_assert(offsetof(struct hob_guid_ext, header) == 0, "hob_guid_ext.header");
_Static_assert(offsetof(struct hob_guid_ext, guid) == 8, "hob_guid_ext.guid");
_Static_assert(sizeof(struct hob_guid_ext) == 24, "hob_guid_ext");

/* Payload info of the td-shim specification, 16 bytes: Dragonball, libkrun, Cloud Hypervisor to v43 */
struct hob_payload_info {
    uint32_t image_type;
    uint32_t reserved;
    uint64_t entry_point;
} __attribute__((packed));
_Static_assert(offsetof(struct hob_payload_info, image_type) == 0, "hob_payload_info.image_type");
_Static_assert(offsetof(struct hob_payload_info, reserved) == 4, "hob_payload_info.reserved");
_Static_assert(offsetof(struct hob_payload_info, entry_point) == 8, "hob_payload_info.entry_point");
_Static_assert(sizeof(struct hob_payload_info) == 16, "hob_payload_info");

/* Payload info as Cloud Hypervisor writes it from v44 on, 12 bytes */
struct hob_payload_info_packed {
    uint32_t image_type;
    uint64_t entry_point;
} __attribute__((packed));
_Static_assert(offsetof(struct hob_payload_info_packed, image_type) == 0, "hob_payload_info_packed.image_type");
_Static_assert(offsetof(struct hob_payload_info_packed, entry_point) == 4, "hob_payload_info_packed.entry_point");
_Static_assert(sizeof(struct hob_payload_info_packed) == 12, "hob_payload_info_packed");

/* Head of the first event, TCG 1.2 form, PFP 10.2.1 */
struct cc_pcr_event {
    uint32_t index;
    uint32_t type;
    uint8_t digest[20];
    uint32_t size;
} __attribute__((packed));
_Static_assert(offsetof(struct cc_pcr_event, index) == 0, "cc_pcr_event.index");
_Static_assert(offsetof(struct cc_pcr_event, type) == 4, "cc_pcr_event.type");
_Static_assert(offsetof(struct cc_pcr_event, digest) == 8, "cc_pcr_event.digest");
_Static_assert(offsetof(struct cc_pcr_event, size) == 28, "cc_pcr_event.size");
_Static_assert(sizeof(struct cc_pcr_event) == 32, "cc_pcr_event");

/* Spec ID event with one algorithm; the vendor's bytes follow, PFP 10.2.1 */
struct cc_spec_id {
    uint8_t signature[16];
    uint32_t platform_class;
    uint8_t spec_minor;
    uint8_t spec_major;
    uint8_t spec_errata;
    uint8_t uintn_size;
    uint32_t algorithm_count;
    uint16_t algorithm_id;
    uint16_t digest_size;
    uint8_t vendor_size;
} __attribute__((packed));
_Static_assert(offsetof(struct cc_spec_id, signature) == 0, "cc_spec_id.signature");
_Static_assert(offsetof(struct cc_spec_id, platform_class) == 16, "cc_spec_id.platform_class");
_Static_assert(offsetof(struct cc_spec_id, spec_minor) == 20, "cc_spec_id.spec_minor");
_Static_assert(offsetof(struct cc_spec_id, spec_major) == 21, "cc_spec_id.spec_major");
_Static_assert(offsetof(struct cc_spec_id, spec_errata) == 22, "cc_spec_id.spec_errata");
_Static_assert(offsetof(struct cc_spec_id, uintn_size) == 23, "cc_spec_id.uintn_size");
_Static_assert(offsetof(struct cc_spec_id, algorithm_count) == 24, "cc_spec_id.algorithm_count");
_Static_assert(offsetof(struct cc_spec_id, algorithm_id) == 28, "cc_spec_id.algorithm_id");
_Static_assert(offsetof(struct cc_spec_id, digest_size) == 30, "cc_spec_id.digest_size");
_Static_assert(offsetof(struct cc_spec_id, vendor_size) == 32, "cc_spec_id.vendor_size");
_Static_assert(sizeof(struct cc_spec_id) == 33, "cc_spec_id");

/* Head of every later event with its one SHA-384 digest; the event data follows, PFP 10.2.2 */
struct cc_event_header {
    uint32_t mr_index;
    uint32_t type;
    uint32_t digest_count;
    uint16_t algorithm_id;
    uint8_t digest[48];
    uint32_t size;
} __attribute__((packed));
_Static_assert(offsetof(struct cc_event_header, mr_index) == 0, "cc_event_header.mr_index");
_Static_assert(offsetof(struct cc_event_header, type) == 4, "cc_event_header.type");
_Static_assert(offsetof(struct cc_event_header, digest_count) == 8, "cc_event_header.digest_count");
_Static_assert(offsetof(struct cc_event_header, algorithm_id) == 12, "cc_event_header.algorithm_id");
_Static_assert(offsetof(struct cc_event_header, digest) == 14, "cc_event_header.digest");
_Static_assert(offsetof(struct cc_event_header, size) == 62, "cc_event_header.size");
_Static_assert(sizeof(struct cc_event_header) == 66, "cc_event_header");

/* Head of TD_SHIM_PLATFORM_CONFIG_INFO; the information follows, td-shim specification */
struct cc_platform_config {
    uint8_t descriptor[16];
    uint32_t length;
} __attribute__((packed));
_Static_assert(offsetof(struct cc_platform_config, descriptor) == 0, "cc_platform_config.descriptor");
_Static_assert(offsetof(struct cc_platform_config, length) == 16, "cc_platform_config.length");
_Static_assert(sizeof(struct cc_platform_config) == 20, "cc_platform_config");

/* Tail of UEFI_PLATFORM_FIRMWARE_BLOB2; a counted description precedes it, PFP 10.2.5 */
struct cc_blob2_range {
    uint64_t base;
    uint64_t length;
} __attribute__((packed));
_Static_assert(offsetof(struct cc_blob2_range, base) == 0, "cc_blob2_range.base");
_Static_assert(offsetof(struct cc_blob2_range, length) == 8, "cc_blob2_range.length");
_Static_assert(sizeof(struct cc_blob2_range) == 16, "cc_blob2_range");

/* System description table header, 5.2.6 */
struct acpi_header {
    uint8_t signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    uint8_t oem_id[6];
    uint8_t oem_table_id[8];
    uint32_t oem_revision;
    uint8_t creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_header, signature) == 0, "acpi_header.signature");
_Static_assert(offsetof(struct acpi_header, length) == 4, "acpi_header.length");
_Static_assert(offsetof(struct acpi_header, revision) == 8, "acpi_header.revision");
_Static_assert(offsetof(struct acpi_header, checksum) == 9, "acpi_header.checksum");
_Static_assert(offsetof(struct acpi_header, oem_id) == 10, "acpi_header.oem_id");
_Static_assert(offsetof(struct acpi_header, oem_table_id) == 16, "acpi_header.oem_table_id");
_Static_assert(offsetof(struct acpi_header, oem_revision) == 24, "acpi_header.oem_revision");
_Static_assert(offsetof(struct acpi_header, creator_id) == 28, "acpi_header.creator_id");
_Static_assert(offsetof(struct acpi_header, creator_revision) == 32, "acpi_header.creator_revision");
_Static_assert(sizeof(struct acpi_header) == 36, "acpi_header");

/* Root system description pointer, 5.2.5.3 */
struct acpi_rsdp {
    uint8_t signature[8];
    uint8_t checksum;
    uint8_t oem_id[6];
    uint8_t revision;
    uint32_t rsdt_address;
    uint32_t length;
    uint64_t xsdt_address;
    uint8_t extended_checksum;
    uint8_t reserved[3];
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_rsdp, signature) == 0, "acpi_rsdp.signature");
_Static_assert(offsetof(struct acpi_rsdp, checksum) == 8, "acpi_rsdp.checksum");
_Static_assert(offsetof(struct acpi_rsdp, oem_id) == 9, "acpi_rsdp.oem_id");
_Static_assert(offsetof(struct acpi_rsdp, revision) == 15, "acpi_rsdp.revision");
_Static_assert(offsetof(struct acpi_rsdp, rsdt_address) == 16, "acpi_rsdp.rsdt_address");
_Static_assert(offsetof(struct acpi_rsdp, length) == 20, "acpi_rsdp.length");
_Static_assert(offsetof(struct acpi_rsdp, xsdt_address) == 24, "acpi_rsdp.xsdt_address");
_Static_assert(offsetof(struct acpi_rsdp, extended_checksum) == 32, "acpi_rsdp.extended_checksum");
_Static_assert(offsetof(struct acpi_rsdp, reserved) == 33, "acpi_rsdp.reserved");
_Static_assert(sizeof(struct acpi_rsdp) == 36, "acpi_rsdp");

/* Generic address structure, 5.2.3.2 */
struct acpi_gas {
    uint8_t space_id;
    uint8_t bit_width;
    uint8_t bit_offset;
    uint8_t access_size;
    uint64_t address;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_gas, space_id) == 0, "acpi_gas.space_id");
_Static_assert(offsetof(struct acpi_gas, bit_width) == 1, "acpi_gas.bit_width");
_Static_assert(offsetof(struct acpi_gas, bit_offset) == 2, "acpi_gas.bit_offset");
_Static_assert(offsetof(struct acpi_gas, access_size) == 3, "acpi_gas.access_size");
_Static_assert(offsetof(struct acpi_gas, address) == 4, "acpi_gas.address");
_Static_assert(sizeof(struct acpi_gas) == 12, "acpi_gas");

/* Fixed ACPI description table revision 6, 5.2.9 */
struct acpi_fadt {
    struct acpi_header header;
    uint32_t firmware_ctrl;
    uint32_t dsdt;
    uint8_t reserved_02c[1];
    uint8_t preferred_pm_profile;
    uint16_t sci_int;
    uint32_t smi_cmd;
    uint8_t reserved_034[57];
    uint16_t iapc_boot_arch;
    uint8_t reserved_06f[1];
    uint32_t flags;
    struct acpi_gas reset_reg;
    uint8_t reset_value;
    uint16_t arm_boot_arch;
    uint8_t minor_revision;
    uint64_t x_firmware_ctrl;
    uint64_t x_dsdt;
    uint8_t reserved_094[96];
    struct acpi_gas sleep_control_reg;
    struct acpi_gas sleep_status_reg;
    uint8_t hypervisor_vendor[8];
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_fadt, header) == 0, "acpi_fadt.header");
_Static_assert(offsetof(struct acpi_fadt, firmware_ctrl) == 36, "acpi_fadt.firmware_ctrl");
_Static_assert(offsetof(struct acpi_fadt, dsdt) == 40, "acpi_fadt.dsdt");
_Static_assert(offsetof(struct acpi_fadt, reserved_02c) == 44, "acpi_fadt.reserved_02c");
_Static_assert(offsetof(struct acpi_fadt, preferred_pm_profile) == 45, "acpi_fadt.preferred_pm_profile");
_Static_assert(offsetof(struct acpi_fadt, sci_int) == 46, "acpi_fadt.sci_int");
_Static_assert(offsetof(struct acpi_fadt, smi_cmd) == 48, "acpi_fadt.smi_cmd");
_Static_assert(offsetof(struct acpi_fadt, reserved_034) == 52, "acpi_fadt.reserved_034");
_Static_assert(offsetof(struct acpi_fadt, iapc_boot_arch) == 109, "acpi_fadt.iapc_boot_arch");
_Static_assert(offsetof(struct acpi_fadt, reserved_06f) == 111, "acpi_fadt.reserved_06f");
_Static_assert(offsetof(struct acpi_fadt, flags) == 112, "acpi_fadt.flags");
_Static_assert(offsetof(struct acpi_fadt, reset_reg) == 116, "acpi_fadt.reset_reg");
_Static_assert(offsetof(struct acpi_fadt, reset_value) == 128, "acpi_fadt.reset_value");
_Static_assert(offsetof(struct acpi_fadt, arm_boot_arch) == 129, "acpi_fadt.arm_boot_arch");
_Static_assert(offsetof(struct acpi_fadt, minor_revision) == 131, "acpi_fadt.minor_revision");
_Static_assert(offsetof(struct acpi_fadt, x_firmware_ctrl) == 132, "acpi_fadt.x_firmware_ctrl");
_Static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "acpi_fadt.x_dsdt");
_Static_assert(offsetof(struct acpi_fadt, reserved_094) == 148, "acpi_fadt.reserved_094");
_Static_assert(offsetof(struct acpi_fadt, sleep_control_reg) == 244, "acpi_fadt.sleep_control_reg");
_Static_assert(offsetof(struct acpi_fadt, sleep_status_reg) == 256, "acpi_fadt.sleep_status_reg");
_Static_assert(offsetof(struct acpi_fadt, hypervisor_vendor) == 268, "acpi_fadt.hypervisor_vendor");
_Static_assert(sizeof(struct acpi_fadt) == 276, "acpi_fadt");

/* Multiple APIC description table without its entries, 5.2.12 */
struct acpi_madt {
    struct acpi_header header;
    uint32_t lapic_address;
    uint32_t flags;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt, header) == 0, "acpi_madt.header");
_Static_assert(offsetof(struct acpi_madt, lapic_address) == 36, "acpi_madt.lapic_address");
_Static_assert(offsetof(struct acpi_madt, flags) == 40, "acpi_madt.flags");
_Static_assert(sizeof(struct acpi_madt) == 44, "acpi_madt");

/* What every MADT entry starts with */
struct acpi_madt_entry {
    uint8_t type;
    uint8_t length;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_entry, type) == 0, "acpi_madt_entry.type");
_Static_assert(offsetof(struct acpi_madt_entry, length) == 1, "acpi_madt_entry.length");
_Static_assert(sizeof(struct acpi_madt_entry) == 2, "acpi_madt_entry");

/* Processor local APIC, 5.2.12.2 */
struct acpi_madt_lapic {
    uint8_t type;
    uint8_t length;
    uint8_t processor_uid;
    uint8_t apic_id;
    uint32_t flags;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_lapic, type) == 0, "acpi_madt_lapic.type");
_Static_assert(offsetof(struct acpi_madt_lapic, length) == 1, "acpi_madt_lapic.length");
_Static_assert(offsetof(struct acpi_madt_lapic, processor_uid) == 2, "acpi_madt_lapic.processor_uid");
_Static_assert(offsetof(struct acpi_madt_lapic, apic_id) == 3, "acpi_madt_lapic.apic_id");
_Static_assert(offsetof(struct acpi_madt_lapic, flags) == 4, "acpi_madt_lapic.flags");
_Static_assert(sizeof(struct acpi_madt_lapic) == 8, "acpi_madt_lapic");

/* I/O APIC, 5.2.12.3 */
struct acpi_madt_ioapic {
    uint8_t type;
    uint8_t length;
    uint8_t ioapic_id;
    uint8_t reserved;
    uint32_t address;
    uint32_t gsi_base;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_ioapic, type) == 0, "acpi_madt_ioapic.type");
_Static_assert(offsetof(struct acpi_madt_ioapic, length) == 1, "acpi_madt_ioapic.length");
_Static_assert(offsetof(struct acpi_madt_ioapic, ioapic_id) == 2, "acpi_madt_ioapic.ioapic_id");
_Static_assert(offsetof(struct acpi_madt_ioapic, reserved) == 3, "acpi_madt_ioapic.reserved");
_Static_assert(offsetof(struct acpi_madt_ioapic, address) == 4, "acpi_madt_ioapic.address");
_Static_assert(offsetof(struct acpi_madt_ioapic, gsi_base) == 8, "acpi_madt_ioapic.gsi_base");
_Static_assert(sizeof(struct acpi_madt_ioapic) == 12, "acpi_madt_ioapic");

/* Interrupt source override, 5.2.12.5 */
struct acpi_madt_iso {
    uint8_t type;
    uint8_t length;
    uint8_t bus;
    uint8_t source;
    uint32_t gsi;
    uint16_t flags;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_iso, type) == 0, "acpi_madt_iso.type");
_Static_assert(offsetof(struct acpi_madt_iso, length) == 1, "acpi_madt_iso.length");
_Static_assert(offsetof(struct acpi_madt_iso, bus) == 2, "acpi_madt_iso.bus");
_Static_assert(offsetof(struct acpi_madt_iso, source) == 3, "acpi_madt_iso.source");
_Static_assert(offsetof(struct acpi_madt_iso, gsi) == 4, "acpi_madt_iso.gsi");
_Static_assert(offsetof(struct acpi_madt_iso, flags) == 8, "acpi_madt_iso.flags");
_Static_assert(sizeof(struct acpi_madt_iso) == 10, "acpi_madt_iso");

/* Local APIC NMI, 5.2.12.7 */
struct acpi_madt_lapic_nmi {
    uint8_t type;
    uint8_t length;
    uint8_t processor_uid;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_lapic_nmi, type) == 0, "acpi_madt_lapic_nmi.type");
_Static_assert(offsetof(struct acpi_madt_lapic_nmi, length) == 1, "acpi_madt_lapic_nmi.length");
_Static_assert(offsetof(struct acpi_madt_lapic_nmi, processor_uid) == 2, "acpi_madt_lapic_nmi.processor_uid");
_Static_assert(offsetof(struct acpi_madt_lapic_nmi, flags) == 3, "acpi_madt_lapic_nmi.flags");
_Static_assert(offsetof(struct acpi_madt_lapic_nmi, lint) == 5, "acpi_madt_lapic_nmi.lint");
_Static_assert(sizeof(struct acpi_madt_lapic_nmi) == 6, "acpi_madt_lapic_nmi");

/* Processor local x2APIC, 5.2.12.12 */
struct acpi_madt_x2apic {
    uint8_t type;
    uint8_t length;
    uint16_t reserved;
    uint32_t x2apic_id;
    uint32_t flags;
    uint32_t processor_uid;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_x2apic, type) == 0, "acpi_madt_x2apic.type");
_Static_assert(offsetof(struct acpi_madt_x2apic, length) == 1, "acpi_madt_x2apic.length");
_Static_assert(offsetof(struct acpi_madt_x2apic, reserved) == 2, "acpi_madt_x2apic.reserved");
_Static_assert(offsetof(struct acpi_madt_x2apic, x2apic_id) == 4, "acpi_madt_x2apic.x2apic_id");
_Static_assert(offsetof(struct acpi_madt_x2apic, flags) == 8, "acpi_madt_x2apic.flags");
_Static_assert(offsetof(struct acpi_madt_x2apic, processor_uid) == 12, "acpi_madt_x2apic.processor_uid");
_Static_assert(sizeof(struct acpi_madt_x2apic) == 16, "acpi_madt_x2apic");

/* Local x2APIC NMI, 5.2.12.13 */
struct acpi_madt_x2apic_nmi {
    uint8_t type;
    uint8_t length;
    uint16_t flags;
    uint32_t processor_uid;
    uint8_t lint;
    uint8_t reserved[3];
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, type) == 0, "acpi_madt_x2apic_nmi.type");
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, length) == 1, "acpi_madt_x2apic_nmi.length");
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, flags) == 2, "acpi_madt_x2apic_nmi.flags");
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, processor_uid) == 4, "acpi_madt_x2apic_nmi.processor_uid");
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, lint) == 8, "acpi_madt_x2apic_nmi.lint");
_Static_assert(offsetof(struct acpi_madt_x2apic_nmi, reserved) == 9, "acpi_madt_x2apic_nmi.reserved");
_Static_assert(sizeof(struct acpi_madt_x2apic_nmi) == 12, "acpi_madt_x2apic_nmi");

/* Multiprocessor wakeup, mailbox version 0, 5.2.12.19 */
struct acpi_madt_mp_wakeup {
    uint8_t type;
    uint8_t length;
    uint16_t mailbox_version;
    uint32_t reserved;
    uint64_t mailbox_address;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_mp_wakeup, type) == 0, "acpi_madt_mp_wakeup.type");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup, length) == 1, "acpi_madt_mp_wakeup.length");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup, mailbox_version) == 2, "acpi_madt_mp_wakeup.mailbox_version");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup, reserved) == 4, "acpi_madt_mp_wakeup.reserved");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup, mailbox_address) == 8, "acpi_madt_mp_wakeup.mailbox_address");
_Static_assert(sizeof(struct acpi_madt_mp_wakeup) == 16, "acpi_madt_mp_wakeup");

/* Multiprocessor wakeup, mailbox version 1, ACPI 6.6 5.2.12.19 */
struct acpi_madt_mp_wakeup_v1 {
    uint8_t type;
    uint8_t length;
    uint16_t mailbox_version;
    uint32_t reserved;
    uint64_t mailbox_address;
    uint64_t reset_vector;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, type) == 0, "acpi_madt_mp_wakeup_v1.type");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, length) == 1, "acpi_madt_mp_wakeup_v1.length");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, mailbox_version) == 2, "acpi_madt_mp_wakeup_v1.mailbox_version");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, reserved) == 4, "acpi_madt_mp_wakeup_v1.reserved");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, mailbox_address) == 8, "acpi_madt_mp_wakeup_v1.mailbox_address");
_Static_assert(offsetof(struct acpi_madt_mp_wakeup_v1, reset_vector) == 16, "acpi_madt_mp_wakeup_v1.reset_vector");
_Static_assert(sizeof(struct acpi_madt_mp_wakeup_v1) == 24, "acpi_madt_mp_wakeup_v1");

/* Multiprocessor wakeup mailbox, one 4 KiB page, table 5.44 */
struct acpi_mp_mailbox {
    uint16_t command;
    uint16_t reserved;
    uint32_t apic_id;
    uint64_t wakeup_vector;
    uint8_t os_reserved[2032];
    uint8_t firmware_reserved[2048];
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_mp_mailbox, command) == 0, "acpi_mp_mailbox.command");
_Static_assert(offsetof(struct acpi_mp_mailbox, reserved) == 2, "acpi_mp_mailbox.reserved");
_Static_assert(offsetof(struct acpi_mp_mailbox, apic_id) == 4, "acpi_mp_mailbox.apic_id");
_Static_assert(offsetof(struct acpi_mp_mailbox, wakeup_vector) == 8, "acpi_mp_mailbox.wakeup_vector");
_Static_assert(offsetof(struct acpi_mp_mailbox, os_reserved) == 16, "acpi_mp_mailbox.os_reserved");
_Static_assert(offsetof(struct acpi_mp_mailbox, firmware_reserved) == 2048, "acpi_mp_mailbox.firmware_reserved");
_Static_assert(sizeof(struct acpi_mp_mailbox) == 4096, "acpi_mp_mailbox");

/* Confidential computing event log, 5.2.34 */
struct acpi_ccel {
    struct acpi_header header;
    uint8_t cc_type;
    uint8_t cc_subtype;
    uint16_t reserved;
    uint64_t log_area_length;
    uint64_t log_area_address;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_ccel, header) == 0, "acpi_ccel.header");
_Static_assert(offsetof(struct acpi_ccel, cc_type) == 36, "acpi_ccel.cc_type");
_Static_assert(offsetof(struct acpi_ccel, cc_subtype) == 37, "acpi_ccel.cc_subtype");
_Static_assert(offsetof(struct acpi_ccel, reserved) == 38, "acpi_ccel.reserved");
_Static_assert(offsetof(struct acpi_ccel, log_area_length) == 40, "acpi_ccel.log_area_length");
_Static_assert(offsetof(struct acpi_ccel, log_area_address) == 48, "acpi_ccel.log_area_address");
_Static_assert(sizeof(struct acpi_ccel) == 56, "acpi_ccel");

/* One E820 range, bootparam.h struct boot_e820_entry */
struct e820_entry {
    uint64_t addr;
    uint64_t size;
    uint32_t type;
} __attribute__((packed));
_Static_assert(offsetof(struct e820_entry, addr) == 0, "e820_entry.addr");
_Static_assert(offsetof(struct e820_entry, size) == 8, "e820_entry.size");
_Static_assert(offsetof(struct e820_entry, type) == 16, "e820_entry.type");
_Static_assert(sizeof(struct e820_entry) == 20, "e820_entry");

/* Setup header at 0x1F1 of a kernel file and of boot_params, boot.rst */
struct setup_header {
    uint8_t setup_sects;
    uint16_t root_flags;
    uint32_t syssize;
    uint16_t ram_size;
    uint16_t vid_mode;
    uint16_t root_dev;
    uint16_t boot_flag;
    uint8_t jump;
    uint8_t jump_offset;
    uint32_t header;
    uint16_t version;
    uint32_t realmode_swtch;
    uint16_t start_sys_seg;
    uint16_t kernel_version;
    uint8_t type_of_loader;
    uint8_t loadflags;
    uint16_t setup_move_size;
    uint32_t code32_start;
    uint32_t ramdisk_image;
    uint32_t ramdisk_size;
    uint32_t bootsect_kludge;
    uint16_t heap_end_ptr;
    uint8_t ext_loader_ver;
    uint8_t ext_loader_type;
    uint32_t cmd_line_ptr;
    uint32_t initrd_addr_max;
    uint32_t kernel_alignment;
    uint8_t relocatable_kernel;
    uint8_t min_alignment;
    uint16_t xloadflags;
    uint32_t cmdline_size;
    uint32_t hardware_subarch;
    uint64_t hardware_subarch_data;
    uint32_t payload_offset;
    uint32_t payload_length;
    uint64_t setup_data;
    uint64_t pref_address;
    uint32_t init_size;
    uint32_t handover_offset;
    uint32_t kernel_info_offset;
} __attribute__((packed));
_Static_assert(offsetof(struct setup_header, setup_sects) == 0, "setup_header.setup_sects");
_Static_assert(offsetof(struct setup_header, root_flags) == 1, "setup_header.root_flags");
_Static_assert(offsetof(struct setup_header, syssize) == 3, "setup_header.syssize");
_Static_assert(offsetof(struct setup_header, ram_size) == 7, "setup_header.ram_size");
_Static_assert(offsetof(struct setup_header, vid_mode) == 9, "setup_header.vid_mode");
_Static_assert(offsetof(struct setup_header, root_dev) == 11, "setup_header.root_dev");
_Static_assert(offsetof(struct setup_header, boot_flag) == 13, "setup_header.boot_flag");
_Static_assert(offsetof(struct setup_header, jump) == 15, "setup_header.jump");
_Static_assert(offsetof(struct setup_header, jump_offset) == 16, "setup_header.jump_offset");
_Static_assert(offsetof(struct setup_header, header) == 17, "setup_header.header");
_Static_assert(offsetof(struct setup_header, version) == 21, "setup_header.version");
_Static_assert(offsetof(struct setup_header, realmode_swtch) == 23, "setup_header.realmode_swtch");
_Static_assert(offsetof(struct setup_header, start_sys_seg) == 27, "setup_header.start_sys_seg");
_Static_assert(offsetof(struct setup_header, kernel_version) == 29, "setup_header.kernel_version");
_Static_assert(offsetof(struct setup_header, type_of_loader) == 31, "setup_header.type_of_loader");
_Static_assert(offsetof(struct setup_header, loadflags) == 32, "setup_header.loadflags");
_Static_assert(offsetof(struct setup_header, setup_move_size) == 33, "setup_header.setup_move_size");
_Static_assert(offsetof(struct setup_header, code32_start) == 35, "setup_header.code32_start");
_Static_assert(offsetof(struct setup_header, ramdisk_image) == 39, "setup_header.ramdisk_image");
_Static_assert(offsetof(struct setup_header, ramdisk_size) == 43, "setup_header.ramdisk_size");
_Static_assert(offsetof(struct setup_header, bootsect_kludge) == 47, "setup_header.bootsect_kludge");
_Static_assert(offsetof(struct setup_header, heap_end_ptr) == 51, "setup_header.heap_end_ptr");
_Static_assert(offsetof(struct setup_header, ext_loader_ver) == 53, "setup_header.ext_loader_ver");
_Static_assert(offsetof(struct setup_header, ext_loader_type) == 54, "setup_header.ext_loader_type");
_Static_assert(offsetof(struct setup_header, cmd_line_ptr) == 55, "setup_header.cmd_line_ptr");
_Static_assert(offsetof(struct setup_header, initrd_addr_max) == 59, "setup_header.initrd_addr_max");
_Static_assert(offsetof(struct setup_header, kernel_alignment) == 63, "setup_header.kernel_alignment");
_Static_assert(offsetof(struct setup_header, relocatable_kernel) == 67, "setup_header.relocatable_kernel");
_Static_assert(offsetof(struct setup_header, min_alignment) == 68, "setup_header.min_alignment");
_Static_assert(offsetof(struct setup_header, xloadflags) == 69, "setup_header.xloadflags");
_Static_assert(offsetof(struct setup_header, cmdline_size) == 71, "setup_header.cmdline_size");
_Static_assert(offsetof(struct setup_header, hardware_subarch) == 75, "setup_header.hardware_subarch");
_Static_assert(offsetof(struct setup_header, hardware_subarch_data) == 79, "setup_header.hardware_subarch_data");
_Static_assert(offsetof(struct setup_header, payload_offset) == 87, "setup_header.payload_offset");
_Static_assert(offsetof(struct setup_header, payload_length) == 91, "setup_header.payload_length");
_Static_assert(offsetof(struct setup_header, setup_data) == 95, "setup_header.setup_data");
_Static_assert(offsetof(struct setup_header, pref_address) == 103, "setup_header.pref_address");
_Static_assert(offsetof(struct setup_header, init_size) == 111, "setup_header.init_size");
_Static_assert(offsetof(struct setup_header, handover_offset) == 115, "setup_header.handover_offset");
_Static_assert(offsetof(struct setup_header, kernel_info_offset) == 119, "setup_header.kernel_info_offset");
_Static_assert(sizeof(struct setup_header) == 123, "setup_header");

/* EFI hand-off inside boot_params, bootparam.h struct efi_info */
struct efi_info {
    uint8_t loader_signature[4];
    uint32_t systab;
    uint32_t memdesc_size;
    uint32_t memdesc_version;
    uint32_t memmap;
    uint32_t memmap_size;
    uint32_t systab_hi;
    uint32_t memmap_hi;
} __attribute__((packed));
_Static_assert(offsetof(struct efi_info, loader_signature) == 0, "efi_info.loader_signature");
_Static_assert(offsetof(struct efi_info, systab) == 4, "efi_info.systab");
_Static_assert(offsetof(struct efi_info, memdesc_size) == 8, "efi_info.memdesc_size");
_Static_assert(offsetof(struct efi_info, memdesc_version) == 12, "efi_info.memdesc_version");
_Static_assert(offsetof(struct efi_info, memmap) == 16, "efi_info.memmap");
_Static_assert(offsetof(struct efi_info, memmap_size) == 20, "efi_info.memmap_size");
_Static_assert(offsetof(struct efi_info, systab_hi) == 24, "efi_info.systab_hi");
_Static_assert(offsetof(struct efi_info, memmap_hi) == 28, "efi_info.memmap_hi");
_Static_assert(sizeof(struct efi_info) == 32, "efi_info");

/* The zero page, zero-page.rst */
struct boot_params {
    uint8_t screen_info[64];
    uint8_t reserved_040[48];
    uint64_t acpi_rsdp_addr;
    uint8_t reserved_078[72];
    uint32_t ext_ramdisk_image;
    uint32_t ext_ramdisk_size;
    uint32_t ext_cmd_line_ptr;
    uint8_t reserved_0cc[112];
    uint32_t cc_blob_address;
    uint8_t reserved_140[128];
    struct efi_info efi_info;
    uint8_t reserved_1e0[8];
    uint8_t e820_entries;
    uint8_t reserved_1e9[3];
    uint8_t secure_boot;
    uint8_t reserved_1ed[2];
    uint8_t sentinel;
    uint8_t reserved_1f0[1];
    struct setup_header hdr;
    uint8_t reserved_26c[100];
    struct e820_entry e820_table[128];
    uint8_t reserved_cd0[816];
} __attribute__((packed));
_Static_assert(offsetof(struct boot_params, screen_info) == 0, "boot_params.screen_info");
_Static_assert(offsetof(struct boot_params, reserved_040) == 64, "boot_params.reserved_040");
_Static_assert(offsetof(struct boot_params, acpi_rsdp_addr) == 112, "boot_params.acpi_rsdp_addr");
_Static_assert(offsetof(struct boot_params, reserved_078) == 120, "boot_params.reserved_078");
_Static_assert(offsetof(struct boot_params, ext_ramdisk_image) == 192, "boot_params.ext_ramdisk_image");
_Static_assert(offsetof(struct boot_params, ext_ramdisk_size) == 196, "boot_params.ext_ramdisk_size");
_Static_assert(offsetof(struct boot_params, ext_cmd_line_ptr) == 200, "boot_params.ext_cmd_line_ptr");
_Static_assert(offsetof(struct boot_params, reserved_0cc) == 204, "boot_params.reserved_0cc");
_Static_assert(offsetof(struct boot_params, cc_blob_address) == 316, "boot_params.cc_blob_address");
_Static_assert(offsetof(struct boot_params, reserved_140) == 320, "boot_params.reserved_140");
_Static_assert(offsetof(struct boot_params, efi_info) == 448, "boot_params.efi_info");
_Static_assert(offsetof(struct boot_params, reserved_1e0) == 480, "boot_params.reserved_1e0");
_Static_assert(offsetof(struct boot_params, e820_entries) == 488, "boot_params.e820_entries");
_Static_assert(offsetof(struct boot_params, reserved_1e9) == 489, "boot_params.reserved_1e9");
_Static_assert(offsetof(struct boot_params, secure_boot) == 492, "boot_params.secure_boot");
_Static_assert(offsetof(struct boot_params, reserved_1ed) == 493, "boot_params.reserved_1ed");
_Static_assert(offsetof(struct boot_params, sentinel) == 495, "boot_params.sentinel");
_Static_assert(offsetof(struct boot_params, reserved_1f0) == 496, "boot_params.reserved_1f0");
_Static_assert(offsetof(struct boot_params, hdr) == 497, "boot_params.hdr");
_Static_assert(offsetof(struct boot_params, reserved_26c) == 620, "boot_params.reserved_26c");
_Static_assert(offsetof(struct boot_params, e820_table) == 720, "boot_params.e820_table");
_Static_assert(offsetof(struct boot_params, reserved_cd0) == 3280, "boot_params.reserved_cd0");
_Static_assert(sizeof(struct boot_params) == 4096, "boot_params");

/* Head of a setup_data node, setup_data.h */
struct setup_data {
    uint64_t next;
    uint32_t type;
    uint32_t len;
} __attribute__((packed));
_Static_assert(offsetof(struct setup_data, next) == 0, "setup_data.next");
_Static_assert(offsetof(struct setup_data, type) == 8, "setup_data.type");
_Static_assert(offsetof(struct setup_data, len) == 12, "setup_data.len");
_Static_assert(sizeof(struct setup_data) == 16, "setup_data");

/* Header page between kernel and initrd of a payload bundle, docs/decisions/0007 */
struct payload_bundle {
    uint8_t guid[16];
    uint64_t initrd_size;
    uint8_t reserved[4072];
} __attribute__((packed));
_Static_assert(offsetof(struct payload_bundle, guid) == 0, "payload_bundle.guid");
_Static_assert(offsetof(struct payload_bundle, initrd_size) == 16, "payload_bundle.initrd_size");
_Static_assert(offsetof(struct payload_bundle, reserved) == 24, "payload_bundle.reserved");
_Static_assert(sizeof(struct payload_bundle) == 4096, "payload_bundle");

#endif
