"""Which items does the emulated fw_cfg hold? Numbers, the parts of a kernel, the directory and its files."""

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
    SHARED,
    call,
    device,
    files,
    image,
    item,
    launched,
    long_item,
    number,
)

from emu.machine import Machine
from emu.signals import EmuError
from formats import fw_cfg
from formats.errors import TruncatedError
from formats.fw_cfg import Key
from formats.units import GIB, PAGE


@pytest.fixture
def td() -> Iterator[Machine]:
    """A TD with a payload."""
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE, vcpus=2) as machine:
        yield machine


def test_numbers(td: Machine) -> None:
    assert number(td, Key.ID) == 3
    assert number(td, Key.RAM_SIZE, 8) == guest.MEMORY
    assert (number(td, Key.NB_CPUS, 2), number(td, Key.MAX_CPUS, 2)) == (2, 2)
    assert number(td, Key.IRQ0_OVERRIDE) == 1
    assert item(td, Key.HPET, 2) == b"\xff\0"
    assert item(td, Key.NUMA, 32) == bytes(32)


def test_an_id_that_no_item_can_tell() -> None:
    with (
        pytest.raises(EmuError, match="qemu: APIC id 65535, at most 65534"),
        launched(vcpus=2, apic_ids="0,65535"),
    ):
        pass
    with launched(vcpus=2, apic_ids="0,65534") as machine:
        assert number(machine, Key.MAX_CPUS, 2) == 65535


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
    with guest.machine(image(), vmm="qemu", memory=3 * GIB) as td:
        chip = device(td)
        name = next(key for key, data in chip.items.items() if data[:4] == bytes.fromhex("00c0fffe"))
        entries = list(struct.iter_unpack("<QQI", chip.items[name]))
        assert entries[1:] == [(0, 2 * GIB, 1), (4 * GIB, GIB, 1)]


def test_without_a_kernel_its_items_are_missing() -> None:
    with guest.machine(image(), vmm="qemu") as td:
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
    with guest.machine(image(), vmm="qemu", kernel=kernel, cmdline=LINE) as td:
        items = device(td).items
        keys = (Key.SETUP_ADDR, Key.CMDLINE_ADDR, Key.KERNEL_ADDR)
        assert tuple(int.from_bytes(items[key], "little") for key in keys) == addresses
        assert items[Key.SETUP_DATA] + items[Key.KERNEL_DATA] == kernel


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": b"\x7fELF" + bytes(0x4000)}, "an ELF file"),
        ({"kernel": bytes(100)}, "invalid kernel header"),
        ({"kernel": KERNEL[:0x5FF]}, "invalid kernel header"),
        ({"kernel": KERNEL, "initrd": bytes(guest.MEMORY - 0x28001)}, "initrd is too large"),
    ],
    ids=["ELF", "short", "setup", "initrd"],
)
def test_what_qemu_refuses(settings: dict[str, bytes], message: str) -> None:
    with (
        pytest.raises(EmuError, match=message),
        guest.machine(image(), vmm="qemu", **settings),
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
    with guest.machine(image(), vmm="qemu", kernel=bytes(whole), initrd=b"x", memory=GIB) as td:
        top = min(limit, GIB - 0x28000 - 1)
        assert int.from_bytes(device(td).items[Key.INITRD_ADDR], "little") == top - 1 & ~0xFFF


def test_no_setup_sectors_means_four() -> None:
    whole = bytearray(KERNEL)
    whole[0x1F1] = 0
    with launched(kernel=bytes(whole)) as td:
        assert number(td, Key.SETUP_SIZE) == 0xA00
