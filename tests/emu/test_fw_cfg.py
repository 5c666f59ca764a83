"""Does the emulated fw_cfg answer as QEMU's does? Each row of its registers and its DMA."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import guest
import pytest
from qemuguest import (
    BUFFER,
    DESCRIPTOR,
    INITRD,
    KERNEL,
    LINE,
    PRIVATE,
    SHARED,
    call,
    device,
    dma,
    inp,
    item,
    launched,
    out,
)

from emu.machine import Machine
from emu.vmm.devices.fw_cfg import FwCfg, HostMemory
from formats.fw_cfg import Control, Key
from formats.registers import R10
from formats.units import PAGE

RAM_END = guest.MEMORY


@pytest.fixture
def td() -> Iterator[Machine]:
    """A TD with a payload."""
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE, vcpus=2) as machine:
        yield machine


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


def test_a_page_that_became_private_again_has_lost_what_the_host_wrote(td: Machine) -> None:
    td.memory.write(BUFFER, b"old", shared=True)
    assert call(td, 0x10001, BUFFER, PAGE)[R10] == 0
    assert call(td, 0x10001, BUFFER | SHARED, PAGE)[R10] == 0
    assert td.memory.read(BUFFER, 3, shared=True) == bytes(3)


def test_other_hosts_have_no_fw_cfg() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:
        out(td, 0x510, 2, 0)
        assert inp(td, 0x511, 1) == 0
        assert inp(td, 0x514, 4) == 0
