"""What does the hand-off block list look like that a VMM gives a TD, and how is one written or read?

Source: UEFI Platform Initialization specification 1.7, volume 3 "HOB"; td-shim specification, "TD HOB".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from uuid import UUID

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats import guids
from formats.errors import FieldError, TruncatedError
from formats.structs import pack, unpack

PHIT_VERSION = 9  # PI 1.7 volume 3, 5.2: EFI_HOB_HANDOFF_TABLE_VERSION
ALIGNMENT = 8  # PI 1.7 volume 3, 4.5.2: every HOB starts 8-byte aligned
MAX_LENGTH = 0xFFF8  # the length field has 16 bits and HOBs end 8-byte aligned


class HobType(IntEnum):
    """PI 1.7 volume 3, 5.1; the types a TD HOB may hold, and the two more of a payload HOB list."""

    PHIT = 1
    RESOURCE = 3
    GUID_EXT = 4
    FIRMWARE_VOLUME = 5
    CPU = 6
    END = 0xFFFF


class ResourceType(IntEnum):
    """PI 1.7 volume 3, 5.5 and, for UNACCEPTED, PI 1.8."""

    SYSTEM_MEMORY = 0
    MMIO = 1
    IO = 2
    MEMORY_RESERVED = 5
    UNACCEPTED = 7


class ResourceAttribute(IntFlag):
    """PI 1.7 volume 3, 5.5, resource attributes."""

    PRESENT = 1
    INITIALIZED = 2
    TESTED = 4
    UNCACHEABLE = 0x400


MEMORY_ATTRIBUTES = ResourceAttribute.PRESENT | ResourceAttribute.INITIALIZED | ResourceAttribute.TESTED
MMIO_ATTRIBUTES = ResourceAttribute.PRESENT | ResourceAttribute.INITIALIZED | ResourceAttribute.UNCACHEABLE
# TDX module 1.5.01 cpuid_configurations.c: leaf 0x80000008, EAX[7:0], of every TD; ports have 16 bits
MEMORY_BITS, IO_BITS = 52, 16
RESOURCE_ATTRIBUTES_MASK = 0x07FF_FFFF  # td-shim specification: attribute bits with a meaning


class PayloadImage(IntEnum):
    """Payload image types as VMMs write them (the td-shim specification numbers 2 and 3 differently)."""

    EXECUTABLE = 0
    BZIMAGE = 1
    RAW_VMLINUX = 2
    VMLINUX = 2  # the specification's: an ELF file in the Payload section; RawVmLinux is 3 there


HEADER = (
    "hob_header" / c.Struct("type" / Int16ul, "length" / Int16ul, "reserved" / Int32ul)
) * "Header of every HOB, PI 1.7 volume 3, 5.1"

PHIT = (
    "hob_phit"
    / c.Struct(
        "header" / HEADER,
        "version" / Int32ul,
        "boot_mode" / Int32ul,
        "memory_top" / Int64ul,
        "memory_bottom" / Int64ul,
        "free_memory_top" / Int64ul,
        "free_memory_bottom" / Int64ul,
        "end_of_hob_list" / Int64ul,
    )
) * "Phase handoff information table, the first HOB, PI 1.7 volume 3, 5.2"

RESOURCE = (
    "hob_resource"
    / c.Struct(
        "header" / HEADER,
        "owner" / Bytes(16),
        "resource_type" / Int32ul,
        "attributes" / Int32ul,
        "start" / Int64ul,
        "length" / Int64ul,
    )
) * "Resource descriptor, PI 1.7 volume 3, 5.5"

GUID_EXT = (
    "hob_guid_ext" / c.Struct("header" / HEADER, "guid" / Bytes(16))
) * "Head of a GUID extension, PI 1.7 volume 3, 5.6"

FIRMWARE_VOLUME = (
    "hob_firmware_volume" / c.Struct("header" / HEADER, "start" / Int64ul, "length" / Int64ul)
) * "Firmware volume, PI 1.7 volume 3, 5.7"

CPU = (
    "hob_cpu" / c.Struct("header" / HEADER, "memory_bits" / Int8ul, "io_bits" / Int8ul, "reserved" / Bytes(6))
) * "Address widths of the processor, PI 1.7 volume 3, 5.8"

PAYLOAD_INFO = (
    "hob_payload_info" / c.Struct("image_type" / Int32ul, "reserved" / Int32ul, "entry_point" / Int64ul)
) * "Payload info of the td-shim specification, 16 bytes: Dragonball, libkrun, Cloud Hypervisor to v43"

PAYLOAD_INFO_PACKED = (
    "hob_payload_info_packed" / c.Struct("image_type" / Int32ul, "entry_point" / Int64ul)
) * "Payload info as Cloud Hypervisor writes it from v44 on, 12 bytes"


@dataclass(frozen=True)
class Resource:
    """A range of guest physical addresses; start and length in bytes."""

    resource_type: int
    start: int
    length: int
    attributes: int = MEMORY_ATTRIBUTES


@dataclass(frozen=True)
class GuidExtension:
    """A GUID and its data, which the list pads with zeros to a multiple of 8.

    `rounded`: the length field counts that padding. A list that was read has the padding in `data` then.
    """

    guid: UUID
    data: bytes
    rounded: bool = field(default=True, compare=False)


Hob = Resource | GuidExtension


def acpi_table(table: bytes) -> GuidExtension:
    """The HOB that passes one complete ACPI table."""
    return GuidExtension(guids.HOB_ACPI_TABLE, table)


def payload_info(image_type: int, entry_point: int) -> GuidExtension:
    """The HOB that names the kind of payload that was loaded, 16-byte body."""
    return GuidExtension(
        guids.HOB_PAYLOAD_INFO, pack(PAYLOAD_INFO, image_type=image_type, entry_point=entry_point)
    )


def payload_info_packed(image_type: int, entry_point: int) -> GuidExtension:
    """The same with the 12-byte body of newer Cloud Hypervisor, whose HOB length is 36."""
    body = pack(PAYLOAD_INFO_PACKED, image_type=image_type, entry_point=entry_point)
    return GuidExtension(guids.HOB_PAYLOAD_INFO, body, rounded=False)


def write(base: int, hobs: Iterable[Hob]) -> bytes:
    """A whole list from PHIT to END for the GPA `base`; every HOB starts 8-byte aligned."""
    body = b"".join(_written(hob) for hob in hobs)
    size = PHIT.sizeof() + len(body) + HEADER.sizeof()
    phit = pack(
        PHIT,
        header={"type": HobType.PHIT, "length": PHIT.sizeof()},
        version=PHIT_VERSION,
        end_of_hob_list=base + size,
    )
    return phit + body + pack(HEADER, type=HobType.END, length=HEADER.sizeof())


def _written(hob: Hob) -> bytes:
    if isinstance(hob, Resource):
        return pack(
            RESOURCE,
            header={"type": HobType.RESOURCE, "length": RESOURCE.sizeof()},
            resource_type=hob.resource_type,
            attributes=int(hob.attributes),
            start=hob.start,
            length=hob.length,
        )
    padding = bytes(-len(hob.data) % ALIGNMENT)
    length = GUID_EXT.sizeof() + len(hob.data) + (len(padding) if hob.rounded else 0)
    if length > MAX_LENGTH:
        raise FieldError(
            f"GUID extension {guids.name(hob.guid.bytes_le)}", f"{length} bytes", f"at most {MAX_LENGTH}"
        )
    head = pack(GUID_EXT, header={"type": HobType.GUID_EXT, "length": length}, guid=hob.guid.bytes_le)
    return head + hob.data + padding


@dataclass(frozen=True)
class HobList:
    """A parsed list: its HOBs in order; `size` is in bytes from PHIT to END inclusive (what is measured)."""

    hobs: tuple[Hob, ...]
    size: int
    end_of_hob_list: int

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(hob for hob in self.hobs if isinstance(hob, Resource))

    def extensions(self, guid: UUID) -> tuple[bytes, ...]:
        """The data of every GUID extension with this GUID."""
        return tuple(hob.data for hob in self.hobs if isinstance(hob, GuidExtension) and hob.guid == guid)


def read(data: bytes, *, place: str = "HOB list") -> HobList:
    """Reads a list as strictly as td-shim does; FormatError says which HOB is wrong and how."""
    first = unpack(PHIT, data, place=place)
    if first.header.type != HobType.PHIT or first.header.length != PHIT.sizeof():
        found = f"type {first.header.type:#x} length {first.header.length}"
        raise FieldError(f"{place} offset 0x0", found, f"PHIT: type 1 length {PHIT.sizeof()}")
    hobs: list[Hob] = []
    offset = PHIT.sizeof()
    while True:
        where = f"{place} offset {offset:#x}"
        head = unpack(HEADER, data, offset, place=place)
        if head.length < HEADER.sizeof() or offset + head.length > len(data):
            raise TruncatedError(where, f"length {head.length}", f"{HEADER.sizeof()} to {len(data) - offset}")
        if head.reserved:
            raise FieldError(f"{where} reserved", f"{head.reserved:#x}", "0")
        if head.type == HobType.END:
            return HobList(tuple(hobs), offset + HEADER.sizeof(), first.end_of_hob_list)
        hobs.append(_read(data[offset : offset + head.length], head.type, where))
        offset += head.length + -head.length % ALIGNMENT


def _read(raw: bytes, kind: int, where: str) -> Hob:
    if kind == HobType.RESOURCE:
        if len(raw) != RESOURCE.sizeof():
            raise FieldError(where, f"a resource HOB of {len(raw)} bytes", f"{RESOURCE.sizeof()} bytes")
        item = unpack(RESOURCE, raw, place=where)
        return Resource(item.resource_type, item.start, item.length, item.attributes)
    if kind == HobType.GUID_EXT:
        item = unpack(GUID_EXT, raw, place=where)
        return GuidExtension(UUID(bytes_le=item.guid), raw[GUID_EXT.sizeof() :])
    raise FieldError(where, f"HOB type {kind:#x}", "1, 3, 4 or 0xffff, the types of a TD HOB")
