"""How does a hostile host serve its fw_cfg device and its chipset? Items that lie, transfers that fail or go
elsewhere, memory that changes while it is read, a chipset that does not obey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from emu.view import Vcpu
from emu.vmm.devices.bus import Device
from emu.vmm.devices.fw_cfg import FwCfg
from emu.vmm.devices.pci import Pci
from emu.vmm.hostile import acpi_files, items
from emu.vmm.policy import Policy
from formats.fw_cfg import DMA_ACCESS, Key
from formats.structs import pack, unpack
from formats.units import MIB, PAGE

CONTROLS = (1, 2, 0x80000000, 0xFFFFFFFF, 0x00020000, 0x0A000000, 0x00000100)  # answers that are not "done"
MOST_NOISE = MIB  # random bytes in one answer
TRANSFERS = 9  # so many has a boot with small files
RESTLESS = "fw_cfg: shared memory changes while it is read"
RESTLESS_TURNS = 3000  # turns of few instructions, between which shared memory changes


@dataclass
class LyingFwCfg(FwCfg):
    """The device of one seed. `given`: what lay in a transfer's buffer when it was over, by key."""

    random: Random = field(default_factory=Random)
    done: list[str] = field(default_factory=list)
    lies: dict[int, str] = field(default_factory=dict)  # by the number of the transfer
    fickle: bool = False  # an item that is selected again has other bytes, the directory if shifting
    shifting: bool = False  # an item changes between two transfers
    restless: int = 0  # turns that are left
    transfers: int = 0
    selections: dict[int, int] = field(default_factory=dict)
    given: dict[int, bytes] = field(default_factory=dict)
    descriptor: int = 0  # of the last transfer; 0: none yet
    buffer: tuple[int, int] = (0, 0)  # address and size of its data

    def select(self, key: int) -> None:
        super().select(key)
        self.selections[self.selected] = self.selections.get(self.selected, 0) + 1
        self.given[self.selected] = b""

    def content(self) -> bytes:
        """The item; not the same again if this device is fickle or shifting."""
        data = super().content()
        again = self.selections.get(self.selected, 0)
        changed = bytearray(data)
        if self.fickle and again > 1 and (self.shifting or self.selected != Key.FILE_DIR):
            for at in range(0, len(changed), 61):
                changed[at] ^= again
        if self.shifting and self.offset:
            for at in range(self.offset, len(changed), PAGE - 1):
                changed[at] ^= self.transfers | 1
        return bytes(changed)

    def transfer(self, address: int) -> None:
        raw = self.dma.read(address, DMA_ACCESS.sizeof())
        if raw is None:
            super().transfer(address)
            return
        access = unpack(DMA_ACCESS, raw)
        lie = self.lies.get(self.transfers, "")
        self.transfers += 1
        self.descriptor, self.buffer = address, (int(access.address), int(access.length))
        if lie:
            self.done.append(f"fw_cfg: transfer {self.transfers - 1}: {lie}")
        MANNERS[lie](self, address)
        self.given[self.selected] = self.given.get(self.selected, b"") + (self.dma.read(*self.buffer) or b"")

    # -- manners of a transfer whose descriptor lies at `address`

    def _honest(self, address: int) -> None:
        super().transfer(address)

    def _silent(self, address: int) -> None:
        if self.random.random() < 0.5:
            self.read_to(*self.buffer)

    def _failed(self, address: int) -> None:
        super().transfer(address)
        self.dma.write(address, self.random.choice(CONTROLS).to_bytes(4, "big"))

    def _elsewhere(self, address: int) -> None:
        """To another address: in RAM, in the descriptor's page, in no RAM at all. The control says done."""
        start, end = self.random.choice(self.dma.ram)
        place = self.random.choice((start + self.random.randrange(end - start), address, 0xFFFFF000, 1 << 51))
        self.read_to(place, min(self.buffer[1], PAGE))
        self.dma.write(address, bytes(4))

    def _unmoved(self, address: int) -> None:
        self.dma.write(address, bytes(4))

    def _short(self, address: int) -> None:
        gpa, size = self.buffer
        self.dma.write(gpa, self.take(self.random.randrange(size) if size else 0))
        self.dma.write(address, bytes(4))

    def _noise(self, address: int) -> None:
        gpa, size = self.buffer
        self.dma.write(gpa, self.random.randbytes(min(size, MOST_NOISE)))
        self.dma.write(address, bytes(4))

    def _beyond(self, address: int) -> None:
        """More than was asked for, over the descriptor too."""
        super().transfer(address)
        gpa, size = self.buffer
        self.dma.write(gpa + size, self.random.randbytes(PAGE))
        self.dma.write(address + 4, self.random.randbytes(12))

    def _reposition(self, address: int) -> None:
        super().transfer(address)
        self.offset = self.random.randrange(MIB)

    # -- memory that changes while the guest reads it

    def meddle(self) -> None:
        """Changes the control word, the data, or both."""
        if not self.descriptor:
            return
        self.restless -= 1
        rng, (gpa, size) = self.random, self.buffer
        if rng.random() < 0.3:
            self.dma.write(self.descriptor, rng.choice((bytes(4), b"\1\0\0\0", rng.randbytes(4))))
        if rng.random() < 0.2:
            self.dma.write(self.descriptor, pack(DMA_ACCESS, control=0, length=size, address=gpa ^ PAGE))
        if size and rng.random() < 0.7:
            near = rng.choice((min(size, 4), min(size, 4 + 64 * 8), size))  # a number, a directory, anything
            for _ in range(rng.randrange(1, 8)):
                self.dma.write(gpa + rng.randrange(near), rng.randbytes(1))


Manner = Callable[[LyingFwCfg, int], None]
MANNERS: dict[str, Manner] = {
    "": LyingFwCfg._honest,
    "no answer": LyingFwCfg._silent,
    "an error": LyingFwCfg._failed,
    "the data goes elsewhere": LyingFwCfg._elsewhere,
    "no data": LyingFwCfg._unmoved,
    "only a part of the data": LyingFwCfg._short,
    "random data": LyingFwCfg._noise,
    "more than was asked for": LyingFwCfg._beyond,
    "the next one begins elsewhere": LyingFwCfg._reposition,
}
Board = tuple[Device, ...]
PCI_LIES = ("absent", "writes are ignored", "random answers", "another chipset")


@dataclass
class LyingPci(Pci):
    """A chipset that is not there, is another one, or does not do what it is told."""

    lie: str = ""
    random: Random = field(default_factory=Random)

    def read_config(self, where: int, at: int, size: int) -> int:
        honest = super().read_config(where, at, size)
        if self.lie == "absent":
            return (1 << 8 * size) - 1
        if self.lie == "random answers" and self.random.random() < 0.3:
            return self.random.getrandbits(8 * size)
        return 0x12378086 & (1 << 8 * size) - 1 if self.lie == "another chipset" and at == 0 else honest

    def write_config(self, where: int, at: int, size: int, value: int) -> None:
        if self.lie != "writes are ignored":
            super().write_config(where, at, size, value)


def lying(board: Board, seed: int, done: list[str]) -> tuple[Board, LyingFwCfg | None]:
    """The board with a device that lies by the seed, and this device; None: the host has none. `done` gets
    what it does.
    """
    rng = Random(f"hostile fw_cfg {seed}")
    found: LyingFwCfg | None = None
    devices: list[Device] = []
    for device in board:
        if isinstance(device, FwCfg):
            found = _device(rng, seed, device, done)
            devices.append(found)
        elif isinstance(device, Pci) and rng.random() < 0.06:
            lie = rng.choice(PCI_LIES)
            done.append(f"PCI configuration space: {lie}")
            devices.append(LyingPci(device.address, device.functions, device.ecam, lie, rng))
        else:
            devices.append(device)
    return tuple(devices), found


def _device(rng: Random, seed: int, honest: FwCfg, done: list[str]) -> LyingFwCfg:
    """One aim for each seed: one lie too many, and the first check hides all that come after it. The ACPI
    files lie by themselves, for a firmware that reads them.
    """

    def build() -> Mapping[int, bytes]:
        made, texts = acpi_files.lied(Random(f"hostile ACPI files {seed}"), honest.build())
        done.extend(texts)
        return made

    aim = rng.choice(("items", "items", "items", "transfers", "transfers", "memory", "everything"))
    content: items.Items = dict(honest.items)
    texts: list[str] = []
    if aim in ("items", "everything"):
        content, texts = items.lied(rng, content, rng.choice((1, 1, 1, 2, 3)))
    made = LyingFwCfg(honest.dma, content, honest.late, build, honest.writable, random=rng, done=done)
    done += texts
    if aim in ("transfers", "everything"):
        manners = [manner for manner in MANNERS if manner]
        made.lies = {rng.randrange(TRANSFERS): rng.choice(manners) for _ in range(rng.choice((1, 1, 2)))}
    made.fickle, made.shifting = rng.random() < 0.5, rng.random() < 0.2
    if made.shifting:
        done.append("fw_cfg: items change between two transfers")
    if aim in ("memory", "everything"):
        made.restless = RESTLESS_TURNS
        done.append(RESTLESS)
    return made


class HostileFwCfg(Policy):
    """A host that is honest but for its fw_cfg device and its chipset."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.device: LyingFwCfg | None = None

    def devices(self, board: tuple[Device, ...]) -> tuple[Device, ...]:
        board, self.device = lying(board, self.seed, self.done)
        return board

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        return meddled(self.device, instructions)


def meddled(device: LyingFwCfg | None, instructions: int) -> int:
    """Lets a restless device change memory; for how many instructions the vCPU runs then."""
    if device is None or not device.restless:
        return instructions
    device.meddle()
    return min(instructions, device.random.choice((1, 7, 40, 300)) if device.descriptor else 5000)
