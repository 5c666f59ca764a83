"""Which C structs and numbers do the declarations of this package stand for? Writes `formats.h`.

Every struct carries a static assert on the offset of each field and on its size, so a C compiler that
lays it out otherwise refuses the header. `python -m formats.cstructs > formats.h`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import construct as c

from formats import (
    acpi,
    bundle,
    cfv,
    efi,
    elf,
    eventlog,
    fv,
    fw_cfg,
    ghci,
    guids,
    hob,
    igvm,
    linux,
    paging,
    pe,
    ports,
    q35,
    signed,
    table_loader,
    tdvf,
    units,
)
from formats.structs import plain
from formats.tdx import leaves, status

STRUCTS = (
    tdvf.DESCRIPTOR,
    tdvf.SECTION,
    hob.HEADER,
    hob.PHIT,
    hob.RESOURCE,
    hob.GUID_EXT,
    hob.FIRMWARE_VOLUME,
    hob.CPU,
    hob.PAYLOAD_INFO,
    hob.PAYLOAD_INFO_PACKED,
    igvm.MEMORY_MAP_ENTRY,
    eventlog.PCR_EVENT,
    eventlog.SPEC_ID,
    eventlog.EVENT_HEADER,
    eventlog.PLATFORM_CONFIG,
    eventlog.BLOB2_RANGE,
    acpi.HEADER,
    acpi.RSDP,
    acpi.GAS,
    acpi.FADT,
    acpi.MADT,
    acpi.MADT_ENTRY,
    acpi.MADT_LAPIC,
    acpi.MADT_IOAPIC,
    acpi.MADT_ISO,
    acpi.MADT_LAPIC_NMI,
    acpi.MADT_X2APIC,
    acpi.MADT_X2APIC_NMI,
    acpi.MADT_MP_WAKEUP,
    acpi.MADT_MP_WAKEUP_V1,
    acpi.MP_MAILBOX,
    acpi.MP_MAILBOX_OURS,
    acpi.CCEL,
    acpi.MCFG,
    fw_cfg.DMA_ACCESS,
    fw_cfg.FILE,
    table_loader.ALLOCATE,
    table_loader.ADD_POINTER,
    table_loader.ADD_CHECKSUM,
    table_loader.FILE_HEAD,
    linux.E820_ENTRY,
    linux.SETUP_HEADER,
    linux.EFI_INFO,
    linux.BOOT_PARAMS,
    linux.SETUP_DATA,
    efi.SYSTEM_TABLE,
    efi.CONFIGURATION_TABLE,
    efi.MEMORY_DESCRIPTOR,
    efi.UNACCEPTED_TABLE,
    efi.TABLES,
    bundle.HEADER,
    elf.HEADER,
    elf.PROGRAM_HEADER,
    elf.DYNAMIC,
    elf.RELA,
    pe.DOS_HEADER,
    pe.HEADER,
    pe.OPTIONAL,
    pe.DIRECTORY,
    pe.SECTION,
    pe.BLOCK,
    ghci.QUOTE_HEADER,
    fv.VOLUME,
    fv.FILE,
    cfv.ANCHOR,
    signed.HEADER,
    signed.ECDSA_KEY,
    signed.RSA_KEY,
    tdvf.LAYOUT_ENTRY,
    tdvf.LAYOUT,
)
# What follows a structure, in any number: C's last member of that name.
FOLLOWED_BY = {tdvf.LAYOUT.name: ("entries", tdvf.LAYOUT_ENTRY)}

# Enumerations and the prefix their members have in C.
ENUMS: tuple[tuple[str, Any], ...] = (
    ("TDVF_TYPE", tdvf.SectionType),
    ("TDVF_ATTR", tdvf.SectionAttribute),
    ("HOB_TYPE", hob.HobType),
    ("HOB_RESOURCE", hob.ResourceType),
    ("HOB_RESOURCE_ATTR", hob.ResourceAttribute),
    ("HOB_PAYLOAD", hob.PayloadImage),
    ("IGVM_MEMORY", igvm.MemoryType),
    ("EV", eventlog.EventType),
    ("EV_SEPARATOR_VALUE", eventlog.Separator),
    ("ACPI_MADT", acpi.MadtType),
    ("ACPI_LAPIC", acpi.LapicFlags),
    ("ACPI_MADT_FLAG", acpi.MadtFlags),
    ("ACPI_FADT_FLAG", acpi.FadtFlags),
    ("ACPI_BOOT_ARCH", acpi.FadtBootArch),
    ("ACPI_CC", acpi.CcType),
    ("ACPI_MAILBOX", acpi.MailboxCommand),
    ("LINUX_LOADFLAG", linux.LoadFlags),
    ("LINUX_XLF", linux.XLoadFlags),
    ("E820", linux.E820Type),
    ("EFI_MEMORY", efi.MemoryType),
    ("LINUX_SETUP_DATA", linux.SetupDataType),
    ("PAGE", paging.PageBit),
    ("FW_CFG", fw_cfg.Key),
    ("FW_CFG_DMA", fw_cfg.Control),
    ("LOADER", table_loader.Command),
    ("LOADER_ZONE", table_loader.Zone),
    ("ELF_DT", elf.DynamicTag),
    ("PE_DIRECTORY", pe.Directory),
    ("PE_SECTION", pe.SectionFlag),
    ("SIGNED", signed.Algorithm),
    ("GHCI", ghci.Function),
)

STATUS_CLASS = 32  # C looks at bits 63:32 of a module's status

# Single numbers: C name and value; the source stands at the Python definition.
NUMBERS: tuple[tuple[str, int], ...] = (
    ("TDF_PAGE", units.PAGE),
    ("TDF_PAGE_2M", units.LARGE_PAGE),
    ("TDF_4G", units.FOUR_GIB),
    ("PAGE_TABLE_ENTRIES", paging.ENTRIES),
    ("FW_CFG_NAME_SIZE", fw_cfg.NAME_SIZE),
    ("LOADER_ENTRY_SIZE", table_loader.ENTRY_SIZE),
    ("LOADER_FILE_ALIGNMENT", table_loader.FILE_ALIGNMENT),
    ("PAGE_ADDRESS", paging.ADDRESS),
    ("TDVF_VERSION", tdvf.VERSION),
    ("LAYOUT_CARVED", tdvf.LAYOUT_CARVED),
    ("HOB_PHIT_VERSION", hob.PHIT_VERSION),
    ("HOB_ALIGNMENT", hob.ALIGNMENT),
    ("HOB_MAX_LENGTH", hob.MAX_LENGTH),
    ("HOB_MEMORY_BITS", hob.MEMORY_BITS),
    ("HOB_IO_BITS", hob.IO_BITS),
    ("HOB_RESOURCE_ATTR_MASK", hob.RESOURCE_ATTRIBUTES_MASK),
    ("CC_SPEC_MINOR", eventlog.SPEC_MINOR),
    ("CC_SPEC_MAJOR", eventlog.SPEC_MAJOR),
    ("CC_SPEC_ERRATA", eventlog.SPEC_ERRATA),
    ("CC_UINTN_64_BIT", eventlog.UINTN_64_BIT),
    ("CC_ALG_SHA384", eventlog.ALG_SHA384),
    ("CC_DIGEST_SIZE", eventlog.DIGEST_SIZE),
    ("CC_LOG_FILL", eventlog.LOG_FILL),
    ("CC_LOG_END_SIZE", eventlog.LOG_END_SIZE),
    ("CC_DESCRIPTOR_SIZE", eventlog.DESCRIPTOR_SIZE),
    ("ACPI_RSDP_REVISION", acpi.RSDP_REVISION),
    ("ACPI_RSDP_V1_SIZE", acpi.RSDP_V1_SIZE),
    ("ACPI_XSDT_REVISION", acpi.XSDT_REVISION),
    ("ACPI_FADT_REVISION", acpi.FADT_REVISION),
    ("ACPI_FADT_MINOR_REVISION", acpi.FADT_MINOR_REVISION),
    ("ACPI_MADT_REVISION", acpi.MADT_REVISION),
    ("ACPI_MAILBOX_WITH_RESET", acpi.MAILBOX_WITH_RESET),
    ("ACPI_DSDT_REVISION", acpi.DSDT_REVISION),
    ("ACPI_SPACE_IO", acpi.SPACE_IO),
    ("ACPI_SCI_IRQ", acpi.SCI_IRQ),
    ("ACPI_IO_APIC", acpi.IO_APIC),
    ("ACPI_UNUSED_PM1_EVT", acpi.UNUSED_PM1_EVT),
    ("ACPI_UNUSED_PM1_CNT", acpi.UNUSED_PM1_CNT),
    ("ACPI_NO_C2", acpi.NO_C2),
    ("ACPI_NO_C3", acpi.NO_C3),
    ("ACPI_INTI_LEVEL_HIGH", acpi.INTI_LEVEL_HIGH),
    ("ACPI_MCFG_REVISION", acpi.MCFG_REVISION),
    ("ACPI_CCEL_REVISION", acpi.CCEL_REVISION),
    ("ACPI_LAPIC_ADDRESS", acpi.LAPIC_ADDRESS),
    ("APIC_BROADCAST_ID", acpi.BROADCAST_ID),
    ("ACPI_TYPE0_APIC_ID_LIMIT", acpi.TYPE0_APIC_ID_LIMIT),
    *((f"Q35_{name}", value) for name, value in vars(q35).items() if name.isupper()),
    ("LINUX_SETUP_HEADER_OFFSET", linux.SETUP_HEADER_OFFSET),
    ("LINUX_SETUP_HEADER_END_MAX", linux.SETUP_HEADER_END_MAX),
    ("LINUX_BOOT_FLAG", linux.BOOT_FLAG),
    ("LINUX_HEADER_MAGIC", linux.HEADER_MAGIC),
    ("LINUX_MIN_PROTOCOL", linux.MIN_PROTOCOL),
    ("LINUX_PROTOCOL", linux.PROTOCOL),
    ("LINUX_INITRD_MAX", linux.INITRD_MAX),
    ("LINUX_SECTOR_SIZE", linux.SECTOR_SIZE),
    ("LINUX_DEFAULT_SETUP_SECTS", linux.DEFAULT_SETUP_SECTS),
    ("LINUX_SYSSIZE_UNIT", linux.SYSSIZE_UNIT),
    ("LINUX_ENTRY64_OFFSET", linux.ENTRY64_OFFSET),
    ("LINUX_LOADER_UNDEFINED", linux.LOADER_UNDEFINED),
    ("LINUX_MIN_PREFERRED_ADDRESS", linux.MIN_PREFERRED_ADDRESS),
    ("LINUX_CMDLINE_COPY_SIZE", linux.CMDLINE_COPY_SIZE),
    ("E820_MAX_ENTRIES", linux.E820_MAX_ENTRIES),
    *(
        (f"EFI_{name}", getattr(efi, name))
        for name in (
            "SYSTEM_TABLE_SIGNATURE",
            "SYSTEM_TABLE_REVISION",
            "CRC32_POLYNOMIAL",
            "MEMORY_DESCRIPTOR_VERSION",
            "MEMORY_WB",
            "UNACCEPTED_VERSION",
            "UNACCEPTED_UNIT",
            "SECURE_BOOT_DISABLED",
        )
    ),
    ("PAYLOAD_BUNDLE_ALIGNMENT", units.PAGE),
    ("ELF_MAGIC", int.from_bytes(elf.MAGIC, "little")),
    ("ELF_CLASS_64", elf.CLASS_64),
    ("ELF_DATA_LITTLE", elf.DATA_LITTLE),
    ("ELF_TYPE_EXEC", elf.TYPE_EXEC),
    ("ELF_MACHINE_X86_64", elf.MACHINE_X86_64),
    ("ELF_TYPE_DYN", elf.TYPE_DYN),
    *(
        (f"ELF_{name}", getattr(elf, name))
        for name in (
            "PT_LOAD",
            "PT_DYNAMIC",
            "PT_INTERP",
            "PT_GNU_RELRO",
            "PF_X",
            "PF_W",
            "R_NONE",
            "R_RELATIVE",
        )
    ),
    ("PE_DOS_MAGIC", int.from_bytes(pe.DOS_MAGIC, "little")),
    ("PE_SIGNATURE", int.from_bytes(pe.SIGNATURE, "little")),
    ("PE_MACHINE_AMD64", pe.MACHINE_AMD64),
    ("PE_MAGIC_PE32_PLUS", pe.MAGIC_PE32_PLUS),
    ("PE_RELOCS_STRIPPED", pe.RELOCS_STRIPPED),
    ("PE_FIXUP_ABSOLUTE", pe.FIXUP_ABSOLUTE),
    ("PE_FIXUP_DIR64", pe.FIXUP_DIR64),
    ("GHCI_MASK_STANDARD", ghci.MASK_STANDARD),
    ("GHCI_IO_WRITE", ghci.IO_WRITE),
    ("GHCI_QUOTE_VERSION", ghci.QUOTE_VERSION),
    ("GHCI_QUOTE_IN_FLIGHT", ghci.QUOTE_IN_FLIGHT),
    ("PORT_COM1", ports.COM1),
    ("TDX_VP_VMCALL", leaves.Leaf.VP_VMCALL),
    ("FV_REVISION", fv.REVISION),
    ("FV_RAW_FILE", fv.RAW_FILE),
    ("FFS_LARGE_FILE", cfv.LARGE_FILE),
    ("FFS_ALIGNMENT", cfv.FILE_ALIGNMENT),
    ("FFS_HEADER_SUM", cfv.HEADER_SUM),
    ("ANCHOR_SHA384", cfv.HASH_SHA384),
    ("TDX_REPORT_SIZE", leaves.REPORT_SIZE),
    ("TDX_OPERAND_BUSY", status.OPERAND_BUSY >> STATUS_CLASS),
    ("TDX_PAGE_ALREADY_ACCEPTED", status.PAGE_ALREADY_ACCEPTED >> STATUS_CLASS),
    ("TDX_PAGE_SIZE_MISMATCH", status.PAGE_SIZE_MISMATCH >> STATUS_CLASS),
    ("TDX_BUSY_RETRIES", status.BUSY_RETRIES),
)

GUIDS: tuple[tuple[str, UUID], ...] = (
    ("GUID_TDX_METADATA", guids.TDX_METADATA),
    ("GUID_HOB_ACPI_TABLE", guids.HOB_ACPI_TABLE),
    ("GUID_HOB_PAYLOAD_INFO", guids.HOB_PAYLOAD_INFO),
    ("GUID_HOB_E820_TABLE", guids.HOB_E820_TABLE),
    ("GUID_PAYLOAD_BUNDLE", bundle.GUID),
    ("GUID_ANCHOR_FILE", cfv.ANCHOR_FILE),
    ("GUID_KEY_HASH", cfv.KEY_HASH),
    ("GUID_SIGNED_PAYLOAD", signed.SIGNED_PAYLOAD),
    ("GUID_EFI_ACPI_20", efi.ACPI_20),
    ("GUID_EFI_UNACCEPTED_MEMORY", efi.UNACCEPTED_MEMORY),
)

TEXTS: tuple[tuple[str, bytes], ...] = (
    ("TDVF_SIGNATURE", tdvf.SIGNATURE),
    ("CC_SPEC_ID_SIGNATURE", eventlog.SPEC_ID_SIGNATURE.rstrip(b"\0")),
    ("ACPI_RSDP_SIGNATURE", acpi.RSDP_SIGNATURE),
    ("FV_SIGNATURE", fv.SIGNATURE),
    ("FW_CFG_TEXT", fw_cfg.SIGNATURE),
    ("EFI_LOADER_SIGNATURE", efi.LOADER_SIGNATURE),
    ("LOADER_FILE_NAME", table_loader.LOADER_FILE.encode()),
)

_INTEGERS = {"B": "uint8_t", "H": "uint16_t", "L": "uint32_t", "Q": "uint64_t"}


def c_header() -> str:
    """The whole text of `formats.h`."""
    names = _names()
    lines = [
        "/* Generated from formats; do not edit. Binary structures a TD firmware reads and writes. */",
        "#ifndef TDFORGE_FORMATS_H",
        "#define TDFORGE_FORMATS_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
    ]
    lines += _defines()
    for struct in STRUCTS:
        lines += ["", *_struct(struct, names)]
    return "\n".join([*lines, "", "#endif", ""])


def c_struct(struct: Any) -> str:
    """The C declaration of one structure, with its assertions."""
    return "\n".join(_struct(struct, _names()))


def _names() -> dict[int, str]:
    return {id(plain(struct)): struct.name for struct in STRUCTS}


def _defines() -> Iterator[str]:
    for prefix, numbers in ENUMS:
        yield f"/* {' '.join((numbers.__doc__ or '').split())} */"
        for member in numbers:
            yield f"#define {prefix}_{member.name} {_number(member.value)}"
        yield ""
    for name, value in NUMBERS:
        yield f"#define {name} {_number(value)}"
    yield ""
    for name, text in TEXTS:
        yield f'#define {name} "{text.decode("ascii")}"'
    for name, guid in GUIDS:
        yield f"#define {name} {{{', '.join(f'0x{byte:02X}' for byte in guid.bytes_le)}}} /* {guid} */"


def _number(value: int) -> str:
    return f"{value}u" if value < 10 else f"0x{value:X}u"


def _struct(struct: Any, names: dict[int, str]) -> Iterator[str]:
    tag = f"struct {struct.name}"
    yield f"/* {struct.docs} */"
    yield f"{tag} {{"
    for field in plain(struct).subcons:
        yield f"    {_declared(field, names)};"
    if struct.name in FOLLOWED_BY:
        member, element = FOLLOWED_BY[struct.name]
        yield f"    {_type(element, names)} {member}[];"
    yield "} __attribute__((packed));"
    offset = 0
    for field in plain(struct).subcons:
        where = f"offsetof({tag}, {field.name}) == {offset}"
        yield f'_Static_assert({where}, "{struct.name}.{field.name}");'
        offset += field.sizeof()
    yield f'_Static_assert(sizeof({tag}) == {offset}, "{struct.name}");'


def _declared(field: Any, names: dict[int, str]) -> str:
    core = plain(field)
    if isinstance(core, c.Bytes):
        return f"uint8_t {field.name}[{core.length}]"
    if isinstance(core, c.Array):
        return f"{_type(core.subcon, names)} {field.name}[{core.count}]"
    return f"{_type(field, names)} {field.name}"


def _type(field: Any, names: dict[int, str]) -> str:
    core = plain(field)
    if isinstance(core, c.FormatField):
        return _INTEGERS[core.fmtstr[1]]
    return f"struct {names[id(core)]}"


if __name__ == "__main__":
    sys.stdout.write(c_header())
