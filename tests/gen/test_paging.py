"""Do the tables that the 32-bit code really builds give every page exactly the declared rights?"""

from __future__ import annotations

import pytest
import unicorn as uc
import unicorn.x86_const as x86
from cpu import FLOW_ENTRY, REGIONS, machine, run
from machinecode import Link, Linked

from gen.boot.paging import Mapped, PagingError, plan
from gen.boot.units import emit

MOV_CR3_EAX = bytes.fromhex("0f22d8")


def built_tables(image: Linked) -> dict[int, tuple[int, str]]:
    """Run reset up to the load of CR3 and read the map with a walker of our own: page -> (frame, rights)."""
    cpu = machine(image, uc.UC_MODE_32)
    cpu.reg_write(x86.UC_X86_REG_ESI, 0)
    run(cpu, image.symbols["reset_td"], lambda _, code: code == MOV_CR3_EAX)
    return walk(cpu, cpu.reg_read(x86.UC_X86_REG_EAX))


def walk(cpu: uc.Uc, cr3: int) -> dict[int, tuple[int, str]]:
    """Every present 4 KiB page, rights combined over all levels (SDM volume 3A, section 4.6)."""
    found: dict[int, tuple[int, str]] = {}

    def level(table: int, base: int, depth: int, write: bool, run: bool) -> None:
        for index in range(512):
            entry = int.from_bytes(cpu.mem_read(table + 8 * index, 8), "little")
            if not entry & 1:
                assert entry == 0, f"entry {index} of {table:#x} is not present but {entry:#x}"
                continue
            assert not entry & 0x7FF0_0000_0000_0F7C & ~0x80, f"entry {entry:#x} has bits nobody wants"
            writable, executable = write and bool(entry & 2), run and not entry >> 63
            address = base + (index << 12 + 9 * depth)
            target = entry & 0x000F_FFFF_FFFF_F000
            if depth == 0 or entry & 0x80:
                assert depth in (0, 1), "no 1 GiB pages were asked for"
                for page in range(1 << 9 * depth):
                    rights = "r" + "w" * writable + "x" * executable
                    found[address + page * 0x1000] = (target + page * 0x1000, rights)
            else:
                level(target, address, depth - 1, writable, executable)

    level(cr3, 0, 3, True, True)
    return found


def declared(regions: tuple[Mapped, ...], image: Linked) -> dict[int, tuple[int, str]]:
    """The same map from the declarations alone, page by page."""
    spans = [(r.start + 0x1000 * r.guarded, r.start + r.size, r.access) for r in regions]
    for part, access in (("text", "rx"), ("rodata", "r"), ("data", "rw")):
        spans.append((image.symbols[f"__{part}_start"], image.symbols[f"__{part}_end"], access))
    return {page: (page, access) for start, end, access in spans for page in range(start, end, 0x1000)}


CROSSING = (
    Mapped("paging", 0x80_0000, 0xF000, "rw"),
    Mapped("stack", 0x81_0000, 0x2000, "rw", guarded=True),
    Mapped("over_2m", 0xBF_F000, 0x40_2000, "r"),
    Mapped("over_1g", 0x3FE0_0000, 0x40_0000, "rw"),
    Mapped("odd_over_1g", 0x7FFF_F000, 0x2000, "rx"),
    Mapped("high", 0xFFC0_0000, 0x20_0000, "rw"),
)
SMALL = (
    Mapped("stack", 0x80_0000, 0x2000, "rw", guarded=True),
    Mapped("paging", 0x80_2000, 0x9000, "rw"),
)


@pytest.mark.parametrize("regions", [REGIONS, CROSSING, SMALL], ids=["linux", "crossing", "small"])
def test_every_page_has_the_declared_rights(regions: tuple[Mapped, ...], link: Link) -> None:
    image = link(emit(regions), FLOW_ENTRY)
    built = built_tables(image)
    assert built == declared(regions, image)
    assert not [page for page, (_, rights) in built.items() if "w" in rights and "x" in rights]


def test_empty_linked_part_maps_nothing(link: Link) -> None:
    script = """SECTIONS {
        . = 0xFFFF8000;
        .text : { __text_start = .; *(.text .text.*) *(.reset) . = ALIGN(4096); __text_end = .; }
        .rodata : { *(.rodata .rodata.*) *(.data .data.*) . = ALIGN(4096); }
        __rodata_start = 0xFFFFC000; __rodata_end = 0xFFFFC000;
        __data_start = 0xFFFFD000; __data_end = 0x100000000;
        .resetvec 0xFFFFFFF0 : { *(.resetvec) }
    }"""
    image = link(emit(REGIONS), FLOW_ENTRY, script)
    built = built_tables(image)
    assert 0xFFFF_C000 not in built
    assert {page for page in built if page >= 0xFFFF_D000} == {0xFFFF_D000, 0xFFFF_E000, 0xFFFF_F000}


def test_pages_used_is_the_next_free_one(image: Linked) -> None:
    used = int.from_bytes(image.read(image.symbols["paging_pages_used"], 4), "little")
    cpu = machine(image, uc.UC_MODE_32)
    cpu.reg_write(x86.UC_X86_REG_ESI, 0)
    run(cpu, image.symbols["reset_td"], lambda _, code: code == MOV_CR3_EAX)
    pool = next(region for region in REGIONS if region.name == "paging")
    pages = [bytes(cpu.mem_read(at, 0x1000)) for at in range(pool.start, pool.end, 0x1000)]
    assert used == 9
    assert [any(page) for page in pages[: used - 1]].count(False) == 2  # tables of the window that clears
    ids = int.from_bytes(image.read(image.symbols["paging_cpu_ids"], 8), "little")
    assert ids == pool.start + (used - 1) * 0x1000
    assert not any(pages[used - 1]), "no vCPU has told its id"
    assert not any(any(page) for page in pages[used:]), "the rest of the pool must be cleared"


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([Mapped("stack", 0, 0x2000, "rw")], "no region named paging"),
        ([Mapped("paging", 0x1000, 0x9000, "rw")], "no region named stack"),
        (
            [Mapped("paging", 0x1000, 0x2000, "rw"), Mapped("stack", 0x8000, 0x2000, "rw")],
            "takes 0x9000",
        ),
        (
            [Mapped("paging", 0x1000, 0x8000, "rw"), Mapped("stack", 0xA000, 0x2000, "rw")],
            "is 0x8000 bytes, the first map takes 0x9000",
        ),
        ([Mapped("x", 0x1800, 0x1000, "rw")], "x: 0x1800.* 4 KiB pages"),
        ([Mapped("x", 0x1000, 0, "rw")], "4 KiB pages"),
        ([Mapped("x", 0x1000, 0x1000, "rwx")], "access 'rwx' is none of"),
        ([Mapped("x", 0xFFDF_F000, 0x2000, "r")], "window"),
        (
            [Mapped("x", 0x1000, 0x2000, "r"), Mapped("y", 0x2000, 0x1000, "r")],
            "x and y overlap at 0x2000",
        ),
    ],
)
def test_wrong_declarations_name_the_region(regions: list[Mapped], message: str) -> None:
    with pytest.raises(PagingError, match=message):
        emit(regions)


def test_large_pages_only_where_they_fit() -> None:
    first_map = plan([Mapped("paging", 0x80_0000, 0x10000, "rw"), Mapped("p", 0xA0_1000, 0x60_0000, "rw")])
    sizes = [(leaves.first, bool(leaves.low & 0x80)) for leaves in first_map.leaves if leaves.name == "p"]
    assert sizes == [(0xA0_1000, False), (0xC0_0000, True), (0x100_0000, False)]


def test_the_window_that_clears_has_its_tables() -> None:
    """One on each side of a 2 MiB line, beside the firmware's own: links and no leaf."""
    first_map = plan([Mapped("paging", 0x80_0000, 0x10000, "rw")])
    links = {link.entry: link.table for link in first_map.links}
    directory = links[0x1000 + 3 * 8]
    tables = {links[directory + at * 8] for at in (0xFC00_1000 >> 21 & 511, 0xFC20_1000 >> 21 & 511)}
    assert len(tables) == 2
    assert not any(leaves.table in tables for leaves in first_map.leaves)
