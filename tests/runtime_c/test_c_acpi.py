"""Are the ACPI tables what iasl and an OS accept, and does nothing that the VMM wrote lead us astray?"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ccore import CORE, LIB, CoreError, below_2_gib, check, make_td, make_vmm
from debian import tool
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import acpi
from formats.acpi import MadtType

MAILBOX, LOG_AREA, LOG_SIZE = 0x7FFF_F000, 0x826000, 0x20000


def lapic(cpu: int, flags: int = 1) -> bytes:
    return acpi.madt_entry(MadtType.LAPIC, processor_uid=cpu & 255, apic_id=cpu & 255, flags=flags)


def x2apic(cpu: int, flags: int = 1) -> bytes:
    return acpi.madt_entry(MadtType.X2APIC, processor_uid=cpu, x2apic_id=cpu, flags=flags)


IOAPIC = acpi.madt_entry(MadtType.IOAPIC, ioapic_id=1, address=0xFEC00000)
ISO = acpi.madt_entry(MadtType.ISO, source=0, gsi=2)
WAKEUP = acpi.madt_entry(MadtType.MP_WAKEUP, mailbox_address=0xDEAD000)
# AML of `Name (A, 1)`: table 20.2.5.1 of the specification.
AML = bytes([0x08, 0x41, 0x5F, 0x5F, 0x5F, 0x01])
DSDT = acpi.table(b"DSDT", 2, AML)
SSDTS = [acpi.table(b"SSDT", 2, AML.replace(b"A", letter)) for letter in (b"B", b"C")]
MCFG = acpi.table(b"MCFG", 1, bytes(24))
VMM_TABLES = [
    acpi.fadt(
        firmware_ctrl=0xDEF0,
        dsdt=0x1234,
        x_dsdt=0x5678,
        x_firmware_ctrl=0x9ABC,
        flags=acpi.FadtFlags.HW_REDUCED,
    ),
    acpi.madt([lapic(0), lapic(1), IOAPIC, ISO, WAKEUP], acpi.MadtFlags.PCAT_COMPAT),
    DSDT,
    *SSDTS,
    MCFG,
]


class Tables:
    """All tables as an OS finds them from the RSDP on; `area` ends at a page nobody may touch."""

    def __init__(
        self,
        tables: Any = (),
        vcpus: int = 1,
        build: str = "acpi_tables",
        size: int = 65536,
        low: bool = False,
    ) -> None:
        self.memory = below_2_gib(size) if low else CORE.guarded(size)
        area = CORE.span(self.memory.address, size)
        log, out = CORE.new("log"), CORE.ffi.new("uint64_t *")
        log.area.data, log.area.size = CORE.ffi.cast("uint8_t *", LOG_AREA), LOG_SIZE
        check(
            getattr(LIB, build)(
                area, make_vmm([], tables), make_td(vcpus), CORE.span(MAILBOX, 4096), log, out
            )
        )
        self.rsdp = CORE.bytes_at(out[0], 36)
        root = acpi.RSDP.parse(self.rsdp)
        assert sum(self.rsdp[:20]) & 255 == sum(self.rsdp) & 255 == 0
        xsdt = self._read(root.xsdt_address)
        places = [int.from_bytes(xsdt[i : i + 8], "little") for i in range(36, len(xsdt), 8)]
        self.tables = [xsdt, *map(self._read, places)]
        fadt = acpi.FADT.parse(self.one(b"FACP").ljust(276, b"\0"))  # older ones are shorter
        self.dsdt = self._read(fadt.x_dsdt or fadt.dsdt)
        self.tables.append(self.dsdt)
        self.places = [root.xsdt_address, *places]

    def _read(self, address: int) -> bytes:
        assert self.memory.address <= address < self.memory.address + self.memory.size
        head = acpi.HEADER.parse(CORE.bytes_at(address, 36))
        table = CORE.bytes_at(address, head.length)
        acpi.check_table(table)
        return table

    def all(self, signature: bytes) -> list[bytes]:
        return [table for table in self.tables if table[:4] == signature]

    def one(self, signature: bytes) -> bytes:
        (table,) = self.all(signature)
        return table

    @property
    def madt(self) -> list[tuple[int, Any]]:
        return list(acpi.madt_entries(self.one(b"APIC")))

    @property
    def cpus(self) -> list[tuple[int, int]]:
        """Entry type and APIC id."""
        return [
            (kind, entry.apic_id if kind == MadtType.LAPIC else entry.x2apic_id)
            for kind, entry in self.madt
            if kind in (MadtType.LAPIC, MadtType.X2APIC)
        ]


@pytest.mark.parametrize("build", ["acpi_tables", "acpi_tables_of_vmm"])
@pytest.mark.parametrize("tables", [[], VMM_TABLES], ids=["none", "vmm"])
def test_iasl_disassembles_each(build, tables, tmp_path: Path):
    built = Tables(tables, 2, build)
    (tmp_path / "RSDP.aml").write_bytes(built.rsdp)
    for number, table in enumerate(built.tables):
        name = tmp_path / f"{number}.aml"
        name.write_bytes(table)
        said = subprocess.run(
            [*tool("iasl", "acpica-tools"), "-d", str(name)], capture_output=True, text=True, check=False
        )
        text = (tmp_path / f"{number}.dsl").read_text()
        assert said.returncode == 0, said.stderr
        assert "Invalid" not in text
        assert "Error" not in said.stderr.replace("0 Errors", "")


def test_our_own_tables():
    built = Tables(vcpus=3)
    assert [table[:4] for table in built.tables] == [b"XSDT", b"FACP", b"APIC", b"CCEL", b"DSDT"]
    fadt = acpi.FADT.parse(built.one(b"FACP"))
    assert (fadt.header.revision, fadt.header.length, fadt.flags) == (6, 276, acpi.FadtFlags.HW_REDUCED)
    assert len(built.dsdt) == 36
    ccel = acpi.CCEL.parse(built.one(b"CCEL"))
    assert (ccel.cc_type, ccel.cc_subtype, ccel.log_area_length, ccel.log_area_address) == (
        2,
        0,
        LOG_SIZE,
        LOG_AREA,
    )
    assert built.cpus == [(MadtType.LAPIC, 0), (MadtType.LAPIC, 1), (MadtType.LAPIC, 2)]
    kind, wakeup = built.madt[-1]
    assert (kind, wakeup.length, wakeup.mailbox_version, wakeup.mailbox_address) == (16, 16, 0, MAILBOX)


def test_many_cpus_become_x2apic_entries():
    cpus = Tables(vcpus=300).cpus
    assert [cpu for _, cpu in cpus] == list(range(300))
    assert [kind for kind, _ in cpus] == [MadtType.LAPIC] * 255 + [MadtType.X2APIC] * 45


def test_the_vmms_cpus_and_interrupts_are_taken_but_not_its_wakeup():
    entries = [lapic(2), x2apic(0), x2apic(1), lapic(9, flags=0), lapic(8, flags=2), IOAPIC, ISO, WAKEUP]
    built = Tables([acpi.madt(entries, acpi.MadtFlags.PCAT_COMPAT)], 3)
    assert built.cpus == [(MadtType.LAPIC, 2), (MadtType.LAPIC, 0), (MadtType.LAPIC, 1)]
    kinds = [kind for kind, _ in built.madt]
    assert kinds == [
        MadtType.LAPIC,
        MadtType.LAPIC,
        MadtType.LAPIC,
        MadtType.IOAPIC,
        MadtType.ISO,
        MadtType.MP_WAKEUP,
    ]
    assert built.madt[-1][1].mailbox_address == MAILBOX
    assert acpi.MADT.parse(built.one(b"APIC")).flags == acpi.MadtFlags.PCAT_COMPAT


@pytest.mark.parametrize("vcpus", [0, 1, 3])
def test_cpu_count_must_match(vcpus):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), lapic(1)])], vcpus)


@pytest.mark.parametrize("last", [lapic(3), x2apic(3), x2apic(1000)])
def test_ids_that_no_parked_cpu_answers_to(last):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), lapic(1), last])], 3)


def test_many_cpus_of_the_vmm():
    cpus = Tables([acpi.madt([x2apic(cpu) for cpu in range(300)])], 300).cpus
    assert cpus == Tables(vcpus=300).cpus


def test_a_cpu_listed_twice():
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), x2apic(0)])], 2)


def test_the_vmms_aml_only_by_policy():
    own = Tables(VMM_TABLES, 2)
    assert len(own.dsdt) == 36
    assert not own.all(b"SSDT")
    theirs = Tables(VMM_TABLES, 2, "acpi_tables_of_vmm")
    assert theirs.dsdt == DSDT
    assert theirs.all(b"SSDT") == SSDTS
    assert theirs.one(b"MCFG") == MCFG
    fadt = acpi.FADT.parse(theirs.one(b"FACP"))
    assert (fadt.x_firmware_ctrl, fadt.firmware_ctrl) == (0, 0)
    assert len(theirs.all(b"APIC")) == len(theirs.all(b"FACP")) == len(theirs.all(b"CCEL")) == 1


@pytest.mark.parametrize("signature", [b"CCEL", b"FACS", b"RSDT", b"XSDT"])
def test_tables_that_are_ours_alone_are_not_taken_over(signature):
    theirs = acpi.table(signature, 1, b"\x5a" * 28)
    built = Tables([*VMM_TABLES, theirs], 2, "acpi_tables_of_vmm")
    assert [each[:4] for each in built.tables] == [
        each[:4] for each in Tables(VMM_TABLES, 2, "acpi_tables_of_vmm").tables
    ]
    assert theirs not in built.tables


def test_undefined_flags_of_the_vmms_madt_are_dropped():
    built = Tables([acpi.madt([lapic(0)], 0xFFFF_FFFF)])
    assert acpi.MADT.parse(built.one(b"APIC")).flags == acpi.MadtFlags.PCAT_COMPAT


def test_a_fadt_of_acpi_1_0_ends_behind_its_flags():
    """It has no X_DSDT, so that its DSDT lies below 4 GiB; a shorter one is no FADT."""
    whole = acpi.fadt(firmware_ctrl=0xDEF0, dsdt=0x1234)
    for size in (36, 44, 115):
        with pytest.raises(CoreError, match="acpi_malformed"):
            Tables([longer(whole[:size], size)], 1, "acpi_tables_of_vmm", low=True)
    built = Tables([longer(whole[:116], 116)], 1, "acpi_tables_of_vmm", low=True)
    fadt = acpi.FADT.parse(built.one(b"FACP").ljust(276, b"\0"))
    assert (fadt.header.length, fadt.firmware_ctrl) == (116, 0)
    assert built.dsdt[:4] == b"DSDT"


def test_a_fadt_of_acpi_1_0_cannot_name_a_dsdt_above_4_gib():
    whole = acpi.fadt(firmware_ctrl=0xDEF0, dsdt=0x1234)
    for size in (116, 132, 147):
        with pytest.raises(CoreError, match="acpi_malformed"):
            Tables([longer(whole[:size], size)], 1, "acpi_tables_of_vmm")


def test_policy_without_tables_of_the_vmm_makes_our_own():
    assert [t[:4] for t in Tables([], 1, "acpi_tables_of_vmm").tables] == [
        t[:4] for t in Tables([], 1).tables
    ]


def test_checksums_of_the_vmm_are_made_new():
    broken = bytearray(SSDTS[0])
    broken[9] ^= 1
    assert Tables([bytes(broken)], 1, "acpi_tables_of_vmm").one(b"SSDT") == SSDTS[0]


def longer(table: bytes, length: int) -> bytes:
    return table[:4] + length.to_bytes(4, "little") + table[8:]


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"SSDT",
        longer(SSDTS[0], len(SSDTS[0]) + 1),
        longer(SSDTS[0], 35),
        acpi.table(b"APIC", 5, b""),
        acpi.madt([lapic(0), b"\0"]),
        acpi.madt([lapic(0), b"\0\0"]),
        acpi.madt([lapic(0), b"\0\x09"]),
        acpi.madt([lapic(0), b"\x09\x08" + bytes(6)]),
        acpi.madt([lapic(0), b"\x07\x01\x0c" + bytes(10)]),  # one byte of a kind that is dropped
        acpi.madt([lapic(0), b"\x07\x40"]),
        acpi.madt([lapic(0xFF)]),
        acpi.madt([x2apic(0xFFFFFFFF)]),
    ],
)
def test_malformed(table):
    with pytest.raises(CoreError, match="acpi_malformed"):
        Tables([table], 1)


@pytest.mark.parametrize("tables", [[DSDT, DSDT], VMM_TABLES[:1] * 2, [acpi.table(b"FACP", 1, bytes(60))]])
def test_malformed_by_policy(tables):
    with pytest.raises(CoreError, match="acpi_malformed"):
        Tables(tables, 1, "acpi_tables_of_vmm")


SHORT_FADT = acpi.fadt(firmware_ctrl=0xDEF0, dsdt=0x1234)[:116]


@pytest.mark.parametrize(
    ("tables", "vcpus", "build", "low"),
    [
        (VMM_TABLES, 2, "acpi_tables_of_vmm", False),
        ([], 4, "acpi_tables", False),
        ([], 258, "acpi_tables", False),
        ([longer(SHORT_FADT, 116)], 1, "acpi_tables_of_vmm", True),
        ([acpi.madt([lapic(0), IOAPIC, ISO])], 1, "acpi_tables", False),
    ],
    ids=["vmm", "own", "many", "short", "interrupts"],
)
def test_no_room_at_any_size(tables, vcpus, build, low):
    for size in range(0, 4096, 4):
        try:
            enough = Tables(tables, vcpus, build, size or 1, low)
            break
        except CoreError as error:
            if str(error) != "acpi_no_room":
                raise
    end = max(place + acpi.HEADER.parse(CORE.bytes_at(place, 36)).length for place in enough.places)
    # Each table leaves room to align the next.
    assert size == -(-(end - enough.memory.address) // 4) * 4 + 16


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, len(VMM_TABLES) - 1),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=5),
    st.sampled_from(["acpi_tables", "acpi_tables_of_vmm"]),
)
def test_mutated_tables_never_crash(index, flips, build):
    table = bytearray(VMM_TABLES[index])
    for offset, bits in flips:
        table[offset % len(table)] ^= bits
    tables = [*VMM_TABLES[:index], bytes(table), *VMM_TABLES[index + 1 :]]
    with contextlib.suppress(CoreError):
        Tables(tables, 2, build)
