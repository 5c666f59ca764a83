"""How far does a kernel go that lies in a window, and is it entered only inside?"""

from __future__ import annotations

from typing import Any

import pytest
from ccore import CORE, GIB, LIB, MIB, PAGE, CoreError, below_2_gib, check, plan
from hypothesis import given
from hypothesis import strategies as st

from formats import linux

PAGES = 16


def window(pages: dict[int, bytes], size: int = PAGES * PAGE) -> Any:
    """Page-aligned memory that holds these bytes at the beginning of these pages."""
    memory = below_2_gib(size)
    for page, data in pages.items():
        memory.memory[page * PAGE : page * PAGE + len(data)] = data
    return memory


def span(memory: Any, size: int | None = None, offset: int = 0) -> Any:
    return CORE.span(memory.address + offset, memory.size - offset if size is None else size)


def used(region: Any) -> int:
    out = CORE.new("span")
    LIB.used_extent(region, out)
    assert out.data == region.data
    return int(out.size)


def test_an_empty_window() -> None:
    assert used(span(window({}))) == 0


@given(st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, PAGE - 1), max_size=4))
def test_the_extent_ends_with_the_last_page_that_is_not_zero(bytes_at: dict[int, int]) -> None:
    memory = window({page: bytes(place) + b"\1" for page, place in bytes_at.items()})
    assert used(span(memory)) == (max(bytes_at, default=-1) + 1) * PAGE


@pytest.mark.parametrize(("size", "offset"), [(PAGE + 1, 0), (PAGE, 1)])
def test_of_what_is_no_whole_pages_nothing_is_left_out(size: int, offset: int) -> None:
    assert used(span(window({}), size, offset)) == size


INITRD = 3 * PAGE


def placed(
    entry: int, size: int = 5 * PAGE, initrd: int = INITRD, shift: int = 0, at: int = 0x50_0000, rest: int = 0
) -> Any:
    """The placement of a kernel of `size` bytes, entered `entry` bytes behind its beginning.

    `at`: where its initrd is, from the window's beginning if that is small. `rest`: where a byte is not zero.
    """
    memory, out = window({}), CORE.new("placement")
    if rest:
        memory.memory[rest] = 1
    data = CORE.span(at if at > 1 << 20 else memory.address + at, initrd)
    kernel = span(memory, size, shift)
    ram = plan([(7, 0, 2 * GIB)])
    check(LIB.place_vmlinux(span(memory), kernel, memory.address + entry, data, ram, out))
    return memory, out


@pytest.mark.parametrize("size", [5 * PAGE, 5 * PAGE - 1, 5 * PAGE + 7, PAGES * PAGE - 1])
def test_nothing_lies_behind_what_was_measured(size: int) -> None:
    placed(0, size, rest=size - 1)
    for at in {size, min(size + PAGE, PAGES * PAGE - 1), PAGES * PAGE - 1}:
        with pytest.raises(CoreError, match="kernel_not_whole"):
            placed(0, size, rest=at)


def test_an_initrd_in_the_window_or_where_no_ram_is() -> None:
    for at in (0, (PAGES - 1) * PAGE, 3 * GIB):
        with pytest.raises(CoreError, match="initrd_no_room"):
            placed(0, at=at)


def test_a_window_that_is_no_ram_to_the_os() -> None:
    memory, out = window({}), CORE.new("placement")
    empty = CORE.span(0, 0)
    ram = plan([(7, 0, 2 * GIB)])
    for range_ in ram.ranges.items[0 : ram.ranges.count]:
        if range_.start <= memory.address < range_.end:
            range_.e820 = 4
    with pytest.raises(CoreError, match="window_no_room"):
        check(LIB.place_vmlinux(span(memory), span(memory, PAGE), memory.address, empty, ram, out))


@pytest.mark.parametrize("front", [PAGE, 0x800, 1, 0])
@pytest.mark.parametrize("behind", [PAGE, 1, 0])
def test_a_window_that_is_only_a_part_of_its_section(front: int, behind: int) -> None:
    """What lies there in front of it and behind it is the VMM's, and no register records it."""
    memory, empty = window({}), CORE.span(0, 0)
    ram = plan([(7, 0, 2 * GIB)])
    section = next(r for r in ram.ranges.items[0 : ram.ranges.count] if r.start <= memory.address < r.end)
    section.state = 1  # added at launch
    section.start = memory.address - front
    section.end = memory.address + PAGES * PAGE + behind
    status = LIB.place_vmlinux(
        span(memory), span(memory, PAGE), memory.address, empty, ram, CORE.new("placement")
    )
    if front or behind:
        with pytest.raises(CoreError, match="window_no_room"):
            check(status)
    else:
        check(status)


@pytest.mark.parametrize("entry", [0, 0xB53, 5 * PAGE - 16])
def test_the_kernel_stays_and_its_window_is_the_section(entry: int) -> None:
    memory, out = placed(entry)
    assert out.entry == memory.address + entry
    assert (out.window_start, out.window_end) == (memory.address, memory.address + PAGES * PAGE)
    assert (out.load, out.kernel.protected_size) == (memory.address, PAGES * PAGE)
    assert (out.initrd_start, out.initrd_size, out.copies.count) == (0x50_0000, INITRD, 0)
    assert (out.kernel.image.size, out.kernel.header_size) == (5 * PAGE, 0)


def test_without_an_initrd() -> None:
    _, out = placed(0, initrd=0)
    assert (out.initrd_start, out.initrd_size) == (0, 0)


@pytest.mark.parametrize(
    ("entry", "size", "shift"),
    [
        (-1, 5 * PAGE, 0),
        (5 * PAGE - 15, 5 * PAGE, 0),
        (5 * PAGE, 5 * PAGE, 0),
        ((1 << 63), 5 * PAGE, 0),
        (0, 0, 0),
        (0, 15, 0),
        (PAGE, PAGE * PAGES + 1, 0),
        (PAGE, PAGE, PAGE),
        (0, PAGE, PAGE),  # within the kernel's size, but in front of it
    ],
)
def test_an_entry_outside_of_what_was_measured(entry: int, size: int, shift: int) -> None:
    with pytest.raises(CoreError, match="kernel_entry_outside"):
        placed(entry, size, shift=shift)


def test_boot_params_have_a_header_of_ours() -> None:
    """boot.rst: what Linux looks at. Nothing of it comes from the kernel's bytes."""
    memory, out = placed(0x1000)
    memory.memory[0x1F1 : 0x1F1 + 123] = b"\xee" * 123
    page = below_2_gib(2 * PAGE)
    check(LIB.zero_page(span(page), out, plan([(7, 0, 256 * MIB)]), CORE.span(b"ro"), 0x7000))
    raw = bytes(page.memory)
    params = linux.BOOT_PARAMS.parse(raw)
    header = params.hdr
    assert (header.boot_flag, header.header, header.version) == (0xAA55, 0x53726448, 0x20F)
    assert (header.type_of_loader, header.loadflags, header.xloadflags) == (0xFF, 1, 1)
    assert (header.ramdisk_image, header.ramdisk_size) == (0x50_0000, INITRD)
    assert header.initrd_addr_max == 0x7FFFFFFF
    assert (header.cmd_line_ptr, header.cmdline_size) == (page.address + PAGE, 2047)
    assert (header.code32_start, header.pref_address) == (memory.address, memory.address)
    assert (header.init_size, header.kernel_alignment) == (PAGES * PAGE, 0x200000)
    assert (params.acpi_rsdp_addr, params.e820_entries > 0) == (0x7000, True)
    assert raw[PAGE : PAGE + 3] == b"ro\0"
    ours = raw[:PAGE]
    for address in (page.address + PAGE, memory.address):  # one of their bytes may be 0xEE
        ours = ours.replace(address.to_bytes(4, "little"), b"")
    assert b"\xee" not in ours


AREAS = ("window", "load", "initrd", "page")


@given(st.lists(st.tuples(st.integers(-PAGE, 9 * PAGE), st.integers(0, 4 * PAGE)), min_size=4, max_size=4))
def test_of_a_section_stays_what_is_handed_over(areas: list[tuple[int, int]]) -> None:
    """Wherever kernel, initrd and boot_params lie, within the section, over its ends, over each other."""
    size = 8 * PAGE
    memory, placement = below_2_gib(3 * size), CORE.new("placement")
    memory.memory[: 3 * size] = b"\xaa" * (3 * size)
    start = memory.address + size
    found = ((start + low, start + low + length) for low, length in areas)
    places = dict(zip(AREAS, found, strict=True))
    placement.window_start, placement.window_end = places["window"]
    placement.load = places["load"][0]
    placement.kernel.protected_size = places["load"][1] - placement.load
    placement.initrd_start = places["initrd"][0]
    placement.initrd_size = places["initrd"][1] - placement.initrd_start
    page = CORE.span(places["page"][0], places["page"][1] - places["page"][0])
    LIB.clear_rest(CORE.span(start, size), placement, page)
    for at in range(0, 3 * size, 64):
        for byte in (memory.address + at, memory.address + at + 63):
            inside = start <= byte < start + size
            kept = any(low <= byte < high for low, high in places.values())
            assert memory.memory[byte - memory.address] == (0 if inside and not kept else 0xAA)
