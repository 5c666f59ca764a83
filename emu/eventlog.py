"""What did the firmware log? Finds the event log through CCEL and says which RTMR values it stands for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from formats import acpi, eventlog
from formats.errors import FormatError
from formats.units import MIB

Read = Callable[[int, int], bytes]
"""Guest-physical read: GPA and size in bytes; fewer bytes where nothing is readable."""

MAX_TABLE = MIB
MAX_LOG = 16 * MIB


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


@dataclass(frozen=True)
class Log:
    """The raw log area; when it is empty, `missing` says why."""

    data: bytes = b""
    missing: str = ""


def fetch(read: Read, rsdp: int) -> Log:
    """The log that the tables at a GPA lead to."""
    if not rsdp:
        return Log(missing="boot_params contain no RSDP address")
    found = locate(read, rsdp)
    if found is None:
        return Log(missing=f"no CCEL among the ACPI tables of the RSDP at {rsdp:#x}")
    data = read(found[0], min(found[1], MAX_LOG))
    return Log(
        data, "" if data else f"no memory in the {found[1]} bytes at {found[0]:#x} that the CCEL names"
    )


def search(read: Read, memory: Iterable[tuple[int, bytes]]) -> Log:
    """The log of an RSDP that lies somewhere in memory, given as pieces with their GPAs: what a firmware that
    hands over no boot_params has left.
    """
    for gpa, piece in memory:
        at = piece.find(acpi.RSDP_SIGNATURE)
        while at >= 0:
            root = read(gpa + at, acpi.RSDP.sizeof())
            if not sum(root) % 256 and locate(read, gpa + at):
                return fetch(read, gpa + at)
            at = piece.find(acpi.RSDP_SIGNATURE, at + 1)
    return Log(missing="no CCEL in memory at the end of the run")


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
