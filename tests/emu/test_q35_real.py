"""Is the emulated q35 the machine that a real QEMU makes? Debian's is asked the same questions, stopped
before its first instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import guest
import pytest
from kernels import bzimage
from realqemu import BUFFER, DESCRIPTOR, RealQemu, real, version

from emu.machine import Machine
from emu.vmm.devices.fw_cfg import FwCfg
from emu.vmm.q35 import tables
from formats import acpi, fw_cfg, table_loader
from formats.fw_cfg import Control, Key
from formats.registers import R10, R11, R12, R13, RCX
from formats.structs import unpack
from formats.units import GIB, MIB, PAGE

SHARED = 1 << 47
IMAGE = guest.for_qemu(guest.build("main: halt\n").image)
KERNEL, INITRD, LINE = bzimage(), b"initrd" * 1000, "console=ttyS0"
BEFORE_10 = version() < (10, 0)  # no etc/boot/kernel; a MADT of revision 1 or 3 whose flags ignore pic=off
MANY = 250 if BEFORE_10 else 300  # its TCG has no x2APIC
STRICT = version() >= (11, 0)  # alignment of port accesses matters; short ECAM windows are right
MADT_HEAD = acpi.MADT.sizeof()


class Emulated:
    """The same questions to a TD's VMM."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.ports = machine, machine.vmm.ports
        for page in (BUFFER, DESCRIPTOR):
            r = [0] * 16
            r[RCX], r[R11], r[R12], r[R13] = 0xFC00, 0x10001, page | SHARED, PAGE
            machine.vmm.handle(0, r)
            assert r[R10] == 0

    def out(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self.ports.write(port, size, value)

    def inp(self, port: int, size: int) -> int:
        """IN."""
        return self.ports.read(port, size)

    def read(self, gpa: int, size: int) -> bytes:
        """What the host sees: shared memory, else a device."""
        if gpa < guest.MEMORY:
            return self.machine.memory.read(gpa, size, shared=True)
        return self.ports.read_memory(gpa, size).to_bytes(size, "little")

    def write(self, gpa: int, data: bytes) -> None:
        """Shared memory."""
        self.machine.memory.write(gpa, data, shared=True)

    dma, item, files, file = RealQemu.dma, RealQemu.item, RealQemu.files, RealQemu.file


@contextmanager
def both(
    *options: str, folder: Path | None = None, **settings: object
) -> Iterator[tuple[RealQemu, Emulated]]:
    """Two machines; with a folder both have the payload."""
    if folder:
        for name, content in (("kernel", KERNEL), ("initrd", INITRD)):
            (folder / name).write_bytes(content)
        options += ("-kernel", str(folder / "kernel"), "-initrd", str(folder / "initrd"), "-append", LINE)
        settings |= {"kernel": KERNEL, "initrd": INITRD, "cmdline": LINE}
    with real(*options) as qemu, guest.machine(IMAGE, vmm="qemu", **settings) as td:
        yield qemu, Emulated(td)


def program(machine: RealQemu | Emulated, base: int = 0xB0000000) -> None:
    """As firmware does."""
    for at, size, value in ((0x60, 4, 0), (0x64, 4, 0), (0x60, 4, base | 1)):
        machine.out(0xCF8, 4, 0x80000000 | at)
        machine.out(0xCFC, size, value)
    for at, size, value in ((0x40, 4, 0x601), (0x44, 1, 0x80)):
        machine.out(0xCF8, 4, 0x8000F800 | at)
        machine.out(0xCFC, size, value)


MACHINES = pytest.mark.parametrize(
    ("options", "settings"),
    [
        (("-m", "64M", "-smp", "1"), {}),
        (("-m", "3G", "-smp", "12,sockets=12"), {"memory": 3 * GIB, "vcpus": 12}),
        (
            ("-m", "2815M", "-smp", f"{MANY},sockets={MANY}", "-cpu", "max"),
            {"memory": 2815 * MIB, "vcpus": MANY},
        ),
    ],
    ids=["64M-1", "3G-12", f"2815M-{MANY}"],
)


# -- items


@pytest.mark.parametrize("payload", [False, True], ids=["no kernel", "kernel"])
def test_the_directory(payload: bool, tmp_path: Path) -> None:
    with both("-m", "64M", folder=tmp_path if payload else None) as (qemu, emulated):
        theirs, ours = ({name: size for name, (_, size) in m.files().items()} for m in (qemu, emulated))
        if payload and BEFORE_10:
            theirs["etc/boot/kernel"] = len(KERNEL)
        assert list(ours) == sorted(theirs)
        different = {name for name in ours if ours[name] != theirs[name]}
        assert different == {"etc/smbios/smbios-tables"}  # docs/emulator.md: simplified


@MACHINES
def test_fixed_items(options: tuple[str, ...], settings: dict[str, object], tmp_path: Path) -> None:
    kinds = {key for key in Key if key not in (Key.FILE_DIR, Key.SETUP_DATA)}
    names = ("bootorder", "etc/boot-fail-wait", "etc/system-states")
    names += ("etc/smi/features-ok", "etc/smi/requested-features", "etc/smi/supported-features")
    with both(*options, folder=tmp_path, **settings) as (qemu, emulated):
        for key in sorted(kinds):
            assert emulated.item(key, 3000) == qemu.item(key, 3000), key
        for name in names:
            assert emulated.file(name) == qemu.file(name), name


def test_the_setup_part_is_patched_only_without_tdx(tmp_path: Path) -> None:
    """Of a confidential guest QEMU leaves it alone; the rest of the file is the same."""
    with both("-m", "64M", folder=tmp_path) as (qemu, emulated):
        setup = (KERNEL[0x1F1] + 1) * 512
        theirs, ours = (machine.item(Key.SETUP_DATA, setup) for machine in (qemu, emulated))
        assert ours == KERNEL[:setup]
        different = {at for at in range(setup) if theirs[at] != ours[at]}
        header = {0x210, 0x211, *range(0x218, 0x220), *range(0x224, 0x226), *range(0x228, 0x22C)}
        assert different
        assert different <= header


@MACHINES
def test_ram_in_e820(options: tuple[str, ...], settings: dict[str, object]) -> None:
    with both(*options, **settings) as (qemu, emulated):
        theirs, ours = (
            list(struct.iter_unpack("<QQI", machine.file("etc/e820"))) for machine in (qemu, emulated)
        )
        assert ours == [(0xFEFFC000, 0x4000, 2), *(entry for entry in theirs if entry[2] == 1)]


# -- registers of fw_cfg

REGISTERS = (
    *[(0x510, 1), (0x510, 2), (0x511, 1)],
    *[(port, size) for port in range(0x514, 0x51C) for size in (1, 2, 4) if port + size <= 0x51C],
    *[(port, 2) for port in (0x511, 0x512, 0x513)],
)


def test_registers_of_fw_cfg() -> None:
    with both("-m", "64M") as pair:
        for port, size in REGISTERS:
            if port % size and not STRICT:
                continue
            for machine in pair:
                machine.out(0x510, 2, Key.SIGNATURE)
            found = [(m.inp(port, size), m.inp(0x511, 1), m.inp(0x510, 1), m.inp(0x511, 1)) for m in pair]
            assert found[0] == found[1], (hex(port), size)
        for key in (Key.FILE_DIR, 0x06, 0x7F, 0x8002, 0xC002, 0x4000, 0xFFFF):
            for machine in pair:
                machine.out(0x510, 2, key)
            found = [tuple(m.inp(0x511, 1) for _ in range(6)) for m in pair]
            assert found[0] == found[1], hex(key)
        for port, size, value in ((0x510, 1, 1), (0x511, 1, 1)):
            for machine in pair:
                machine.out(0x510, 2, Key.SIGNATURE)
                machine.inp(0x511, 1)
                machine.out(port, size, value)
            assert pair[0].inp(0x511, 1) == pair[1].inp(0x511, 1), hex(port)


RW = Control.READ | Control.WRITE
TRANSFERS = (  # control, length, data address
    (Control.SELECT | Control.READ, 4, BUFFER),
    (Control.READ, 4, BUFFER + 4),
    (Control.SELECT | Control.READ, 64, BUFFER + 1),
    (0x06 << 16 | Control.SELECT | Control.READ, 16, BUFFER),
    (Control.SELECT | Control.SKIP, 2, 0),
    (Control.READ, 2, BUFFER),
    (Control.SKIP, 1000, BUFFER),
    (Control.READ, 8, BUFFER),
    (Control.SELECT | Control.WRITE, 4, BUFFER),
    (Control.SELECT | Control.WRITE, 0, BUFFER),
    (Control.SELECT | RW | Control.SKIP, 4, BUFFER + 32),
    (Control.SELECT | 0xE0, 4, BUFFER),
    (Control.SELECT, 4, BUFFER),
    (0, 4, BUFFER),
    (Control.SELECT | Control.READ, 0, 0xFFFFFFFF0000),
    (Control.SELECT | Control.READ, 4, guest.MEMORY),
    (Control.SELECT | Control.READ, 8, guest.MEMORY - 4),
    (Control.READ, 8, BUFFER),
    (Control.SELECT | Control.READ, 4, 1 << 40),
    (Control.SELECT | Control.READ, 4, BUFFER | SHARED),
    (0x8004 << 16 | Control.SELECT | Control.READ, 4, BUFFER),
    (Key.FILE_DIR << 16 | Control.SELECT | Control.READ, 100, BUFFER),
)


def test_transfers() -> None:
    with both("-m", "64M") as pair:
        for step, transfer in enumerate(TRANSFERS):
            found = [(m.dma(*transfer), m.read(BUFFER, 128), m.read(guest.MEMORY - 4, 4)) for m in pair]
            assert found[0] == found[1], (step, transfer)
            rest = [machine.inp(0x511, 1) for machine in pair]
            assert rest[0] == rest[1], (step, transfer)


# -- chipset


def test_configuration_space() -> None:
    """Every register after a reset, and what is left of ones and zeros written to it. PCIEXBAR and PMBASE
    have tests of their own; register A0 of the LPC bridge locks itself there.
    """
    with both("-m", "64M") as pair:
        for where in range(0, 0x10000, 0x100):
            for machine in pair:
                machine.out(0xCF8, 4, 0x80000000 | where)
            assert pair[0].inp(0xCFC, 4) == pair[1].inp(0xCFC, 4), hex(where)
        for where in (0, 0xF800):
            for at in range(0, 256, 4):
                if at in (0x50, 0x9C) and BEFORE_10:
                    continue  # TSEG and SMRAM, which are there in spite of smm=off
                found = []
                for machine in pair:
                    machine.out(0xCF8, 4, 0x80000000 | where | at)
                    seen = [machine.inp(0xCFC, 4)]
                    if at not in (0x60, 0xA0):
                        for value in (0xFFFFFFFF, 0):
                            machine.out(0xCFC, 4, value)
                            seen.append(machine.inp(0xCFC, 4))
                    found.append(seen)
                assert found[0] == found[1], (hex(where), hex(at))


def test_ecam() -> None:
    with both("-m", "64M") as pair:
        places = (0xE0000000, 0xE0000002, 0xE00F8000, 0xE0001000, 0xE0000100, 0xE8000000, 0xEFFFF000)
        for value in (0xE0000000, 0xE0000001, 0xE8000001, 0xE0000003, 0xE4000005, 0xE0000007, 0):
            if value & 6 and not STRICT:
                continue
            for machine in pair:
                machine.out(0xCF8, 4, 0x80000060)
                machine.out(0xCFC, 4, value)
            for place in places:
                size = 2 if place & 2 else 4
                assert pair[0].read(place, size) == pair[1].read(place, size), (hex(value), hex(place))


def test_power_management() -> None:
    registers = (0x600, 0x602, 0x604, 0x606, 0x60C, 0x610, 0x618, 0x61C, 0x638, 0x640, 0x65C)
    wide = (0x608, 0x620, 0x624, 0x628, 0x62C, 0x630, 0x634)
    watchdog = tuple(range(0x660, 0x680, 2))
    steps = ((0x602, 0xFFFF), (0x602, 0), (0x600, 1), (0x604, 0xDFFF), (0x604, 0), (0x604, 0x1C01))
    with both("-m", "64M") as pair:

        def compare(what: object) -> None:
            for port, size in (*[(p, 2) for p in (*registers, *watchdog)], *[(p, 4) for p in wide]):
                assert pair[0].inp(port, size) == pair[1].inp(port, size), (what, hex(port))

        compare("off")
        for machine in pair:
            machine.out(0xCF8, 4, 0x8000F840)
            machine.out(0xCFC, 4, 0x601)
        compare("base")
        for machine in pair:
            program(machine)
        compare("on")
        for port, value in steps:
            for machine in pair:
                machine.out(port, 2, value)
            compare((hex(port), hex(value)))
        halves = ((0x605, 0x04), (0x604, 0xFF)) if not BEFORE_10 else ((0x604, 0xFF),)
        for port, value in (*halves, (0xCF9, 0x02), (0xCF9, 0x0A), (0xCF9, 0xF8)):
            for machine in pair:
                machine.out(port, 1, value)
            compare((hex(port), hex(value)))
            assert pair[0].inp(0xCF9, 1) == pair[1].inp(0xCF9, 1)
        for port, size, value in ((0x628, 4, 0x12345678), (0x62A, 1, 0xFF), (0x602, 1, 0x21), (0x603, 1, 5)):
            for machine in pair:
                machine.out(port, size, value)
            compare("events")
        odd = [(0x600, 4), (0x604, 4), (0x603, 2), (0x60E, 4), (0x61, 2), (0xCFB, 2)]
        for port, size in odd if STRICT else []:
            assert pair[0].inp(port, size) == pair[1].inp(port, size), hex(port)


def test_ports_where_nobody_is() -> None:
    with both("-m", "64M") as pair:
        for port in (0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x92, 0xA0, 0x4D0, 0xB004):
            assert [machine.inp(port, 1) for machine in pair] == [0xFF, 0xFF], hex(port)


# -- ACPI files


def split(blob: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Offset and bytes of each table, by signature, in their order."""
    found, at = {}, 0
    while blob[at : at + 4].strip(b"\0"):
        (size,) = struct.unpack_from("<I", blob, at + 4)
        found[blob[at : at + 4]] = (at, blob[at : at + size])
        at += size
    return found


def without_offsets(fadt: bytes) -> dict[str, object]:
    """The fields of a FADT that do not depend on the size of the DSDT."""
    fields = dict(unpack(acpi.FADT, fadt.ljust(acpi.FADT.sizeof(), b"\0")))
    return {name: value for name, value in fields.items() if name not in ("_io", "dsdt", "x_dsdt")}


def shape(script: bytes, blob: bytes) -> list[tuple[object, ...]]:
    """Commands with names, alignments, zones and sizes; offsets as the table and the place in it."""
    starts = {offset: signature for signature, (offset, _) in split(blob).items()}

    def place(file: str, offset: int) -> tuple[object, int]:
        if file != tables.TABLES:
            return file, offset
        start = max(at for at in starts if at <= offset)
        return starts[start], offset - start

    found: list[tuple[object, ...]] = []
    for kind, entry in table_loader.read(script):
        if kind == 1:
            found.append((kind, entry["file"], entry["align"], entry["zone"]))
        elif kind == 2:
            found.append((kind, entry["src"], *place(entry["dest"], entry["offset"]), entry["size"]))
        else:
            assert kind == 3
            start = place(entry["file"], entry["start"])
            found.append((kind, *place(entry["file"], entry["offset"]), *start))
    return found


@pytest.mark.parametrize("base", [0xB0000000, 0xE0000000, None], ids=["B0000000", "E0000000", "nothing"])
@MACHINES
def test_tables_and_script(base: int | None, options: tuple[str, ...], settings: dict[str, object]) -> None:
    with both(*options, **settings) as pair:
        made = []
        for machine in pair:
            if base:
                program(machine, base)
            made.append({name: whole_file(machine, name) for name in tables.FILES})
        theirs, ours = made
        real_tables, own_tables = split(theirs[tables.TABLES]), split(ours[tables.TABLES])
        assert list(own_tables) == list(real_tables)
        for signature in (b"FACS", b"MCFG", b"WAET"):
            assert own_tables.get(signature, (0, b""))[1] == real_tables.get(signature, (0, b""))[1]
        fadts = [without_offsets(found[b"FACP"][1]) for found in (real_tables, own_tables)]
        assert fadts[0] == fadts[1]
        madts = [found[b"APIC"][1] for found in (real_tables, own_tables)]
        if BEFORE_10:
            assert madts[0][40:44] == bytes((1, 0, 0, 0))
            assert madts[0][MADT_HEAD:] == madts[1][MADT_HEAD:]
        else:
            assert madts[0] == madts[1]
        assert len(own_tables[b"RSDT"][1]) == len(real_tables[b"RSDT"][1])
        assert ours[tables.RSDP][:16] == theirs[tables.RSDP][:16]
        scripts = [shape(one[tables.LOADER], one[tables.TABLES]) for one in made]
        assert scripts[0] == scripts[1]
        assert {len(one[tables.LOADER]) for one in made} == {0x1000}


def whole_file(machine: RealQemu | Emulated, name: str) -> bytes:
    """A file by pages: the offset goes on."""
    key, size = machine.files()[name]
    parts = [machine.item(key, min(size, PAGE))]
    while sum(map(len, parts)) < size:
        piece = min(size - sum(map(len, parts)), PAGE)
        assert machine.dma(Control.READ, piece, BUFFER) == 0
        parts.append(machine.read(BUFFER, piece))
    return b"".join(parts)


@pytest.mark.parametrize("first", tables.FILES)
@pytest.mark.parametrize("way", ["port", "DMA"])
def test_a_file_that_is_selected_too_early(first: str, way: str) -> None:
    with both("-m", "64M") as pair:
        for machine in pair:
            key = machine.files()[first][0]
            if way == "port":
                machine.out(0x510, 2, key)
            else:
                assert machine.dma(key << 16 | Control.SELECT, 0, 0) == 0
            program(machine)
            found = split(whole_file(machine, tables.TABLES))
            fadt = unpack(acpi.FADT, found[b"FACP"][1].ljust(acpi.FADT.sizeof(), b"\0"))
            assert b"MCFG" not in found
            assert (fadt.pm1a_evt_blk, fadt.pm1a_cnt_blk, fadt.pm_tmr_blk, fadt.gpe0_blk) == (0, 4, 8, 0x20)


def test_the_directory_may_be_read_early() -> None:
    with both("-m", "64M") as pair:
        for machine in pair:
            before = machine.files()
            program(machine)
            assert b"MCFG" in split(whole_file(machine, tables.TABLES))
            assert machine.files() == before


def test_the_chip_is_that_of_the_emulated_machine() -> None:
    """The helper above asks the device that a guest has."""
    with guest.machine(IMAGE, vmm="qemu") as td:
        chip = next(part for part in td.vmm.ports.board if isinstance(part, FwCfg))
        assert fw_cfg.read_directory(chip.items[Key.FILE_DIR]) == Emulated(td).files()
