"""What did the firmware leave for the kernel? boot_params and E820 at the moment of the handoff."""

from __future__ import annotations

from dataclasses import dataclass

from emu import eventlog
from emu.eventlog import Read
from formats import linux

HEADER_OFFSET = 0x202  # setup header magic in boot_params


@dataclass(frozen=True)
class Handoff:
    """What the payload was given: entry point, GPA of boot_params, its E820 table, and the event log."""

    entry: int
    boot_params: int
    e820: tuple[tuple[int, int, int], ...]
    log: bytes

    def to_json(self) -> dict[str, object]:
        """Its part of the boot report."""
        return {"entry": self.entry, "boot_params": self.boot_params, "e820": [list(e) for e in self.e820]}


def _boot_params(read: Read, address: int) -> bytes:
    page = read(address, linux.BOOT_PARAMS.sizeof())
    magic = linux.HEADER_MAGIC.to_bytes(4, "little")
    whole = len(page) == linux.BOOT_PARAMS.sizeof() and page[HEADER_OFFSET : HEADER_OFFSET + 4] == magic
    return page if whole else b""


def take(read: Read, entry: int, address: int) -> Handoff:
    """What lies there as the payload begins at `entry` with RSI at `address`; E820 and log are empty when RSI
    points to no boot_params.
    """
    page = _boot_params(read, address)
    if not page:
        return Handoff(entry, address, (), b"")
    params = linux.BOOT_PARAMS.parse(page)
    count = min(int(params.e820_entries), linux.E820_MAX_ENTRIES)
    table = tuple((int(e.addr), int(e.size), int(e.type)) for e in params.e820_table[:count])
    return Handoff(entry, address, table, eventlog.fetch(read, int(params.acpi_rsdp_addr)))
