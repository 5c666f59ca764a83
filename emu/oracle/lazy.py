"""Which RAM does a hand-over leave to the OS? What EFI tables that boot_params lead to say of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from formats import efi, linux
from formats.units import MIB, PAGE

Range = tuple[int, int]
Entry = tuple[int, int, int]  # start, end, type
Read = Callable[[int, int], bytes]

MAX_BITMAP = 64 * MIB
# What the E820 says of memory of each type.
E820: dict[int, int] = {
    efi.MemoryType.RESERVED: linux.E820Type.RESERVED,
    efi.MemoryType.CONVENTIONAL: linux.E820Type.RAM,
    efi.MemoryType.ACPI_RECLAIM: linux.E820Type.ACPI,
    efi.MemoryType.ACPI_NVS: linux.E820Type.NVS,
    efi.MemoryType.UNACCEPTED: linux.E820Type.RAM,
}


@dataclass(frozen=True)
class Lazy:
    """`area`: where the tables lie. `content`: their bytes. `left`: RAM that the OS is to accept."""

    area: Range = (0, 0)
    content: bytes = b""
    left: tuple[Range, ...] = ()
    broken: tuple[str, ...] = ()


NOTHING_LEFT = Lazy()


def follow(read: Read, page: bytes, rsdp: int, e820: Sequence[Entry]) -> Lazy:
    """Follows boot_params; empty if they lead to no such tables. `broken`: what does not fit together."""
    info = linux.BOOT_PARAMS.parse(page).efi_info
    if not any(linux.EFI_INFO.build(info)):
        return NOTHING_LEFT
    at = info.systab | info.systab_hi << 32
    found = efi.TABLES.parse(read(at, efi.TABLES.sizeof()).ljust(efi.TABLES.sizeof(), b"\0"))
    size = min(found.unaccepted.size, MAX_BITMAP)
    content = read(at, efi.TABLES.sizeof() + size)
    count = min(info.memmap_size // efi.MEMORY_DESCRIPTOR.sizeof(), efi.MAX_DESCRIPTORS)
    memory = [
        (d.physical_start, d.physical_start + d.number_of_pages * PAGE, d.type) for d in found.map[:count]
    ]
    left = tuple(_left(found.unaccepted.phys_base, content[efi.TABLES.sizeof() :]))
    broken = tuple(_broken(found, info, at, rsdp, memory, left, e820))
    return Lazy((at, at + len(content)), content, left, broken)


def _left(base: int, bitmap: bytes) -> Iterator[Range]:
    bits = f"{int.from_bytes(bitmap, 'little'):0{8 * len(bitmap)}b}"[::-1] if bitmap else ""
    at = base
    for bit, group in groupby(bits):
        end = at + sum(1 for _ in group) * efi.UNACCEPTED_UNIT
        if bit == "1":
            yield at, end
        at = end


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """Neighbours of one type as one entry."""
    found: list[Entry] = []
    for start, end, kind in entries:
        if found and found[-1][1:] == (start, kind):
            found[-1] = (found[-1][0], end, kind)
        else:
            found.append((start, end, kind))
    return found


def _broken(
    found: Any,
    info: Any,
    at: int,
    rsdp: int,
    memory: Sequence[Entry],
    left: Sequence[Range],
    e820: Sequence[Entry],
) -> Iterator[str]:
    if info.loader_signature != efi.LOADER_SIGNATURE or info.memdesc_version != efi.MEMORY_DESCRIPTOR_VERSION:
        yield "boot_params name no EFI of 64 bits"
    if info.memmap | info.memmap_hi << 32 != at + PAGE or info.memdesc_size != efi.MEMORY_DESCRIPTOR.sizeof():
        yield "boot_params name another memory map"
    if found.system.signature != efi.SYSTEM_TABLE_SIGNATURE:
        yield f"there is no EFI system table at {at:#x}"
    if found.system.crc32 != zlib.crc32(efi.SYSTEM_TABLE.build(found.system | {"crc32": 0})):
        yield "the EFI system table has another checksum"
    bitmap = at + efi.TABLES.sizeof() - efi.UNACCEPTED_TABLE.sizeof()
    named = [(bytes(each.vendor_guid), each.vendor_table) for each in found.configuration]
    if named != [(efi.ACPI_20.bytes_le, rsdp), (efi.UNACCEPTED_MEMORY.bytes_le, bitmap)]:
        yield "the EFI system table leads elsewhere"
    if (found.unaccepted.version, found.unaccepted.unit_size) != (1, efi.UNACCEPTED_UNIT):
        yield "there is no table of unaccepted memory"
    if merged((start, end, E820.get(kind, -1)) for start, end, kind in memory) != merged(e820):
        yield "the memory map of EFI is not that of the E820"
    unaccepted = merged(entry for entry in memory if entry[2] == efi.MemoryType.UNACCEPTED)
    if [(start, end) for start, end, _ in unaccepted] != list(left):
        yield "the memory map and the table of unaccepted memory differ"
