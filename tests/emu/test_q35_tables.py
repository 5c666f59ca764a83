"""Which ACPI tables does the emulated QEMU offer, when are they built, and can firmware place them?"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from debian import tool

from emu.vmm.devices.fw_cfg import FwCfg, HostMemory
from emu.vmm.devices.pci import HOST_BRIDGE, LPC, Pci
from emu.vmm.q35 import items, tables
from emu.vmm.q35.tables import Facts
from formats import acpi, fw_cfg, table_loader
from formats.fw_cfg import Key
from formats.q35 import ACPI_CNTL, PCIEXBAR, PMBASE
from formats.structs import unpack
from formats.table_loader import Command
from formats.units import GIB, MIB

ECAM, PM = (0xE0000000, 0xF0000000), 0x600
TWO = ((0, 2 * GIB),)
BASES = {tables.TABLES: 0x7F000000, tables.RSDP: 0xF0000}


def facts(cpus: int = 4, **changes: object) -> Facts:
    """A machine that firmware has programmed."""
    values = {"apic_ids": range(cpus), "ram": TWO, "ecam": ECAM, "pm_base": PM} | changes
    return Facts(**values)  # type: ignore[arg-type]


def placed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What firmware makes of the blobs: the loader's commands, carried out, with every bound checked."""
    memory: dict[str, bytearray] = {}
    for kind, entry in table_loader.read(files[tables.LOADER]):
        if kind == Command.ALLOCATE:
            assert entry["file"] not in memory
            assert BASES[entry["file"]] % entry["align"] == 0
            memory[entry["file"]] = bytearray(files[entry["file"]])
        elif kind == Command.ADD_POINTER:
            dest, at, size = memory[entry["dest"]], entry["offset"], entry["size"]
            value = int.from_bytes(dest[at : at + size], "little")
            assert value < len(memory[entry["src"]])
            dest[at : at + size] = (value + BASES[entry["src"]]).to_bytes(size, "little")
        else:
            assert kind == Command.ADD_CHECKSUM
            file, start, length = memory[entry["file"]], entry["start"], entry["length"]
            assert start <= entry["offset"] < start + length <= len(file)
            assert file[entry["offset"]] == 0
            file[entry["offset"]] = acpi.checksum(bytes(file[start : start + length]))
    return {name: bytes(data) for name, data in memory.items()}


def found(files: Mapping[str, bytes]) -> dict[bytes, bytes]:
    """The tables that an OS finds, checksums included, by signature."""
    memory = placed(files)
    blob, base = memory[tables.TABLES], BASES[tables.TABLES]

    def at(address: int) -> bytes:
        offset = address - base
        table = blob[offset : offset + int.from_bytes(blob[offset + 4 : offset + 8], "little")]
        assert table[:4] == b"FACS" or acpi.check_table(table)
        return table

    root = memory[tables.RSDP]
    assert (root[:8], len(root), sum(root) % 256, root[15]) == (b"RSD PTR ", 20, 0, 0)
    rsdt = at(int.from_bytes(root[16:20], "little"))
    listed = [at(address) for (address,) in struct.iter_unpack("<I", rsdt[36:])]
    fadt = unpack(acpi.FADT, next(t for t in listed if t[:4] == b"FACP").ljust(acpi.FADT.sizeof(), b"\0"))
    assert fadt.dsdt == fadt.x_dsdt
    return {table[:4]: table for table in (rsdt, *listed, at(fadt.dsdt), at(fadt.firmware_ctrl))}


def test_an_os_finds_every_table() -> None:
    assert set(found(tables.build(facts()))) == {
        *(b"RSDT", b"FACP", b"APIC", b"MCFG", b"WAET", b"DSDT", b"FACS")
    }


def test_tables_that_nothing_was_programmed_for() -> None:
    """They look valid: power-off writes to port 4."""
    seen = found(tables.build(facts(ecam=None, pm_base=0)))
    assert b"MCFG" not in seen
    fadt = unpack(acpi.FADT, seen[b"FACP"].ljust(acpi.FADT.sizeof(), b"\0"))
    assert (fadt.pm1a_evt_blk, fadt.pm1a_cnt_blk, fadt.pm_tmr_blk, fadt.gpe0_blk) == (0, 4, 8, 0x20)


def test_a_fadt_that_is_right() -> None:
    raw = found(tables.build(facts()))[b"FACP"]
    assert (len(raw), raw[8]) == (244, 3)
    fadt = unpack(acpi.FADT, raw.ljust(acpi.FADT.sizeof(), b"\0"))
    assert (fadt.pm1a_evt_blk, fadt.pm1a_cnt_blk, fadt.pm_tmr_blk, fadt.gpe0_blk) == (
        *(0x600, 0x604, 0x608),
        0x620,
    )
    assert (fadt.flags, fadt.iapc_boot_arch, fadt.sci_int, fadt.smi_cmd) == (0x84A5, 0, 9, 0)
    assert (fadt.reset_reg.space_id, fadt.reset_reg.address, fadt.reset_value) == (1, 0xCF9, 0x0F)
    assert unpack(acpi.FADT, tables.fadt(facts(9), 0, 0).ljust(276, b"\0")).flags == 0x484A5


def test_processors() -> None:
    def ids(apic_ids: tuple[int, ...]) -> list[tuple[int, int, int]]:
        entries = acpi.madt_entries(tables.madt(apic_ids))
        return [
            (kind, entry.processor_uid, entry.x2apic_id if kind == 9 else entry.apic_id)
            for kind, entry in entries
            if kind in (0, 9)
        ]

    assert ids((0, 1, 2, 4, 5, 6)) == [(0, n, i) for n, i in enumerate((0, 1, 2, 4, 5, 6))]
    assert ids((254, 255, 300)) == [(0, 0, 254), (9, 1, 255), (9, 2, 300)]
    assert len(tables.madt(range(300))) == 44 + 255 * 8 + 45 * 16 + 12 + 50 + 12


def test_interrupts() -> None:
    raw = tables.madt((0,))
    assert (raw[8], raw[36:44]) == (3, bytes.fromhex("0000e0fe00000000"))
    entries = list(acpi.madt_entries(raw))
    assert [(e.source, e.gsi, e.flags) for kind, e in entries if kind == 2] == [
        (0, 2, 0),
        *((pin, pin, 0x0D) for pin in (5, 9, 10, 11)),
    ]
    assert [(e.address, e.gsi_base) for kind, e in entries if kind == 1] == [(0xFEC00000, 0)]
    assert [(e.processor_uid, e.lint) for kind, e in entries if kind == 4] == [(0xFF, 1)]
    wide = list(acpi.madt_entries(tables.madt((0, 255))))
    assert [(e.processor_uid, e.lint) for kind, e in wide if kind == 10] == [(0xFFFFFFFF, 1)]


@pytest.mark.parametrize(("window", "last"), [(ECAM, 255), ((0xE8000000, 0xF0000000), 127)])
def test_configuration_space(window: tuple[int, int], last: int) -> None:
    raw = tables.mcfg(window)
    assert len(raw) == 60
    entry = unpack(acpi.MCFG, raw)
    assert (entry.base, entry.segment, entry.start_bus, entry.end_bus) == (window[0], 0, 0, last)


def windows(**changes: object) -> list[tuple[int, int]]:
    """Memory of the host bridge."""
    pieces = tables.windows(facts(**changes))
    wide = [struct.unpack_from("<QQ", piece, 14) for piece in pieces if piece[0] == 0x8A]
    narrow = [struct.unpack_from("<II", piece, 10) for piece in pieces if piece[0] == 0x87]
    return [(first, last) for first, last in (*narrow, *wide)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ecam": (0xB0000000, 0xC0000000)},
            [(0x80000000, 0xAFFFFFFF), (0xC0000000, 0xFEBFFFFF), (4 * GIB, 36 * GIB - 1)],
        ),
        ({}, [(0x80000000, 0xDFFFFFFF), (0xF0000000, 0xFEBFFFFF), (4 * GIB, 36 * GIB - 1)]),
        ({"ecam": None}, [(0x80000000, 0xFEBFFFFF), (4 * GIB, 36 * GIB - 1)]),
        (
            {"ram": ((0, 2 * GIB), (4 * GIB, 6 * GIB)), "ecam": (0xB0000000, 0xC0000000)},
            [(0x80000000, 0xAFFFFFFF), (0xC0000000, 0xFEBFFFFF), (0x180000000, 0x97FFFFFFF)],
        ),
        (
            {"ram": ((0, 2815 * MIB),), "ecam": (0xB0000000, 0xC0000000)},
            [(0xAFF00000, 0xAFFFFFFF), (0xC0000000, 0xFEBFFFFF), (4 * GIB, 36 * GIB - 1)],
        ),
    ],
    ids=["B0000000", "E0000000", "no ECAM", "6 GiB", "2815 MiB"],
)
def test_windows_are_those_of_qemu(changes: dict[str, object], expected: list[tuple[int, int]]) -> None:
    assert windows(**changes)[1:] == expected


@pytest.mark.parametrize("window", [ECAM, None], ids=["ECAM", "no ECAM"])
def test_iasl_takes_the_dsdt_apart_and_together_again(window: tuple[int, int] | None, tmp_path: Path) -> None:
    whole = tables.dsdt(facts(ecam=window))
    (tmp_path / "dsdt.dat").write_bytes(whole)
    for words in (("-d", "dsdt.dat"), ("-p", "again", "dsdt.dsl")):
        command = [*tool("iasl", "acpica-tools"), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 Errors" in done.stdout or words[0] == "-d"
    text = (tmp_path / "dsdt.dsl").read_text()
    for part in ("PNP0A08", "PNP0501", "_S5", "QWordMemory", "IRQNoFlags"):
        assert part in text
    assert ("PNP0C01" in text) == (window is not None)
    assert (tmp_path / "again.aml").read_bytes()[36:] == whole[36:]


def test_blobs_have_their_full_size() -> None:
    for made in (tables.build(facts()), tables.build(facts(ecam=None, pm_base=0))):
        assert [len(made[name]) for name in tables.FILES] == [0x20000, 20, 0x1000]


def test_the_script() -> None:
    """ALLOCATEs first; a table's checksum after its pointers; the RSDP last."""
    commands = list(table_loader.read(tables.build(facts())[tables.LOADER]))
    assert [kind for kind, _ in commands] == [1, 1, 3, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2, 3, 2, 3]
    assert [(e["file"], e["align"], e["zone"]) for _, e in commands[:2]] == [
        (tables.RSDP, 16, 2),
        (tables.TABLES, 64, 1),
    ]
    assert [e["size"] for kind, e in commands if kind == 2] == [4, 4, 8, 4, 4, 4, 4, 4]
    starts = [e["start"] for kind, e in commands if kind == 3][:-1]
    assert all(first < second for first, second in pairwise(starts))


def test_what_a_script_may_hold() -> None:
    back = table_loader.command(Command.WRITE_POINTER, dest="a", src="b", dst_offset=1, src_offset=2, size=8)
    unknown = (0x80000001).to_bytes(4, "little") + bytes(124)
    assert list(table_loader.read(back + bytes(128) + unknown)) == [
        (4, {"dest": "a", "src": "b", "dst_offset": 1, "src_offset": 2, "size": 8}),
        (0x80000001, {}),
    ]


# -- when they are built


class Host:
    """fw_cfg and configuration space, nothing programmed yet."""

    def __init__(self) -> None:
        self.pci = Pci()
        made = items.build(items.Q35(TWO), range(4), self.build())
        self.keys = made.files
        late = frozenset(made.files[name] for name in tables.FILES)
        memory = HostMemory(None, TWO)  # type: ignore[arg-type]
        self.chip = FwCfg(
            memory, made.content, late, lambda: {self.keys[n]: d for n, d in self.build().items()}
        )

    def build(self) -> dict[str, bytes]:
        """From what is programmed."""
        return tables.build(facts(ecam=self.pci.ecam, pm_base=self.pci.pm_base))

    def program(self) -> None:
        """ECAM and power management."""
        self.pci.write_config(HOST_BRIDGE, PCIEXBAR, 4, ECAM[0] | 1)
        self.pci.write_config(LPC, PMBASE, 4, PM | 1)
        self.pci.write_config(LPC, ACPI_CNTL, 1, 0x80)

    def select(self, name: str) -> bytes:
        """Content of a file after its selection."""
        self.chip.select(self.keys[name])
        return self.chip.content()

    def all(self) -> dict[str, bytes]:
        """The three files."""
        return {name: self.select(name) for name in tables.FILES}


def test_tables_are_right_if_firmware_programs_first() -> None:
    host = Host()
    host.chip.select(Key.FILE_DIR)
    host.chip.select(Key.SIGNATURE)
    assert not host.chip.built
    host.program()
    assert host.all() == tables.build(facts())


@pytest.mark.parametrize("first", tables.FILES)
def test_a_selection_before_that_spoils_them_for_good(first: str) -> None:
    host = Host()
    bad = host.select(first)
    host.program()
    assert host.all() == tables.build(facts(ecam=None, pm_base=0))
    assert host.all()[first] == bad


def test_later_changes_do_nothing() -> None:
    host = Host()
    host.program()
    before = host.all()
    host.pci.write_config(HOST_BRIDGE, PCIEXBAR, 4, 0)
    assert host.all() == before


def test_sizes_do_not_betray_it() -> None:
    host = Host()
    before = host.chip.items[Key.FILE_DIR]
    host.program()
    sizes = {name: size for name, (_, size) in fw_cfg.read_directory(before).items()}
    assert {name: len(data) for name, data in host.all().items()} == {n: sizes[n] for n in tables.FILES}
