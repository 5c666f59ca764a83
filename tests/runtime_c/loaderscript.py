"""Which files does a host give that has ACPI tables, honest or wrong? And what comes of them."""

from __future__ import annotations

from acpitables import DSDT, MAILBOX, Found, lapic, make_log
from ccore import CORE, LIB, below_2_gib, check, make_cpus

from emu.vmm.q35 import tables
from emu.vmm.q35.tables import LOADER, RSDP, TABLES, Facts
from formats import acpi, table_loader
from formats.table_loader import Command, Zone
from formats.units import MIB
from gen.core.hostlib import Guarded

FILES = tables.build(Facts((0, 1), ((0, 512 * MIB),), (0xE0000000, 0xF0000000), 0x600))
ORDER = (LOADER, RSDP, TABLES)  # the script, then as it allocates them
AREA = 0x60000
HONEST = {name: FILES[name] for name in ORDER}
Files = dict[str, bytes]


def run(files: bytes, cpus: int = 2, size: int = AREA, wait: int = 1, memory: Guarded | None = None) -> Found:
    """`memory`: where the area lies, if that matters."""
    memory = memory or below_2_gib(size)
    out, mailbox = CORE.ffi.new("uint64_t *"), CORE.span(MAILBOX, 4096)
    span, place = CORE.span(memory.address, size), CORE.span(files)
    check(LIB.host_tables(span, place, make_cpus(cpus, wait), mailbox, make_log(), out))
    return Found(memory, out[0])


class Script:
    """A host's files, made table by table; each of them can be wrong."""

    def __init__(self, width: int = 4) -> None:
        self.width = width
        self.allocations = [self.allocate(RSDP), self.allocate(TABLES)]
        self.commands: list[bytes] = []
        self.tables = bytearray(16)
        self.listed: list[int] = []

    @staticmethod
    def allocate(name: str, align: int = 16, zone: int = Zone.HIGH) -> bytes:
        return table_loader.command(Command.ALLOCATE, file=name, align=align, zone=zone)

    def point(self, place: int, size: int, dest: str = TABLES, src: str = TABLES) -> bytes:
        return table_loader.command(Command.ADD_POINTER, dest=dest, src=src, offset=place, size=size)

    def add(
        self, table: bytes, pointers: dict[int, tuple[int, int]] | None = None, listed: bool = True
    ) -> int:
        """`pointers`: value and size by place. The table's offset."""
        at = len(self.tables)
        whole = bytearray(table)
        for place, (value, size) in (pointers or {}).items():
            whole[place : place + size] = value.to_bytes(size, "little")
            self.commands.append(self.point(at + place, size))
        self.tables += whole + bytes(-len(whole) % 16)
        if listed:
            self.listed.append(at)
        return at

    def fadt(self, dsdt: int, facs: int = 0, **fields: int) -> int:
        pointers = {140: (dsdt, 8)} | ({36: (facs, 4)} if facs else {})
        return self.add(acpi.fadt(dsdt=0, x_dsdt=0, **fields), pointers)

    def files(self) -> Files:
        body = b"".join(at.to_bytes(self.width, "little") for at in self.listed)
        name = b"RSDT" if self.width == 4 else b"XSDT"
        root = self.add(acpi.table(name, 1, body), listed=False)
        self.commands += [self.point(root + 36 + self.width * i, self.width) for i in range(len(self.listed))]
        place = 16 if self.width == 4 else 24
        rsdp = bytearray(acpi.rsdp(0))
        rsdp[15] = 0 if self.width == 4 else 2  # revision
        rsdp[16:20], rsdp[24:32] = bytes(4), bytes(8)
        rsdp[place : place + self.width] = root.to_bytes(self.width, "little")
        self.commands.append(self.point(place, self.width, RSDP))
        script = b"".join([*self.allocations, *self.commands])
        return {LOADER: script, RSDP: bytes(rsdp), TABLES: bytes(self.tables)}

    def run(self, cpus: int = 1, memory: Guarded | None = None) -> Found:
        return run(table_loader.stored(self.files()), cpus, memory=memory)


def plain(width: int = 4) -> Script:
    """A FADT with its DSDT, and one CPU."""
    made = Script(width)
    made.fadt(made.add(DSDT, listed=False))
    made.add(acpi.madt([lapic(0)]))
    return made
