"""What does the confidential-computing event log look like, and which RTMR values does it stand for?

Source: TCG PC Client Platform Firmware Profile (PFP) 1.06, section 10 (structures, event types); UEFI 2.10
section 38 (measurement register indexes); td-shim specification, "TD event log" (the shim's event data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import pack, unpack

SPEC_ID_SIGNATURE = b"Spec ID Event03\0"  # PFP 10.2.1
SPEC_MINOR, SPEC_MAJOR, SPEC_ERRATA = 0, 2, 105
UINTN_64_BIT = 2  # PFP 10.2.1: uintnSize
ALG_SHA384 = 0x000C  # TCG algorithm registry
DIGEST_SIZE = 48
LOG_FILL = 0xFF  # what the unused rest of the log area holds
LOG_END_SIZE = 8  # bytes of fill a writer keeps free so that every reader finds the end
DESCRIPTOR_SIZE = 16  # TD_SHIM_PLATFORM_CONFIG_INFO
RTMR_COUNT = 4


class EventType(IntEnum):
    """PFP table 27."""

    PREBOOT_CERT = 0x0
    POST_CODE = 0x1
    UNUSED = 0x2
    NO_ACTION = 0x3
    SEPARATOR = 0x4
    ACTION = 0x5
    EVENT_TAG = 0x6
    S_CRTM_CONTENTS = 0x7
    S_CRTM_VERSION = 0x8
    CPU_MICROCODE = 0x9
    PLATFORM_CONFIG_FLAGS = 0xA
    TABLE_OF_DEVICES = 0xB
    COMPACT_HASH = 0xC
    IPL = 0xD
    IPL_PARTITION_DATA = 0xE
    NONHOST_CODE = 0xF
    NONHOST_CONFIG = 0x10
    NONHOST_INFO = 0x11
    OMIT_BOOT_DEVICE_EVENTS = 0x12
    POST_CODE2 = 0x13
    EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001
    EFI_VARIABLE_BOOT = 0x8000_0002
    EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003
    EFI_BOOT_SERVICES_DRIVER = 0x8000_0004
    EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005
    EFI_GPT_EVENT = 0x8000_0006
    EFI_ACTION = 0x8000_0007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008
    EFI_HANDOFF_TABLES = 0x8000_0009
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000A
    EFI_HANDOFF_TABLES2 = 0x8000_000B
    EFI_VARIABLE_BOOT2 = 0x8000_000C
    EFI_HCRTM_EVENT = 0x8000_0010
    EFI_VARIABLE_AUTHORITY = 0x8000_00E0
    EFI_SPDM_FIRMWARE_BLOB = 0x8000_00E1
    EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00E2


class Separator(IntEnum):
    """PFP 10.4.1, value of a separator."""

    OK = 0
    ERROR = 1


PCR_EVENT = (
    "cc_pcr_event" / c.Struct("index" / Int32ul, "type" / Int32ul, "digest" / Bytes(20), "size" / Int32ul)
) * "Head of the first event, TCG 1.2 form, PFP 10.2.1"

SPEC_ID = (
    "cc_spec_id"
    / c.Struct(
        "signature" / Bytes(16),
        "platform_class" / Int32ul,
        "spec_minor" / Int8ul,
        "spec_major" / Int8ul,
        "spec_errata" / Int8ul,
        "uintn_size" / Int8ul,
        "algorithm_count" / Int32ul,
        "algorithm_id" / Int16ul,
        "digest_size" / Int16ul,
        "vendor_size" / Int8ul,
    )
) * "Spec ID event with one algorithm; the vendor's bytes follow, PFP 10.2.1"

EVENT_HEAD = (
    "cc_event_head" / c.Struct("mr_index" / Int32ul, "type" / Int32ul, "digest_count" / Int32ul)
) * "Start of every later event; its digests follow, then the size of its data, PFP 10.2.2"

EVENT_HEADER = (
    "cc_event_header"
    / c.Struct(
        "mr_index" / Int32ul,
        "type" / Int32ul,
        "digest_count" / Int32ul,
        "algorithm_id" / Int16ul,
        "digest" / Bytes(DIGEST_SIZE),
        "size" / Int32ul,
    )
) * "Head of every later event with its one SHA-384 digest; the event data follows, PFP 10.2.2"

EVENT_SIZE = ("cc_event_size" / c.Struct("size" / Int32ul)) * "Behind the digests: bytes of data, PFP 10.2.2"

PLATFORM_CONFIG = (
    "cc_platform_config" / c.Struct("descriptor" / Bytes(DESCRIPTOR_SIZE), "length" / Int32ul)
) * "Head of TD_SHIM_PLATFORM_CONFIG_INFO; the information follows, td-shim specification"

BLOB2_RANGE = (
    "cc_blob2_range" / c.Struct("base" / Int64ul, "length" / Int64ul)
) * "Tail of UEFI_PLATFORM_FIRMWARE_BLOB2; a counted description precedes it, PFP 10.2.5"

VARIABLE = (
    "uefi_variable_data" / c.Struct("guid" / Bytes(16), "name_length" / Int64ul, "data_length" / Int64ul)
) * "Head of UEFI_VARIABLE_DATA; name in UTF-16 and data follow, PFP 10.2.6"


IMAGE_LOAD = (
    "uefi_image_load_event"
    / c.Struct("base" / Int64ul, "length" / Int64ul, "link_base" / Int64ul, "path_length" / Int64ul)
) * "Head of UEFI_IMAGE_LOAD_EVENT; a device path follows, PFP 10.2.3"

PATH_NODE = (
    "efi_device_path" / c.Struct("type" / Int8ul, "subtype" / Int8ul, "length" / Int16ul)
) * "Head of a node of a device path, UEFI 2.10 section 10.3.1"
FILE_PATH = (
    4,
    4,
)  # type and subtype of a node that holds a file's path in UTF-16, UEFI 2.10 section 10.3.5.4

TAGGED = (
    "tcg_tagged_event" / c.Struct("tag" / Int32ul, "size" / Int32ul)
) * "Head of TCG_PCClientTaggedEvent; what the tag stands for follows, PFP, EV_EVENT_TAG"


@dataclass(frozen=True)
class Event:
    """One logged event. `mr_index` 0 is MRTD, n is RTMR[n-1]; `digest` is empty if the event has none;
    `offset` is its place in the log area.
    """

    mr_index: int
    type: int
    digest: bytes
    data: bytes
    offset: int = 0

    @property
    def rtmr(self) -> int | None:
        """The register this event speaks of, None for MRTD and for indexes that are none."""
        return self.mr_index - 1 if 1 <= self.mr_index <= RTMR_COUNT else None

    @property
    def extended(self) -> bool:
        """Whether the digest went into that register. EV_NO_ACTION never does: PFP 10.4.5."""
        return self.rtmr is not None and self.digest != b"" and self.type != EventType.NO_ACTION

    @property
    def type_name(self) -> str:
        try:
            return f"EV_{EventType(self.type).name}"
        except ValueError:
            return f"{self.type:#x}"

    @property
    def description(self) -> str:
        """What was measured, in the words the event itself carries; empty if it has none that can be read."""
        if self.type == EventType.SEPARATOR:
            return f"separator {self.data.hex()}"
        if self.type == EventType.NO_ACTION and self.data.startswith(SPEC_ID_SIGNATURE):
            vendor = _readable(self.data[SPEC_ID.sizeof() :])
            return ", ".join(filter(None, (_readable(SPEC_ID_SIGNATURE), vendor)))
        return " ".join(filter(None, map(_readable, _texts(self.type, self.data))))

    @property
    def information(self) -> bytes | None:
        """What an EV_PLATFORM_CONFIG_FLAGS event of td-shim's form holds behind its head; else None."""
        head = PLATFORM_CONFIG.sizeof()
        if self.type != EventType.PLATFORM_CONFIG_FLAGS or len(self.data) < head:
            return None
        return self.data[head:] if PLATFORM_CONFIG.parse(self.data).length == len(self.data) - head else None

    @property
    def hashed(self) -> tuple[bytes, ...]:
        """What the digest may cover by the event's type and form, the usual first; empty if that is not in
        the event data, or the type leaves it open.
        """
        if self.information is not None:
            return (self.information, self.data)
        if self.type in _WHOLE:
            return (self.data,)
        if self.type == EventType.EFI_VARIABLE_BOOT and len(self.data) >= VARIABLE.sizeof():
            return (self.data[VARIABLE.sizeof() + 2 * VARIABLE.parse(self.data).name_length :], self.data)
        if self.type == EventType.IPL:
            for mark in GRUB_MARKS:
                if self.data.startswith(mark):
                    text = self.data[len(mark) :]
                    return (text.removesuffix(b"\0"), text)
        return ()

    @property
    def consistent(self) -> bool | None:
        """Whether the digest is that of the event data, where the type says so; None where it does not."""
        if not self.digest or not self.hashed:
            return None
        return self.digest in (hashlib.sha384(raw).digest() for raw in self.hashed)


# Events whose digest covers all of the event data: PFP table 27.
_WHOLE = (
    EventType.SEPARATOR,
    EventType.S_CRTM_VERSION,
    EventType.EFI_ACTION,
    EventType.EFI_GPT_EVENT,
    EventType.EFI_VARIABLE_DRIVER_CONFIG,
    EventType.EFI_VARIABLE_BOOT2,
    EventType.EFI_VARIABLE_AUTHORITY,
)
GRUB_MARKS = (b"grub_cmd: ", b"kernel_cmdline: ")  # GRUB measures what follows, without its NUL

# Events whose data are a text or begin with one: PFP table 27; EDK2's ACPI DATA and BOOT ORDER events.
_TEXT = (
    EventType.POST_CODE,
    EventType.ACTION,
    EventType.S_CRTM_VERSION,
    EventType.PLATFORM_CONFIG_FLAGS,
    EventType.COMPACT_HASH,
    EventType.IPL,
    EventType.POST_CODE2,
    EventType.EFI_ACTION,
)
_COUNTED = (EventType.EFI_PLATFORM_FIRMWARE_BLOB2, EventType.EFI_HANDOFF_TABLES2)
_VARIABLE = (
    EventType.EFI_VARIABLE_DRIVER_CONFIG,
    EventType.EFI_VARIABLE_BOOT,
    EventType.EFI_VARIABLE_BOOT2,
    EventType.EFI_VARIABLE_AUTHORITY,
)
_IMAGE = (
    EventType.EFI_BOOT_SERVICES_APPLICATION,
    EventType.EFI_BOOT_SERVICES_DRIVER,
    EventType.EFI_RUNTIME_SERVICES_DRIVER,
)
_FW_CFG_SIZE = 16 + 56  # edk2 OvmfPkg QemuFwCfgLib, FW_CFG_EVENT: "QEMU FW CFG" and a file's name


def _texts(kind: int, data: bytes) -> tuple[bytes, ...]:
    """The parts of the event data that name what was measured."""
    if kind == EventType.PLATFORM_CONFIG_FLAGS and len(data) >= PLATFORM_CONFIG.sizeof():
        if PLATFORM_CONFIG.parse(data).length == len(data) - PLATFORM_CONFIG.sizeof():
            return (data[:DESCRIPTOR_SIZE],)
        if len(data) == _FW_CFG_SIZE:
            return (data[:DESCRIPTOR_SIZE], data[DESCRIPTOR_SIZE:])
    if kind in _COUNTED and data:
        return (data[1 : 1 + data[0]],)
    if kind in _VARIABLE and len(data) >= VARIABLE.sizeof():
        start = VARIABLE.sizeof()
        return (data[start : start + 2 * VARIABLE.parse(data).name_length],)
    if kind in _IMAGE and len(data) >= IMAGE_LOAD.sizeof():
        return tuple(_file_paths(data[IMAGE_LOAD.sizeof() :]))
    if kind == EventType.EVENT_TAG and len(data) >= TAGGED.sizeof():
        return (data[TAGGED.sizeof() :][: TAGGED.parse(data).size],)
    return (data,) if kind in _TEXT else ()


def _file_paths(path: bytes) -> Iterator[bytes]:
    """The parts of a device path that are a file's path."""
    while len(path) >= PATH_NODE.sizeof():
        node = PATH_NODE.parse(path)
        if (node.type, node.subtype) == FILE_PATH:
            yield path[PATH_NODE.sizeof() : node.length]
        path = path[max(node.length, PATH_NODE.sizeof()) :]


def _readable(raw: bytes) -> str:
    """The one rule for a text out of an event: ASCII or UTF-16 up to its NUL, without blanks and stops at its
    ends; empty if anything else than printable ASCII is in it.
    """
    if len(raw) > 1 and raw[0] and not any(raw[1::2]):
        raw = raw[::2]
    text = raw.split(b"\0", 1)[0].decode("latin-1").strip(" ,;:\t\r\n")
    return text if text.isascii() and text.isprintable() else ""


def platform_config(descriptor: str, information: bytes) -> bytes:
    """Event data of an EV_PLATFORM_CONFIG_FLAGS event of the shim."""
    raw = descriptor.encode("ascii")
    if len(raw) > DESCRIPTOR_SIZE:
        raise FieldError(
            f"event descriptor {descriptor!r}", f"{len(raw)} bytes", f"at most {DESCRIPTOR_SIZE}"
        )
    return pack(PLATFORM_CONFIG, descriptor=raw, length=len(information)) + information


def blob2(description: str, base: int, length: int) -> bytes:
    """Event data of an EV_EFI_PLATFORM_FIRMWARE_BLOB2 event: where the measured bytes lay."""
    raw = description.encode("ascii") + b"\0"
    return bytes([len(raw)]) + raw + pack(BLOB2_RANGE, base=base, length=length)


def spec_id_event(vendor: bytes = b"tdforge", mr_index: int = 0) -> bytes:
    """The first entry of a log: says that SHA-384 is the one algorithm."""
    body = pack(
        SPEC_ID,
        signature=SPEC_ID_SIGNATURE,
        spec_minor=SPEC_MINOR,
        spec_major=SPEC_MAJOR,
        spec_errata=SPEC_ERRATA,
        uintn_size=UINTN_64_BIT,
        algorithm_count=1,
        algorithm_id=ALG_SHA384,
        digest_size=DIGEST_SIZE,
        vendor_size=len(vendor),
    )
    body += vendor
    return pack(PCR_EVENT, index=mr_index, type=EventType.NO_ACTION, size=len(body)) + body


def event(mr_index: int, kind: int, digest: bytes, data: bytes) -> bytes:
    """One later entry of a log."""
    head = pack(
        EVENT_HEADER,
        mr_index=mr_index,
        type=kind,
        digest_count=1,
        algorithm_id=ALG_SHA384,
        digest=digest,
        size=len(data),
    )
    return head + data


def parse(area: bytes, *, place: str = "event log") -> list[Event]:
    """All events of a log area, the Spec ID event first.

    The log ends with 8 bytes of FF, where nothing but zeros follows, or with the area.
    """
    first = unpack(PCR_EVENT, area, place=place)
    start = PCR_EVENT.sizeof()
    spec = unpack(SPEC_ID, area, start, place=place)
    if first.type != EventType.NO_ACTION or spec.signature != SPEC_ID_SIGNATURE:
        raise FieldError(
            f"{place} offset 0x0", f"type {first.type:#x}, {spec.signature!r}", "a Spec ID Event03"
        )
    if (spec.algorithm_count, spec.algorithm_id, spec.digest_size) != (1, ALG_SHA384, DIGEST_SIZE):
        many = "s" * (spec.algorithm_count != 1)
        found = f"{spec.algorithm_count} algorithm{many}, the first {spec.algorithm_id:#x}"
        raise FieldError(f"{place} offset {start:#x}", found, "SHA-384 alone")
    if start + first.size > len(area) or first.size < SPEC_ID.sizeof() + spec.vendor_size:
        raise TruncatedError(
            f"{place} offset {start:#x}", f"size {first.size}", "the Spec ID event and its vendor bytes"
        )
    events = [Event(first.index, first.type, bytes(0), area[start : start + first.size])]
    offset = start + first.size
    while not _is_end(area, offset):
        item, offset = _parse_event(area, offset, place)
        events.append(item)
    return events


def _is_end(area: bytes, offset: int) -> bool:
    """An event may begin with 8 zero bytes (index 0, type 0), none with 8 of FF."""
    mark = area[offset : offset + LOG_END_SIZE]
    return mark == b"\xff" * len(mark) or (mark == bytes(len(mark)) and not any(area[offset:]))


def _parse_event(area: bytes, offset: int, place: str) -> tuple[Event, int]:
    head = unpack(EVENT_HEAD, area, offset, place=place)
    if head.digest_count == 0:
        digest, sized = b"", offset + EVENT_HEAD.sizeof()
    else:
        whole = unpack(EVENT_HEADER, area, offset, place=place)
        if whole.digest_count != 1 or whole.algorithm_id != ALG_SHA384:
            found = f"{whole.digest_count} digests, the first of algorithm {whole.algorithm_id:#x}"
            raise FieldError(f"{place} offset {offset:#x}", found, "one SHA-384 digest")
        digest, sized = whole.digest, offset + EVENT_HEADER.sizeof() - Int32ul.sizeof()
    size = int(unpack(EVENT_SIZE, area, sized, place=place).size)
    start = sized + EVENT_SIZE.sizeof()
    if start + size > len(area):
        raise TruncatedError(
            f"{place} offset {offset:#x}", f"event data of {size} bytes", f"at most {len(area) - start}"
        )
    return Event(head.mr_index, head.type, digest, area[start : start + size], offset), start + size


def replay(events: Iterable[Event]) -> tuple[bytes, bytes, bytes, bytes]:
    """The four RTMR values these events give: from zero, RTMR = SHA384(RTMR || digest) for each."""
    registers = [bytes(DIGEST_SIZE)] * RTMR_COUNT
    for item in events:
        if item.extended and item.rtmr is not None:
            registers[item.rtmr] = hashlib.sha384(registers[item.rtmr] + item.digest).digest()
    return registers[0], registers[1], registers[2], registers[3]
