"""What did the firmware log? Finds the event log through CCEL and tells whether it replays to the RTMRs."""

from __future__ import annotations

import struct
from collections.abc import Callable

from formats import acpi, eventlog
from formats.errors import FormatError

Read = Callable[[int, int], bytes]
"""Guest-physical read: GPA and size in bytes; fewer bytes where nothing is readable."""

MAX_TABLE = 1 << 20
MAX_LOG = 16 << 20


def _table(read: Read, address: int) -> bytes:
    head = read(address, 8)
    if len(head) < 8:
        return b""
    length = int(struct.unpack("<I", head[4:])[0])
    return read(address, length) if acpi.HEADER.sizeof() <= length <= MAX_TABLE else b""


def locate(read: Read, rsdp: int) -> tuple[int, int] | None:
    """Address and length of the log area: RSDP, XSDT, CCEL. None when a step is missing."""
    root = read(rsdp, acpi.RSDP.sizeof()) if rsdp else b""
    if len(root) < acpi.RSDP.sizeof() or root[:8] != acpi.RSDP_SIGNATURE:
        return None
    body = _table(read, int(acpi.RSDP.parse(root).xsdt_address))[acpi.HEADER.sizeof() :]
    for (address,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8]):
        raw = _table(read, address)
        if raw[:4] == b"CCEL" and len(raw) >= acpi.CCEL.sizeof():
            ccel = acpi.CCEL.parse(raw)
            return int(ccel.log_area_address), int(ccel.log_area_length)
    return None


def fetch(read: Read, rsdp: int) -> bytes:
    """The raw log area, empty when there is none."""
    found = locate(read, rsdp)
    return read(found[0], min(found[1], MAX_LOG)) if found else b""


def describe(log: bytes) -> list[dict[str, object]]:
    """Register, type, digest and description of each hashed event; empty for an unreadable log."""
    try:
        events = eventlog.parse(log) if log else []
    except FormatError:
        return []
    return [
        {"rtmr": e.rtmr, "type": e.type_name, "digest": e.digest.hex(), "description": e.description}
        for e in events
        if e.extended
    ]


def replay(log: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The RTMR values that a log stands for. FormatError when it cannot be read."""
    return eventlog.replay(eventlog.parse(log))
