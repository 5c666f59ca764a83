"""What did the firmware leave for the kernel? boot_params and E820 at the moment of the handoff."""

from __future__ import annotations

from emu.eventlog import Read
from formats import linux

HEADER_OFFSET = 0x202  # setup header magic in boot_params


def _boot_params(read: Read, address: int) -> bytes:
    page = read(address, linux.BOOT_PARAMS.sizeof())
    magic = linux.HEADER_MAGIC.to_bytes(4, "little")
    whole = len(page) == linux.BOOT_PARAMS.sizeof() and page[HEADER_OFFSET : HEADER_OFFSET + 4] == magic
    return page if whole else b""


def rsdp(read: Read, address: int) -> int:
    """acpi_rsdp_addr of the boot_params at a GPA, 0 when there are none."""
    page = _boot_params(read, address)
    return int(linux.BOOT_PARAMS.parse(page).acpi_rsdp_addr) if page else 0


def describe(read: Read, entry: int, address: int) -> dict[str, object]:
    """Entry point, boot_params address and the E820 table (empty when RSI points to no boot_params)."""
    page = _boot_params(read, address)
    table: list[list[int]] = []
    if page:
        params = linux.BOOT_PARAMS.parse(page)
        count = min(int(params.e820_entries), linux.E820_MAX_ENTRIES)
        table = [[int(e.addr), int(e.size), int(e.type)] for e in params.e820_table[:count]]
    return {"entry": entry, "boot_params": address, "e820": table}
