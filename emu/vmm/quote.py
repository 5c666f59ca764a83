"""What does GetQuote answer? A text that nobody can take for a quote (buffer: QEMU tdx-quote-generator.h)."""

from __future__ import annotations

from dataclasses import dataclass

from formats.ghci import QUOTE_ERROR, QUOTE_HEADER, QUOTE_SUCCESS, QUOTE_VERSION
from formats.structs import pack, unpack
from formats.tdx.leaves import REPORT_DATA_SIZE, REPORT_SIZE

HEADER_SIZE = QUOTE_HEADER.sizeof()
MAX_BUFFER = 128 << 10
REPORT_DATA = (
    128  # where REPORTDATA lies in a TDREPORT (intel/tdx-module, tdx_api_defs.h report_mac_struct_s)
)
TEXT = b"EMULATED, NOT A QUOTE: nothing ran on TDX hardware and nobody signed this. REPORTDATA "


@dataclass(frozen=True)
class Answer:
    """What the VMM writes over the start of the buffer."""

    status: int
    data: bytes = b""

    def write(self, buffer: bytes) -> bytes:
        """The buffer as the guest finds it afterwards."""
        given = unpack(QUOTE_HEADER, buffer)
        head = pack(
            QUOTE_HEADER,
            version=given.version,
            status=self.status,
            in_size=given.in_size,
            out_size=len(self.data),
        )
        return (head + self.data).ljust(len(buffer), b"\0") if self.data else head + buffer[HEADER_SIZE:]


def is_request(buffer: bytes) -> bool:
    """Whether QEMU takes a request for one (tdx_handle_get_quote): version, and a length that fits."""
    head = unpack(QUOTE_HEADER, buffer)
    return bool(head.version == QUOTE_VERSION and HEADER_SIZE + head.in_size <= len(buffer))


def answer(buffer: bytes) -> Answer:
    """The answer to a request of 4 KiB or more; the service that makes quotes wants a TDREPORT."""
    if unpack(QUOTE_HEADER, buffer).in_size != REPORT_SIZE:
        return Answer(QUOTE_ERROR)
    at = HEADER_SIZE + REPORT_DATA
    return Answer(QUOTE_SUCCESS, TEXT + buffer[at : at + REPORT_DATA_SIZE].hex().encode() + b"\n")
