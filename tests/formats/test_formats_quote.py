"""Are the registers those that a quote or a TDREPORT states, and is all else refused in one clear line?"""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from emu.tdx.report import TdInfo, build
from formats import quote
from formats.errors import FieldError, FormatError, TruncatedError


def digest(name: str) -> bytes:
    return hashlib.sha384(name.encode()).digest()


MRTD, RTMR = digest("mrtd"), (digest("0"), digest("1"), digest("2"), bytes(48))
HEAD = struct.pack("<HHI4x16s20x", 4, 2, 0x81, bytes.fromhex("939a7233f79c4ca9940a0db3957f0607"))
BODY = b"".join(
    (
        *(b"s" * 16, b"m" * 48, bytes(48), bytes(8), b"a" * 8, b"x" * 8, MRTD),
        *(b"c" * 48, b"o" * 48, b"w" * 48, *RTMR, b"d" * 64),
    )
)
SIGNATURE = struct.pack("<I", 100) + b"signature" * 12
V4 = HEAD + BODY + SIGNATURE
V5 = struct.pack("<H", 5) + HEAD[2:] + struct.pack("<HI", 2, 584) + BODY + SIGNATURE
V5_15 = struct.pack("<H", 5) + HEAD[2:] + struct.pack("<HI", 3, 648) + BODY + b"2" * 64 + SIGNATURE
INFO = (b"a" * 8 + b"x" * 8 + MRTD + b"c" * 48 + b"o" * 48 + b"w" * 48 + b"".join(RTMR)).ljust(512, b"\0")
MAC_STRUCT = b"\x81".ljust(80, b"\0") + hashlib.sha384(INFO).digest() + b"d" * 64 + bytes(32) + b"m" * 32
REPORT = MAC_STRUCT + b"t" * 256 + INFO


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (V4, "quote v4"),
        (V4 + bytes(3000), "quote v4"),
        (V5, "quote v5"),
        (V5_15, "quote v5"),
        (REPORT, "TDREPORT"),
    ],
)
def test_registers(data: bytes, source: str) -> None:
    assert quote.registers(data) == quote.Registers(source, MRTD, RTMR)


def test_a_report_of_the_emulated_module() -> None:
    report = build(TdInfo(1, 2, MRTD, b"c" * 48, b"o" * 48, b"w" * 48, RTMR), b"d" * 64)
    assert quote.registers(report) == quote.Registers("TDREPORT", MRTD, RTMR)
    assert report[512:] == INFO.replace(b"a" * 8 + b"x" * 8, struct.pack("<QQ", 1, 2))


def test_a_quote_of_a_reports_size_is_a_quote() -> None:
    data = V4.ljust(1024, b"\0")
    assert quote.registers(data).source == "quote v4"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "q offset 0x0: found 0 bytes, expected 48 bytes of quote_header"),
        (V4[:631], "q offset 0x30: found 583 bytes, expected 584 bytes of quote_body"),
        (V5[:637], "q offset 0x36: found 583 bytes, expected 584 of the body"),
        (V5_15[:701], "q offset 0x36: found 647 bytes, expected 648 of the body"),
        (V5[:50], "q offset 0x30: found 2 bytes, expected 6 bytes of quote_body_head"),
        (b"\3" + V4[1:], "q offset 0x0: found version 3, expected a quote of version 4 or 5, or a TDREPORT"),
        (V4[:4] + b"\0" + V4[5:], "q offset 0x4: found TEE type 0x0, expected 0x81, a TD"),
        (
            V5[:48] + b"\3" + V5[49:],
            "q offset 0x30: found a body of type 3 of 584 bytes, expected type 2 of 584",
        ),
        (
            V5[:48] + b"\1" + V5[49:],
            "found a body of type 1 of 584 bytes, expected type 2 of 584, type 3 of 648",
        ),
        (
            b"\0" + REPORT[1:],
            "q offset 0x0: found type 0x0, expected a quote of version 4 or 5, or a TDREPORT",
        ),
        (REPORT[:-513] + b"\1" + REPORT[-512:], None),
        (
            REPORT[:528] + b"\0" + REPORT[529:],
            "q offset 0x50: found TEE_INFO_HASH .*, expected SHA-384 of its TDINFO",
        ),
    ],
)
def test_what_is_refused(data: bytes, says: str | None) -> None:
    """But not what lies between REPORTMACSTRUCT and TDINFO_STRUCT: the MAC is for others."""
    if says is None:
        assert quote.registers(data).rtmr == RTMR
        return
    with pytest.raises((FieldError, TruncatedError), match=says) as caught:
        quote.registers(data, place="q")
    assert isinstance(caught.value, FormatError)


@given(st.sampled_from((V4, V5, V5_15, REPORT)), st.integers(0, 1100), st.integers(0, 8), st.integers(0, 255))
def test_a_cut_or_changed_quote_gives_registers_or_one_clear_line(
    data: bytes, end: int, at: int, value: int
) -> None:
    changed = bytearray(data[:end])
    changed[at : at + 1] = bytes([value])
    with one_line():
        quote.registers(bytes(changed))
