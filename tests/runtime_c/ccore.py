"""What do the tests of the C core share? The core itself, sanitized, and makers of its arguments."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cffi

from gen.core.hostlib import Guarded, load

CORE = load(sanitize=True)
FFI, LIB = CORE.ffi, CORE.lib

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE, LARGE = 4 * KIB, 2 * MIB
UNACCEPTED, ADDED, LEFT_OUT = 0, 1, 2
RAM, RESERVED, ACPI, NVS = 1, 2, 3, 4
BFV, CFV, TD_HOB, TEMP_MEM, PAYLOAD, PAYLOAD_PARAM, CARVED = 0, 1, 2, 3, 5, 6, 0x100


class CoreError(Exception):
    """A primitive returned a status; the text is its name in the prelude."""


def check(status: int) -> None:
    if status:
        raise CoreError(CORE.error(status))


@dataclass(frozen=True)
class Range:
    start: int
    end: int
    state: int
    e820: int


@dataclass(frozen=True)
class Section:
    """An entry of the layout: a section of the image, or a carved region (`start` 0, `end` its size)."""

    kind: int
    start: int
    end: int
    e820: int = RAM


# The image of the flow that ships, roughly: everything that a layout can hold.
LAYOUT = (
    Section(BFV, 4 * GIB - 64 * KIB, 4 * GIB, RESERVED),
    Section(TD_HOB, 0x800000, 0x810000),
    Section(TEMP_MEM, 0x810000, 0x81C000),
    Section(TEMP_MEM, 0x81C000, 0x826000),
    Section(TEMP_MEM, 0x826000, 0x846000, NVS),
    Section(PAYLOAD_PARAM, 0x846000, 0x847000),
    Section(PAYLOAD, 0xA00000, 0x1A00000),
    Section(CARVED, 0, 4 * KIB, NVS),
    Section(CARVED, 0, 64 * KIB, ACPI),
    Section(CARVED, 0, 4 * KIB, RAM),
)


def make_layout(entries: Sequence[Section] = LAYOUT, limit: int = 4 * GIB) -> Any:
    layout = FFI.new("struct layout *", {"entries": len(entries)})
    layout.count = len(entries)
    layout.carved_count = sum(entry.kind == CARVED for entry in entries)
    layout.carve_limit = limit
    for slot, entry in zip(layout.entries, entries, strict=True):
        slot.start, slot.end, slot.kind, slot.e820 = entry.start, entry.end, entry.kind, entry.e820
    return layout


def make_vmm(resources: Iterable[tuple[int, int, int]], tables: Sequence[bytes] = ()) -> Any:
    """`resources`: kind, start, end. The tables' memory lives as long as the result."""
    vmm = CORE.new("vmm")
    for kind, start, end in resources:
        slot = vmm.resources.items[vmm.resources.count]
        slot.kind, slot.start, slot.size = kind, start, end - start
        vmm.resources.count += 1
    for table in tables:
        memory = FFI.new("uint8_t[]", table or b"\0")
        _KEPT.append(memory)
        slot = vmm.tables.items[vmm.tables.count]
        slot.data, slot.size = memory, len(table)
        vmm.tables.count += 1
    return vmm


_KEPT: list[Any] = []


def make_td(vcpus: int = 1, gpaw: int = 52) -> Any:
    td = CORE.new("vp_info")
    td.gpaw, td.num_vcpus, td.max_vcpus = gpaw, vcpus, vcpus
    return td


def make_cpus(ids: int | Sequence[int], wait: int = 1) -> Any:
    """A `struct cpus *` with these APIC ids, in this order; a number: so many, from 0 on."""
    cpus = CORE.new("cpus")
    data = b"".join(each.to_bytes(4, "little") for each in (range(ids) if isinstance(ids, int) else ids))
    span = CORE.span(data)
    _KEPT.append(span)
    cpus.ids, cpus.wait = span[0], wait
    return cpus


def plan(
    resources: Iterable[tuple[int, int, int]], layout: Sequence[Section] = LAYOUT, limit: int = 4 * GIB
) -> Any:
    """A `struct ram *`; CoreError if the plan is refused."""
    ram = CORE.new("ram")
    check(LIB.plan_memory(make_vmm(resources), make_td(), make_layout(layout, limit), ram))
    return ram


def make_ram(ranges: Iterable[Range], carved: Iterable[tuple[int, int]] = ()) -> Any:
    ram = CORE.new("ram")
    for each in ranges:
        slot = ram.ranges.items[ram.ranges.count]
        slot.start, slot.end, slot.state, slot.e820 = each.start, each.end, each.state, each.e820
        ram.ranges.count += 1
    for start, size in carved:
        slot = ram.carved.items[ram.carved.count]
        slot.data, slot.size = FFI.cast("uint8_t *", start), size
        ram.carved.count += 1
    return ram


def ranges_of(ram: Any) -> list[Range]:
    return [Range(r.start, r.end, r.state, r.e820) for r in ram.ranges.items[0 : ram.ranges.count]]


def carved_of(ram: Any) -> list[tuple[int, int]]:
    return [(CORE.address(c.data), c.size) for c in ram.carved.items[0 : ram.carved.count]]


def below_2_gib(size: int) -> Guarded:
    """Writable bytes where 32-bit fields can point to them, as in a TD; nothing guards their end."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40  # MAP_32BIT, mmap(2)
    memory = mmap.mmap(-1, size, flags=flags)
    return Guarded(int(FFI.cast("uintptr_t", FFI.from_buffer(memory))), size, memory)


def at_1_mib(size: int) -> Guarded:
    """Writable bytes where 24 bits can point to them. Only one at a time."""
    libc = cffi.FFI()
    libc.cdef("void *mmap(void *, size_t, int, int, int, long); int munmap(void *, size_t);")
    c, address = libc.dlopen(None), libc.cast("void *", MIB)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE, mmap(2)
    assert c.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == address
    return Guarded(MIB, size, libc.gc(address, lambda at: c.munmap(at, size)))


def low_and_high(size: int, low_end: int = 3 * GIB) -> list[tuple[int, int]]:
    """RAM of `size` bytes as a PC has it: up to `low_end` below 4 GiB, the rest from 4 GiB on."""
    low = min(size, low_end)
    return [(0, low)] + ([(4 * GIB, 4 * GIB + size - low)] if size > low else [])
