"""Does boot_params tell the kernel what the boot protocol wants, and nothing else?"""

from __future__ import annotations

from typing import Any

import pytest
from bzimage import FIELDS, bzimage, guarded
from ccore import (
    ACPI,
    ADDED,
    CORE,
    GIB,
    KIB,
    LEFT_OUT,
    LIB,
    MIB,
    NVS,
    PAGE,
    RAM,
    RESERVED,
    UNACCEPTED,
    CoreError,
    Range,
    check,
    low_and_high,
    make_ram,
    plan,
)

from formats import linux


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


def test_a_page_that_is_too_small_is_refused_before_an_address_in_it_is_computed():
    """At the top of the address space its end wraps, at which the sanitized core would end the process."""
    placement = CORE.new("placement")
    placement.kernel.image, placement.kernel.header_size = guarded(bzimage())[0], 0x7B
    page = CORE.span((1 << 64) - 0x800, 0x800)
    with pytest.raises(CoreError, match="command_line_too_long"):
        check(LIB.zero_page(page, placement, make_ram([]), CORE.span(b""), 0))


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


def test_no_acpi_is_address_zero():
    out = CORE.ffi.new("uint64_t *", 77)
    LIB.no_acpi(out)
    assert out[0] == 0


@pytest.mark.parametrize("part", ["window", "load", "initrd"])
def test_a_page_where_the_kernel_goes_is_refused(part):
    data = bzimage()
    image, page = guarded(data), guarded(b"\xaa" * 8192)
    at = CORE.address(page.data)
    placement = CORE.new("placement")
    check(LIB.parse_linux(image, CORE.ffi.addressof(placement, "kernel")))
    size = placement.kernel.protected_size
    over = {
        "window": [{"window_start": at + 4096, "window_end": at + 8192}],
        "load": [{"load": at + 8191}, {"load": at - size + 1}],
        "initrd": [{"initrd_start": at + 8191, "initrd_size": 1}],
    }[part]
    beside = {
        "window": {"window_start": at + 8192, "window_end": at + 16384},
        "load": {"load": at - size},
        "initrd": {"initrd_start": at + 8192, "initrd_size": 4096},
    }[part]
    ram = plan([(7, 0, 256 * MIB)])

    def fill(fields: dict[str, int]) -> int:
        for name in ("window_start", "window_end", "load", "initrd_start", "initrd_size"):
            setattr(placement, name, fields.get(name, 0))
        return LIB.zero_page(page, placement, ram, CORE.span(b"quiet"), 0)

    for fields in over:
        with pytest.raises(CoreError, match="out_of_bounds"):
            check(fill(fields))
        assert CORE.content(page) == b"\xaa" * 8192
    check(fill(beside))
