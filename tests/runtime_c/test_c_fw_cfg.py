"""Do the files of fw_cfg arrive whole, and does nothing that the device answers lead us astray?"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from bzimage import bzimage
from ccore import CORE, FFI, GIB, LIB, CoreError, Range, below_2_gib, check, make_ram
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsl.capabilities import prelude
from formats import fw_cfg, hob, linux
from formats.fw_cfg import Key

ACTION = dict(prelude().enumerations["FetchAction"].members)
PAGE = 4096
KERNEL = bzimage(syssize=0x300)
INITRD, COMMAND_LINE = bytes(range(256)) * 40, b"console=ttyS0\0"


def directory(files: dict[str, tuple[int, int]]) -> bytes:
    """`files`: key and size by name."""
    rows = [struct.pack(">IHH56s", size, key, 0, name.encode()) for name, (key, size) in files.items()]
    return struct.pack(">I", len(rows)) + b"".join(rows)


@dataclass
class Device:
    """QEMU's device as the firmware meets it: items by key, DMA reads into the window."""

    items: dict[int, bytes]
    control: int = 0
    selected: bytes = b""
    at: int = 0
    transfers: list[int] = field(default_factory=list)
    fills: bool = True

    def select(self, key: int) -> None:
        self.selected, self.at = self.items.get(key, b""), 0

    def transfer(self, descriptor: int) -> None:
        """hw/nvram/fw_cfg.c fw_cfg_dma_transfer: zeros behind the item's end."""
        control, length, address = struct.unpack(">IIQ", CORE.bytes_at(descriptor, 16))
        assert control == fw_cfg.Control.READ
        data = self.selected[self.at : self.at + length]
        data = data.ljust(length, b"\0") if self.fills else data  # Alioth gives what there is
        self.at += length
        self.transfers.append(length)
        FFI.memmove(FFI.cast("uint8_t *", address), data, len(data))
        FFI.memmove(FFI.cast("uint8_t *", descriptor), struct.pack(">I", self.control), 4)


def device(
    kernel: bytes = KERNEL, initrd: bytes = INITRD, line: bytes = COMMAND_LINE, setup: bytes = b""
) -> Device:
    """With `setup`, a host that has no etc/boot/kernel: its setup part, and the rest."""
    items = {
        Key.SIGNATURE: fw_cfg.SIGNATURE,
        Key.FILE_DIR: directory({"etc/e820": (0x20, 40), "etc/boot/kernel": (0x21, len(kernel))}),
        0x21: kernel,
        Key.INITRD_SIZE: struct.pack("<I", len(initrd)),
        Key.INITRD_DATA: initrd,
        Key.CMDLINE_SIZE: struct.pack("<I", len(line)),
        Key.CMDLINE_DATA: line,
    }
    if setup:
        items[Key.FILE_DIR] = directory({"etc/e820": (0x20, 40)})
        items |= {Key.SETUP_SIZE: struct.pack("<I", len(setup)), Key.SETUP_DATA: setup}
        rest = kernel[((setup[0x1F1] or 4) + 1) * 512 :]
        items |= {Key.KERNEL_SIZE: struct.pack("<I", len(rest)), Key.KERNEL_DATA: rest}
    return Device(dict(items))


class Fetch:
    """All requests carried out, on `room` bytes of RAM and a window of `window` bytes."""

    def __init__(
        self, host: Device, window: int = 16 * PAGE, room: int = 64 * PAGE, apart: int = 0, before: int = 0
    ) -> None:
        """`apart`: so many bytes at the end of the RAM are a piece of their own; each was `before`."""
        self.memory, self.window = below_2_gib(room + PAGE), below_2_gib(window)
        FFI.memmove(FFI.cast("uint8_t *", self.memory.address), bytes([before]) * (room + PAGE), room + PAGE)
        start = -(-self.memory.address // PAGE) * PAGE
        self.start, self.end = start, start + room
        pieces = [(start, self.end - apart), (self.end - apart, self.end)]
        self.ram = make_ram([Range(*piece, 0, 1) for piece in pieces if piece[0] < piece[1]])
        self.fetch, self.files = CORE.new("fetch"), CORE.new("linux_files")
        request, span = CORE.new("fetch_request"), CORE.span(self.window.address, window)
        self.mapped: list[tuple[int, int]] = []
        for _ in range(100):
            check(LIB.fetch_next(self.fetch, span, self.ram, self.files, request))
            if request.action == ACTION["done"]:
                break
            if request.action == ACTION["map"]:
                self.mapped.append((request.start, request.size))
                continue
            if request.action == ACTION["select"]:
                host.select(request.key)
            host.transfer(int.from_bytes(int(request.start).to_bytes(4, "little"), "big"))
        else:
            pytest.fail("the requests never end")
        check(LIB.fetch_end(self.fetch, self.files))

    def content(self, name: str) -> bytes:
        return CORE.content(getattr(self.files, name))


@pytest.mark.parametrize("window", [2, 3, 16])
def test_files_arrive_whole_in_private_memory(window: int) -> None:
    got = Fetch(device(), window * PAGE)
    assert got.content("kernel") == KERNEL
    assert got.content("initrd") == INITRD
    assert got.content("command_line") == COMMAND_LINE
    (mapped,) = got.mapped
    places = [getattr(got.files, name) for name in ("kernel", "initrd", "command_line")]
    for place in places:
        at = CORE.address(place.data)
        assert mapped[0] <= at < at + place.size <= mapped[0] + mapped[1] <= got.end
        assert at % PAGE == 0
    # The plan knows: nothing else goes there, and it stays RAM for the OS.
    carved = got.ram.carved.items[got.ram.carved.count - 1]
    assert (CORE.address(carved.data), carved.size) == mapped


def places(host: Device) -> list[int]:
    """What the plan gave to the files, and where each begins."""
    got = Fetch(host, room=128 * PAGE)
    files, (room, size) = got.files, got.mapped[0]
    starts = [CORE.address(each.data) - room for each in (files.command_line, files.kernel, files.initrd)]
    return [room - got.start, size, *starts]


def test_what_no_register_records_moves_no_file() -> None:
    """Bytes behind the kernel and the NUL are not measured, nor is a file that the flow does not use."""
    honest = places(device())
    assert honest == [64 * PAGE, 64 * PAGE, 0, 16 * PAGE, 32 * PAGE]  # the upper half; a third of the rest
    assert places(device(KERNEL + b"\xee" * 5 * PAGE)) == honest
    assert places(device(line=COMMAND_LINE + bytes(15 * PAGE))) == honest
    assert places(device(line=b"")) == honest
    assert places(device(initrd=b"")) == honest
    assert places(device(initrd=INITRD * 2)) == honest  # of which a flow may measure a part


def test_a_room_that_is_smaller_than_what_a_command_line_may_take() -> None:
    with pytest.raises(CoreError, match="fw_cfg_no_room"):
        Fetch(device(b"", b"", b""), room=30 * PAGE)


def test_the_room_is_half_of_the_largest_piece() -> None:
    got = Fetch(device(), apart=4 * PAGE)
    assert got.mapped == [(got.start + 30 * PAGE, 30 * PAGE)]


def room_of(ranges: list[Range], carved: list[tuple[int, int]], host: Device) -> tuple[int, int] | None:
    """Where a plan has room for the files, if it has."""
    ram, window = make_ram(ranges, carved), below_2_gib(2 * PAGE)
    fetch, files, request = CORE.new("fetch"), CORE.new("linux_files"), CORE.new("fetch_request")
    while True:
        try:
            check(LIB.fetch_next(fetch, CORE.span(window.address, 2 * PAGE), ram, files, request))
        except CoreError:
            return None
        if request.action == ACTION["map"]:
            return request.start, request.size
        if request.action == ACTION["select"]:
            host.select(request.key)
        host.transfer(int.from_bytes(int(request.start).to_bytes(4, "little"), "big"))


PIECES = st.tuples(st.integers(0, 600), st.integers(1, 600), st.integers(0, 2))  # gap, pages, RamState


@example([(0, 1, 0), (0, 311, 0)], 56, False)  # room for the one, none for the other
@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=6), st.integers(0, 2000), st.booleans())
def test_the_room_is_free_ram_of_any_plan(pieces: list[tuple[int, int, int]], at: int, high: bool) -> None:
    """Added or left-out RAM, what was carved, the first MiB and RAM above 4 GiB are left alone."""
    ranges, end = [], (4 * GIB - 800 * PAGE) if high else 0
    for gap, pages, state in pieces:
        ranges.append(Range(end + gap * PAGE, end + (gap + pages) * PAGE, state, 1))
        end = ranges[-1].end
    lowest = min(4 * GIB, (1 << 20) + at * PAGE)
    room = room_of(ranges, [(lowest, PAGE)], device())
    larger = room_of(ranges, [(lowest, PAGE)], device(KERNEL + bytes(PAGE), line=bytes(3 * PAGE)))
    if larger is None and room is not None:  # the kernel is larger than the third that it gets
        assert (room[1] - 0x1_0000) // 3 < len(KERNEL) + 2 * PAGE
    else:
        assert larger == room
    if room is not None:
        start, stop = room[0], sum(room)
        assert 1 << 20 <= start < stop <= lowest
        assert any(r.start <= start and stop <= r.end and r.state == 0 for r in ranges)


def test_what_a_device_does_not_give_is_zero() -> None:
    """Not what the transfer before left in the window."""
    host = device()
    host.fills = False
    host.items[Key.INITRD_DATA] = INITRD[:100]
    got = Fetch(host)
    assert got.content("initrd") == INITRD[:100].ljust(len(INITRD), b"\0")


def patched(kernel: bytes) -> bytes:
    """A setup part as QEMU hands it out without etc/boot/kernel (hw/i386/x86-common.c x86_load_linux)."""
    setup = bytearray(kernel[:1024])
    for offset, value in (
        (0x210, b"\xb0"),
        (0x218, b"\1\2\3\4\5\6\7\0"),
        (0x224, b"\0\xfe"),
        (0x228, b"\0\0\2\0"),
    ):
        setup[offset : offset + len(value)] = value
    setup[0x211] |= 0x80
    return bytes(setup)


def test_what_qemu_wrote_into_the_setup_part_is_taken_out() -> None:
    plain = bzimage(syssize=0x300, vid_mode=0, loadflags=1)
    got = Fetch(device(plain, setup=patched(plain)))
    assert got.content("kernel") == plain


def alioths(sectors: int) -> tuple[bytes, Device]:
    """A kernel with no field that a host writes, in the two parts that Alioth makes of it."""
    plain = bytearray(bzimage(syssize=0x300, vid_mode=0, loadflags=1, setup_sects=sectors))
    code = slice(PAGE, (sectors + 1) * 512)
    plain[code] = b"\xee" * len(plain[code])
    setup = bytearray(plain[:PAGE])
    setup[0x210] = 0xFF
    host = device(bytes(plain), setup=bytes(setup))
    host.fills = False
    return bytes(plain), host


@pytest.mark.parametrize("sectors", [1, 6, 7])
def test_a_setup_part_that_is_longer_than_it_says(sectors: int) -> None:
    """Alioth gives 4096 bytes: the next part is in them, too."""
    plain, host = alioths(sectors)
    assert Fetch(host).content("kernel") == plain


@pytest.mark.parametrize("sectors", [8, 39])
def test_a_setup_part_that_is_shorter_than_it_says(sectors: int) -> None:
    """What is missing is zero, whatever was in memory."""
    plain, host = alioths(sectors)
    got, end = Fetch(host, room=128 * PAGE, before=0x5A), (sectors + 1) * 512
    assert got.content("kernel") == plain[:PAGE].ljust(end, b"\0") + plain[end:]
    assert got.content("initrd") == INITRD


def test_a_setup_part_that_is_longer_than_the_kernel() -> None:
    plain = bzimage(syssize=0x10, vid_mode=0, loadflags=1)
    got = Fetch(device(plain, setup=plain + b"\xee" * 2000))
    assert got.content("kernel") == plain
    assert CORE.bytes_at(CORE.address(got.files.kernel.data) + len(plain), 2000) == bytes(2000)


def test_a_setup_part_of_no_sectors_has_four() -> None:
    plain = bzimage(syssize=0x300, vid_mode=0, loadflags=1, setup_sects=0)
    assert Fetch(device(plain, setup=plain[: 5 * 512])).content("kernel") == plain


def test_what_lies_behind_the_kernels_extent_is_gone() -> None:
    got = Fetch(device(KERNEL + b"\xee" * 5000))
    assert got.content("kernel") == KERNEL
    at = CORE.address(got.files.kernel.data)
    assert CORE.bytes_at(at + len(KERNEL), 5000) == bytes(5000)


def test_no_initrd_and_no_command_line() -> None:
    got = Fetch(device(initrd=b"", line=b""))
    assert (got.files.initrd.size, got.files.command_line.size) == (0, 0)
    assert got.content("kernel") == KERNEL


def changed(key: int, value: bytes, host: Device | None = None) -> Device:
    host = host or device()
    host.items[key] = value
    return host


def big(size: int) -> bytes:
    return struct.pack("<I", size)


@pytest.mark.parametrize(
    ("host", "error"),
    [
        (Device({}, control=fw_cfg.Control.READ), "fw_cfg_missing"),
        (Device({}, control=fw_cfg.Control.ERROR), "fw_cfg_missing"),
        (changed(Key.SIGNATURE, b"QEMV"), "fw_cfg_missing"),
        (changed(Key.FILE_DIR, struct.pack(">I", 64)), "fw_cfg_malformed"),
        (changed(Key.FILE_DIR, struct.pack(">I", 2**32 - 1)), "fw_cfg_malformed"),
        (changed(Key.FILE_DIR, directory({})), "fw_cfg_no_kernel"),  # none was given
        (changed(Key.INITRD_SIZE, big(2**32 - 1)), "fw_cfg_no_room"),
        (changed(Key.INITRD_SIZE, big(11 * PAGE + 1)), "fw_cfg_no_room"),
        (device(KERNEL.ljust(5 * PAGE + 1)), "fw_cfg_no_room"),
        (changed(0x21, bytes(len(KERNEL))), "fw_cfg_no_kernel"),
        (device(KERNEL[:-1]), "fw_cfg_no_kernel"),
        (device(KERNEL[:600]), "fw_cfg_no_kernel"),
        (device(KERNEL[:-1], setup=KERNEL[:1024]), "fw_cfg_no_kernel"),
        (changed(Key.SETUP_SIZE, big(0x1F1), device(setup=KERNEL[:1024])), "fw_cfg_no_kernel"),
        (changed(Key.SETUP_SIZE, big(0), device(setup=KERNEL[:1024])), "fw_cfg_no_kernel"),
        # A setup part of 128 KiB, of which there are 1024 bytes.
        (changed(Key.SETUP_DATA, b"\xff" * 1024, device(setup=KERNEL[:1024])), "fw_cfg_no_room"),
        (device(line=bytes(0x10001)), "fw_cfg_no_room"),
    ],
)
def test_what_is_refused(host: Device, error: str) -> None:
    with pytest.raises(CoreError, match=error):
        Fetch(host)


def test_a_transfer_that_fails_later() -> None:
    host = device()
    whole = Device.transfer

    def fails(self: Device, descriptor: int) -> None:
        self.control = fw_cfg.Control.ERROR if len(self.transfers) == 5 else 0
        whole(self, descriptor)

    host.transfer = fails.__get__(host)  # type: ignore[method-assign]
    with pytest.raises(CoreError, match="fw_cfg_failed"):
        Fetch(host)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_answers_end_in_files_or_in_an_error(data: st.DataObject) -> None:
    """Items of arbitrary bytes and sizes: the sanitizers watch every access."""
    host = device()
    for key in data.draw(st.lists(st.sampled_from(sorted(host.items)), max_size=4)):
        host.items[key] = data.draw(st.binary(max_size=80) | st.sampled_from([big(2**31), big(PAGE), KERNEL]))
    try:
        got = Fetch(host)
    except CoreError:
        return
    for name in ("kernel", "initrd", "command_line"):
        place = getattr(got.files, name)
        at = CORE.address(place.data)
        assert place.size == 0 or got.start <= at < at + place.size <= got.end


# ---- a machine without TDX


def test_its_memory_map_is_found() -> None:
    item = CORE.new("fw_cfg_item")
    listed = CORE.span(directory({"etc/acpi/tables": (0x20, 1), "etc/e820": (0x21, 40)}).ljust(4096, b"\0"))
    check(LIB.fw_cfg_e820(listed, item))
    assert (item.found, item.key, item.size) == (1, 0x21, 40)
    many = directory({"etc/e820": (0x21, 40)} | {f"etc/{n}": (n, 1) for n in range(63)})
    cut = directory({"etc/e820": (0x21, 40)}).ljust(4035, b"\0")
    for wrong in (
        directory({"etc/e820x": (0x21, 40)}),
        directory({"etc/e820": (0x21, 4101)}),
        many,
        cut,
        b"",
    ):
        with pytest.raises(CoreError, match="fw_cfg_malformed"):
            check(
                LIB.fw_cfg_e820(CORE.span(wrong if wrong in (cut, b"") else wrong.ljust(4100, b"\0")), item)
            )


def hob_of(rows: list[tuple[int, int, int]], size: int = 4096) -> Any:
    memory = CORE.guarded(size)
    region = CORE.span(memory.address, size)
    check(LIB.ordinary_hob(CORE.span(b"".join(struct.pack("<QQI", *row) for row in rows)), region))
    return hob.read(CORE.content(region))


def test_the_memory_map_becomes_a_td_hob() -> None:
    rows = [(0xFD_0000_0000, 0x3_0000_0000, 2), (0, 0x4000_0000, 1), (1 << 32, 0x1000_0000, 1)]
    ram = [(r.resource_type, r.start, r.length) for r in hob_of(rows).resources]
    assert ram == [
        (hob.ResourceType.UNACCEPTED, 0, 0xA0000),
        (hob.ResourceType.UNACCEPTED, 0x100000, 0x4000_0000 - 0x100000),
        (hob.ResourceType.UNACCEPTED, 1 << 32, 0x1000_0000),
    ]


def test_a_map_that_does_not_fit() -> None:
    with pytest.raises(CoreError, match="fw_cfg_malformed"):
        hob_of([(n << 24, 0x1000, linux.E820Type.RAM) for n in range(200)])
