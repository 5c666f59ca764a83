"""Does ACPICA's own disassembler take the tables, and are broken ones refused?"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from debian import tool
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from formats import acpi
from formats.acpi import MadtType
from formats.errors import FieldError, TruncatedError
from formats.structs import pack, unpack

ENTRIES = [
    acpi.madt_entry(MadtType.LAPIC, processor_uid=1, apic_id=1, flags=1),
    acpi.madt_entry(MadtType.IOAPIC, ioapic_id=1, address=0xFEC0_0000),
    acpi.madt_entry(MadtType.ISO, source=0, gsi=2),
    acpi.madt_entry(MadtType.LAPIC_NMI, processor_uid=0xFF, lint=1),
    acpi.madt_entry(MadtType.X2APIC, x2apic_id=300, flags=1, processor_uid=300),
    acpi.madt_entry(MadtType.X2APIC_NMI, processor_uid=0xFFFF_FFFF, lint=1),
    acpi.madt_entry(MadtType.MP_WAKEUP, mailbox_address=0x7F00_0000),
]
MADT = acpi.madt(ENTRIES)
CCEL_BODY = pack(acpi.CCEL, cc_type=acpi.CcType.TDX, log_area_length=0x20000, log_area_address=0x82_0000)[36:]
# Texts that every iasl from 2020 on writes; what it has no words for yet (CCEL, wakeup) it dumps as bytes.
TABLES = {
    "apic": (acpi.madt(ENTRIES[:-1]), "Processor x2Apic ID : 0000012C", "Address : FEC00000"),
    "apic-wakeup": (MADT, "Subtable Type : 10"),
    "facp": (acpi.fadt(x_dsdt=0x1000, flags=acpi.FadtFlags.HW_REDUCED), "Hardware Reduced (V5) : 1", "FADT"),
    "ccel": (
        acpi.table(b"CCEL", acpi.CCEL_REVISION, CCEL_BODY),
        'Signature : "CCEL"',
        "Table Length : 00000038",
    ),
    "xsdt": (acpi.xsdt([0x1000, 0x2000]), "ACPI Table Address   0 : 0000000000001000", "0000000000002000"),
}


@pytest.mark.parametrize("name", TABLES)
def test_iasl_disassembles_it(name: str, tmp_path: Path) -> None:
    table, *texts = TABLES[name]
    (tmp_path / f"{name}.dat").write_bytes(table)
    command = [*tool("iasl", "acpica-tools"), "-d", f"{name}.dat"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr + done.stdout
    assert "Warning" not in done.stderr + done.stdout
    text = (tmp_path / f"{name}.dsl").read_text()
    assert "Incorrect checksum" not in text
    assert "Invalid" not in text
    for expected in texts:
        assert expected in text, text


def test_iasl_takes_a_dsdt_that_is_a_header(tmp_path: Path) -> None:
    (tmp_path / "dsdt.dat").write_bytes(acpi.table(b"DSDT", acpi.DSDT_REVISION, b""))
    command = [*tool("iasl", "acpica-tools"), "-d", "dsdt.dat"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'DefinitionBlock ("", "DSDT", 2' in (tmp_path / "dsdt.dsl").read_text()


def test_iasl_compiles_what_it_disassembled_to_the_same_bytes(tmp_path: Path) -> None:
    """Its own creator id and revision aside, which it always writes, and the checksum over them."""
    table = TABLES["apic"][0]
    (tmp_path / "apic.dat").write_bytes(table)
    for words in (["-d", "apic.dat"], ["apic.dsl"]):
        command = [*tool("iasl", "acpica-tools"), *words]
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    again = (tmp_path / "apic.aml").read_bytes()
    assert again[36:] == table[36:]
    assert again[:9] == table[:9]


def test_checksums_by_hand() -> None:
    for table, *_ in TABLES.values():
        assert sum(table) % 256 == 0
        assert struct.unpack_from("<I", table, 4) == (len(table),)
    rsdp = acpi.rsdp(0x1234_5678_9ABC)
    assert (len(rsdp), sum(rsdp[:20]) % 256, sum(rsdp) % 256) == (36, 0, 0)
    assert rsdp[:8] == b"RSD PTR "
    assert struct.unpack_from("<BIIQ", rsdp, 15) == (2, 0, 36, 0x1234_5678_9ABC)


def test_madt_entries_come_back() -> None:
    found = list(acpi.madt_entries(MADT))
    assert [kind for kind, _ in found] == [0, 1, 2, 4, 9, 0xA, 0x10]
    assert found[4][1].x2apic_id == 300
    assert found[6][1].mailbox_address == 0x7F00_0000


def test_a_wakeup_entry_of_version_1_and_unknown_entries() -> None:
    wakeup = pack(acpi.MADT_MP_WAKEUP_V1, type=0x10, length=24, mailbox_version=1, reset_vector=0x5000)
    found = list(acpi.madt_entries(acpi.madt([wakeup, b"\x7f\x04\x01\x02"])))
    assert found[0][1].reset_vector == 0x5000
    assert found[1] == (0x7F, b"\x7f\x04\x01\x02")


def test_broken_tables_are_refused() -> None:
    with pytest.raises(FieldError, match="checksum"):
        acpi.check_table(MADT[:-1] + bytes([MADT[-1] ^ 1]))
    with pytest.raises(FieldError, match="length: found"):
        acpi.check_table(MADT[:-1])
    with pytest.raises(TruncatedError, match="20 bytes, expected 36 bytes of acpi_header"):
        acpi.check_table(MADT[:20])
    with pytest.raises(TruncatedError, match="entry at 0x2c: found length 1"):
        list(acpi.madt_entries(acpi.madt([b"\x00\x01"])))
    with pytest.raises(TruncatedError, match="entry at 0x2c"):
        list(acpi.madt_entries(acpi.madt([b"\x00\x04\x01\x02"])))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_addresses_survive(addresses: list[int]) -> None:
    table = acpi.xsdt(addresses)
    assert acpi.check_table(table).length == 36 + 8 * len(addresses)
    assert list(struct.unpack_from(f"<{len(addresses)}Q", table, 36)) == addresses


@given(st.binary(max_size=120))
def test_garbage_gives_one_clear_line(data: bytes) -> None:
    with one_line():
        list(acpi.madt_entries(data))


def test_fadt_fields_by_hand() -> None:
    gas = {"space_id": 1, "bit_width": 8, "access_size": 1, "address": 0xCF9}
    flags = acpi.FadtFlags.HW_REDUCED | acpi.FadtFlags.RESET_REG_SUP
    table = acpi.fadt(dsdt=0x1000, x_dsdt=0x1000, flags=flags, reset_reg=gas, reset_value=6)
    assert struct.unpack_from("<I", table, 40) == (0x1000,)
    assert struct.unpack_from("<I", table, 112) == (1 << 20 | 1 << 10,)
    assert struct.unpack_from("<BBBBQB", table, 116) == (1, 8, 0, 1, 0xCF9, 6)
    assert struct.unpack_from("<Q", table, 140) == (0x1000,)
    assert unpack(acpi.FADT, table).header.revision == 6
