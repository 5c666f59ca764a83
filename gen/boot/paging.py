"""Which pages are mapped at first, with what rights, and how does the reset code build the tables for them?

The plan is data: links between table pages and runs of leaf entries, both placed by this module. The reset
code only stores what the two tables say. Page tables are a pool (the `paging` section): PML4, PDPT, then
further pages in order; the runtime takes the next free page from `paging_pages_used` on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from peachpy.x86_64 import (
    ADD,
    AND,
    CMP,
    JA,
    JNC,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    OR,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    cl,
    dword,
    eax,
    ebp,
    ebx,
    ecx,
    edi,
    edx,
    esi,
    rdi,
    rsi,
)

from formats.paging import CLEARING_TABLES, ENTRIES, PageBit
from formats.units import FOUR_GIB, GIB, LARGE_PAGE, PAGE
from gen.x86 import DD, DQ, REP_STOSD, Symbol, Unit

PRESENT, WRITABLE, LARGE = int(PageBit.PRESENT), int(PageBit.WRITABLE), int(PageBit.LARGE)
NO_EXECUTE_HIGH = int(PageBit.NO_EXECUTE) >> 32  # in the upper half of the entry
ACCESS = {"r": (PRESENT, NO_EXECUTE_HIGH), "rw": (PRESENT | WRITABLE, NO_EXECUTE_HIGH), "rx": (PRESENT, 0)}
"""Rights by name: (low flags, high flags). None is both writable and executable."""

# The firmware volume's own parts: page aligned, placed by the linker in the last 2 MiB below 4 GiB.
LINKED_PARTS = (("text", "rx"), ("rodata", "r"), ("data", "rw"))
# The rows of the two tables, all u32: where each field lies, and how long a row is.
ENTRY, VALUE, LINK_SIZE = 0, 4, 8
FIRST, LAST, TABLE, LOW, HIGH, LEAVES_SIZE = range(0, 24, 4)


class PagingError(Exception):
    """The regions cannot be mapped as declared; the message names the region."""


@dataclass(frozen=True)
class Mapped:
    """Mapped from reset on. GPA and bytes; `guarded` leaves the first page unmapped."""

    name: str
    start: int
    size: int
    access: str
    guarded: bool = False

    @property
    def end(self) -> int:
        """First byte behind the region."""
        return self.start + self.size


@dataclass(frozen=True)
class Link:
    """Entry at pool offset `entry` points to the table page at pool offset `table`."""

    entry: int
    table: int


@dataclass(frozen=True)
class Leaves:
    """Leaf entries for [first, last], all inside the table page at pool offset `table`.

    Bounds are GPAs or linker symbols; `last` is the last byte, so that a run may end at 4 GiB in 32 bits.
    """

    name: str
    first: int | Symbol
    last: int | Symbol
    table: int
    low: int
    high: int


@dataclass(frozen=True)
class FirstMap:
    """Everything the reset code needs: pool place and size, links, leaves, pages taken.

    `cpu_ids`: the page to which each vCPU writes its APIC id (GPA).
    `data_copy`: where the writable data goes on a machine without TDX, whose image is read-only (GPA).
    """

    pool: Mapped
    links: tuple[Link, ...]
    leaves: tuple[Leaves, ...]
    pages_used: int
    cpu_ids: int
    data_copy: int | None = None


def plan(regions: Sequence[Mapped], pool: str = "paging", data_pages: int = 0) -> FirstMap:
    """Lay out the first map of `regions` and of the linked parts; PagingError if they cannot be mapped.

    `data_pages`: how many pages of the pool, behind the tables, take a copy of the writable data.
    """
    _check(regions)
    found = [region for region in regions if region.name == pool]
    if not found:
        raise PagingError(f"no region named {pool} to hold the page tables")
    tables = _Tables()
    leaves = []
    for region in sorted(regions, key=lambda region: region.start):
        at = region.start + (PAGE if region.guarded else 0)
        while at < region.end:
            large = at % LARGE_PAGE == 0 and region.end - at >= LARGE_PAGE
            span = GIB if large else LARGE_PAGE
            limit = region.end // LARGE_PAGE * LARGE_PAGE if large else region.end
            stop = min(limit, (at // span + 1) * span)
            leaves.append(
                _leaves(region.name, at, stop - 1, tables.page(at, 2 if large else 1), region.access, large)
            )
            at = stop
    last = tables.page(FOUR_GIB - PAGE, 1)
    leaves += [
        _leaves(part, Symbol(f"__{part}_start"), Symbol(f"__{part}_end") - 1, last, access, False)
        for part, access in LINKED_PARTS
    ]
    for at in CLEARING_TABLES:
        tables.page(at, 1)
    used = tables.count + 1 + data_pages
    if used * PAGE > found[0].size:
        raise PagingError(f"region {pool} is {found[0].size:#x} bytes, the first map takes {used * PAGE:#x}")
    ids = found[0].start + tables.count * PAGE
    copy = ids + PAGE if data_pages else None
    return FirstMap(found[0], tuple(tables.links), tuple(leaves), used, ids, copy)


def _leaves(
    name: str, first: int | Symbol, last: int | Symbol, table: int, access: str, large: bool
) -> Leaves:
    low, high = ACCESS[access]
    return Leaves(name, first, last, table, low | (LARGE if large else 0), high)


class _Tables:
    """Hands out table pages in order and remembers the links to them."""

    def __init__(self) -> None:
        self.count = 2
        self.links = [Link(0, PAGE)]
        self._made: dict[tuple[int, int], int] = {}

    def page(self, address: int, level: int) -> int:
        """Pool offset of the directory (level 2) or table (level 1) that covers `address`, below 4 GiB."""
        shift = 12 + 9 * level
        key = (level, address >> shift)
        if key not in self._made:
            parent = self.page(address, 2) if level == 1 else PAGE
            self._made[key] = self.count * PAGE
            self.count += 1
            self.links.append(Link(parent + (address >> shift & ENTRIES - 1) * 8, self._made[key]))
        return self._made[key]


def _check(regions: Sequence[Mapped]) -> None:
    for region in regions:
        if region.access not in ACCESS:
            raise PagingError(
                f"region {region.name}: access {region.access!r} is none of {', '.join(ACCESS)}"
            )
        if region.start % PAGE or region.size % PAGE or region.size <= 0:
            raise PagingError(
                f"region {region.name}: {region.start:#x}+{region.size:#x} is not made of 4 KiB pages"
            )
        if region.end > FOUR_GIB - LARGE_PAGE:
            raise PagingError(
                f"region {region.name}: ends at {region.end:#x}, in or above the firmware's own window"
            )
    ordered = sorted(regions, key=lambda region: region.start)
    for one, other in itertools.pairwise(ordered):
        if one.end > other.start:
            raise PagingError(f"regions {one.name} and {other.name} overlap at {other.start:#x}")


def emit_tables(unit: Unit, first_map: FirstMap) -> None:
    """The plan in .rodata, all u32: `paging_links` (entry, value), `paging_leaves` (the fields of Leaves)."""
    base = first_map.pool.start
    with unit.data("paging_links", section=".rodata.paging", align=4):
        for link in first_map.links:
            DD(base + link.entry, f"entry {link.entry // 8 % ENTRIES} of table page {link.entry // PAGE}")
            DD(base + link.table | PRESENT | WRITABLE, f"-> table page {link.table // PAGE}")
    with unit.data("paging_leaves", section=".rodata.paging", align=4):
        for leaves in first_map.leaves:
            size = "2 MiB" if leaves.low & LARGE else "4 KiB"
            DD(leaves.first, f"{leaves.name}: {size} pages from")
            DD(leaves.last, "to")
            DD(base + leaves.table, f"in table page {leaves.table // PAGE}")
            DD(leaves.low, "present" + (", writable" if leaves.low & WRITABLE else ""))
            DD(leaves.high, "no execute" if leaves.high else "executable")
    with unit.data("paging_cpu_ids", section=".rodata.paging", align=8):
        DQ(first_map.cpu_ids, "where each vCPU tells its APIC id")
    with unit.data("paging_pages_used", section=".rodata.paging", align=4):
        DD(first_map.pages_used, "table pages taken by the first map")


def emit_build(first_map: FirstMap) -> None:
    """32-bit code, paging off: clear the pool and build the first map. Uses every register except ESP.

    The pool is cleared whole: TempMem is added to the TD unmeasured, so the VMM chose what is in it.
    """
    MOV(edi, first_map.pool.start)
    MOV(ecx, first_map.pool.size // 4)
    XOR(eax, eax)
    REP_STOSD()

    link = Label("link")
    LEA(esi, [Symbol("paging_links")])
    MOV(ecx, len(first_map.links))
    LABEL(link)
    MOV(edi, [rsi + ENTRY])
    MOV(eax, [rsi + VALUE])
    MOV([rdi], eax)
    ADD(esi, LINK_SIZE)
    SUB(ecx, 1)
    JNZ(link)

    run, entry, small, done = Label("run"), Label("entry"), Label("small"), Label("run_done")
    LEA(esi, [Symbol("paging_leaves")])
    MOV(ebp, len(first_map.leaves))
    LABEL(run)
    MOV(ebx, PAGE)
    MOV(ecx, 12 - 3)  # entries are 8 bytes: address to entry offset is page shift minus 3
    TEST(dword[rsi + LOW], LARGE)
    JZ(small)
    MOV(ebx, LARGE_PAGE)
    MOV(ecx, 21 - 3)
    LABEL(small)
    MOV(eax, [rsi + FIRST])
    MOV(edi, eax)
    SHR(edi, cl)
    AND(edi, (ENTRIES - 1) * 8)
    ADD(edi, [rsi + TABLE])
    LABEL(entry)
    CMP(eax, [rsi + LAST])
    JA(done)  # also an empty linked part
    MOV(edx, eax)
    OR(edx, [rsi + LOW])
    MOV([rdi], edx)
    MOV(edx, [rsi + HIGH])
    MOV([rdi + 4], edx)
    ADD(edi, 8)
    ADD(eax, ebx)
    JNC(entry)  # carry: the run ended at 4 GiB
    LABEL(done)
    ADD(esi, LEAVES_SIZE)
    SUB(ebp, 1)
    JNZ(run)
