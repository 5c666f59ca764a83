"""What does GetQuote answer? A text that nobody can take for a quote (buffer: QEMU tdx-quote-generator.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER = struct.Struct("<QQII")  # version, status, bytes in, bytes out
VERSION = 1
SUCCESS, ERROR = 0, 0x8000000000000000
MAX_BUFFER = 128 << 10
REPORT_SIZE, REPORT_DATA, REPORT_DATA_SIZE = 1024, 128, 64  # TDREPORT and its REPORTDATA
TEXT = b"EMULATED, NOT A QUOTE: nothing ran on TDX hardware and nobody signed this. REPORTDATA "


@dataclass(frozen=True)
class Answer:
    """What the VMM writes over the start of the buffer."""

    status: int
    data: bytes = b""

    def write(self, buffer: bytes) -> bytes:
        """The buffer as the guest finds it afterwards."""
        version, _, given, _ = HEADER.unpack_from(buffer)
        head = HEADER.pack(version, self.status, given, len(self.data))
        return (head + self.data).ljust(len(buffer), b"\0") if self.data else head + buffer[HEADER.size :]


def is_request(buffer: bytes) -> bool:
    """Whether QEMU takes a request for one (tdx_handle_get_quote): version, and a length that fits."""
    version, _, given, _ = HEADER.unpack_from(buffer)
    return bool(version == VERSION and HEADER.size + given <= len(buffer))


def answer(buffer: bytes) -> Answer:
    """The answer to a request of 4 KiB or more; the service that makes quotes wants a TDREPORT."""
    _, _, given, _ = HEADER.unpack_from(buffer)
    if given != REPORT_SIZE:
        return Answer(ERROR)
    at = HEADER.size + REPORT_DATA
    return Answer(SUCCESS, TEXT + buffer[at : at + REPORT_DATA_SIZE].hex().encode() + b"\n")
