"""Are the ACPI tables what iasl and an OS accept, and does nothing that the VMM wrote lead us astray?"""

from __future__ import annotations

import contextlib
import re
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
from ccore import CORE, LIB, CoreError, check, make_vmm
from debian import tool
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import acpi
from formats.acpi import MadtType
from formats.structs import offset_of

ASL = Path(__file__).resolve().parents[2] / "runtime-c/acpi/devices.asl"
OFF = re.search(r"    Name \(\\_S5.*\n", ASL.read_text())[0]
SERIAL = re.search(r"    Device[^~]*?\n    }\n", ASL.read_text())[0]

POWER = (0x600, 0x601, 0x604, 0x72)  # Alioth's


@pytest.mark.parametrize("build", ["acpi_tables", "acpi_tables_of_vmm"])
@pytest.mark.parametrize(
    ("tables", "power"), [([], None), (VMM_TABLES, None), ([], POWER)], ids=["none", "vmm", "power"]
)
def test_iasl_disassembles_each(build, tables, power, tmp_path: Path):
    built = Tables(tables, 2, build, power=power)
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
    assert (fadt.header.revision, fadt.header.length, fadt.flags) == (6, 276, 0x31)  # no fixed buttons
    assert (fadt.sci_int, fadt.smi_cmd, fadt.pm1a_evt_blk, fadt.pm1a_cnt_blk) == (9, 0, 0xB000, 0xB004)
    for block, width in ((fadt.x_pm1a_evt_blk, 32), (fadt.x_pm1a_cnt_blk, 16)):
        assert (block.space_id, block.bit_width, block.bit_offset) == (1, width, 0)
    assert (fadt.x_pm1a_evt_blk.address, fadt.x_pm1a_cnt_blk.address) == (0xB000, 0xB004)
    assert fadt.reset_reg.address == fadt.sleep_control_reg.address == fadt.x_pm_tmr_blk.address == 0
    assert len(built.dsdt) == 36
    ccel = acpi.CCEL.parse(built.one(b"CCEL"))
    assert (ccel.cc_type, ccel.cc_subtype, ccel.log_area_length, ccel.log_area_address) == (
        2,
        0,
        LOG_SIZE,
        LOG_AREA,
    )
    assert built.cpus == [(MadtType.LAPIC, 0), (MadtType.LAPIC, 1), (MadtType.LAPIC, 2)]
    kind, ioapic = built.madt[-2]
    assert (kind, ioapic.address, ioapic.gsi_base) == (MadtType.IOAPIC, 0xFEC00000, 0)
    kind, wakeup = built.madt[-1]
    assert (kind, wakeup.length, wakeup.mailbox_version, wakeup.mailbox_address) == (16, 16, 0, MAILBOX)


def test_the_vmms_aml_only_by_policy():
    own = Tables(VMM_TABLES, 2)
    assert len(own.dsdt) == 36
    assert [table[:4] for table in own.tables] == [
        b"XSDT", b"FACP", b"APIC", b"CCEL", b"MCFG", b"SRAT", b"SLIT", b"DSDT"
    ]  # fmt: skip
    assert own.one(b"MCFG") == MCFG
    assert acpi.FADT.parse(own.one(b"FACP")).flags == acpi.FadtFlags.HW_REDUCED
    theirs = Tables(VMM_TABLES, 2, "acpi_tables_of_vmm")
    assert theirs.dsdt == DSDT
    assert theirs.all(b"SSDT") == SSDTS
    assert theirs.one(b"MCFG") == MCFG
    fadt = acpi.FADT.parse(theirs.one(b"FACP"))
    assert (fadt.x_firmware_ctrl, fadt.firmware_ctrl) == (0, 0)
    assert [table[:4] for table in theirs.tables] == [
        b"XSDT", b"FACP", b"APIC", b"CCEL", b"SSDT", b"SSDT", b"MCFG", b"SRAT", b"SLIT", b"DSDT"
    ]  # fmt: skip


REGISTERS = (
    "reset_reg", "x_pm1a_evt_blk", "x_pm1b_evt_blk", "x_pm1a_cnt_blk", "x_pm1b_cnt_blk", "x_pm2_cnt_blk",
    "x_pm_tmr_blk", "x_gpe0_blk", "x_gpe1_blk", "sleep_control_reg", "sleep_status_reg",
)  # fmt: skip


def test_every_register_of_a_fadt_is_known() -> None:
    """ACPI 6.5, table 5.9: nothing else is as long."""
    long = [field.name for field in acpi.FADT.subcons if field.sizeof() >= acpi.GAS.sizeof()]
    assert sorted(long) == sorted(("header", *REGISTERS))


@pytest.mark.parametrize("register", REGISTERS)
def test_a_register_of_the_vmms_fadt_is_a_port(register: str) -> None:
    """An OS writes there: in memory it could be any byte of the TD."""
    for space, address, good in (
        *((1, 0x600, True), (1, 0xFFFF, True), (0, 0, True)),
        *((1, 0x10000, False), (0, 0x604, False), (2, 0x604, False), (0x7F, 1, False)),
    ):
        gas = {"space_id": space, "bit_width": 8, "access_size": 1, "address": address}
        theirs = acpi.fadt(**{register: gas})
        assert Tables([theirs], 1, "acpi_tables_of_vmm").one(b"FACP")
        if good:
            found = acpi.FADT.parse(Tables([theirs], 1).one(b"FACP"))[register]
            assert (found.space_id, found.address) == (space, address)
        else:
            with pytest.raises(CoreError, match="acpi_malformed"):
                Tables([theirs], 1)


@pytest.mark.parametrize("register", REGISTERS)
def test_a_fadt_that_ends_in_a_register(register: str) -> None:
    """An OS takes what is there for its lowest bytes, and zeros for the rest."""
    start = offset_of(acpi.FADT, register)
    for space, good in ((0, False), (1, True)):
        gas = {"space_id": space, "bit_width": 8, "access_size": 1, "address": 0x604}
        whole = acpi.fadt(**{register: gas})
        for size in (start + 6, start + 11):  # of the address two bytes, or all but one
            theirs = longer(whole, size)[:size] + b"\xff" * 8  # what follows is none of it
            if good:
                assert len(Tables([theirs], 1, low=True).one(b"FACP")) == size
            else:
                with pytest.raises(CoreError, match="acpi_malformed"):
                    Tables([theirs], 1, low=True)


@pytest.mark.parametrize("build", ["acpi_tables", "acpi_tables_of_vmm"])
def test_no_fadt_however_long_leads_to_tables_in_memory_of_the_vmms_choice(build: str) -> None:
    """An OS takes X_DSDT before DSDT, and of a field in which the table ends what is there of it.

    ACPICA tbfadt.c, acpi_tb_select_address and acpi_tb_create_local_fadt.
    """
    theirs = {"dsdt": 0x1234, "firmware_ctrl": 0xDEF0, "x_dsdt": 0x80_F000, "x_firmware_ctrl": 0x80_E000}
    whole = acpi.fadt(**theirs)
    for size in range(116, len(whole) + 1):
        built = Tables([longer(whole, size)], 1, build, low=True).one(b"FACP")
        found = acpi.FADT.parse(built.ljust(len(whole), b"\0"))
        assert (found.firmware_ctrl, found.x_firmware_ctrl) == (0, 0), size
        assert found.x_dsdt in (0, found.dsdt), size
        assert found.dsdt not in (0, 0x1234), size


def test_a_newer_fadt_is_cut_to_what_is_known() -> None:
    theirs = acpi.fadt(flags=1)
    newer = longer(theirs + bytes(60), len(theirs) + 60)
    assert Tables([newer], 1).one(b"FACP")[132:] == Tables([theirs], 1).one(b"FACP")[132:]
    assert len(Tables([newer], 1, "acpi_tables_of_vmm").one(b"FACP")) == 336


def test_an_old_fadt_has_fewer_registers() -> None:
    whole = acpi.fadt(sleep_control_reg={"space_id": 0, "address": 0x1000})
    # What follows the table in its HOB is none of its registers.
    assert len(Tables([longer(whole, 244)], 1, low=True).one(b"FACP")) == 244


@pytest.mark.parametrize(
    ("devices", "changes"),
    [
        ((0x3F8, 4, 5), ()),
        ((0x2F8, 3, 2), (("3F8", "2F8"), ("() { 4 }", "() { 3 }"), ("{ 5,", "{ 2,"))),
        ((0xFFF8, 15, 7), (("3F8", "FFF8"), ("() { 4 }", "() { 15 }"), ("{ 5,", "{ 7,"))),
        ((0, 4, 5), ((SERIAL, ""),)),
        ((0x3F8, 4, 0xFF), ((OFF, ""),)),
        ((0, 0, 0xFF), ((SERIAL, ""), (OFF, ""))),
    ],
)
def test_our_dsdt_is_what_iasl_compiles(devices, changes, tmp_path: Path) -> None:
    source = ASL.read_text()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    (tmp_path / "devices.asl").write_text(source)
    command = [*tool("iasl", "acpica-tools"), "-p", str(tmp_path / "devices"), "devices.asl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert " 0 Errors, 0 Warnings" in done.stdout, done.stdout
    compiled = (tmp_path / "devices.aml").read_bytes()
    assert Tables([VMM_TABLES[0], DSDT], devices=devices).dsdt[36:] == compiled[36:]
    assert Tables(build="acpi_tables_of_vmm", devices=devices).dsdt[36:] == compiled[36:]


@pytest.mark.parametrize("devices", [(0x3F8, 16, 5), (0x3F8, 4, 8), (0x3F8, 4, 0xFE)])
def test_devices_that_are_none(devices) -> None:
    with pytest.raises(CoreError, match="out_of_bounds"):
        check(LIB.acpi_devices(make_vmm([]), *devices))


def test_sleep_type_zero_is_one() -> None:
    assert Tables(devices=(0, 0, 0)).dsdt[36:] == bytes.fromhex("08 5f53355f 12 07 04 0a00 00 00 00")


@pytest.mark.parametrize("build", ["acpi_tables", "acpi_tables_of_vmm"])
@pytest.mark.parametrize("power", [POWER, (0xFFFF, 0xFFFE, 0xFFFD, 0xFF), (0x600, 0x600, 0x600, 1)])
def test_power_control_of_the_flows(build: str, power: tuple[int, int, int, int]) -> None:
    """ACPI 6.5, 4.1: hardware-reduced, and then no SCI, PM1 block or timer."""
    flags = acpi.FadtFlags
    control, status, reset, value = power
    expected = acpi.fadt(
        acpi.Maker(b"TDFRG\0", b"TDFORGE\0", b"TDFG"),
        flags=int(flags.WBINVD | flags.HW_REDUCED | flags.RESET_REG_SUP),
        iapc_boot_arch=int(acpi.FadtBootArch.NO_VGA),
        sleep_control_reg=acpi.port(control, 1, 0),
        sleep_status_reg=acpi.port(status, 1, 0),
        reset_reg=acpi.port(reset, 1, 0),
        reset_value=value,
    )
    built = bytearray(Tables(build=build, power=power).one(b"FACP"))
    built[9] = expected[9]  # the checksum, which covers the DSDT's address
    for name, size in (("dsdt", 4), ("x_dsdt", 8)):
        at = offset_of(acpi.FADT, name)
        built[at : at + size] = expected[at : at + size]
    assert built == expected


def test_power_control_without_a_reset_register() -> None:
    fadt = acpi.FADT.parse(Tables(power=(0x600, 0x601, 0, 0)).one(b"FACP"))
    assert (fadt.flags, fadt.reset_reg.space_id, fadt.reset_value) == (1 | 1 << 20, 0, 0)
    assert (fadt.sleep_control_reg.address, fadt.sleep_status_reg.address) == (0x600, 0x601)


def test_a_fadt_of_the_vmms_has_its_own_power_control() -> None:
    assert Tables(VMM_TABLES, 2, power=POWER).one(b"FACP")[48:] == Tables(VMM_TABLES, 2).one(b"FACP")[48:]


@pytest.mark.parametrize("power", [(0, 0x601, 0x604, 0x72), (0x600, 0, 0x604, 0x72), (0x600, 0x601, 0, 0x72)])
def test_power_control_that_is_none(power: tuple[int, int, int, int]) -> None:
    with pytest.raises(CoreError, match="out_of_bounds"):
        check(LIB.acpi_power(make_vmm([]), *power))


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


def test_no_room_for_the_dsdt_ends_it_before_the_fadt_is_looked_at():
    """The FADT, which names it, would be refused as well, but as malformed."""
    built = Tables()
    at = acpi.FADT.parse(built.one(b"FACP")).x_dsdt - built.memory.address
    enough = at + len(built.dsdt) + 16
    for size, error in ((enough - 4, "acpi_no_room"), (enough, "acpi_malformed")):
        with pytest.raises(CoreError, match=error):
            Tables([longer(SHORT_FADT, 115)], 1, size=size)


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
