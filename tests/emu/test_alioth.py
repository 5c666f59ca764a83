"""Is Alioth's fw_cfg the device that its source describes, with all that it does differently from QEMU's?"""

from __future__ import annotations

from collections.abc import Iterator

import guest
import pytest
from kernels import bzimage

from emu.machine import Machine
from emu.signals import EmuError, End
from emu.vmm.devices.fw_cfg import FwCfg
from emu.vmm.hosts.alioth import LOADER, RSDP, TABLES
from formats import acpi, fw_cfg, table_loader
from formats.structs import unpack

KERNEL = bzimage(0x3000)
SHARED = 0x900000


@pytest.fixture
def td() -> Iterator[Machine]:
    image = guest.for_qemu(guest.build("main: halt\n").image)
    settings = {"kernel": KERNEL, "initrd": b"cpio", "cmdline": "quiet", "vcpus": 3, "apic_ids": "4,0,2"}
    with guest.machine(image, vmm="alioth", **settings) as machine:
        machine.vmm.convert(SHARED, 0x2000, True)
        yield machine


def take(td: Machine, key: int, size: int) -> bytes:
    ports = td.vmm.ports
    ports.write(0x510, 2, key)
    return bytes(ports.read(0x511, 1) for _ in range(size))


def files(td: Machine) -> dict[str, bytes]:
    count = int.from_bytes(take(td, 0x19, 4), "big")
    raw, found = take(td, 0x19, 4 + 64 * count)[4:], {}
    for at in range(0, len(raw), 64):
        entry = unpack(fw_cfg.FILE, raw, at)
        found[entry.name.rstrip(b"\0").decode()] = take(td, entry.select, entry.size)
    return found


def dma(td: Machine, control: int, length: int, address: int) -> int:
    """The control field that the device leaves."""
    descriptor = control.to_bytes(4, "big") + length.to_bytes(4, "big") + address.to_bytes(8, "big")
    td.memory.write(SHARED, descriptor, shared=True)
    td.vmm.ports.write(0x514, 4, 0)
    td.vmm.ports.write(0x518, 4, int.from_bytes(SHARED.to_bytes(4, "big"), "little"))
    return int.from_bytes(td.memory.read(SHARED, 4, shared=True), "big")


def test_keys(td: Machine) -> None:
    assert take(td, 0, 8) == b"QEMU CFG"
    assert take(td, 1, 4) == b"\3\0\0\0"
    assert take(td, 0x17, 4) == (4096).to_bytes(4, "little")
    setup = bytearray(KERNEL[:4096])
    setup[0x210] = 0xFF
    assert take(td, 0x18, 4096) == bytes(setup)
    rest = KERNEL[3 * 512 :]  # from the end of the setup part: the two items overlap
    assert (take(td, 8, 4), take(td, 0x11, len(rest))) == (len(rest).to_bytes(4, "little"), rest)
    assert (take(td, 0x15, 7), take(td, 0x12, 5)) == (b"quiet\0\0", b"cpio\0")
    assert take(td, 0x77, 2) == b"\0\0"


def test_a_transfer_begins_where_the_port_left_it(td: Machine) -> None:
    assert take(td, 0x15, 2) == b"qu"
    td.memory.write(SHARED + 0x100, b"\xee" * 16, shared=True)
    assert dma(td, 2, 16, SHARED + 0x100) == 0
    # nothing is written behind the end of the item
    assert td.memory.read(SHARED + 0x100, 16, shared=True) == b"iet\0" + b"\xee" * 12


def test_the_select_bit_selects_key_1_and_keeps_the_offset(td: Machine) -> None:
    assert take(td, 0x15, 1) == b"q"
    td.memory.write(SHARED + 0x100, b"\xee" * 8, shared=True)
    assert dma(td, 0x15 << 16 | 8 | 2, 8, SHARED + 0x100) == 0
    assert td.memory.read(SHARED + 0x100, 8, shared=True) == b"\0\0\0" + b"\xee" * 5


def test_skip_and_errors(td: Machine) -> None:
    take(td, 0x15, 0)
    assert dma(td, 4, 3, 0) == 0
    assert td.vmm.ports.read(0x511, 1) == ord("e")
    assert dma(td, 0, 0, 0) == 1
    take(td, 0x77, 0)
    assert dma(td, 2, 4, SHARED + 0x100) == 1
    take(td, 0x15, 0)
    assert dma(td, 2, 4, 1 << 47) == 1
    with pytest.raises(EmuError, match="ends the VMM"):
        dma(td, 16, 4, SHARED + 0x100)


def test_the_dma_register_reads_back(td: Machine) -> None:
    td.vmm.ports.write(0x514, 4, 0x44332211)
    assert td.vmm.ports.read(0x514, 4) == 0x44332211
    assert td.vmm.ports.read(0x510, 2) == 0
    assert td.vmm.ports.read(0x518, 4) == 0


def test_the_tables_by_the_script(td: Machine) -> None:
    """As a firmware runs it: both files somewhere, pointers added, checksums made."""
    given = files(td)
    assert list(given) == [LOADER, RSDP, TABLES, "etc/e820"]
    blobs = {RSDP: bytearray(given[RSDP]), TABLES: bytearray(given[TABLES])}
    base = {RSDP: 0xF0000, TABLES: 0x7000000}
    for at in range(0, len(given[LOADER]), table_loader.ENTRY_SIZE):
        kind = table_loader.Command(given[LOADER][at])
        entry = unpack(table_loader.COMMANDS[kind], given[LOADER], at)
        if kind == table_loader.Command.ADD_POINTER:
            blob, source = (blobs if name else base for name in (1, 0))
            dest = blob[entry.dest.rstrip(b"\0").decode()]
            value = int.from_bytes(dest[entry.offset : entry.offset + 8], "little")
            value += source[entry.src.rstrip(b"\0").decode()]
            dest[entry.offset : entry.offset + 8] = value.to_bytes(8, "little")
        elif kind == table_loader.Command.ADD_CHECKSUM:
            dest = blobs[entry.file.rstrip(b"\0").decode()]
            assert dest[entry.offset] == 0  # EDK2 adds the sum to what stands there
            total = sum(dest[entry.start : entry.start + entry.length])
            dest[entry.offset] = (dest[entry.offset] - total) & 0xFF
    root = unpack(acpi.RSDP, bytes(blobs[RSDP]))
    assert sum(blobs[RSDP]) % 256 == sum(blobs[RSDP][:20]) % 256 == 0
    whole = bytes(blobs[TABLES])

    def table(address: int) -> bytes:
        return whole[address - base[TABLES] :]

    xsdt = table(root.xsdt_address)
    size = acpi.check_table(xsdt).length
    places = [int.from_bytes(xsdt[at : at + 8], "little") for at in range(36, size, 8)]
    assert [table(place)[:4] for place in places] == [b"FACP", b"APIC", b"MCFG"]
    facp, madt = (table(place) for place in places[:2])
    fadt = unpack(acpi.FADT, facp)
    flags = 1 << 20 | 1 << 10 | 1 << 8  # firmware/acpi/acpi.rs create_fadt
    assert (fadt.flags, fadt.reset_reg.address, fadt.reset_value) == (flags, 0x604, 0x72)
    assert facp[208:220] == bytes((1, 32, 0, 3)) + (0x608).to_bytes(8, "little")
    assert (fadt.header.revision, fadt.minor_revision, madt[8]) == (6, 4, 6)
    assert (fadt.sleep_control_reg.address, fadt.sleep_status_reg.address) == (0x600, 0x601)
    assert table(fadt.x_dsdt)[:4] == b"DSDT"
    assert table(fadt.x_dsdt)[28:36] == b"INTL\x28\x06\x23\x20"  # board_amd64.rs DSDT_TEMPLATE
    for one in (facp, madt, table(fadt.x_dsdt), table(places[2])):
        acpi.check_table(one)
    entries = list(acpi.madt_entries(madt))
    assert [kind for kind, _ in entries] == [acpi.MadtType.IOAPIC] + [acpi.MadtType.X2APIC] * 3
    assert [entry.x2apic_id for _, entry in entries[1:]] == [4, 0, 2]


def test_power(td: Machine) -> None:
    for port, value, reason in ((0x600, 0x34, "shutdown"), (0x604, 0x72, "reset")):
        with pytest.raises(End) as ended:
            td.vmm.ports.write(port, 1, value)
        assert ended.value.reason == reason
    td.vmm.ports.write(0x604, 2, 0x2000)
    assert isinstance(td.vmm.ports.board[2], FwCfg)
    assert td.vmm.ports.read(0x608, 4) == 0


def test_the_address_stays_after_a_transfer(td: Machine) -> None:
    """device/fw_cfg.rs: a second transfer needs its lower half only."""
    beyond = (0x1234, 0x5678)  # no RAM: the transfer comes to nothing
    for port, half in zip((0x514, 0x518), beyond, strict=True):
        td.vmm.ports.write(port, 4, int.from_bytes(half.to_bytes(4, "big"), "little"))
    read = (td.vmm.ports.read(port, 4) for port in (0x514, 0x518))
    assert tuple(int.from_bytes(half.to_bytes(4, "little"), "big") for half in read) == beyond


def test_a_kernel_shorter_than_boot_params() -> None:
    image = guest.for_qemu(guest.build("main: halt\n").image)
    with (
        pytest.raises(EmuError, match="kernel of 1024 bytes, expected 4096 or more"),
        guest.machine(image, vmm="alioth", kernel=KERNEL[:1024]),
    ):
        pass
