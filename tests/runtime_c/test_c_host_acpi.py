"""Do the host's tables arrive whole, and which of them does an OS find after host_tables?"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from acpitables import DSDT, MAILBOX, SSDTS, lapic
from ccore import CORE, LIB, PAGE, CoreError, at_1_mib, below_2_gib, check
from loaderscript import AREA, FILES, HONEST, Files, Script, plain, run
from test_c_fw_cfg import ACTION, Device, directory

from emu.vmm.q35.tables import LOADER, RSDP, TABLES
from formats import acpi, fw_cfg, table_loader
from formats.acpi import MadtType
from formats.fw_cfg import Key
from formats.table_loader import Command, Zone

Change = Callable[[Script], object]


# ---- fetching


def device(files: Files, listed: dict[str, int] | None = None) -> Device:
    """`listed`: sizes that the directory gives in place of the true ones."""
    sizes = {name: len(data) for name, data in files.items()} | (listed or {})
    rows = {name: (0x20 + at, sizes[name]) for at, name in enumerate(sorted(sizes))}
    items: dict[int, bytes] = {Key.SIGNATURE: fw_cfg.SIGNATURE, Key.FILE_DIR: directory(rows)}
    return Device(items | {rows[name][0]: data for name, data in files.items()})


def fetched(host: Device, window: int = 4 * PAGE, room: int = 2 * AREA) -> bytes:
    """All requests carried out."""
    store, memory = CORE.guarded(room), below_2_gib(window)
    fetch, request = CORE.new("table_fetch"), CORE.new("fetch_request")
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", store.address), room)[:] = b"\xee" * room
    span, place = CORE.span(memory.address, window), CORE.span(store.address, room)
    for _ in range(2000):
        check(LIB.tables_next(fetch, span, place, request))
        if request.action == ACTION["done"]:
            return CORE.bytes_at(store.address, fetch.used)
        if request.action == ACTION["select"]:
            host.select(request.key)
        host.transfer(int.from_bytes(int(request.start).to_bytes(4, "little"), "big"))
    pytest.fail("the requests never end")


@pytest.mark.parametrize("window", [2, 3, 64])
def test_the_script_and_its_files_arrive_whole(window: int) -> None:
    assert fetched(device(FILES), window * PAGE) == table_loader.stored(HONEST)


def test_a_name_may_have_55_bytes() -> None:
    name = "x" * 55
    assert table_loader.stored({name: b"x"}) in fetched(allocating(name, {name: b"x"}))


def test_what_a_device_does_not_give_is_zero() -> None:
    host = device({**FILES, TABLES: FILES[TABLES][:1000]}, {TABLES: 2000})
    host.fills = False
    expected = HONEST | {TABLES: FILES[TABLES][:1000].ljust(2000, b"\0")}
    assert fetched(host) == table_loader.stored(expected)


def without(name: str) -> Device:
    return device({key: data for key, data in FILES.items() if key != name})


def allocating(name: str, files: Files = FILES) -> Device:
    first = table_loader.command(Command.ALLOCATE, file=name, align=16, zone=Zone.HIGH)
    return device({**files, LOADER: first})


@pytest.mark.parametrize(
    ("host", "error"),
    [
        (Device({}), "fw_cfg_missing"),
        (Device({}, control=1), "fw_cfg_missing"),
        (without(LOADER), "fw_cfg_malformed"),
        (without(TABLES), "fw_cfg_malformed"),
        (device({**FILES, TABLES: b""}), "fw_cfg_malformed"),
        (allocating("nobody"), "fw_cfg_malformed"),
        (allocating("x" * 56, {"x" * 56: b"x"}), "fw_cfg_malformed"),
        (device(FILES, {LOADER: 2 * AREA}), "fw_cfg_no_room"),
        (device(FILES, {TABLES: 2**32 - 1}), "fw_cfg_no_room"),
        (device(FILES, {TABLES: 2 * AREA - len(FILES[LOADER]) - 64 - 88 - 63}), "fw_cfg_no_room"),
    ],
)
def test_what_is_not_fetched(host: Device, error: str) -> None:
    with pytest.raises(CoreError, match=error):
        fetched(host)


def test_a_transfer_that_fails_later() -> None:
    host = device(FILES)
    whole = Device.transfer

    def fails(self: Device, descriptor: int) -> None:
        self.control = 1 if len(self.transfers) == 3 else 0
        whole(self, descriptor)

    host.transfer = fails.__get__(host)  # type: ignore[method-assign]
    with pytest.raises(CoreError, match="fw_cfg_failed"):
        fetched(host)


def test_a_window_of_one_page() -> None:
    with pytest.raises(CoreError, match="out_of_bounds"):
        fetched(device(FILES), PAGE)


# ---- the tables


def test_qemus_tables_are_as_the_os_of_a_q35_finds_them() -> None:
    found = run(table_loader.stored(HONEST))
    assert [table[:4] for table in found.tables] == [
        b"XSDT",
        b"FACP",
        b"MCFG",
        b"WAET",
        b"APIC",
        b"CCEL",
        b"DSDT",
    ]
    assert found.dsdt[36:] in FILES[TABLES]
    assert found.one(b"FACP")[44:140] in FILES[TABLES]
    fadt = acpi.FADT.parse(found.one(b"FACP").ljust(276, b"\0"))
    assert fadt.dsdt == fadt.x_dsdt
    assert CORE.bytes_at(fadt.firmware_ctrl, 4) == b"FACS"
    assert found.cpus == [(MadtType.LAPIC, 0), (MadtType.LAPIC, 1)]
    (wakeup,) = [entry for kind, entry in found.madt if kind == MadtType.MP_WAKEUP]
    assert wakeup.mailbox_address == MAILBOX
    assert MadtType.ISO in [kind for kind, _ in found.madt]


def test_cpus_that_do_not_wait_have_no_mailbox() -> None:
    found = run(table_loader.stored(HONEST), wait=0)
    assert MadtType.MP_WAKEUP not in [kind for kind, _ in found.madt]


def test_other_cpus_than_the_hosts() -> None:
    with pytest.raises(CoreError, match="cpus_mismatch"):
        run(table_loader.stored(HONEST), cpus=3)


@pytest.mark.parametrize("width", [4, 8])
def test_tables_by_rsdt_and_by_xsdt(width: int) -> None:
    made = plain(width)
    for table in SSDTS:
        made.add(table)
    found = made.run()
    assert found.all(b"SSDT") == SSDTS
    assert found.cpus == [(MadtType.LAPIC, 0)]


def test_without_a_madt_it_is_ours() -> None:
    made = Script()
    made.fadt(made.add(DSDT, listed=False))
    assert made.run(3).cpus == [(MadtType.LAPIC, cpu) for cpu in range(3)]


# ---- what the RSDP leads to


def cut_rsdp(made: Script) -> None:
    made.commands.append(made.point(0, 4))
    made.files = lambda: {**Script.files(made), RSDP: b"RSD PTX ".ljust(36, b"\0")}  # type: ignore[method-assign]


def listed(*places: int) -> Change:
    """The root lists more places in the tables' file."""
    return lambda made: made.listed.extend(places)


def table(name: bytes, length: int | None = None) -> Change:
    whole = acpi.table(name, 1, bytes(16))
    if length is not None:
        whole = whole[:4] + length.to_bytes(4, "little") + whole[8:]
    return lambda made: made.add(whole)


def other_fadt(**fields: int) -> Change:
    def change(made: Script) -> None:
        made.listed.clear()
        dsdt = made.add(DSDT, listed=False)
        made.fadt(dsdt, **fields)

    return change


def short_fadt(made: Script) -> None:
    made.listed.clear()
    made.add(acpi.table(b"FACP", 1, bytes(7)))


def last(data: bytes) -> Change:
    """The root lists one more table; these bytes lie behind the root, up to the file's end."""

    def change(made: Script) -> None:
        root = 36 + made.width * (len(made.listed) + 1)
        made.listed.append(len(made.tables) + root + -root % 16)
        files = Script.files(made)
        made.files = lambda: {**files, TABLES: files[TABLES] + data}  # type: ignore[method-assign]

    return change


def longer(name: bytes, by: int) -> bytes:
    """A table of 48 bytes, but for its length."""
    whole = acpi.table(name, 1, bytes(12))
    return whole[:4] + (len(whole) + by).to_bytes(4, "little") + whole[8:]


def neighbours(by: int) -> Change:
    """Two tables, the first of them too long by so many bytes."""
    return lambda made: [made.add(longer(name, size)) for name, size in ((b"ONE ", by), (b"TWO ", 0))]


def in_another(made: Script) -> None:
    made.listed.append(made.add(acpi.table(b"SSDT", 2, SSDTS[0])) + 36)


def fadt_of_no_dsdt(made: Script) -> None:
    made.listed.clear()
    made.fadt(made.add(SSDTS[0], listed=False))


def facs_of(data: bytes) -> Change:
    def change(made: Script) -> None:
        made.listed.clear()
        made.fadt(made.add(DSDT, listed=False), made.add(data, listed=False))

    return change


ROOTS: dict[str, Change] = {
    "no RSDP": cut_rsdp,
    "a table of no length": table(b"TEST", 0),
    "a table shorter than its header": table(b"TEST", 35),
    "a table longer than its file": table(b"TEST", 1 << 20),
    "a table longer than its file by a byte": last(longer(b"TEST", 1)),
    "a table whose length is cut": last(b"TEST\x24\0\0"),
    "the same table twice": lambda made: made.listed.append(made.add(SSDTS[0])),
    "two tables that overlap": neighbours(1),
    "a table in another": in_another,
    "two of a kind": lambda made: [made.add(acpi.table(b"TEST", 1, b"")) for _ in range(2)],
    "two FADTs": lambda made: made.fadt(made.add(DSDT, listed=False)),
    "two MADTs": lambda made: made.add(acpi.madt([lapic(0)])),
    "no FADT": lambda made: made.listed.pop(0),
    "a root in the root": table(b"RSDT"),
    "another root": table(b"XSDT"),
    "a DSDT in the root": table(b"DSDT"),
    "a FACS in the root": table(b"FACS"),
    "too many tables": lambda made: [made.add(SSDTS[0]) for _ in range(33)],
    "a FADT without a DSDT's address": short_fadt,
    "a FADT whose DSDT is none": fadt_of_no_dsdt,
    "two DSDTs": other_fadt(),
    "a FACS that is none": facs_of(b"FACX" + struct.pack("<I", 64) + bytes(56)),
    "a FACS that is short": facs_of(b"FACS" + struct.pack("<I", 63) + bytes(56)),
    "a MADT of broken entries": lambda made: [made.listed.pop(), made.add(acpi.table(b"APIC", 1, bytes(20)))],
}


def with_two_dsdts(made: Script) -> None:
    made.listed.clear()
    one, other = made.add(DSDT, listed=False), made.add(DSDT, listed=False)
    made.add(acpi.fadt(), {140: (one, 8), 40: (other, 4)})


def with_two_facs(made: Script) -> None:
    made.listed.clear()
    facs = b"FACS" + struct.pack("<I", 64) + bytes(56)
    one, other, dsdt = (made.add(data, listed=False) for data in (facs, facs, DSDT))
    made.add(acpi.fadt(), {140: (dsdt, 8), 36: (one, 4), 132: (other, 8)})


ROOTS["two DSDTs"], ROOTS["two FACS"] = with_two_dsdts, with_two_facs


def ends_in(size: int, **fields: int) -> Change:
    """A FADT of `size` bytes with plain numbers, whose DSDT is named by the older address alone."""

    def change(made: Script) -> None:
        made.listed.clear()
        whole = acpi.fadt(dsdt=0, **({"x_dsdt": 0} | fields))
        short = whole[:4] + size.to_bytes(4, "little") + whole[8:size]
        made.add(short, {40: (made.add(DSDT, listed=False), 4)})

    return change


ROOTS["a FADT that ends in X_DSDT"] = ends_in(147, x_dsdt=0x80_F000)
ROOTS["a FADT that ends behind a byte of it"] = ends_in(141, x_dsdt=0x12)
ROOTS["a FADT that ends in X_FIRMWARE_CTRL"] = ends_in(139, x_firmware_ctrl=0x80_E000)


def test_a_fadt_that_ends_in_its_first_address() -> None:
    """Of a DSDT below 16 MiB, three bytes say where it lies."""
    memory = at_1_mib(AREA)
    made = plain()
    ends_in(44)(made)
    assert len(made.run(memory=memory).one(b"FACP")) == 44
    made = plain()
    ends_in(43)(made)
    with pytest.raises(CoreError, match="acpi_malformed"):
        made.run(memory=memory)


@pytest.mark.parametrize("change", [last(longer(b"TEST", 0)), neighbours(0)], ids=["last", "neighbours"])
def test_tables_that_fill_their_place(change: Change) -> None:
    made = plain()
    change(made)
    assert made.run().cpus


@pytest.mark.parametrize("size", [116, 132, 139, 147, 244])
def test_a_short_fadt_whose_dsdt_is_in_a_file(size: int) -> None:
    made = plain()
    ends_in(size)(made)
    fadt = made.run().one(b"FACP")
    assert (len(fadt), int.from_bytes(fadt[140:], "little") & (1 << 56) - 1) == (size, 0)


@pytest.mark.parametrize("change", ROOTS.values(), ids=ROOTS)
def test_tables_that_are_none_are_refused(change: Change) -> None:
    made = plain()
    change(made)
    with pytest.raises(CoreError, match="acpi_malformed"):
        made.run()


def test_pointers_that_no_command_relocated() -> None:
    """A plain number in the root leads out of the files."""
    made = plain()
    files = made.files()
    script = files[LOADER]
    with pytest.raises(CoreError, match="acpi_malformed"):
        run(table_loader.stored({**files, LOADER: script[:-128]}), 1)


def test_two_files_that_begin_with_an_rsdp() -> None:
    """Both lead to the root."""
    made = plain()
    made.allocations.append(made.allocate("etc/more"))
    made.commands.append(made.point(16, 4, "etc/more"))
    files = made.files()
    with pytest.raises(CoreError, match="acpi_malformed"):
        run(table_loader.stored(files | {"etc/more": files[RSDP]}), 1)


def test_a_root_of_the_other_kind() -> None:
    made = plain()
    files = made.files()
    data = files[TABLES].replace(b"RSDT", b"RSDX")
    with pytest.raises(CoreError, match="acpi_malformed"):
        run(table_loader.stored({**files, TABLES: data}), 1)


def test_a_host_that_has_a_ccel_gets_ours() -> None:
    made = plain()
    made.add(acpi.table(b"CCEL", 1, bytes(20)))
    (ccel,) = made.run().all(b"CCEL")
    assert any(ccel[36:])


def test_as_many_tables_as_there_may_be() -> None:
    made = plain()
    for _ in range(32):
        made.add(SSDTS[0])
    assert len(made.run().all(b"SSDT")) == 32
