"""What does firmware get from QEMU's fw_cfg device? Items by key, byte by byte or by DMA, as QEMU's
hw/nvram/fw_cfg.c answers with the combined port register of a PC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from emu.cpu.memory import Memory
from emu.vmm.backing import Range
from formats.fw_cfg import (
    ARCH_LOCAL,
    DATA,
    DMA_ACCESS,
    DMA_HIGH,
    DMA_LOW,
    DMA_SIGNATURE,
    FILE_FIRST,
    FILE_SLOTS,
    SELECTOR,
    WRITE_CHANNEL,
    Control,
)
from formats.structs import unpack
from formats.units import MIB

INVALID = 0xFFFF  # FW_CFG_INVALID
CONTROL_SIZE = 4


@dataclass(frozen=True)
class HostMemory:
    """The TD's memory as a device of QEMU reaches it: the shared pages of RAM. Behind a private page lies
    the host's own page, which the TD does not see; an address with the shared bit is no RAM at all.
    """

    memory: Memory
    ram: tuple[Range, ...]

    def pieces(self, gpa: int, size: int) -> tuple[list[Range], bool]:
        """The parts of a range that are RAM, and whether that is all of it."""
        ends = ((max(gpa, start), min(gpa + size, end)) for start, end in self.ram)
        found = [piece for piece in ends if piece[0] < piece[1]]
        return found, sum(end - start for start, end in found) == size

    def read(self, gpa: int, size: int) -> bytes | None:
        """None if any of it is no RAM."""
        if not self.pieces(gpa, size)[1]:
            return None
        return self.memory.read(gpa, size, shared=True)

    def write(self, gpa: int, data: bytes) -> bool:
        """Writes what is RAM; False if any of it is not."""
        found, whole = self.pieces(gpa, len(data))
        for start, end in found:
            self.memory.write(start, data[start - gpa : end - gpa], shared=True)
        return whole

    def clear(self, gpa: int, size: int) -> bool:
        """Zeros, in the same way."""
        found, whole = self.pieces(gpa, size)
        for start, end in found:
            for at in range(start, end, MIB):
                self.memory.write(at, bytes(min(MIB, end - at)), shared=True)
        return whole


def no_files() -> dict[int, bytes]:
    """Nothing is built late."""
    return {}


@dataclass
class FwCfg:
    """`items` by key. When one of the keys in `late` is selected for the first time, `build` makes the
    content of those. `writable`: keys that DMA may write to.
    """

    dma: HostMemory
    items: Mapping[int, bytes]
    late: frozenset[int] = frozenset()
    build: Callable[[], Mapping[int, bytes]] = no_files
    writable: frozenset[int] = frozenset()
    selected: int = 0
    offset: int = 0
    address: int = 0  # of the DMA descriptor: the half that was written so far
    built: bool = False
    changed: dict[int, bytes] = field(default_factory=dict)  # contents that were not there at the start

    ports = range(SELECTOR, DMA_LOW + 4)

    # -- ports

    def write(self, port: int, size: int, value: int) -> None:
        """Only a 2-byte write of the selector and 4-byte writes of the DMA register do something."""
        if port == SELECTOR and size == 2:
            self.select(value)
        elif size == 4 and port in (DMA_HIGH, DMA_LOW):
            half = int.from_bytes(value.to_bytes(4, "little"), "big")
            if port == DMA_HIGH:
                self.address = half << 32
            else:
                address, self.address = self.address | half, 0
                self.transfer(address)

    def read(self, port: int, size: int) -> int:
        """The next byte at both ports of the combined register, for an access of 1 byte; 0 for others."""
        if port in (SELECTOR, DATA):
            return self.take(1)[0] if size == 1 else 0
        at = port - DMA_HIGH
        if 0 <= at <= len(DMA_SIGNATURE) - size:
            return int.from_bytes(DMA_SIGNATURE[at : at + size], "little")
        return 0 if port >= DMA_HIGH else (1 << 8 * size) - 1

    # -- items

    def select(self, key: int) -> None:
        """fw_cfg_select: bit 14 of a key is ignored; beyond the last file there is nothing."""
        self.offset = 0
        plain = key & ~(WRITE_CHANNEL | ARCH_LOCAL)
        if plain >= FILE_FIRST + FILE_SLOTS:
            self.selected = INVALID
            return
        self.selected = key & ~WRITE_CHANNEL
        if self.selected in self.late and not self.built:
            self.built = True
            self.changed |= self.build()

    def content(self) -> bytes:
        """Of the selected item; empty if there is none."""
        return self.changed.get(self.selected, self.items.get(self.selected, b""))

    def take(self, size: int) -> bytes:
        """The next bytes, zeros behind the end."""
        data = self.content()[self.offset : self.offset + size]
        self.offset += len(data)
        return data.ljust(size, b"\0")

    # -- DMA

    def transfer(self, address: int) -> None:
        """fw_cfg_dma_transfer. If the descriptor is no RAM, the guest cannot be told."""
        raw = self.dma.read(address, DMA_ACCESS.sizeof())
        if raw is None:
            self.dma.write(address, Control.ERROR.to_bytes(CONTROL_SIZE, "big"))
            return
        access = unpack(DMA_ACCESS, raw)
        if access.control & Control.SELECT:
            self.select(access.control >> 16)
        done = True
        if access.control & Control.READ:
            done = self.read_to(access.address, access.length)
        elif access.control & Control.WRITE:
            done = self.write_from(access.address, access.length)
        elif access.control & Control.SKIP:
            self.offset += min(access.length, max(len(self.content()) - self.offset, 0))
        self.dma.write(address, (0 if done else Control.ERROR).to_bytes(CONTROL_SIZE, "big"))

    def read_to(self, gpa: int, size: int) -> bool:
        """The next bytes into memory; behind the item's end zeros. After an error nothing more is written."""
        left = min(size, max(len(self.content()) - self.offset, 0))
        done = self.dma.write(gpa, self.take(left))
        return done and self.dma.clear(gpa + left, size - left)

    def write_from(self, gpa: int, size: int) -> bool:
        """Into an item that may be written, and only inside it."""
        old = self.content()
        left = max(len(old) - self.offset, 0)
        fits = size <= left and self.selected in self.writable
        data = self.dma.read(gpa, size) if fits else None
        if data is None:
            self.offset += min(size, left)
            return not size
        self.changed[self.selected] = old[: self.offset] + data + old[self.offset + size :]
        self.offset += size
        return True
