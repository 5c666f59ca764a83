"""Which registers does a quote of a TD or a TDREPORT state? Signature and MAC are for others to verify.

Sources: Intel TDX DCAP Quoting Library API, appendix 3 (quote of version 4: header, TD quote body) and its
version 5, whose body names its type and size; Intel TDX Module 1.5 ABI, TDREPORT_STRUCT.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import construct as c
from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import offset_of, spaced, unpack
from formats.tdx.leaves import REPORT_DATA_SIZE, REPORT_SIZE

DIGEST = Bytes(48)
TEE_TDX = 0x81  # tee_type of a quote, first byte of REPORTTYPE
VERSION_4, VERSION_5 = 4, 5

HEADER = (
    "quote_header"
    / c.Struct(
        "version" / Int16ul,
        "key_type" / Int16ul,
        "tee_type" / Int32ul,
        "reserved" / Bytes(4),
        "vendor" / Bytes(16),
        "user_data" / Bytes(20),
    )
) * "Head of a quote of version 4 or 5"

BODY_HEAD = (
    "quote_body_head" / c.Struct("type" / Int16ul, "size" / Int32ul)
) * "Before the body in a quote of version 5: its type, and its bytes"

BODY = (
    "quote_body"
    / c.Struct(
        "tee_tcb_svn" / Bytes(16),
        "mrseam" / DIGEST,
        "mrsignerseam" / DIGEST,
        "seamattributes" / Int64ul,
        "attributes" / Int64ul,
        "xfam" / Int64ul,
        "mrtd" / DIGEST,
        "mrconfigid" / DIGEST,
        "mrowner" / DIGEST,
        "mrownerconfig" / DIGEST,
        "rtmr" / Array(4, DIGEST),
        "reportdata" / Bytes(REPORT_DATA_SIZE),
    )
) * "TD quote body; a body of TDX 1.5 has TEE_TCB_SVN2 and MRSERVICETD behind it"

BODY_SIZES = {2: BODY.sizeof(), 3: BODY.sizeof() + 16 + 48}  # by type: TDX 1.0, TDX 1.5

TD_INFO_SIZE = 512
TD_INFO = (
    "tdinfo"
    / spaced(
        TD_INFO_SIZE,
        {
            0: "attributes" / Int64ul,
            8: "xfam" / Int64ul,
            16: "mrtd" / DIGEST,
            64: "mrconfigid" / DIGEST,
            112: "mrowner" / DIGEST,
            160: "mrownerconfig" / DIGEST,
            208: "rtmr" / Array(4, DIGEST),
        },
    )
) * "TDINFO_STRUCT: what was measured of a TD"

REPORT = (
    "tdreport"
    / spaced(
        REPORT_SIZE,
        {
            0: "type" / Int8ul,
            80: "tee_info_hash" / DIGEST,
            128: "reportdata" / Bytes(REPORT_DATA_SIZE),
            REPORT_SIZE - TD_INFO_SIZE: "tdinfo" / Bytes(TD_INFO_SIZE),
        },
    )
) * "TDREPORT_STRUCT: REPORTMACSTRUCT, TEE_TCB_INFO, TDINFO_STRUCT"


@dataclass(frozen=True)
class Registers:
    """What a statement about a TD says was measured; `source`: what kind of statement it is."""

    source: str
    mrtd: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]


def registers(data: bytes, *, place: str = "quote") -> Registers:
    """The registers that a quote of version 4 or 5, or a TDREPORT, states. FormatError: it is neither."""
    if len(data) == REPORT_SIZE and data[0] == TEE_TDX:
        return _report(data, place)
    head = unpack(HEADER, data, place=place)
    if head.version not in (VERSION_4, VERSION_5):
        found = f"version {head.version}" if len(data) != REPORT_SIZE else f"type {data[0]:#x}"
        raise FieldError(f"{place} offset 0x0", found, "a quote of version 4 or 5, or a TDREPORT (type 0x81)")
    if head.tee_type != TEE_TDX:
        at = offset_of(HEADER, "tee_type")
        raise FieldError(f"{place} offset {at:#x}", f"TEE type {head.tee_type:#x}", "0x81, a TD")
    start, source = HEADER.sizeof(), f"quote v{head.version}"
    if head.version == VERSION_5:
        body = unpack(BODY_HEAD, data, start, place=place)
        if BODY_SIZES.get(body.type) != body.size:
            expected = ", ".join(f"type {kind} of {size}" for kind, size in BODY_SIZES.items())
            raise FieldError(
                f"{place} offset {start:#x}", f"a body of type {body.type} of {body.size} bytes", expected
            )
        start += BODY_HEAD.sizeof()
        if start + body.size > len(data):
            raise TruncatedError(
                f"{place} offset {start:#x}", f"{len(data) - start} bytes", f"{body.size} of the body"
            )
    return _registers(source, unpack(BODY, data, start, place=place))


def _report(data: bytes, place: str) -> Registers:
    """What the CPU put a MAC over has the digest of what the module measured."""
    report = unpack(REPORT, data, place=place)
    if hashlib.sha384(report.tdinfo).digest() != report.tee_info_hash:
        at = offset_of(REPORT, "tee_info_hash")
        found = f"TEE_INFO_HASH {report.tee_info_hash.hex()[:16]}..."
        raise FieldError(f"{place} offset {at:#x}", found, "SHA-384 of its TDINFO_STRUCT")
    return _registers("TDREPORT", unpack(TD_INFO, report.tdinfo, place=place))


def _registers(source: str, found: Any) -> Registers:
    r0, r1, r2, r3 = (bytes(each) for each in found.rtmr)
    return Registers(source, bytes(found.mrtd), (r0, r1, r2, r3))
