"""Does the emulated fw_cfg answer as QEMU's does? Each row of its registers, its DMA and its items."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import guest
import pytest
from kernels import bzimage

from emu.machine import Machine
from emu.signals import EmuError
from emu.vmm.devices.fw_cfg import FwCfg, HostMemory
from formats import fw_cfg
from formats.errors import TruncatedError
from formats.fw_cfg import Control, Key
from formats.registers import R10, R11, R12, R13, R14, R15, RCX
from formats.units import GIB, PAGE

SHARED = 1 << 47
BUFFER, DESCRIPTOR, PRIVATE = 0x900000, 0x910000, 0xC00000  # the first two pages become shared
RAM_END = guest.MEMORY
IMAGE = guest.for_qemu(guest.build("main: halt\n").image)
KERNEL, INITRD, LINE = bzimage(), b"initrd" * 1000, "console=ttyS0"


def device(machine: Machine) -> FwCfg:
    """That of a running machine."""
    return next(part for part in machine.vmm.ports.board if isinstance(part, FwCfg))


def call(machine: Machine, function: int, *registers: int) -> list[int]:
    """One TDVMCALL with R12 and following."""
    r = [0] * 16
    r[RCX], r[R11] = 0xFC00, function
    for number, value in zip((R12, R13, R14, R15), registers, strict=False):
        r[number] = value
    machine.vmm.handle(0, r)
    return r


@pytest.fixture
def td() -> Iterator[Machine]:
    """A TD under QEMU with a payload, two of whose pages are shared."""
    with guest.machine(IMAGE, vmm="qemu", kernel=KERNEL, initrd=INITRD, cmdline=LINE, vcpus=2) as machine:
        for page in (BUFFER, DESCRIPTOR):
            assert call(machine, 0x10001, page | SHARED, PAGE)[R10] == 0
        yield machine


def out(machine: Machine, port: int, size: int, value: int) -> None:
    """OUT."""
    assert call(machine, 0x1E, size, 1, port, value)[R10] == 0


def inp(machine: Machine, port: int, size: int) -> int:
    """IN."""
    r = call(machine, 0x1E, size, 0, port)
    assert r[R10] == 0
    return r[R11]


def dma(
    machine: Machine, control: int, length: int, address: int, descriptor: int = DESCRIPTOR, high: bool = True
) -> int:
    """Starts a transfer; the control field afterwards."""
    whole = struct.pack(">IIQ", control, length, address)
    machine.memory.write(descriptor, whole, shared=True)
    for port, half in ((0x514, descriptor >> 32), (0x518, descriptor & 0xFFFFFFFF)):
        if high or port == 0x518:
            out(machine, port, 4, int.from_bytes(half.to_bytes(4, "big"), "little"))
    after = machine.memory.read(descriptor, 16, shared=True)
    assert after[4:] == whole[4:]
    return int.from_bytes(after[:4], "big")


def item(machine: Machine, key: int, size: int) -> bytes:
    """Bytes of an item through DMA."""
    assert dma(machine, key << 16 | Control.SELECT | Control.READ, size, BUFFER) == 0
    return machine.memory.read(BUFFER, size, shared=True)


def number(machine: Machine, key: int, size: int = 4) -> int:
    """An item that is a number; behind it there are zeros."""
    raw = item(machine, key, size + 4)
    assert raw[size:] == bytes(4)
    return int.from_bytes(raw[:size], "little")


def files(machine: Machine) -> dict[str, tuple[int, int]]:
    """The directory."""
    return fw_cfg.read_directory(item(machine, Key.FILE_DIR, PAGE))


def long_item(machine: Machine, key: int, size: int) -> bytes:
    """Bytes of an item, page by page: the offset goes on."""
    parts = [item(machine, key, min(size, PAGE))]
    for at in range(PAGE, size, PAGE):
        assert dma(machine, Control.READ, min(size - at, PAGE), BUFFER) == 0
        parts.append(machine.memory.read(BUFFER, min(size - at, PAGE), shared=True))
    return b"".join(parts)


# -- registers


def test_the_selector_starts_an_item_again(td: Machine) -> None:
    out(td, 0x510, 2, Key.SIGNATURE)
    assert [inp(td, 0x511, 1) for _ in range(6)] == [*b"QEMU", 0, 0]
    out(td, 0x510, 2, Key.SIGNATURE)
    assert inp(td, 0x511, 1) == ord("Q")


def test_the_combined_register_reads_single_bytes_only(td: Machine) -> None:
    out(td, 0x510, 2, Key.SIGNATURE)
    assert [inp(td, port, size) for port in (0x510, 0x511) for size in (2, 4)] == [0] * 4
    assert [inp(td, 0x510, 1), inp(td, 0x511, 1), inp(td, 0x510, 1)] == [*b"QEM"]


@pytest.mark.parametrize(("port", "size"), [(0x510, 1), (0x511, 1), (0x510, 4), (0x511, 2)])
def test_other_writes_do_nothing(td: Machine, port: int, size: int) -> None:
    out(td, 0x510, 2, Key.SIGNATURE)
    inp(td, 0x511, 1)
    out(td, port, size, Key.ID)
    assert inp(td, 0x511, 1) == ord("E")


@pytest.mark.parametrize("key", [0x06, 0x1A, 0x3F, 0x40, 0x7FFF, 0x8003, 0xFFFF])
def test_an_unknown_key_gives_zeros(td: Machine, key: int) -> None:
    out(td, 0x510, 2, key)
    assert [inp(td, 0x511, 1) for _ in range(3)] == [0, 0, 0]
    assert item(td, key, 16) == bytes(16)


def test_the_write_channel_bit_of_a_key_is_ignored(td: Machine) -> None:
    assert item(td, 0x4000 | Key.SIGNATURE, 4) == b"QEMU"
    assert item(td, 0x4000 | Key.HPET, 2) == b"\xff\0"


def test_the_dma_register_reads_as_a_signature(td: Machine) -> None:
    assert (inp(td, 0x514, 4), inp(td, 0x518, 4)) == (0x554D4551, 0x47464320)
    assert bytes(inp(td, 0x514 + at, 1) for at in range(8)) == b"QEMU CFG"
    assert inp(td, 0x514, 2) == 0x4551


# -- DMA


def test_dma_needs_one_write_below_4_gib(td: Machine) -> None:
    assert dma(td, Control.SELECT | Control.READ, 4, BUFFER, high=False) == 0
    assert td.memory.read(BUFFER, 4, shared=True) == b"QEMU"


def test_the_high_half_is_used_once(td: Machine) -> None:
    out(td, 0x514, 4, 0x01000000)  # 1 << 32, where no RAM is
    control = Control.SELECT | Control.READ
    assert dma(td, control, 4, BUFFER, high=False) == control
    assert dma(td, control, 4, BUFFER, high=False) == 0


@pytest.mark.parametrize(("port", "size"), [(0x518, 1), (0x518, 2), (0x514, 2), (0x516, 4), (0x51A, 2)])
def test_other_writes_of_the_dma_register_do_nothing(td: Machine, port: int, size: int) -> None:
    whole = struct.pack(">IIQ", Control.SELECT | Control.READ, 4, BUFFER)
    td.memory.write(DESCRIPTOR, whole, shared=True)
    out(td, port, size, int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little") & (1 << 8 * size) - 1)
    assert td.memory.read(DESCRIPTOR, 16, shared=True) == whole


def test_behind_the_end_of_an_item_the_buffer_is_cleared(td: Machine) -> None:
    td.memory.write(BUFFER, b"\xaa" * 32, shared=True)
    assert dma(td, Control.SELECT | Control.READ, 16, BUFFER) == 0
    assert td.memory.read(BUFFER, 32, shared=True) == b"QEMU" + bytes(12) + b"\xaa" * 16
    assert dma(td, Control.READ, 8, BUFFER + 16) == 0
    assert td.memory.read(BUFFER + 16, 16, shared=True) == bytes(8) + b"\xaa" * 8


def test_skip_then_read(td: Machine) -> None:
    assert dma(td, Control.SELECT | Control.SKIP, 2, 0) == 0
    assert dma(td, Control.READ, 2, BUFFER) == 0
    assert td.memory.read(BUFFER, 4, shared=True) == b"MU\0\0"
    assert dma(td, Control.SELECT | Control.SKIP, 100, 0) == 0
    assert inp(td, 0x511, 1) == 0


def test_read_wins_and_unknown_bits_are_ignored(td: Machine) -> None:
    every = Control.SELECT | Control.READ | Control.SKIP | Control.WRITE | 0xE0
    assert dma(td, every, 4, BUFFER) == 0
    assert td.memory.read(BUFFER, 4, shared=True) == b"QEMU"


def test_write_wins_over_skip(td: Machine) -> None:
    assert dma(td, Control.SELECT | Control.WRITE | Control.SKIP, 4, BUFFER) == Control.ERROR


def test_no_direction_is_done_at_once(td: Machine) -> None:
    assert dma(td, Key.ID << 16 | Control.SELECT, 4, BUFFER) == 0
    assert td.memory.read(BUFFER, 4, shared=True) == bytes(4)
    assert inp(td, 0x511, 1) == 3


def test_a_byte_that_is_not_aligned_will_do(td: Machine) -> None:
    assert dma(td, Control.SELECT | Control.READ, 3, BUFFER + 5, descriptor=DESCRIPTOR + 3) == 0
    assert td.memory.read(BUFFER + 5, 4, shared=True) == b"QEM\0"


@pytest.mark.parametrize("address", [RAM_END, 0xFFFFF000, 1 << 40, BUFFER | SHARED, (1 << 64) - 4], ids=hex)
def test_a_buffer_that_is_no_ram_is_an_error(td: Machine, address: int) -> None:
    assert dma(td, Control.SELECT | Control.READ, 4, address) == Control.ERROR
    assert dma(td, Control.READ, 0, address) == 0


def test_what_is_ram_of_a_buffer_is_written(td: Machine) -> None:
    assert dma(td, Control.SELECT | Control.READ, 8, RAM_END - 2) == Control.ERROR
    assert td.memory.read(RAM_END - 2, 2, shared=True) == b"QE"


@pytest.mark.parametrize("address", [RAM_END, 0xFFFFF000, DESCRIPTOR | SHARED], ids=hex)
def test_nothing_is_said_of_a_descriptor_that_is_no_ram(td: Machine, address: int) -> None:
    whole = struct.pack(">IIQ", Control.SELECT | Control.READ, 4, BUFFER)
    td.memory.write(DESCRIPTOR, whole, shared=True)
    for port, half in ((0x514, address >> 32), (0x518, address & 0xFFFFFFFF)):
        out(td, port, 4, int.from_bytes(half.to_bytes(4, "big"), "little"))
    assert td.memory.read(DESCRIPTOR, 16, shared=True) == whole
    assert td.memory.read(BUFFER, 4, shared=True) == bytes(4)


def test_a_descriptor_across_the_end_of_ram_gets_the_error(td: Machine) -> None:
    at = RAM_END - 8
    td.memory.write(at, b"\xaa" * 8, shared=True)
    out(td, 0x518, 4, int.from_bytes(at.to_bytes(4, "big"), "little"))
    assert td.memory.read(at, 8, shared=True) == bytes((0, 0, 0, 1)) + b"\xaa" * 4


def test_a_private_buffer_sees_nothing(td: Machine) -> None:
    """The transfer succeeds: QEMU has written to its own page behind the private one."""
    td.memory.write(PRIVATE, b"mine")
    assert dma(td, Control.SELECT | Control.READ, 4, PRIVATE) == 0
    assert td.memory.read(PRIVATE, 4) == b"mine"
    assert td.memory.read(PRIVATE, 4, shared=True) == b"QEMU"


def test_a_private_descriptor_is_read_as_zeros(td: Machine) -> None:
    """So nothing happens, and its control field never changes."""
    whole = struct.pack(">IIQ", Control.SELECT | Control.READ, 4, BUFFER)
    td.memory.write(PRIVATE, whole)
    out(td, 0x518, 4, int.from_bytes(PRIVATE.to_bytes(4, "big"), "little"))
    assert td.memory.read(PRIVATE, 16) == whole
    assert td.memory.read(BUFFER, 4, shared=True) == bytes(4)


def test_items_are_read_only(td: Machine) -> None:
    td.memory.write(BUFFER, b"evil", shared=True)
    assert dma(td, Control.SELECT | Control.WRITE, 4, BUFFER) == Control.ERROR
    assert item(td, Key.SIGNATURE, 4) == b"QEMU"


def test_an_item_that_may_be_written(td: Machine) -> None:
    """As etc/vmgenid_addr of a machine with that device."""
    plain = device(td)
    chip = FwCfg(plain.dma, {0x20: bytes(8), 0x21: bytes(8)}, writable=frozenset((0x20,)))

    def transfer(control: int, length: int, address: int = BUFFER) -> int:
        td.memory.write(DESCRIPTOR, struct.pack(">IIQ", control, length, address), shared=True)
        chip.transfer(DESCRIPTOR)
        return int.from_bytes(td.memory.read(DESCRIPTOR, 4, shared=True), "big")

    td.memory.write(BUFFER, b"abcdefgh" * 2, shared=True)
    write = 0x20 << 16 | Control.SELECT | Control.WRITE
    assert transfer(write, 4) == 0
    assert chip.content() == b"abcd" + bytes(4)
    assert transfer(Control.WRITE, 5) == Control.ERROR  # beyond its end
    assert chip.content() == b"abcd" + bytes(4)
    assert transfer(write, 8, RAM_END) == Control.ERROR
    assert transfer(write, 9) == Control.ERROR
    assert chip.content() == b"abcd" + bytes(4)
    assert transfer(write, 0) == 0
    assert transfer(write + (1 << 16), 4) == Control.ERROR


def test_a_long_clear_touches_ram_only(td: Machine) -> None:
    memory = HostMemory(td.memory, ((0, 0x1000), (0x3000, 0x4000)))
    td.memory.write(0, b"\xaa" * 0x5000, shared=True)
    assert not memory.clear(0x800, 0x2C00)
    assert td.memory.read(0, 0x5000, shared=True) == (
        b"\xaa" * 0x800 + bytes(0x800) + b"\xaa" * 0x2000 + bytes(0x400) + b"\xaa" * 0x1C00
    )
    assert memory.clear(0x3000, 0x1000)
    assert memory.read(0xFFF, 2) is None


# -- items


def test_a_page_that_became_private_again_has_lost_what_the_host_wrote(td: Machine) -> None:
    td.memory.write(BUFFER, b"old", shared=True)
    assert call(td, 0x10001, BUFFER, PAGE)[R10] == 0
    assert call(td, 0x10001, BUFFER | SHARED, PAGE)[R10] == 0
    assert td.memory.read(BUFFER, 3, shared=True) == bytes(3)


def test_numbers(td: Machine) -> None:
    assert number(td, Key.ID) == 3
    assert number(td, Key.RAM_SIZE, 8) == guest.MEMORY
    assert (number(td, Key.NB_CPUS, 2), number(td, Key.MAX_CPUS, 2)) == (2, 2)
    assert number(td, Key.IRQ0_OVERRIDE) == 1
    assert item(td, Key.HPET, 2) == b"\xff\0"
    assert item(td, Key.NUMA, 32) == bytes(32)


def test_the_parts_of_a_kernel(td: Machine) -> None:
    setup = (KERNEL[0x1F1] + 1) * 512
    assert number(td, Key.SETUP_SIZE) == setup
    assert number(td, Key.KERNEL_SIZE) == len(KERNEL) - setup
    assert number(td, Key.INITRD_SIZE) == len(INITRD)
    assert number(td, Key.CMDLINE_SIZE) == len(LINE) + 1
    assert (
        long_item(td, Key.SETUP_DATA, setup) + long_item(td, Key.KERNEL_DATA, len(KERNEL) - setup) == KERNEL
    )
    assert long_item(td, Key.INITRD_DATA, len(INITRD)) == INITRD
    assert item(td, Key.CMDLINE_DATA, len(LINE) + 3) == LINE.encode() + bytes(3)
    key, size = files(td)["etc/boot/kernel"]
    assert (size, long_item(td, key, size)) == (len(KERNEL), KERNEL)


def test_addresses_of_the_parts(td: Machine) -> None:
    """Where a BIOS would put them; the initrd below the last 160 KiB of low RAM."""
    found = [number(td, key) for key in (Key.KERNEL_ADDR, Key.CMDLINE_ADDR, Key.SETUP_ADDR, Key.KERNEL_ENTRY)]
    assert found == [0x100000, 0x20000, 0x10000, 0]
    assert number(td, Key.INITRD_ADDR) == (guest.MEMORY - 0x28000 - 1 - len(INITRD)) & ~0xFFF


def test_the_directory_is_sorted_and_keys_follow_it(td: Machine) -> None:
    found = files(td)
    assert list(found) == sorted(found)
    assert [key for key, _ in found.values()] == list(range(0x20, 0x20 + len(found)))
    with pytest.raises(TruncatedError):
        fw_cfg.read_directory(struct.pack(">I", 2) + bytes(64))


def test_fixed_files(td: Machine) -> None:
    found = files(td)

    def content(name: str) -> bytes:
        key, size = found[name]
        return long_item(td, key, size) if size else b""

    assert content("etc/system-states") == bytes.fromhex("800000818280")
    assert content("etc/boot-fail-wait") == b"\xff" * 4
    assert content("bootorder") == b"/rom@genroms/linuxboot_dma.bin\0"
    assert content("etc/tpm/log") == content("bios-geometry") == b""
    assert content("etc/e820") == struct.pack("<QQIQQI", 0xFEFFC000, 0x4000, 2, 0, guest.MEMORY, 1)
    anchor, structures = content("etc/smbios/smbios-anchor"), content("etc/smbios/smbios-tables")
    assert anchor[:4] == b"_SM_"
    assert int.from_bytes(anchor[22:24], "little") == len(structures)
    assert b"Standard PC (Q35 + ICH9, 2009)" in structures


def test_e820_is_not_sorted_and_has_ram_above_4_gib() -> None:
    with guest.machine(IMAGE, vmm="qemu", memory=3 * GIB) as td:
        chip = device(td)
        name = next(key for key, data in chip.items.items() if data[:4] == bytes.fromhex("00c0fffe"))
        entries = list(struct.iter_unpack("<QQI", chip.items[name]))
        assert entries[1:] == [(0, 2 * GIB, 1), (4 * GIB, GIB, 1)]


def test_without_a_kernel_its_items_are_missing() -> None:
    with guest.machine(IMAGE, vmm="qemu") as td:
        for page in (BUFFER, DESCRIPTOR):
            call(td, 0x10001, page | SHARED, PAGE)
        assert item(td, Key.KERNEL_SIZE, 4) == item(td, Key.SETUP_DATA, 4) == bytes(4)
        found = files(td)
        assert found["bootorder"][1] == 0
        assert not {"etc/boot/kernel", "genroms/linuxboot_dma.bin"} & set(found)


def old(version: int, loadflags: int = 1) -> bytes:
    """A kernel of an older boot protocol."""
    whole = bytearray(KERNEL)
    whole[0x206:0x208] = version.to_bytes(2, "little")
    whole[0x211] = loadflags
    return bytes(whole)


@pytest.mark.parametrize(
    ("kernel", "addresses"),
    [
        (old(0x20F), (0x10000, 0x20000, 0x100000)),
        (old(0x202), (0x10000, 0x20000, 0x100000)),
        (old(0x201), (0x90000, 0x99FF0, 0x100000)),
        (old(0x20F, 0), (0x90000, 0x99FF0, 0x10000)),
        (bytes(0x2000), (0x90000, 0x99FF0, 0x10000)),  # no Linux kernel at all
    ],
    ids=["2.15", "2.02", "2.01", "low", "none"],
)
def test_a_kernel_of_another_protocol(kernel: bytes, addresses: tuple[int, int, int]) -> None:
    with guest.machine(IMAGE, vmm="qemu", kernel=kernel, cmdline=LINE) as td:
        items = device(td).items
        keys = (Key.SETUP_ADDR, Key.CMDLINE_ADDR, Key.KERNEL_ADDR)
        assert tuple(int.from_bytes(items[key], "little") for key in keys) == addresses
        assert items[Key.SETUP_DATA] + items[Key.KERNEL_DATA] == kernel


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": b"\x7fELF" + bytes(0x4000)}, "an ELF file"),
        ({"kernel": bytes(100)}, "invalid kernel header"),
        ({"kernel": KERNEL[:0x3FF]}, "invalid kernel header"),
        ({"kernel": KERNEL, "initrd": bytes(guest.MEMORY - 0x28001)}, "initrd is too large"),
    ],
    ids=["ELF", "short", "setup", "initrd"],
)
def test_what_qemu_refuses(settings: dict[str, bytes], message: str) -> None:
    with (
        pytest.raises(EmuError, match=message),
        guest.machine(IMAGE, vmm="qemu", **settings),
    ):
        pass


@pytest.mark.parametrize(
    ("version", "flags", "limit"),
    [(0x20C, 2, 0xFFFFFFFF), (0x20C, 0, 0x2000000), (0x203, 2, 0x2000000), (0x202, 2, 0x37FFFFFF)],
)
def test_how_high_an_initrd_may_lie(version: int, flags: int, limit: int) -> None:
    whole = bytearray(old(version))
    whole[0x22C:0x230] = (0x2000000).to_bytes(4, "little")
    whole[0x236] = flags
    with guest.machine(IMAGE, vmm="qemu", kernel=bytes(whole), initrd=b"x", memory=GIB) as td:
        top = min(limit, GIB - 0x28000 - 1)
        assert int.from_bytes(device(td).items[Key.INITRD_ADDR], "little") == top - 1 & ~0xFFF


def test_other_hosts_have_no_fw_cfg() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:
        out(td, 0x510, 2, 0)
        assert inp(td, 0x511, 1) == 0xFF
        assert inp(td, 0x514, 4) == 0xFFFFFFFF
