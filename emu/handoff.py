"""What did the firmware leave for the kernel? boot_params, E820 and event log at the handoff."""

from __future__ import annotations

from dataclasses import dataclass

from emu import eventlog
from emu.eventlog import Log, Read
from formats import linux
from formats.structs import offset_of

HEADER_OFFSET = linux.SETUP_HEADER_OFFSET + offset_of(linux.SETUP_HEADER, "header")


@dataclass(frozen=True)
class Handoff:
    """What the payload was given: entry point, RSI, the GPA of boot_params (None if RSI points to none: what
    began is no Linux kernel, or only another part of the firmware), its E820 table, the event log, and how
    many pages of 4 KiB and of 2 MiB had been accepted.
    """

    entry: int
    rsi: int
    boot_params: int | None
    e820: tuple[tuple[int, int, int], ...]
    log: Log
    accepted: tuple[int, int]

    def to_json(self) -> dict[str, object]:
        """Its part of the boot report."""
        table = [list(entry) for entry in self.e820]
        return {"entry": self.entry, "rsi": self.rsi, "boot_params": self.boot_params, "e820": table}


def _boot_params(read: Read, address: int) -> bytes:
    page = read(address, linux.BOOT_PARAMS.sizeof())
    magic = linux.HEADER_MAGIC.to_bytes(4, "little")
    whole = len(page) == linux.BOOT_PARAMS.sizeof() and page[HEADER_OFFSET : HEADER_OFFSET + 4] == magic
    return page if whole else b""


def take(read: Read, entry: int, rsi: int, accepted: tuple[int, int]) -> Handoff:
    """What lies there as the first code outside the measured pages begins at `entry`."""
    page = _boot_params(read, rsi)
    if not page:
        why = f"no boot_params at RSI {rsi:#x} when the first code outside the measured pages began"
        return Handoff(entry, rsi, None, (), Log(missing=why), accepted)
    params = linux.BOOT_PARAMS.parse(page)
    count = min(int(params.e820_entries), linux.E820_MAX_ENTRIES)
    table = tuple((int(e.addr), int(e.size), int(e.type)) for e in params.e820_table[:count])
    log = eventlog.fetch(read, int(params.acpi_rsdp_addr))
    return Handoff(entry, rsi, rsi, table, log, accepted)
