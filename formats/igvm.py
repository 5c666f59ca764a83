"""What does an IGVM file for a TD look like: which pages does its loader add, and what does it write there?

Source: microsoft/igvm igvm_defs/src/lib.rs, version 1 of the format; what its own reader refuses is in
igvm/src/lib.rs. A file may be for several platforms; here, it is what a TDX loader makes of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.limits import MAX_ADDED
from formats.structs import offset_of, pack, unpack
from formats.units import PAGE, align_up

MAGIC = b"IGVM"
VERSION = 1
ALIGNMENT = 8  # of each variable header
MASK = 1  # the compatibility mask of the one platform that our files have
TDX_VERSION = 1
SHARED_BOUNDARY = 1 << 47  # where shared GPAs begin in a TD with 48 guest physical address bits
OPTIONAL = 1 << 31  # of a type: a loader that does not know it may go on
PLATFORMS, INITIALIZATIONS, DIRECTIVES = range(0x1, 0x101), range(0x101, 0x201), range(0x301, 0x401)


class HeaderType(IntEnum):
    """Type of a variable header."""

    SUPPORTED_PLATFORM = 0x1
    GUEST_POLICY = 0x101
    RELOCATABLE_REGION = 0x102
    PAGE_TABLE_RELOCATION_REGION = 0x103
    CORIM_DOCUMENT = 0x104
    CORIM_SIGNATURE = 0x105
    CCA_POLICY = 0x106
    PARAMETER_AREA = 0x301
    PAGE_DATA = 0x302
    PARAMETER_INSERT = 0x303
    VP_CONTEXT = 0x304
    REQUIRED_MEMORY = 0x305
    VP_COUNT = 0x307
    SRAT = 0x308
    MADT = 0x309
    MMIO_RANGES = 0x30A
    SNP_ID_BLOCK = 0x30B
    MEMORY_MAP = 0x30C
    ERROR_RANGE = 0x30D
    COMMAND_LINE = 0x30E
    SLIT = 0x30F
    PPTT = 0x310
    VBS_MEASUREMENT = 0x311
    DEVICE_TREE = 0x312
    ENVIRONMENT_INFO = 0x313


class PlatformType(IntEnum):
    """What a file can be loaded on."""

    NATIVE = 0
    VSM_ISOLATION = 1
    SEV_SNP = 2
    TDX = 3


class Policy(IntFlag):
    """TdxPolicy: bits of its own, not those of ATTRIBUTES."""

    DEBUG_ALLOWED = 1
    SEPT_VE_DISABLE = 2
    MIGRATABLE = 4


class PageFlag(IntFlag):
    """IgvmPageDataFlags."""

    IS_2MB_PAGE = 1
    UNMEASURED = 2
    SHARED = 4


class MemoryType(IntEnum):
    """MemoryMapEntryType."""

    MEMORY = 0
    PLATFORM_RESERVED = 1
    PERSISTENT = 2
    VTL2_PROTECTABLE = 3


FIXED_HEADER = (
    "igvm_fixed_header"
    / c.Struct(
        "magic" / Bytes(4),
        "format_version" / Int32ul,
        "variable_header_offset" / Int32ul,
        "variable_header_size" / Int32ul,
        "total_file_size" / Int32ul,
        "checksum" / Int32ul,
    )
) * "Fixed header; the checksum is the CRC-32 of it, with zero in that field, and of the variable headers"
VARIABLE_HEADER = (
    "igvm_variable_header" / c.Struct("type" / Int32ul, "length" / Int32ul)
) * "In front of each variable header; `length` counts what follows, without the padding to 8 bytes"
SUPPORTED_PLATFORM = (
    "igvm_supported_platform"
    / c.Struct(
        "compatibility_mask" / Int32ul,
        "highest_vtl" / Int8ul,
        "platform_type" / Int8ul,
        "platform_version" / Int16ul,
        "shared_gpa_boundary" / Int64ul,
    )
) * "A platform, and the bit that headers for it have in their mask"
GUEST_POLICY = (
    "igvm_guest_policy" / c.Struct("policy" / Int64ul, "compatibility_mask" / Int32ul, "reserved" / Int32ul)
) * "Policy of the guest"
PARAMETER_AREA = (
    "igvm_parameter_area"
    / c.Struct("number_of_bytes" / Int64ul, "parameter_area_index" / Int32ul, "file_offset" / Int32ul)
) * "Memory that the loader fills before it is inserted; offset 0: zeros at first"
PAGE_DATA = (
    "igvm_page_data"
    / c.Struct(
        "gpa" / Int64ul,
        "compatibility_mask" / Int32ul,
        "file_offset" / Int32ul,
        "flags" / Int32ul,
        "data_type" / Int16ul,
        "reserved" / Int16ul,
    )
) * "A page to be added; offset 0: a page of zeros"
PARAMETER_INSERT = (
    "igvm_parameter_insert"
    / c.Struct("gpa" / Int64ul, "compatibility_mask" / Int32ul, "parameter_area_index" / Int32ul)
) * "A parameter area to be added, unmeasured, from its lowest page on"
PARAMETER = (
    "igvm_parameter" / c.Struct("parameter_area_index" / Int32ul, "byte_offset" / Int32ul)
) * "Where in an area the loader writes what the type of the header names"
REQUIRED_MEMORY = (
    "igvm_required_memory"
    / c.Struct(
        "gpa" / Int64ul,
        "compatibility_mask" / Int32ul,
        "number_of_bytes" / Int32ul,
        "flags" / Int32ul,
        "reserved" / Int32ul,
    )
) * "Memory without which the guest does not work"
CORIM_DATA = (
    "igvm_corim_data"
    / c.Struct(
        "compatibility_mask" / Int32ul, "file_offset" / Int32ul, "size_bytes" / Int32ul, "reserved" / Int32ul
    )
) * "Where a reference measurement, or its signature, lies in the file"
MEMORY_MAP_ENTRY = (
    "igvm_memory_map_entry"
    / c.Struct(
        "starting_gpa_page_number" / Int64ul,
        "number_of_pages" / Int64ul,
        "entry_type" / Int16ul,
        "flags" / Int16ul,
        "reserved" / Int32ul,
    )
) * "An entry of the parameter MEMORY_MAP; one without pages is the last"

PARAMETERS = (
    HeaderType.VP_COUNT,
    HeaderType.SRAT,
    HeaderType.MADT,
    HeaderType.MMIO_RANGES,
    HeaderType.MEMORY_MAP,
    HeaderType.COMMAND_LINE,
    HeaderType.SLIT,
    HeaderType.PPTT,
    HeaderType.DEVICE_TREE,
    HeaderType.ENVIRONMENT_INFO,
)
STRUCTS: dict[HeaderType, Any] = {
    HeaderType.SUPPORTED_PLATFORM: SUPPORTED_PLATFORM,
    HeaderType.GUEST_POLICY: GUEST_POLICY,
    HeaderType.CORIM_DOCUMENT: CORIM_DATA,
    HeaderType.CORIM_SIGNATURE: CORIM_DATA,
    HeaderType.PARAMETER_AREA: PARAMETER_AREA,
    HeaderType.PAGE_DATA: PAGE_DATA,
    HeaderType.PARAMETER_INSERT: PARAMETER_INSERT,
    HeaderType.REQUIRED_MEMORY: REQUIRED_MEMORY,
    **dict.fromkeys(PARAMETERS, PARAMETER),
}
# Headers that no TDX loader takes: how long they are, and where their compatibility mask stands.
ELSEWHERE = {
    HeaderType.RELOCATABLE_REGION: (48, 0),
    HeaderType.PAGE_TABLE_RELOCATION_REGION: (32, 0),
    HeaderType.CCA_POLICY: (32, 0),
    HeaderType.VP_CONTEXT: (20, 8),
    HeaderType.SNP_ID_BLOCK: (696, 0),
    HeaderType.ERROR_RANGE: (16, 8),
    HeaderType.VBS_MEASUREMENT: (864, 0),
}


@dataclass(frozen=True)
class Header:
    """A variable header that is for TDX: where it stands in the file, its type and its fields."""

    offset: int
    type: HeaderType
    fields: Any


@dataclass(frozen=True)
class Region:
    """Pages that the loader adds one after the other, from `gpa` on: `size` bytes, of which `content` are
    given, and zeros follow. `has_data`: bytes of the file fill it. `area`: the index of the parameter area
    that they are, None for page data; `parameters`: type and byte offset of what the loader writes into it.
    """

    offset: int  # of its first header in the file
    gpa: int
    size: int
    content: bytes
    measured: bool
    has_data: bool
    area: int | None = None
    parameters: tuple[tuple[HeaderType, int], ...] = ()

    @property
    def end(self) -> int:
        return self.gpa + self.size

    @property
    def pages(self) -> int:
        """How many of 4 KiB."""
        return self.size // PAGE


@dataclass(frozen=True)
class Igvm:
    """A file as a TDX loader reads it. `policy` None: the file has none. `required`: memory, (start, end)."""

    size: int
    data_size: int  # of its last part, the file data
    platforms: tuple[Header, ...]  # all of them
    platform: Header
    policy: int | None
    regions: tuple[Region, ...]
    required: tuple[tuple[int, int], ...]


def is_igvm(data: bytes) -> bool:
    """Whether a file says that it is one."""
    return data.startswith(MAGIC)


def write(items: Sequence[tuple[HeaderType, dict[str, int], bytes]]) -> bytes:
    """The file of these variable headers: type, fields (zero if not given), and the data that the field
    `file_offset` is to lead to, if there are any. Equal data is in the file once.
    """
    start = FIXED_HEADER.sizeof()
    first = start + sum(len(_packed(kind, fields)) for kind, fields, _ in items)
    offsets: dict[bytes, int] = {}
    data, headers = bytearray(), bytearray()
    for kind, fields, content in items:
        if content and content not in offsets:
            offsets[content] = first + len(data)
            data += content
        headers += _packed(kind, fields | ({"file_offset": offsets[content]} if content else {}))
    facts = {
        "magic": MAGIC,
        "format_version": VERSION,
        "variable_header_offset": start,
        "variable_header_size": len(headers),
        "total_file_size": first + len(data),
    }
    checksum = zlib.crc32(headers, zlib.crc32(pack(FIXED_HEADER, **facts)))
    return pack(FIXED_HEADER, **facts, checksum=checksum) + bytes(headers + data)


def _packed(kind: HeaderType, fields: dict[str, int]) -> bytes:
    body = pack(STRUCTS[kind], **fields)
    return pack(VARIABLE_HEADER, type=kind, length=len(body)) + body.ljust(
        align_up(len(body), ALIGNMENT), b"\0"
    )


def read(data: bytes, *, place: str = "file") -> Igvm:
    """What a TDX loader does by this file. FormatError: what it must refuse, or cannot do in a TD."""
    start, end = _fixed(data, place)
    headers = tuple(_headers(data, start, end, place))
    platforms = tuple(item for item in headers if item.type is HeaderType.SUPPORTED_PLATFORM)
    ours = [item for item in platforms if item.fields.platform_type == PlatformType.TDX]
    if len(ours) != 1:
        raise FieldError(place, f"{len(ours)} platform headers for TDX", "one")
    mask = _checked_platform(ours[0], place)
    mine = tuple(_for_tdx(data, headers, mask, place))
    policies = [item for item in mine if item.type is HeaderType.GUEST_POLICY]
    if len(policies) > 1:
        raise FieldError(_at(place, policies[1]), "a second guest policy", "one for each platform")
    required = (item.fields for item in mine if item.type is HeaderType.REQUIRED_MEMORY)
    return Igvm(
        len(data),
        len(data) - end,
        platforms,
        ours[0],
        policies[0].fields.policy if policies else None,
        tuple(_merged(_regions(data, end, mine, place))),
        tuple((item.gpa, item.gpa + item.number_of_bytes) for item in required),
    )


def _at(place: str, item: Header) -> str:
    return f"{place} offset {item.offset:#x}"


def _fixed(data: bytes, place: str) -> tuple[int, int]:
    """Where the variable headers begin and end; what follows is file data."""
    head = unpack(FIXED_HEADER, data, place=place)
    if head.magic != MAGIC:
        raise FieldError(f"{place} offset 0x0", f"magic {head.magic!r}", f"{MAGIC!r}")
    if head.format_version != VERSION:
        raise FieldError(f"{place} offset 0x4", f"format version {head.format_version}", f"{VERSION}")
    if head.total_file_size > len(data):
        raise TruncatedError(place, f"{len(data)} bytes", f"{head.total_file_size}, the total file size")
    if head.total_file_size != len(data):
        raise FieldError(f"{place} offset 0x10", f"total file size {head.total_file_size}", f"{len(data)}")
    start, end = head.variable_header_offset, head.variable_header_offset + head.variable_header_size
    if start < FIXED_HEADER.sizeof() or start % ALIGNMENT:
        expected = f"a multiple of {ALIGNMENT} from {FIXED_HEADER.sizeof()}"
        raise FieldError(f"{place} offset 0x8", f"variable header offset {start}", expected)
    if end >= len(data):
        found = f"variable headers to offset {end:#x}"
        raise FieldError(f"{place} offset 0xc", found, f"an end below {len(data):#x}, and data behind it")
    at = offset_of(FIXED_HEADER, "checksum")
    head_bytes = data[:at] + bytes(FIXED_HEADER.sizeof() - at)
    checksum = zlib.crc32(data[start:end], zlib.crc32(head_bytes))
    if checksum != head.checksum:
        raise FieldError(f"{place} offset {at:#x}", f"checksum {head.checksum:#010x}", f"{checksum:#010x}")
    return start, end


def _headers(data: bytes, start: int, end: int, place: str) -> Iterator[Header]:
    """All variable headers in their order, those of other platforms with their bytes as fields."""
    section = PLATFORMS
    while start < end:
        where = f"{place} offset {start:#x}"
        if end - start < VARIABLE_HEADER.sizeof():
            raise TruncatedError(where, f"{end - start} bytes", "a variable header, or their end")
        head = unpack(VARIABLE_HEADER, data, start, place=place)
        body = start + VARIABLE_HEADER.sizeof()
        if body + head.length > end:
            found = f"a variable header of {head.length} bytes"
            raise TruncatedError(where, found, f"at most {end - body}, the end of the variable headers")
        of = next((each for each in (PLATFORMS, INITIALIZATIONS, DIRECTIVES) if head.type in each), None)
        if of is not None and of.start < section.start:
            raise FieldError(
                where, f"type {head.type:#x} behind a later section", "platforms first, directives last"
            )
        section = of or section
        yield from _header(data, head, start, place)
        start = body + align_up(head.length, ALIGNMENT)
    if start > end:
        raise TruncatedError(f"{place} offset {end:#x}", "no padding", "that of the last variable header")


def _header(data: bytes, head: Any, start: int, place: str) -> Iterator[Header]:
    body, where = start + VARIABLE_HEADER.sizeof(), f"{place} offset {start:#x}"
    try:
        kind = HeaderType(head.type)
    except ValueError:
        if not head.type & OPTIONAL:
            raise FieldError(
                where, f"header type {head.type:#x}", "a known one, or one that is optional"
            ) from None
        return
    size = ELSEWHERE[kind][0] if kind in ELSEWHERE else STRUCTS[kind].sizeof()
    if head.length != size:
        raise FieldError(where, f"{kind.name} of {head.length} bytes", f"{size}")
    yield Header(
        start, kind, data[body : body + size] if kind in ELSEWHERE else unpack(STRUCTS[kind], data, body)
    )


def _checked_platform(item: Header, place: str) -> int:
    """Its mask."""
    fields = item.fields
    if fields.compatibility_mask.bit_count() != 1:
        raise FieldError(_at(place, item), f"compatibility mask {fields.compatibility_mask:#x}", "one bit")
    if fields.highest_vtl not in (0, 2):
        raise FieldError(_at(place, item), f"highest VTL {fields.highest_vtl}", "0 or 2")
    if fields.platform_version != TDX_VERSION:
        raise FieldError(_at(place, item), f"platform version {fields.platform_version}", f"{TDX_VERSION}")
    return int(fields.compatibility_mask)


def _for_tdx(data: bytes, headers: tuple[Header, ...], mask: int, place: str) -> Iterator[Header]:
    """The headers without a mask, and those whose mask has this bit. FieldError for one that no TD takes."""
    for item in headers:
        if item.type in ELSEWHERE:
            at = ELSEWHERE[item.type][1]
            if int.from_bytes(item.fields[at : at + 4], "little") & mask:
                raise FieldError(
                    _at(place, item), f"{item.type.name} for TDX", "none: a TD starts as the TDX module says"
                )
        elif (
            item.type is not HeaderType.SUPPORTED_PLATFORM
            and item.fields.get("compatibility_mask", mask) & mask
        ):
            if item.fields.get("reserved", 0):
                raise FieldError(_at(place, item), f"{item.type.name} with a reserved field", "zero in it")
            yield item


def _content(data: bytes, first: int, offset: int, size: int, where: str) -> bytes:
    """File data; nothing for offset 0."""
    if not offset:
        return b""
    if offset < first or offset + size > len(data):
        found = f"data from offset {offset:#x} to {offset + size:#x}"
        raise FieldError(where, found, f"file data, {first:#x} to {len(data):#x}")
    return data[offset : offset + size]


def _regions(data: bytes, first: int, headers: tuple[Header, ...], place: str) -> Iterator[Region]:
    """What is added, in its order: a page, or a parameter area."""
    areas: dict[int, Region] = {}
    gone: set[int] = set()
    added = 0
    for item in headers:
        where, fields = _at(place, item), item.fields
        region = None
        if item.type is HeaderType.PARAMETER_AREA:
            index = fields.parameter_area_index
            if index in areas or index in gone:
                raise FieldError(where, f"parameter area {index} again", "an index that is new")
            size = _whole_pages(fields.number_of_bytes, "size", where)
            if size > MAX_ADDED:
                raise FieldError(where, f"a parameter area of {size:#x} bytes", f"at most {MAX_ADDED:#x}")
            content = _content(data, first, fields.file_offset, size, where)
            areas[index] = Region(item.offset, 0, size, content, False, bool(content), index)
        elif item.type in PARAMETERS:
            area = _known(areas, fields.parameter_area_index, where)
            if fields.byte_offset >= area.size:
                found = f"{item.type.name} at byte {fields.byte_offset:#x}"
                raise FieldError(where, found, f"a place in parameter area {area.area}, {area.size:#x} bytes")
            parameters = (*area.parameters, (item.type, fields.byte_offset))
            areas[fields.parameter_area_index] = replace(area, parameters=parameters)
        elif item.type is HeaderType.PARAMETER_INSERT:
            area = _known(areas, fields.parameter_area_index, where)
            gone.add(fields.parameter_area_index)
            del areas[fields.parameter_area_index]
            region = replace(area, offset=item.offset, gpa=_whole_pages(fields.gpa, "GPA", where))
        elif item.type is HeaderType.PAGE_DATA:
            region = _page(data, first, item, where)
        if region is not None:
            added += region.size
            if added > MAX_ADDED or region.end > 1 << 64:
                raise FieldError(
                    where,
                    f"pages to GPA {region.end:#x}, {added:#x} bytes so far",
                    "at most 1 GiB, below 2^64",
                )
            yield region


def _known(areas: dict[int, Region], index: int, where: str) -> Region:
    if index not in areas:
        raise FieldError(where, f"parameter area {index}", "one that is declared and not inserted yet")
    return areas[index]


def _whole_pages(value: int, what: str, where: str) -> int:
    if value % PAGE:
        raise FieldError(where, f"{what} {value:#x}", f"a multiple of {PAGE:#x}")
    return value


def _page(data: bytes, first: int, item: Header, where: str) -> Region:
    fields = item.fields
    if fields.flags & ~int(PageFlag.UNMEASURED) or fields.data_type:
        found = f"page flags {fields.flags:#x}, data type {fields.data_type}"
        raise FieldError(where, found, "a private page of 4 KiB with normal data: what a TD can be given")
    content = _content(data, first, fields.file_offset, PAGE, where)
    gpa = _whole_pages(fields.gpa, "GPA", where)
    return Region(item.offset, gpa, PAGE, content, not fields.flags & PageFlag.UNMEASURED, bool(content))


def _merged(regions: Iterator[Region]) -> Iterator[Region]:
    """Pages that follow each other in the file and in memory, and are alike, as one."""
    run: list[Region] = []
    for item in regions:
        if run and not _continues(run[0], run[-1], item):
            yield _joined(run)
            run = []
        run.append(item)
    if run:
        yield _joined(run)


def _continues(first: Region, last: Region, item: Region) -> bool:
    alike = (first.measured, first.has_data) == (item.measured, item.has_data)
    return alike and first.area is None and item.area is None and last.end == item.gpa


def _joined(run: list[Region]) -> Region:
    size = sum(item.size for item in run)
    return replace(run[0], size=size, content=b"".join(item.content for item in run))
