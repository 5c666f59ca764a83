"""Are q35's tables what iasl and an OS accept, and is the chipset programmed in the right order?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from acpitables import MAILBOX
from ccore import CORE, GIB, LIB, CoreError, Range, below_2_gib, check, make_cpus, make_ram, ranges_of
from debian import tool

from formats import acpi, q35
from formats.acpi import MadtType

ROOT = Path(__file__).resolve().parents[2]


class Chipset:
    """Configuration space of the two functions, zero at first, with their ids."""

    def __init__(self, ids: tuple[int, int] = (q35.MCH_ID, q35.LPC_ID), stuck: int | None = None) -> None:
        self.registers = {(q35.MCH, 0): ids[0], (q35.LPC, 0): ids[1]}
        self.writes: list[tuple[int, int, int]] = []
        self.stuck = stuck

    def run(self) -> None:
        access, answer = CORE.new("config_access"), 0
        for step in range(100):
            check(LIB.q35_config(step, answer, access))
            if access.done:
                return
            assert access.address & q35.CONFIG_ENABLE
            assert access.port == q35.CONFIG_DATA
            place = (access.address & 0xF800, access.address & 0xFF)
            if access.write:
                self.writes.append((*place, access.value))
                if place[1] != self.stuck:
                    self.registers[place] = access.value
            else:
                answer = self.registers.get(place, 0)
        pytest.fail("the accesses never end")


def test_the_registers_are_programmed_in_order() -> None:
    chipset = Chipset()
    chipset.run()
    assert chipset.writes == [
        (q35.MCH, 0x60, 0),
        (q35.MCH, 0x64, 0),
        (q35.MCH, 0x60, 0xE000_0001),
        (q35.LPC, 0x40, 0x601),
        (q35.LPC, 0x44, 0x80),
    ]


@pytest.mark.parametrize("stuck", [q35.PCIEXBAR, q35.PMBASE, q35.ACPI_CNTL])
def test_a_register_that_does_not_obey(stuck: int) -> None:
    with pytest.raises(CoreError, match="q35_missing"):
        Chipset(stuck=stuck).run()


@pytest.mark.parametrize(
    "ids", [(0x1237_8086, q35.LPC_ID), (q35.MCH_ID, 0x7000_8086), (2**32 - 1, 2**32 - 1)]
)
def test_another_chipset(ids: tuple[int, int]) -> None:
    with pytest.raises(CoreError, match="q35_missing"):
        Chipset(ids).run()


class Tables:
    """The tables for `vcpus` CPUs and RAM up to `top`, by signature."""

    def __init__(
        self, vcpus: int = 1, top: int = 2 * GIB, gpaw: int = 48, tdx: int = 1, size: int = 65536
    ) -> None:
        self.memory = below_2_gib(size)
        log, out = CORE.new("log"), CORE.ffi.new("uint64_t *")
        log.area.data, log.area.size = CORE.ffi.cast("uint8_t *", 0x82A000), 0x10000
        self.ram = make_ram(
            [Range(0, min(top, 2 * GIB), 0, 1)] + ([Range(4 * GIB, top, 0, 1)] if top > 4 * GIB else [])
        )
        area = CORE.span(self.memory.address, size)
        self.ram.private_end = 1 << (gpaw - 1)
        check(LIB.q35_acpi(area, self.ram, make_cpus(vcpus, tdx), CORE.span(MAILBOX, 4096), log, out))
        root = acpi.RSDP.parse(CORE.bytes_at(out[0], 36))
        xsdt = self.read(root.xsdt_address)
        self.tables = {}
        for i in range(36, len(xsdt), 8):
            table = self.read(int.from_bytes(xsdt[i : i + 8], "little"))
            self.tables[table[:4]] = table
        self.fadt = acpi.FADT.parse(self.tables[b"FACP"])
        self.tables[b"DSDT"] = self.read(self.fadt.x_dsdt)

    def read(self, address: int) -> bytes:
        head = acpi.HEADER.parse(CORE.bytes_at(address, 36))
        table = CORE.bytes_at(address, head.length)
        acpi.check_table(table)
        return table


def asl(table: bytes, folder: Path) -> str:
    """The table as iasl reads it."""
    (folder / "table.dat").write_bytes(table)
    command = [*tool("iasl", "acpica-tools"), "-d", "table.dat"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "table.dsl").read_text()


def test_the_aml_is_what_iasl_compiles(tmp_path: Path) -> None:
    source = ROOT / "runtime-c/acpi/q35.asl"
    command = [*tool("iasl", "acpica-tools"), "-p", str(tmp_path / "q35"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "0 Errors, 0 Warnings" in done.stdout, done.stdout
    compiled = (tmp_path / "q35.aml").read_bytes()
    # RAM that ends below 32 GiB leaves the 64-bit window where the source has it.
    assert Tables(top=5 * GIB).tables[b"DSDT"][36:] == compiled[36:]


@pytest.mark.parametrize(
    ("top", "gpaw", "window"),
    [
        (2 * GIB, 48, (32 * GIB, 32 * GIB)),
        (32 * GIB, 48, (32 * GIB, 32 * GIB)),
        (32 * GIB + 4096, 48, (64 * GIB, 32 * GIB)),
        (2 * GIB, 37, (32 * GIB, 32 * GIB)),  # 36 bits of private addresses
        (33 * GIB, 37, (0, 0)),
        ((1 << 47) - 16 * GIB, 48, (0, 0)),
        ((1 << 47) - 16 * GIB, 52, (0, 0)),  # the same: no register records the width
    ],
)
def test_the_64_bit_window_lies_above_ram(
    top: int, gpaw: int, window: tuple[int, int], tmp_path: Path
) -> None:
    text = asl(Tables(top=top, gpaw=gpaw).tables[b"DSDT"], tmp_path)
    memory = text[text.index("QWordMemory") :]
    numbers = [int(n, 16) for n in re.findall(r"0x([0-9A-F]{16})", memory)]
    start, size = window
    assert numbers[1:5] == [start, start + size - 1 if size else 0, 0, size]


def test_what_an_os_needs_is_there(tmp_path: Path) -> None:
    made = Tables()
    assert sorted(made.tables) == [b"APIC", b"CCEL", b"DSDT", b"FACP", b"MCFG"]
    f = made.fadt
    assert not f.flags & acpi.FadtFlags.HW_REDUCED
    assert (f.sci_int, f.smi_cmd, f.pm1a_evt_blk, f.pm1a_cnt_blk, f.pm_tmr_blk) == (9, 0, 0x600, 0x604, 0x608)
    assert (f.reset_reg.space_id, f.reset_reg.address, f.reset_value) == (1, 0xCF9, 0xF)
    text = asl(made.tables[b"DSDT"], tmp_path)
    for words in ("_S5", "PNP0501", "PNP0A08", "COM1"):
        assert words in text
    mcfg = acpi.MCFG.parse(made.tables[b"MCFG"])
    assert (mcfg.base, mcfg.segment, mcfg.start_bus, mcfg.end_bus) == (0xE000_0000, 0, 0, 255)


def test_configuration_space_is_reserved() -> None:
    assert ranges_of(Tables(top=5 * GIB).ram) == [
        Range(0, 2 * GIB, 0, 1),
        Range(q35.ECAM, q35.ECAM + q35.ECAM_SIZE, 1, 2),
        Range(4 * GIB, 5 * GIB, 0, 1),
    ]


def test_ram_in_configuration_space_is_refused() -> None:
    ram = make_ram([Range(0, q35.ECAM + 4096, 0, 1)])
    memory = below_2_gib(65536)
    with pytest.raises(CoreError, match="ram_range_overlap"):
        check(
            LIB.q35_acpi(
                CORE.span(memory.address, 65536),
                ram,
                make_cpus(1),
                CORE.span(MAILBOX, 4096),
                CORE.new("log"),
                CORE.ffi.new("uint64_t *"),
            )
        )


@pytest.mark.parametrize("tdx", [0, 1])
def test_cpus_and_where_they_wait(tdx: int) -> None:
    entries = list(acpi.madt_entries(Tables(vcpus=300, tdx=tdx).tables[b"APIC"]))
    kinds = [kind for kind, _ in entries]
    assert kinds.count(MadtType.LAPIC) + kinds.count(MadtType.X2APIC) == 300
    assert kinds.count(MadtType.MP_WAKEUP) == tdx  # without TDX the OS starts them by itself
    wiring = [(e.source, e.gsi, e.flags) for kind, e in entries if kind == MadtType.ISO]
    assert wiring == [(0, 2, 0), (9, 9, 0xD)]


def test_a_full_area() -> None:
    enough = next(size for size in range(16, 4096, 16) if fits(size))
    for size in range(16, enough, 16):
        with pytest.raises(CoreError, match="acpi_no_room"):
            Tables(size=size)


def fits(size: int) -> bool:
    try:
        Tables(size=size)
    except CoreError:
        return False
    return True
