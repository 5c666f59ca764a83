"""What do the ACPI tables look like that a VMM passes in and that the firmware writes?

Offsets and values: ACPI specification 6.5; the CCEL table and the multiprocessor wakeup entry version 1: 6.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import pack, spaced, unpack

RSDP_SIGNATURE = b"RSD PTR "  # 5.2.5.3
RSDP_REVISION = 2
RSDP_V1_SIZE = 20  # bytes the first checksum covers
XSDT_REVISION = 1  # 5.2.8
FADT_REVISION = 6  # 5.2.9
FADT_MINOR_REVISION = 5
MADT_REVISION = 5  # 5.2.12
MAILBOX_WITH_RESET = 1  # ACPI 6.6, 5.2.12.19: MailBoxVersion of a wakeup structure that has a ResetVector
MCFG_REVISION = 1
DSDT_REVISION = 2  # 5.2.11.1: 64-bit integers in AML
CCEL_REVISION = 1  # 5.2.34
LAPIC_ADDRESS = 0xFEE0_0000  # Intel SDM volume 3, 11.4.1
BROADCAST_ID = 0xFFFF_FFFF  # SDM volume 3, 11.12.9: the x2APIC id of all
TYPE0_APIC_ID_LIMIT = 0xFF  # 5.2.12.2: id 0xFF means invalid in a type 0 entry


class MadtType(IntEnum):
    """Interrupt controller structure types, table 5.21."""

    LAPIC = 0
    IOAPIC = 1
    ISO = 2
    LAPIC_NMI = 4
    X2APIC = 9
    X2APIC_NMI = 0xA
    MP_WAKEUP = 0x10


class LapicFlags(IntFlag):
    """Table 5.23."""

    ENABLED = 1
    ONLINE_CAPABLE = 2


class MadtFlags(IntFlag):
    """Table 5.20."""

    PCAT_COMPAT = 1


class FadtFlags(IntFlag):
    """Table 5.10, fixed feature flags."""

    WBINVD = 1 << 0
    PROC_C1 = 1 << 2
    PWR_BUTTON = 1 << 4
    SLP_BUTTON = 1 << 5
    RTC_S4 = 1 << 7
    TMR_VAL_EXT = 1 << 8
    DCK_CAP = 1 << 9
    RESET_REG_SUP = 1 << 10
    PLATFORM_CLOCK = 1 << 15
    APIC_CLUSTER_MODEL = 1 << 18
    HW_REDUCED = 1 << 20


class FadtBootArch(IntFlag):
    """Table 5.11, IA-PC boot architecture flags."""

    LEGACY_DEVICES = 1 << 0
    I8042 = 1 << 1
    NO_VGA = 1 << 2
    NO_MSI = 1 << 3
    NO_CMOS_RTC = 1 << 5


SPACE_IO = 1  # table 5.1
NO_C2, NO_C3 = 101, 1001  # 5.2.9, P_LVL2_LAT and P_LVL3_LAT: the state is not there
SCI_IRQ = 9  # where PCs have it
IO_APIC = 0xFEC0_0000  # Intel 82093AA, 2.0: the first I/O APIC of a PC
# Ports of PM1 blocks where no device is: Kata's Dragonball names them so (dbs_acpi/src/fadt.rs)
UNUSED_PM1_EVT, UNUSED_PM1_CNT = 0xB000, 0xB004
INTI_LEVEL_HIGH = 0x0D  # table 5.26: active high, level triggered


class CcType(IntEnum):
    """Table 5.80, confidential computing type."""

    SEV = 1
    TDX = 2


class MailboxCommand(IntEnum):
    """Table 5.44, multiprocessor wakeup mailbox."""

    NOOP = 0
    WAKEUP = 1
    TEST = 2


HEADER = (
    "acpi_header"
    / c.Struct(
        "signature" / Bytes(4),
        "length" / Int32ul,
        "revision" / Int8ul,
        "checksum" / Int8ul,
        "oem_id" / Bytes(6),
        "oem_table_id" / Bytes(8),
        "oem_revision" / Int32ul,
        "creator_id" / Bytes(4),
        "creator_revision" / Int32ul,
    )
) * "System description table header, 5.2.6"

RSDP = (
    "acpi_rsdp"
    / c.Struct(
        "signature" / Bytes(8),
        "checksum" / Int8ul,
        "oem_id" / Bytes(6),
        "revision" / Int8ul,
        "rsdt_address" / Int32ul,
        "length" / Int32ul,
        "xsdt_address" / Int64ul,
        "extended_checksum" / Int8ul,
        "reserved" / Bytes(3),
    )
) * "Root system description pointer, 5.2.5.3"

GAS = (
    "acpi_gas"
    / c.Struct(
        "space_id" / Int8ul,
        "bit_width" / Int8ul,
        "bit_offset" / Int8ul,
        "access_size" / Int8ul,
        "address" / Int64ul,
    )
) * "Generic address structure, 5.2.3.2"

FADT = (
    "acpi_fadt"
    / spaced(
        276,
        {
            0: "header" / HEADER,
            36: "firmware_ctrl" / Int32ul,
            40: "dsdt" / Int32ul,
            44: "int_model" / Int8ul,
            45: "preferred_pm_profile" / Int8ul,
            46: "sci_int" / Int16ul,
            48: "smi_cmd" / Int32ul,
            56: "pm1a_evt_blk" / Int32ul,
            64: "pm1a_cnt_blk" / Int32ul,
            76: "pm_tmr_blk" / Int32ul,
            80: "gpe0_blk" / Int32ul,
            88: "pm1_evt_len" / Int8ul,
            89: "pm1_cnt_len" / Int8ul,
            91: "pm_tmr_len" / Int8ul,
            92: "gpe0_blk_len" / Int8ul,
            96: "p_lvl2_lat" / Int16ul,
            98: "p_lvl3_lat" / Int16ul,
            108: "century" / Int8ul,
            109: "iapc_boot_arch" / Int16ul,
            112: "flags" / Int32ul,
            116: "reset_reg" / GAS,
            128: "reset_value" / Int8ul,
            129: "arm_boot_arch" / Int16ul,
            131: "minor_revision" / Int8ul,
            132: "x_firmware_ctrl" / Int64ul,
            140: "x_dsdt" / Int64ul,
            148: "x_pm1a_evt_blk" / GAS,
            160: "x_pm1b_evt_blk" / GAS,
            172: "x_pm1a_cnt_blk" / GAS,
            184: "x_pm1b_cnt_blk" / GAS,
            196: "x_pm2_cnt_blk" / GAS,
            208: "x_pm_tmr_blk" / GAS,
            220: "x_gpe0_blk" / GAS,
            232: "x_gpe1_blk" / GAS,
            244: "sleep_control_reg" / GAS,
            256: "sleep_status_reg" / GAS,
            268: "hypervisor_vendor" / Bytes(8),
        },
    )
) * "Fixed ACPI description table revision 6, 5.2.9"

MADT = (
    "acpi_madt" / c.Struct("header" / HEADER, "lapic_address" / Int32ul, "flags" / Int32ul)
) * "Multiple APIC description table without its entries, 5.2.12"

MADT_ENTRY = ("acpi_madt_entry" / c.Struct("type" / Int8ul, "length" / Int8ul)) * "Header of every MADT entry"

MADT_LAPIC = (
    "acpi_madt_lapic"
    / c.Struct(
        "type" / Int8ul, "length" / Int8ul, "processor_uid" / Int8ul, "apic_id" / Int8ul, "flags" / Int32ul
    )
) * "Processor local APIC, 5.2.12.2"

MADT_IOAPIC = (
    "acpi_madt_ioapic"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "ioapic_id" / Int8ul,
        "reserved" / Int8ul,
        "address" / Int32ul,
        "gsi_base" / Int32ul,
    )
) * "I/O APIC, 5.2.12.3"

MADT_ISO = (
    "acpi_madt_iso"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "bus" / Int8ul,
        "source" / Int8ul,
        "gsi" / Int32ul,
        "flags" / Int16ul,
    )
) * "Interrupt source override, 5.2.12.5"

MADT_LAPIC_NMI = (
    "acpi_madt_lapic_nmi"
    / c.Struct(
        "type" / Int8ul, "length" / Int8ul, "processor_uid" / Int8ul, "flags" / Int16ul, "lint" / Int8ul
    )
) * "Local APIC NMI, 5.2.12.7"

MADT_X2APIC = (
    "acpi_madt_x2apic"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "reserved" / Int16ul,
        "x2apic_id" / Int32ul,
        "flags" / Int32ul,
        "processor_uid" / Int32ul,
    )
) * "Processor local x2APIC, 5.2.12.12"

MADT_X2APIC_NMI = (
    "acpi_madt_x2apic_nmi"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "flags" / Int16ul,
        "processor_uid" / Int32ul,
        "lint" / Int8ul,
        "reserved" / Bytes(3),
    )
) * "Local x2APIC NMI, 5.2.12.13"

MADT_MP_WAKEUP = (
    "acpi_madt_mp_wakeup"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "mailbox_version" / Int16ul,
        "reserved" / Int32ul,
        "mailbox_address" / Int64ul,
    )
) * "Multiprocessor wakeup, mailbox version 0, 5.2.12.19"

MADT_MP_WAKEUP_V1 = (
    "acpi_madt_mp_wakeup_v1"
    / c.Struct(
        "type" / Int8ul,
        "length" / Int8ul,
        "mailbox_version" / Int16ul,
        "reserved" / Int32ul,
        "mailbox_address" / Int64ul,
        "reset_vector" / Int64ul,
    )
) * "Multiprocessor wakeup, mailbox version 1, ACPI 6.6 5.2.12.19"

MP_MAILBOX = (
    "acpi_mp_mailbox"
    / c.Struct(
        "command" / Int16ul,
        "reserved" / Int16ul,
        "apic_id" / Int32ul,
        "wakeup_vector" / Int64ul,
        "os_reserved" / Bytes(2032),
        "firmware_reserved" / Bytes(2048),
    )
) * "Multiprocessor wakeup mailbox, one 4 KiB page, table 5.44"

MP_MAILBOX_OURS = (
    "acpi_mp_mailbox_ours"
    / c.Struct(
        "parked" / Bytes(1024),  # by vCPU index: 1 if it waits here
        "reset_vector" / Int64ul,  # 0: mailbox version 0
    )
) * "What our firmware keeps in its part of the mailbox"

CCEL = (
    "acpi_ccel"
    / c.Struct(
        "header" / HEADER,
        "cc_type" / Int8ul,
        "cc_subtype" / Int8ul,
        "reserved" / Int16ul,
        "log_area_length" / Int64ul,
        "log_area_address" / Int64ul,
    )
) * "Confidential computing event log, 5.2.34"

FACS = (
    "acpi_facs" / c.Struct("signature" / Bytes(4), "length" / Int32ul, "reserved" / Bytes(56))
) * "Firmware ACPI control structure, only its header, 5.2.10"

MCFG = (
    "acpi_mcfg"
    / c.Struct(
        "header" / HEADER,
        "reserved" / Int64ul,
        "base" / Int64ul,
        "segment" / Int16ul,
        "start_bus" / Int8ul,
        "end_bus" / Int8ul,
        "reserved_end" / Int32ul,
    )
) * "Memory-mapped configuration space with one segment, PCI Firmware Specification 3.3, table 4-3"

_ENTRIES = {
    MadtType.LAPIC: MADT_LAPIC,
    MadtType.IOAPIC: MADT_IOAPIC,
    MadtType.ISO: MADT_ISO,
    MadtType.LAPIC_NMI: MADT_LAPIC_NMI,
    MadtType.X2APIC: MADT_X2APIC,
    MadtType.X2APIC_NMI: MADT_X2APIC_NMI,
    MadtType.MP_WAKEUP: MADT_MP_WAKEUP,
}


def checksum(data: bytes) -> int:
    """The byte that makes the sum of `data` (whose checksum byte is zero) a multiple of 256."""
    return -sum(data) & 0xFF


@dataclass(frozen=True)
class Maker:
    """Who made a table: fields of its header."""

    oem_id: bytes = b"TDFRG"
    oem_table_id: bytes = b"TDFORGE"
    creator_id: bytes = b"TDFG"
    creator_revision: int = 1


def table(signature: bytes, revision: int, body: bytes, maker: Maker = Maker()) -> bytes:
    """A complete table with a right length and checksum from what follows the 36-byte header."""
    raw = bytearray(
        pack(
            HEADER,
            signature=signature,
            length=HEADER.sizeof() + len(body),
            revision=revision,
            oem_id=maker.oem_id,
            oem_table_id=maker.oem_table_id,
            oem_revision=1,
            creator_id=maker.creator_id,
            creator_revision=maker.creator_revision,
        )
        + body
    )
    raw[9] = checksum(bytes(raw))
    return bytes(raw)


def xsdt(addresses: Sequence[int]) -> bytes:
    """An XSDT that points to tables at these GPAs."""
    return table(b"XSDT", XSDT_REVISION, b"".join(Int64ul.build(address) for address in addresses))


def madt(
    entries: Sequence[bytes],
    flags: MadtFlags = MadtFlags(0),  # noqa: B008 (an immutable flag)
    maker: Maker = Maker(),
    revision: int = MADT_REVISION,
) -> bytes:
    """A MADT with these entries."""
    body = Int32ul.build(LAPIC_ADDRESS) + Int32ul.build(flags) + b"".join(entries)
    return table(b"APIC", revision, body, maker)


def madt_entry(kind: MadtType, **fields: int) -> bytes:
    """One MADT entry; type and length are filled in."""
    struct = _ENTRIES[kind]
    return pack(struct, type=kind, length=struct.sizeof(), **fields)


def fadt(maker: Maker = Maker(), **fields: Any) -> bytes:
    """A FADT revision 6; DSDT address, flags and the rest as keywords."""
    blank = pack(FADT, **{"minor_revision": FADT_MINOR_REVISION, **fields})
    return table(b"FACP", FADT_REVISION, blank[HEADER.sizeof() :], maker)


def port(address: int, size: int, access: int | None = None) -> dict[str, int]:
    """Fields of a GAS for a register of `size` bytes behind an I/O port. It is accessed in its own width, 1,
    2 or 4 bytes, if `access` does not say otherwise: 0 undefined, 1 to 4 byte to quadword (5.2.3.2).
    """
    width = size.bit_length() if access is None else access
    return {"space_id": SPACE_IO, "bit_width": 8 * size, "access_size": width, "address": address}


def mcfg(maker: Maker = Maker(), **fields: int) -> bytes:
    """An MCFG with one window; its fields as keywords."""
    return table(b"MCFG", MCFG_REVISION, pack(MCFG, **fields)[HEADER.sizeof() :], maker)


def rsdp(xsdt_address: int, oem_id: bytes = b"TDFRG") -> bytes:
    """The root pointer to an XSDT, with both checksums."""
    raw = bytearray(
        pack(
            RSDP,
            signature=RSDP_SIGNATURE,
            oem_id=oem_id,
            revision=RSDP_REVISION,
            length=RSDP.sizeof(),
            xsdt_address=xsdt_address,
        )
    )
    raw[8] = checksum(bytes(raw[:RSDP_V1_SIZE]))
    raw[32] = checksum(bytes(raw))
    return bytes(raw)


def check_table(data: bytes, *, place: str = "ACPI table") -> Any:
    """The header of a complete table whose length and checksum are right; FormatError otherwise."""
    header = unpack(HEADER, data, place=place)
    if not HEADER.sizeof() <= header.length <= len(data):
        raise FieldError(f"{place} length", f"{header.length}", f"36 to {len(data)}")
    if sum(data[: header.length]) & 0xFF:
        raise FieldError(f"{place} checksum", f"{header.checksum:#04x}", "a sum of zero over all bytes")
    return header


def madt_entries(data: bytes, *, place: str = "MADT") -> Iterator[tuple[int, Any]]:
    """Type and parsed fields of each entry of a checked MADT; entries of unknown type come as bytes."""
    header = check_table(data, place=place)
    offset = MADT.sizeof()
    while offset < header.length:
        entry = unpack(MADT_ENTRY, data[: header.length], offset, place=place)
        raw = data[offset : offset + entry.length]
        if entry.length < MADT_ENTRY.sizeof() or offset + entry.length > header.length:
            raise TruncatedError(
                f"{place} entry at {offset:#x}", f"length {entry.length}", f"2 to {header.length - offset}"
            )
        struct = _ENTRIES.get(entry.type)
        if entry.type == MadtType.MP_WAKEUP and entry.length >= MADT_MP_WAKEUP_V1.sizeof():
            struct = MADT_MP_WAKEUP_V1
        yield entry.type, unpack(struct, raw, place=f"{place} entry at {offset:#x}") if struct else raw
        offset += entry.length
