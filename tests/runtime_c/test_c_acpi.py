"""Are the ACPI tables what iasl and an OS accept, and does nothing that the VMM wrote lead us astray?"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from acpitables import (
    DSDT,
    IOAPIC,
    ISO,
    LOG_AREA,
    LOG_SIZE,
    MAILBOX,
    MCFG,
    SSDTS,
    VMM_TABLES,
    Tables,
    lapic,
)
from ccore import CORE, CoreError
from debian import tool
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import acpi
from formats.acpi import MadtType


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
    built = Tables(cpus=3)
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
    assert [table[:4] for table in theirs.tables] == [
        b"XSDT", b"FACP", b"APIC", b"CCEL", b"SSDT", b"SSDT", b"MCFG", b"DSDT"
    ]  # fmt: skip


@pytest.mark.parametrize("signature", [b"CCEL", b"FACS", b"RSDT", b"XSDT"])
def test_tables_that_are_ours_alone_are_not_taken_over(signature):
    theirs = acpi.table(signature, 1, b"\x5a" * 28)
    built = Tables([*VMM_TABLES, theirs], 2, "acpi_tables_of_vmm")
    assert [each[:4] for each in built.tables] == [
        each[:4] for each in Tables(VMM_TABLES, 2, "acpi_tables_of_vmm").tables
    ]
    assert theirs not in built.tables


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
    for good in (SSDTS[0], DSDT):
        broken = bytearray(good)
        broken[9] ^= 1
        assert Tables([bytes(broken)], 1, "acpi_tables_of_vmm").one(good[:4]) == good


def test_what_follows_a_table_in_its_hob_is_not_part_of_it():
    assert Tables([SSDTS[0] + b"\x5a" * 3], 1, "acpi_tables_of_vmm").one(b"SSDT") == SSDTS[0]


def test_as_many_tables_as_a_plan_of_the_vmm_holds():
    many = [acpi.table(b"SSDT", 2, bytes([number])) for number in range(32)]
    assert Tables(many, 1, "acpi_tables_of_vmm").all(b"SSDT") == many


@pytest.mark.parametrize("build", ["acpi_tables", "acpi_tables_of_vmm"])
def test_nothing_shows_of_what_the_area_held_before(build):
    fresh = Tables(VMM_TABLES, 2, build, low=True)
    used = Tables(VMM_TABLES, 2, build, low=True, before=0xA5)
    offsets = [[place - built.memory.address for place in built.places] for built in (fresh, used)]
    assert offsets[0] == offsets[1]
    assert [len(table) for table in used.tables] == [len(table) for table in fresh.tables]
    assert used.one(b"FACP")[48:108] == fresh.one(b"FACP")[48:108]
    assert used.madt == fresh.madt


def test_a_dsdt_above_4_gib_is_named_in_64_bits_only():
    for low in (False, True):
        built = Tables(low=low)
        fadt = acpi.FADT.parse(built.one(b"FACP"))
        assert (fadt.x_dsdt < 1 << 32) == low
        assert fadt.dsdt == (fadt.x_dsdt if low else 0)


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
