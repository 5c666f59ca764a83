"""Which constants and helpers do the rows of TDCALL leaves share?"""

from __future__ import annotations

from typing import Any

from . import layout as at
from .rows import Row, Step

ENCODING, LEAVES, FIELDS, REPORTS = "2.1 TDCALL", "2.4 Leaves", "2.5 Metadata fields", "7 Reports"
DISPATCH = "tdx_td_dispatcher.c td_call"
INVALID = 0xC000010000000000  # OPERAND_INVALID
SHARED = 1 << 47
NO_VE_INFO, ID_INCORRECT, NOT_WRITABLE = 0xC000070400000000, 0xC0000C0000000000, 0xC0000C0100000000
NOT_READABLE, VALUE_NOT_VALID, FIRST_ID = 0xC0000C0200000000, 0xC0000C0300000000, 0x00000C0B00000000
GP = {"vector": 13, "error": 0, "at": 0}
RAX, RCX, RDX, R8, R9, R10, R11 = 1 << 0, 1 << 1, 1 << 2, 1 << 8, 1 << 9, 1 << 10, 1 << 11
B, FREE = at.BUFFER, at.FREE
SEPARATOR = bytes.fromhex(  # SHA-384 of four zero bytes
    "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0"
)
# RTMR after one extend of the separator from zero, and its quadwords
EXTENDED = bytes.fromhex(
    "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"
)
FLEXIBLE, DEFAULT_VE = {"config_flags": 6}, 1 << 28


def quad(content: bytes, index: int) -> int:
    """A little-endian quadword."""
    return int.from_bytes(content[8 * index : 8 * index + 8], "little")


def make(
    key: str,
    what: str,
    section: str,
    source: str,
    steps: Step | tuple[Step, ...],
    expect: dict[str, int],
    **more: Any,
) -> Row:
    return Row(key, what, section, source, steps if isinstance(steps, tuple) else (steps,), expect, **more)
