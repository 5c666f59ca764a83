"""Are the emulated QEMU's ACPI files those of a real one? The same tables, the same script."""

from __future__ import annotations

import struct

import pytest
from qemuguest import BUFFER
from realqemu import MACHINES, MADT_HEAD, Emulated, RealQemu, before_10, both, program

from emu.vmm.q35 import tables
from formats import acpi, table_loader
from formats.fw_cfg import Control
from formats.structs import unpack
from formats.units import PAGE


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
def test_tables_and_script(base: int | None, memory: int, vcpus: int) -> None:
    with both(memory=memory, vcpus=vcpus) as pair:
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
        if before_10():
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
    with both() as pair:
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
    with both() as pair:
        for machine in pair:
            before = machine.files()
            program(machine)
            assert b"MCFG" in split(whole_file(machine, tables.TABLES))
            assert machine.files() == before
