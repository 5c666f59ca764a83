"""How does MRTD come about? PAGE.ADD and MR.EXTEND records in call order (intel/tdx-module,
tdh_mem_page_add.c, tdh_mr_extend.c), and the extension rule of an RTMR.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from formats.units import PAGE

CHUNK = 256


@dataclass(frozen=True)
class AddedRegion:
    """Pages that the VMM adds at launch; `measured`: whether it extends them. Content may end before the
    region does (`size` in bytes, 0 for the content's own length): the rest is zero.
    """

    gpa: int
    content: bytes
    measured: bool
    size: int = 0

    @property
    def length(self) -> int:
        """Bytes that are added."""
        return self.size or len(self.content)

    @property
    def pages(self) -> int:
        """Pages that are added."""
        return self.length // PAGE

    def chunk(self, offset: int) -> bytes:
        """The 256 bytes at an offset."""
        return self.content[offset : offset + CHUNK].ljust(CHUNK, b"\0")


def add_record(gpa: int) -> bytes:
    """The 128 bytes that TDH.MEM.PAGE.ADD hashes."""
    return b"MEM.PAGE.ADD".ljust(16, b"\0") + gpa.to_bytes(8, "little").ljust(112, b"\0")


def extend_record(gpa: int, chunk: bytes) -> bytes:
    """The 384 bytes that TDH.MR.EXTEND hashes for one 256-byte chunk."""
    return b"MR.EXTEND".ljust(16, b"\0") + gpa.to_bytes(8, "little").ljust(112, b"\0") + chunk


def rtmr_extend(register: bytes, data: bytes) -> bytes:
    """RTMR after TDG.MR.RTMR.EXTEND: SHA-384 of the old value and the 48 extended bytes."""
    return hashlib.sha384(register + data).digest()
