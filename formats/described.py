"""What do the sections TD_INFO and TD_PARAMS hold, and how is that written and read?

They name bytes of the BFV that the platform's loader and tools read; the firmware does not. Both are in MRTD.
Sources: td-shim doc/custom_nrx_image.md; td-shim-tools td-shim-patch, td-shim-info; TD_PARAMS: Intel TDX
Module ABI, "TD_PARAMS". A section of zeros is one that no tool has filled in yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, FormatError
from formats.structs import pack, plain, spaced, unpack

TD_INFO = (
    "td_info" / c.Struct("guid" / Bytes(16), "length" / Int32ul, "version" / Int32ul, "svn" / Int32ul)
) * "Head of a TD_INFO section; `length` counts it and the data that follow"

TD_PARAMS_SIZE = 1024
TD_PARAMS = (
    "td_params"
    / spaced(
        TD_PARAMS_SIZE,
        {
            0: "attributes" / Int64ul,
            8: "xfam" / Int64ul,
            16: "maxvcpus" / Int16ul,
            18: "numl2vms" / Int8ul,
            19: "msrconfigctls" / Int8ul,
            24: "eptpcontrols" / Int64ul,
            32: "configflags" / Int64ul,
            40: "tscfrequency" / Int16ul,
            80: "mrconfigid" / Bytes(48),
            128: "mrowner" / Bytes(48),
            176: "mrownerconfig" / Bytes(48),
            224: "ia32archcapabilitiesconfig" / Int64ul,
            232: "mrconfigsvn" / Int16ul,
            234: "mrownerconfigsvn" / Int16ul,
            256: "cpuid_config" / Bytes(768),
        },
    )
) * "TD_PARAMS, what TDH.MNG.INIT takes"
MAJOR, MINOR, UPDATE = 24, 16, 0  # where the parts of a version lie
LIMITS = (0xFF, 0xFF, 0xFFFF)  # of those parts
RESERVED = "reserved_"


@dataclass(frozen=True)
class TdInfo:
    """A TD_INFO section. `version`: major, minor, update; `data`: what the GUID says."""

    guid: str
    version: tuple[int, int, int]
    svn: int
    data: str  # hex


def td_info(guid: UUID, version: Sequence[int], svn: int, data: bytes) -> bytes:
    """The bytes of a TD_INFO section."""
    major, minor, update = version
    number = major << MAJOR | minor << MINOR | update << UPDATE
    length = TD_INFO.sizeof() + len(data)
    return pack(TD_INFO, guid=guid.bytes_le, length=length, version=number, svn=svn) + data


def read_td_info(section: bytes, *, place: str = "TD_INFO") -> TdInfo | None:
    """What it says; None: not filled in. FormatError."""
    if not any(section):
        return None
    head = unpack(TD_INFO, section, place=place)
    if not TD_INFO.sizeof() <= head.length <= len(section):
        expected = f"{TD_INFO.sizeof()} to {len(section)}, the section's size"
        raise FieldError(f"{place} length", f"{head.length}", expected)
    version = (head.version >> MAJOR, head.version >> MINOR & LIMITS[1], head.version & LIMITS[2])
    guid = str(UUID(bytes_le=head.guid))
    return TdInfo(guid, version, head.svn, section[TD_INFO.sizeof() : head.length].hex())


def _fields() -> dict[str, Any]:
    return {f.name: f.subcon for f in plain(TD_PARAMS).subcons if not f.name.startswith(RESERVED)}


def read_td_params(section: bytes, *, place: str = "TD_PARAMS") -> dict[str, int | str] | None:
    """Its fields by name, bytes in hex; None: not filled in. FormatError, also for a reserved byte."""
    if not any(section):
        return None
    found = unpack(TD_PARAMS, section, place=place)
    for field in plain(TD_PARAMS).subcons:
        if field.name.startswith(RESERVED) and any(found[field.name]):
            raise FieldError(f"{place} {field.name}", found[field.name].hex(), "zeros")
    return {name: found[name].hex() if isinstance(found[name], bytes) else found[name] for name in _fields()}


def td_params(text: str, *, place: str) -> bytes:
    """TD_PARAMS from JSON: an object with each field by its name. A number is one, or a text in hexadecimal;
    bytes are a text in hexadecimal, or a list of numbers. FormatError names the field.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise FieldError(f"{place}: {name}", "this field twice", "each field of TD_PARAMS once")
            found[name] = value
        return found

    try:
        given = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(place, f"no JSON ({error})", "an object with the fields of TD_PARAMS") from None
    if not isinstance(given, dict):
        raise FormatError(place, f"a {type(given).__name__}", "an object with the fields of TD_PARAMS")
    fields = _fields()
    for name in given.keys() - fields.keys():
        raise FieldError(f"{place}: {name}", "an unknown field", ", ".join(fields))
    for name in fields.keys() - given.keys():
        raise FieldError(f"{place}: {name}", "no such field", "each field of TD_PARAMS; 0 if it is not used")
    return pack(TD_PARAMS, **{n: _value(given[n], f, f"{place}: {n}") for n, f in fields.items()})


def _value(given: Any, field: Any, place: str) -> int | bytes:
    size = field.sizeof()
    if isinstance(field, c.Bytes):
        data = _bytes(given)
        if data is None or len(data) != size:
            found = f"{len(data)} bytes" if data is not None else _shown(given)
            raise FieldError(place, found, f"{size} bytes, as hexadecimal text or a list of numbers")
        return data
    number = given
    if isinstance(given, str):
        try:
            number = int(given, 16)
        except ValueError:
            number = None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 8 * size:
        expected = f"a number of {size} bytes, or one as hexadecimal text"
        raise FieldError(place, _shown(given), expected)
    return number


def _shown(given: Any) -> str:
    try:
        return json.dumps(given)[:40]
    except RecursionError:
        return "lists in lists"


def _bytes(given: Any) -> bytes | None:
    if not isinstance(given, str | list) or any(isinstance(each, bool) for each in given):
        return None
    try:
        return bytes.fromhex(given.removeprefix("0x")) if isinstance(given, str) else bytes(given)
    except (TypeError, ValueError):
        return None
