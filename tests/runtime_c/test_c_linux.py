"""Are kernel and initrd found, checked, placed and described as the boot protocol wants it?"""

from __future__ import annotations

from typing import Any

import pytest
from ccore import (
    ACPI,
    ADDED,
    CARVED,
    CORE,
    GIB,
    KIB,
    LAYOUT,
    LEFT_OUT,
    LIB,
    MIB,
    NVS,
    PAGE,
    PAYLOAD,
    RAM,
    RESERVED,
    UNACCEPTED,
    CoreError,
    Range,
    Section,
    carved_of,
    check,
    low_and_high,
    make_ram,
    plan,
    ranges_of,
)
from debian import kernel as debian_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.formats import bundle, linux

FIELDS = {
    "setup_sects": 1,
    "syssize": 0x100,
    "boot_flag": 0xAA55,
    "jump": 0xEB,
    "jump_offset": 0x6A,
    "header": 0x53726448,
    "version": 0x20F,
    "loadflags": 0x83,
    "vid_mode": 7,
    "initrd_addr_max": 0x7FFFFFFF,
    "kernel_alignment": 0x200000,
    "relocatable_kernel": 1,
    "xloadflags": 0x7F,
    "cmdline_size": 2047,
    "pref_address": 0x1000000,
    "init_size": 0x3000000,
}


def bzimage(**changes: int) -> bytes:
    fields = FIELDS | changes
    setup = bytearray(((fields["setup_sects"] or 4) + 1) * 512)
    offset = linux.SETUP_HEADER_OFFSET
    for each in linux.SETUP_HEADER.subcon.subcons:
        size = each.sizeof()
        setup[offset : offset + size] = fields.get(each.name, 0).to_bytes(size, "little")
        offset += size
    setup[0x1EF] = 0xFF  # the sentinel that a loader must not copy
    protected = bytes(i * 31 & 255 for i in range(4096))
    return bytes(setup) + (protected * (fields["syssize"] // 256 + 1))[: fields["syssize"] * 16]


def guarded(data: bytes) -> Any:
    """A span over a copy that ends at a page nobody may touch."""
    memory = CORE.guarded(max(len(data), 1))
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), len(data))[:] = data
    _KEPT.append(memory)
    return CORE.span(memory.address, len(data))


_KEPT: list[Any] = []


def parse(data: bytes) -> Any:
    out = CORE.new("linux")
    check(LIB.parse_linux(guarded(data), out))
    return out


def extent(data: bytes) -> int:
    out = CORE.new("span")
    check(LIB.linux_extent(guarded(data), out))
    return int(out.size)


def test_debians_kernel():
    data = debian_kernel().read_bytes()
    expected = linux.kernel(data)
    assert extent(data) == expected.true_length < len(data)
    out = parse(data)
    assert (out.image.size, out.setup_size, out.protected_size, out.init_size) == (
        expected.true_length,
        expected.setup_size,
        expected.protected_size,
        expected.init_size,
    )
    assert (out.pref_address, out.alignment, out.relocatable, out.xloadflags) == (
        expected.preferred_address,
        expected.alignment,
        expected.relocatable,
        expected.xloadflags,
    )
    assert (out.initrd_max, out.command_line_max) == (expected.initrd_max, expected.cmdline_size)


def test_setup_sects_zero_means_four():
    data = bzimage(setup_sects=0)
    assert extent(data + bytes(100)) == len(data) == 2560 + 4096


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"header": 0}, "kernel_not_bzimage"),
        ({"boot_flag": 0}, "kernel_not_bzimage"),
        ({"version": 0x20B}, "kernel_too_old"),
        ({"xloadflags": 0x7E}, "kernel_too_old"),
        ({"loadflags": 0}, "kernel_malformed"),
        ({"jump": 0xE9}, "kernel_malformed"),
        ({"jump_offset": 0x61}, "kernel_malformed"),
        ({"jump_offset": 0x8F}, "kernel_malformed"),
        ({"kernel_alignment": 0}, "kernel_malformed"),
        ({"kernel_alignment": 0x300000}, "kernel_malformed"),
        ({"kernel_alignment": 0x800}, "kernel_malformed"),
        ({"init_size": 0}, "kernel_malformed"),
        ({"syssize": 0x20}, "kernel_malformed"),
        ({"pref_address": 0x1000001}, "kernel_malformed"),
        ({"pref_address": (1 << 64) - 0x1000}, "kernel_malformed"),
    ],
)
def test_refuses(changes, error):
    with pytest.raises(CoreError, match=error):
        parse(bzimage(**changes))


def test_truncated():
    data = bzimage()
    for size, error in (
        (len(data) - 1, "kernel_truncated"),
        (0x26B, "kernel_not_bzimage"),
        (0, "kernel_not_bzimage"),
    ):
        with pytest.raises(CoreError, match=error):
            extent(data[:size])
        with pytest.raises(CoreError, match=error):
            parse(data[:size])


def initrd_of(section: bytes) -> bytes:
    span, kernel, out = guarded(section), CORE.new("span"), CORE.new("span")
    check(LIB.linux_extent(span, kernel))
    check(LIB.initrd_extent(span, kernel, out))
    return CORE.content(out)


@pytest.mark.parametrize("size", [1, 4095, 4096, 10000])
def test_bundle(size):
    initrd = bytes(i % 251 for i in range(size))
    section = bundle.write(bzimage(), initrd)
    assert initrd_of(section) == initrd
    assert initrd_of(section + bytes(5000)) == initrd
    with pytest.raises(CoreError, match="initrd_malformed"):
        initrd_of(section[:-1])


def test_no_bundle_is_no_initrd():
    assert initrd_of(bzimage()) == b""
    assert initrd_of(bzimage() + bytes(8192)) == b""
    assert initrd_of(bzimage() + b"signature" * 1000) == b""
    span = guarded(bzimage())
    out = CORE.new("span")
    with pytest.raises(CoreError, match="initrd_malformed"):
        check(LIB.initrd_extent(span, CORE.span(CORE.address(span.data) - 1, 10), out))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0x1F0, 0x26F), st.integers(0, 255)), max_size=8), st.integers(0, 5200))
def test_any_header_is_parsed_or_refused(changes, size):
    data = bytearray(bundle.write(bzimage(), b"initrd"))
    for offset, value in changes:
        data[offset] = value
    span = guarded(bytes(data[:size]))
    kernel, initrd, out = CORE.new("span"), CORE.new("span"), CORE.new("linux")
    if LIB.linux_extent(span, kernel) == 0:
        assert kernel.size <= size
        LIB.initrd_extent(span, kernel, initrd)
        LIB.parse_linux(kernel, out)


# ---------------------------------------------------------------- placement

SECTION = next(s for s in LAYOUT if s.kind == PAYLOAD)


def place(ram: Any, initrd: tuple[int, int] = (0, 0), at: int = SECTION.start, **changes: int) -> Any:
    """Places a kernel that lies at GPA `at`; `initrd`: its GPA and size."""
    kernel, out = parse(bzimage(**changes)), CORE.new("placement")
    kernel.image.data = CORE.ffi.cast("uint8_t *", at)
    check(LIB.place_linux(kernel, CORE.span(*initrd), ram, out))
    return out


def copies(out: Any) -> list[tuple[int, int, int]]:
    # `from` is a word of Python's own.
    return [(c.to, getattr(c, "from"), c.size) for c in out.copies.items[0 : out.copies.count]]


def free(ram: Any, start: int, end: int, home: int = SECTION.start) -> bool:
    """Page by page: accepted type-1 RAM, not carved, no section but the one that `home` lies in."""
    at = start - start % PAGE
    for piece in ranges_of(ram):
        if piece.start <= at < piece.end:
            usable = piece.state == UNACCEPTED or (piece.state == ADDED and piece.start <= home < piece.end)
            if piece.e820 != RAM or not usable:
                return False
            at = piece.end
        if at >= end:
            break
    return at >= end and all(end <= c or c + size <= start for c, size in carved_of(ram))


@pytest.mark.parametrize("size", [128 * MIB, 257 * MIB, 2047 * MIB, 2 * GIB, 3 * GIB, 8 * GIB, 64 * GIB])
def test_runs_in_place(size):
    ram = plan([(7, a, b) for a, b in low_and_high(size)])
    out = place(ram)
    load = SECTION.start + 1024
    assert (out.load, out.entry, copies(out)) == (load, load + 0x200, [])
    assert (out.window_start, out.window_end) == (0x1000000, 0x1000000 + 0x3000000)
    assert free(ram, out.window_start, out.window_end)


def test_window_is_above_a_kernel_that_lies_high():
    ram = plan([(7, 0, 512 * MIB)], [Section(PAYLOAD, 64 * MIB, 80 * MIB)])
    out = place(ram, at=64 * MIB)
    assert (out.load, out.window_start, out.window_end) == (64 * MIB + 1024, 66 * MIB, 66 * MIB + 0x3000000)


def test_initrd_in_the_window_moves_to_the_top_of_low_ram():
    ram = plan([(7, a, b) for a, b in low_and_high(8 * GIB)])
    start, size = 0x1100000, 0x123456
    out = place(ram, (start, size))
    to = 2 * GIB - 0x124000
    assert (out.initrd_start, out.initrd_size, copies(out)) == (to, size, [(to, start, size)])


def test_initrd_avoids_the_carved_regions():
    ram = plan([(7, 0, 256 * MIB)])
    out = place(ram, (0x1100000, MIB))
    assert out.initrd_start == 256 * MIB - 72 * KIB - MIB
    assert free(ram, out.initrd_start, out.initrd_start + MIB, home=-1)


def test_initrd_outside_of_the_window_stays():
    ram = plan([(7, 0, 256 * MIB)])
    out = place(ram, (0xE00000, 0x10001))
    assert (out.initrd_start, out.initrd_size, copies(out)) == (0xE00000, 0x10001, [])


def test_initrd_without_room():
    ram = plan([(7, 0, 72 * MIB)])
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(ram, (0x1100000, 10 * MIB))
    above = plan([(7, 0, 72 * MIB), (7, 4 * GIB, 5 * GIB)])
    assert place(above, (0x1100000, 10 * MIB)).initrd_start == 5 * GIB - 10 * MIB
    with pytest.raises(CoreError, match="initrd_no_room"):
        place(above, (0x1100000, 10 * MIB), xloadflags=1)


def test_a_taken_window_moves_the_kernel():
    wall = Section(3, 0x2000000, 0x2001000, NVS)
    ram = plan([(7, 0, 512 * MIB)], [*LAYOUT, wall])
    out = place(ram, (0xE00000, PAGE))
    load = 0x2200000
    assert (out.load, out.entry, out.window_start, out.window_end) == (
        load,
        load + 0x200,
        load,
        load + 0x3000000,
    )
    assert copies(out) == [(load, SECTION.start + 1024, 4096)]
    assert out.initrd_start == 0xE00000
    assert free(ram, out.window_start, out.window_end, home=-1)


def test_a_window_may_not_reach_into_a_carved_region():
    sections = [*(s for s in LAYOUT if s.kind != CARVED), Section(CARVED, 0, 4 * KIB, RAM)]
    ends = 0x1000000 + FIELDS["init_size"]
    fits = plan([(7, 0, ends + 4 * KIB)], sections)
    assert place(fits).window_end == carved_of(fits)[0][0] == ends
    with pytest.raises(CoreError, match="window_no_room"):
        place(plan([(7, 0, ends)], sections))


def test_a_kernel_that_cannot_move():
    ram = plan([(7, 0, 512 * MIB)])
    out = place(ram, relocatable_kernel=0, pref_address=0x4000000)
    assert (out.load, out.window_end) == (SECTION.start + 1024, 0x4000000 + 0x3000000)
    wall = plan([(7, 0, 512 * MIB)], [*LAYOUT, Section(3, 0x5000000, 0x5001000)])
    with pytest.raises(CoreError, match="kernel_not_relocatable"):
        place(wall, relocatable_kernel=0, pref_address=0x4000000)


def test_no_room_for_the_window():
    with pytest.raises(CoreError, match="window_no_room"):
        place(plan([(7, 0, 48 * MIB)]))


def test_above_4_gib_only_a_kernel_that_may():
    ram = plan([(7, 0, 48 * MIB), (7, 4 * GIB, 5 * GIB)])
    assert place(ram).load == 4 * GIB
    with pytest.raises(CoreError, match="window_no_room"):
        place(ram, xloadflags=1)


def test_a_window_may_not_reach_into_ram_that_was_left_out():
    ram = make_ram(
        [
            Range(0, 0xA00000, UNACCEPTED, RAM),
            Range(0xA00000, 0x1A00000, ADDED, RAM),
            Range(0x1A00000, 0x2000000, UNACCEPTED, RAM),
            Range(0x2000000, 0x10000000, LEFT_OUT, RAM),
        ]
    )
    with pytest.raises(CoreError, match="window_no_room"):
        place(ram)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(27, 1000), st.integers(1, 64)), max_size=4),
    st.integers(1, 200),
    st.one_of(st.none(), st.tuples(st.integers(0x1001, 0x19FF), st.integers(1, 0x200000))),
    st.integers(64, 400),
)
def test_nothing_ever_overlaps(walls, window_mib, initrd, ram_mib):
    sections = [Section(3, MIB * at, MIB * at + PAGE * pages, NVS) for at, pages in walls]
    initrd = (initrd[0] * PAGE, min(initrd[1], SECTION.end - initrd[0] * PAGE)) if initrd else (0, 0)
    try:
        ram = plan([(7, 0, ram_mib * MIB)], [*LAYOUT, *sections])
        out = place(ram, initrd, init_size=window_mib * MIB)
    except CoreError:
        return
    assert free(ram, out.window_start, out.window_end)
    assert free(ram, out.load, out.load + 4096)
    assert out.window_start == max(-(-out.load // 0x200000) * 0x200000, 0x1000000)
    assert out.window_end == out.window_start + window_mib * MIB
    if initrd[1]:
        end = out.initrd_start + out.initrd_size
        assert free(ram, out.initrd_start, end)
        assert end <= out.window_start or out.window_end <= out.initrd_start
        assert out.initrd_start % PAGE == 0
    for to, _, size in copies(out):
        assert free(ram, to, to + size, home=-1)


# ---------------------------------------------------------------- zero page


class ZeroPage:
    def __init__(self, data: bytes, ram: Any, command_line: bytes = b"quiet", **placement: int) -> None:
        self.page = guarded(b"\xaa" * 8192)
        self.placement = CORE.new("placement")
        self.image = guarded(data)
        check(LIB.parse_linux(self.image, CORE.ffi.addressof(self.placement, "kernel")))
        for name, value in placement.items():
            setattr(self.placement, name, value)
        check(LIB.zero_page(self.page, self.placement, ram, CORE.span(command_line), 0x7FFE0000))
        self.params = linux.BOOT_PARAMS.parse(CORE.content(self.page))

    @property
    def e820(self) -> list[tuple[int, int, int]]:
        table = self.params.e820_table[: self.params.e820_entries]
        return [(e.addr, e.addr + e.size, e.type) for e in table]


def test_zero_page():
    ram = plan([(7, a, b) for a, b in low_and_high(8 * GIB)])
    data = bzimage(root_dev=5, ext_loader_type=3, heap_end_ptr=7, setup_data=9, handover_offset=1)
    zero = ZeroPage(data, ram, load=0xA00400, initrd_start=0x1_2345_6000, initrd_size=0x2_0000_0001)
    params, header = zero.params, zero.params.hdr
    assert params.acpi_rsdp_addr == 0x7FFE0000
    assert params.sentinel == 0
    assert (header.type_of_loader, header.loadflags, header.vid_mode) == (0xFF, 1, 0xFFFF)
    assert (header.ramdisk_image, params.ext_ramdisk_image) == (0x2345_6000, 1)
    assert (header.ramdisk_size, params.ext_ramdisk_size) == (1, 2)
    line = CORE.address(zero.page.data) + 4096
    assert (header.cmd_line_ptr, params.ext_cmd_line_ptr) == (line & 0xFFFFFFFF, line >> 32)
    assert header.code32_start == 0xA00400
    assert (header.root_dev, header.ext_loader_type, header.heap_end_ptr, header.setup_data) == (0, 0, 0, 0)
    kept = (
        "header",
        "version",
        "kernel_alignment",
        "init_size",
        "pref_address",
        "xloadflags",
        "handover_offset",
    )
    assert [header[name] for name in kept] == [(FIELDS | {"handover_offset": 1})[name] for name in kept]
    assert zero.e820 == [
        (0, 0x826000, RAM),
        (0x826000, 0x846000, NVS),
        (0x846000, 3 * GIB - 68 * KIB, RAM),
        (3 * GIB - 68 * KIB, 3 * GIB - 4 * KIB, ACPI),
        (3 * GIB - 4 * KIB, 3 * GIB, NVS),
        (4 * GIB - 64 * KIB, 4 * GIB, RESERVED),
        (4 * GIB, 9 * GIB, RAM),
    ]


def test_everything_outside_the_known_fields_is_zero():
    zero = ZeroPage(bzimage(), plan([(7, 0, 256 * MIB)]))
    raw = CORE.content(zero.page)
    for start, end in ((0, 0x70), (0x78, 0xC0), (0xCC, 0x1E8), (0x1E9, 0x1F1), (0x26C, 0x2D0)):
        assert raw[start:end] == bytes(end - start)
    assert not any(raw[0x2D0 + 20 * zero.params.e820_entries : 4096])


def test_the_command_line_is_copied_and_ends_where_what_was_measured_ends():
    zero = ZeroPage(bzimage(), plan([(7, 0, 256 * MIB)]), b"console=ttyS0 and more"[:13])
    assert CORE.content(zero.page)[4096:] == b"console=ttyS0".ljust(4096, b"\0")


def test_header_is_copied_by_its_own_length():
    short = ZeroPage(bzimage(jump_offset=0x62, handover_offset=0x1234), plan([(7, 0, 256 * MIB)]))
    assert (short.params.hdr.init_size, short.params.hdr.handover_offset) == (FIELDS["init_size"], 0)


def test_left_out_ram_is_not_told_of():
    ranges = [
        Range(0, MIB, UNACCEPTED, RAM),
        Range(MIB, 2 * MIB, LEFT_OUT, RAM),
        Range(2 * MIB, 3 * MIB, ADDED, RAM),
    ]
    assert ZeroPage(bzimage(), make_ram(ranges)).e820 == [(0, MIB, RAM), (2 * MIB, 3 * MIB, RAM)]


def test_e820_limit():
    ranges = [Range(i * MIB, i * MIB + PAGE, ADDED, RAM) for i in range(129)]
    assert len(ZeroPage(bzimage(), make_ram(ranges[:128])).e820) == 128
    with pytest.raises(CoreError, match="e820_too_many"):
        ZeroPage(bzimage(), make_ram(ranges))


def test_command_line_limit():
    ram = plan([(7, 0, 256 * MIB)])
    ZeroPage(bzimage(), ram, b"x" * 2047)
    with pytest.raises(CoreError, match="command_line_too_long"):
        ZeroPage(bzimage(), ram, b"x" * 2048)
    ZeroPage(bzimage(cmdline_size=0xFFFF), ram, b"x" * 4095)
    with pytest.raises(CoreError, match="command_line_too_long"):
        ZeroPage(bzimage(cmdline_size=0xFFFF), ram, b"x" * 4096)


def test_bad_memory():
    ram = make_ram([])
    placement = CORE.new("placement")
    page = guarded(bytes(4096))
    placement.kernel.image, placement.kernel.header_size = guarded(bytes(100))[0], 0x7B
    for area, line in ((page, b""), (guarded(bytes(4095)), b"")):
        with pytest.raises(CoreError, match="kernel_malformed"):
            check(LIB.zero_page(area, placement, ram, CORE.span(line), 0))
    placement.kernel.image, placement.kernel.header_size = guarded(bzimage())[0], 0x290 - 0x1F1 + 1
    with pytest.raises(CoreError, match="kernel_malformed"):
        check(LIB.zero_page(page, placement, ram, CORE.span(b""), 0))
