"""How does a test use fw_cfg as a guest does? Ports by TDVMCALL, and DMA through two shared pages."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import guest
from kernels import bzimage

from emu.machine import Machine
from emu.vmm.devices.fw_cfg import FwCfg
from formats import fw_cfg
from formats.fw_cfg import Control, Key
from formats.registers import R10, R11, R12, R13, R14, R15, RCX
from formats.units import PAGE

SHARED = 1 << 47
BUFFER, DESCRIPTOR, PRIVATE = 0x900000, 0x910000, 0xC00000  # the first two pages become shared
KERNEL, INITRD, LINE = bzimage(), b"initrd" * 1000, "console=ttyS0"


def image() -> bytes:
    """A guest that does nothing."""
    return guest.for_qemu(guest.build("main: halt\n").image)


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


@contextmanager
def launched(**settings: object) -> Iterator[Machine]:
    """A TD under QEMU, two of whose pages are shared."""
    with guest.machine(image(), vmm="qemu", **settings) as machine:
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
