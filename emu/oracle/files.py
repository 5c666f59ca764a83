"""What may QEMU's fw_cfg device answer? Sizes, names and bytes that are not those of the files; errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from emu.vmm.devices.fw_cfg import FwCfg, HostMemory
from emu.vmm.hostile import acpi_files
from emu.vmm.q35.kernel import KERNEL_FILE
from formats.fw_cfg import FILE, NAME_SIZE, Control, Key
from formats.structs import pack
from formats.units import PAGE

Entry = tuple[str, int, int]  # of the directory: name, key, size
NEW_KEY = 0x3F  # the last that a file can have; QEMU's machine has fewer files
BEYOND = 0xFFFF_F000  # bytes: more than a TD of the campaign has
FIRST_SIZE = 4  # of the directory's count
FAR = 1000  # files: more than there are keys

# Which size is not that of the content, and by how much
SIZES: tuple[tuple[Key, int], ...] = (
    (Key.INITRD_SIZE, 0),  # honest
    (Key.INITRD_SIZE, 8),
    (Key.INITRD_SIZE, -1),
    (Key.INITRD_SIZE, BEYOND),
    (Key.CMDLINE_SIZE, 64),
    (Key.CMDLINE_SIZE, PAGE),
    (Key.CMDLINE_SIZE, -1),  # without its NUL
    (Key.FILE_DIR, 16),  # of the kernel's file
    (Key.FILE_DIR, PAGE),
    (Key.FILE_DIR, -16),
)
DIRECTORIES = ("honest", "reversed", "no kernel", "another first", "another last", "long names", "count")
TRANSFERS = (
    "honest",
    "the first fails",
    "the fifth fails",
    "the last fails",  # of the three with content
    "half is given",  # and the device says that it is all
    "other bytes the second time",
    "other bytes each time",
)
CONTENTS = (Key.KERNEL_DATA, Key.SETUP_DATA, Key.INITRD_DATA, Key.CMDLINE_DATA)


@dataclass(frozen=True)
class Files:
    """One device. Numbers of SIZES, DIRECTORIES and TRANSFERS, and a seed for what the host's ACPI files and
    their loader script say; 0 is honest.
    """

    sizes: int = 0
    directory: int = 0
    transfers: int = 0
    tables: int = 0


@dataclass(frozen=True)
class Transfers(HostMemory):
    """The memory that the device's DMA reaches, with what goes wrong. `seen`: bytes of each item so far."""

    device: FwCfg
    kind: str
    seen: Counter[int] = field(default_factory=Counter)
    descriptors: list[int] = field(default_factory=list)  # their addresses, one for each transfer

    def read(self, gpa: int, size: int) -> bytes | None:
        self.descriptors.append(gpa)  # the firmware has nothing else read
        return super().read(gpa, size)

    def write(self, gpa: int, data: bytes) -> bool:
        """The descriptor's answer, or bytes of an item."""
        if self.descriptors and gpa == self.descriptors[-1]:
            failed = Control.ERROR.to_bytes(len(data), "big")
            return super().write(gpa, failed if self._fails() else data)
        key = self.device.selected
        again = self.seen[key] >= len(self.device.content())
        self.seen[key] += len(data)
        other = self.kind == TRANSFERS[6] or (self.kind == TRANSFERS[5] and again)
        content = key in CONTENTS or key in self.device.late
        if other and content and data:
            data = bytes((data[0] ^ 1, *data[1:]))
        if self.kind == TRANSFERS[4] and content:
            data = data[: len(data) // 2]
        return super().write(gpa, data)

    def _fails(self) -> bool:
        """Whether the device says that this transfer failed."""
        count = len(self.descriptors)
        match self.kind:
            case "the first fails":
                return count == 1
            case "the fifth fails":
                return count == 5
        return self.kind == "the last fails" and self.device.selected == Key.CMDLINE_DATA


def lie(board: Iterable[object], choice: Files, other_kernel: bytes) -> Transfers | None:
    """Makes the board's fw_cfg device, if it has one, that of the choice. `other_kernel`: a file that the
    directory may name too.
    """
    for device in board:
        if isinstance(device, FwCfg):
            items = dict(device.items)
            items[Key.FILE_DIR], more = directory(items[Key.FILE_DIR], choice, other_kernel)
            key, less = SIZES[choice.sizes % len(SIZES)]
            if key != Key.FILE_DIR and key in items:
                size = int.from_bytes(items[key], "little")
                items[key] = (size + less & 0xFFFF_FFFF).to_bytes(4, "little")
            device.items = items | more
            if choice.tables:
                device.build = partial(_tables, choice.tables, device.build)
            kind = TRANSFERS[choice.transfers % len(TRANSFERS)]
            memory = Transfers(device.dma.memory, device.dma.ram, device, kind)
            device.dma = memory
            return memory
    return None


def _tables(seed: int, honest: Callable[[], Mapping[int, bytes]]) -> Mapping[int, bytes]:
    """The host's ACPI files and the script that places them, as the seed has them."""
    return acpi_files.lied(Random(f"tables {seed}"), honest())[0]


def directory(data: bytes, choice: Files, other_kernel: bytes) -> tuple[bytes, dict[int, bytes]]:
    """The directory of a choice, and the contents that it names beside QEMU's."""
    entries, kind = list(_entries(data)), DIRECTORIES[choice.directory % len(DIRECTORIES)]
    key, more = SIZES[choice.sizes % len(SIZES)]
    if key == Key.FILE_DIR:
        entries = [(n, k, size + more) if n == KERNEL_FILE else (n, k, size) for n, k, size in entries]
    other = (KERNEL_FILE, NEW_KEY, len(other_kernel))
    match kind:
        case "reversed":
            entries.reverse()
        case "no kernel":
            entries = [entry for entry in entries if entry[0] != KERNEL_FILE]
        case "another first":
            entries.insert(0, other)
        case "another last":
            entries.append(other)
        case "long names":  # no NUL ends them
            entries = [(name.ljust(NAME_SIZE, "x"), key, size) for name, key, size in entries] + [other]
    count = len(entries) if kind != "count" else FAR
    packed = (pack(FILE, size=size, select=key, name=name.encode()) for name, key, size in entries)
    return count.to_bytes(FIRST_SIZE, "big") + b"".join(packed), {NEW_KEY: other_kernel}


def _entries(data: bytes) -> Iterable[Entry]:
    for at in range(FIRST_SIZE, len(data), FILE.sizeof()):
        entry = FILE.parse(data[at:])
        yield entry.name.split(b"\0", 1)[0].decode(), int(entry.select), int(entry.size)
