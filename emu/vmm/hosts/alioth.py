"""What does Alioth give its firmware? Kernel, initrd, command line and ACPI tables through a fw_cfg device of
its own making, which differs from QEMU's (alioth/src/device/fw_cfg/{fw_cfg,acpi}.rs, firmware/acpi/acpi.rs,
firmware/acpi/reg.rs, arch/x86_64/layout.rs, board/board_amd64.rs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emu.cpu.memory import Memory
from emu.signals import EmuError
from emu.vmm import aml
from emu.vmm.devices import ioapic
from emu.vmm.devices.bus import Host
from emu.vmm.devices.fw_cfg import CONTROL_SIZE, FwCfg, HostMemory
from emu.vmm.devices.power import ACPI_SLEEP, PmTimer, Power, PowerPorts
from emu.vmm.q35.items import Q35
from formats import acpi, fw_cfg, linux, table_loader
from formats.fw_cfg import DMA_ACCESS, DMA_HIGH, DMA_LOW, FILE_FIRST, Control, Feature, Key
from formats.ports import COM1, COM1_IRQ, COM1_PORTS
from formats.structs import offset_of, pack, unpack
from formats.table_loader import Command, Zone

MAKER = acpi.Maker(b"ALIOTH", b"ALIOTHVM", b"ALTH")
COMPILED = acpi.Maker(b"ALIOTH", b"ALIOTHVM", b"INTL", 0x2023_0628)  # of the DSDT
FADT_MINOR_REVISION, MADT_REVISION = 4, 6  # firmware/acpi/bindings.rs
CHECKSUM = offset_of(acpi.HEADER, "checksum")
SLEEP_TYPE_OFF, SLEEP_STATUS, RESET, RESET_VALUE, PM_TIMER = 5, 0x601, 0x604, ord("r"), 0x608
ECAM = 0xE0000000  # layout.rs PCIE_CONFIG_START
PRESENT = 0x0F  # _STA
LOADER, RSDP, TABLES = "etc/table-loader", "acpi/rsdp", "acpi/tables"
ALIGNMENT, POINTER = 4, 8
KNOWN = 0x20  # keys below are no files
SETUP_SECTS, LOADER_TYPE = linux.SETUP_HEADER_OFFSET, 0x210


def dsdt() -> bytes:
    """The serial port, power-off. Absent: the PCI host bridge, of which the emulated host has none."""
    ports = aml.io(COM1, COM1_PORTS, alignment=0) + aml.irq(COM1_IRQ)
    serial = aml.device(
        "._SB_COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(1)),
        aml.name("_STA", aml.integer(PRESENT)),
        aml.name("_CRS", aml.resources(ports)),
    )
    off = aml.name("_S5_", aml.package(aml.integer(SLEEP_TYPE_OFF)))
    return acpi.table(b"DSDT", acpi.DSDT_REVISION, serial + off, COMPILED)


def _unsummed(data: bytes, *checksums: int) -> bytes:
    """Without its checksums: the script makes them once the addresses are right (acpi.rs clear_checksums)."""
    return bytes(0 if at in checksums else byte for at, byte in enumerate(data))


def tables(ids: Sequence[int]) -> tuple[bytes, list[int], list[tuple[int, int]]]:
    """XSDT, DSDT, FADT, MADT, MCFG one after the other; where addresses of tables stand, and which ranges
    need a checksum once these are right. An address here is the distance from the beginning.
    """
    flags, kind = acpi.FadtFlags, acpi.MadtType
    xsdt_size = acpi.HEADER.sizeof() + 3 * POINTER
    definition = dsdt()
    fadt = acpi.fadt(
        MAKER,
        minor_revision=FADT_MINOR_REVISION,
        flags=int(flags.HW_REDUCED | flags.RESET_REG_SUP | flags.TMR_VAL_EXT),
        reset_reg=acpi.port(RESET, 1),
        reset_value=RESET_VALUE,
        x_dsdt=xsdt_size,
        x_pm_tmr_blk=acpi.port(PM_TIMER, 4),
        sleep_control_reg=acpi.port(ACPI_SLEEP, 1),
        sleep_status_reg=acpi.port(SLEEP_STATUS, 1),
        hypervisor_vendor=b"ALIOTH  ",
    )
    entries = [acpi.madt_entry(kind.IOAPIC, ioapic_id=0, address=ioapic.BASE, gsi_base=0)]
    for uid, apic_id in enumerate(ids):
        enabled = int(acpi.LapicFlags.ENABLED)
        entries.append(acpi.madt_entry(kind.X2APIC, processor_uid=uid, x2apic_id=apic_id, flags=enabled))
    madt = acpi.madt(entries, maker=MAKER, revision=MADT_REVISION)
    mcfg = acpi.mcfg(MAKER, base=ECAM)
    places, at = [], xsdt_size + len(definition)
    for table in (fadt, madt, mcfg):
        places.append(at)
        at += len(table)
    xsdt = acpi.table(
        b"XSDT", acpi.XSDT_REVISION, b"".join(place.to_bytes(POINTER, "little") for place in places), MAKER
    )
    head = acpi.HEADER.sizeof()
    pointers = [places[0] + offset_of(acpi.FADT, "x_dsdt"), *(head + POINTER * n for n in range(len(places)))]
    blob = xsdt + definition + fadt + madt + mcfg
    sums = [(places[0], len(fadt)), (0, len(xsdt))]
    return _unsummed(blob, *(start + CHECKSUM for start, _ in sums)), pointers, sums


def acpi_files(ids: Sequence[int]) -> dict[str, bytes]:
    """Loader script, RSDP, tables."""
    blob, pointers, sums = tables(ids)
    script = [
        table_loader.command(Command.ALLOCATE, file=RSDP, align=ALIGNMENT, zone=Zone.FSEG),
        table_loader.command(Command.ALLOCATE, file=TABLES, align=ALIGNMENT, zone=Zone.HIGH),
    ]
    for offset in pointers:
        fields = {"dest": TABLES, "src": TABLES, "offset": offset, "size": POINTER}
        script.append(table_loader.command(Command.ADD_POINTER, **fields))
    for start, length in sums:
        fields = {"file": TABLES, "offset": start + CHECKSUM, "start": start, "length": length}
        script.append(table_loader.command(Command.ADD_CHECKSUM, **fields))
    root = {"dest": RSDP, "src": TABLES, "offset": offset_of(acpi.RSDP, "xsdt_address"), "size": POINTER}
    script.append(table_loader.command(Command.ADD_POINTER, **root))
    sizes = {"checksum": acpi.RSDP_V1_SIZE, "extended_checksum": acpi.RSDP.sizeof()}
    roots = {offset_of(acpi.RSDP, name): size for name, size in sizes.items()}
    for offset, size in roots.items():
        fields = {"file": RSDP, "offset": offset, "start": 0, "length": size}
        script.append(table_loader.command(Command.ADD_CHECKSUM, **fields))
    return {LOADER: b"".join(script), RSDP: _unsummed(acpi.rsdp(0, MAKER.oem_id), *roots), TABLES: blob}


def items(machine: Q35, ids: Sequence[int]) -> dict[int, bytes]:
    """What the device holds, by key. EmuError: Alioth refuses the kernel."""
    boot, size = machine.boot, 4
    files = acpi_files(ids) | {"etc/e820": e820(machine)}
    found: dict[int, bytes] = {
        Key.SIGNATURE: fw_cfg.DMA_SIGNATURE,
        Key.ID: int(Feature.TRADITIONAL | Feature.DMA).to_bytes(size, "little"),
        Key.RAM_SIZE: sum(end - start for start, end in machine.ram).to_bytes(8, "little"),
        Key.NB_CPUS: len(ids).to_bytes(2, "little"),
        Key.FILE_DIR: fw_cfg.directory(
            {name: (FILE_FIRST + n, len(data)) for n, (name, data) in enumerate(files.items())}
        ),
    }
    if boot is not None:
        page = linux.BOOT_PARAMS.sizeof()
        if len(boot.kernel) < page:
            raise EmuError(f"alioth: kernel of {len(boot.kernel)} bytes, expected {page} or more")
        setup = bytearray(boot.kernel[:page])
        setup[SETUP_SECTS] = setup[SETUP_SECTS] or linux.DEFAULT_SETUP_SECTS
        setup[LOADER_TYPE] = linux.LOADER_UNDEFINED
        rest = boot.kernel[(setup[SETUP_SECTS] + 1) * linux.SECTOR_SIZE :]
        line = boot.cmdline + b"\0"
        parts = [(Key.SETUP_SIZE, Key.SETUP_DATA, bytes(setup)), (Key.KERNEL_SIZE, Key.KERNEL_DATA, rest)]
        parts.append((Key.CMDLINE_SIZE, Key.CMDLINE_DATA, line))
        if boot.initrd is not None:
            parts.append((Key.INITRD_SIZE, Key.INITRD_DATA, boot.initrd))
        for length, content, data in parts:
            found |= {length: len(data).to_bytes(size, "little"), content: data}
    return found | {FILE_FIRST + n: data for n, data in enumerate(files.values())}


def e820(machine: Q35) -> bytes:
    """RAM alone; Alioth lists reserved memory, too."""
    return b"".join(
        pack(linux.E820_ENTRY, addr=start, size=end - start, type=linux.E820Type.RAM)
        for start, end in machine.ram
    )


@dataclass
class AliothFwCfg(FwCfg):
    """A device that looks like QEMU's: the SELECT bit of DMA selects key 1 and keeps the offset, nothing is
    written behind an item's end, the DMA register reads back, a DMA write ends the VMM.
    """

    def read(self, port: int, size: int) -> int:
        """The next byte at the data port; the address that was written."""
        if port == fw_cfg.DATA and size == 1:
            return self.take(1)[0]
        half = {DMA_HIGH: self.address >> 32, DMA_LOW: self.address & 0xFFFFFFFF}.get(port)
        return int.from_bytes(half.to_bytes(4, "little"), "big") if half is not None and size == 4 else 0

    def write(self, port: int, size: int, value: int) -> None:
        """The halves of the address stay after a transfer."""
        half = int.from_bytes(value.to_bytes(4, "little"), "big")
        if port == DMA_HIGH and size == 4:
            self.address = half << 32 | self.address & 0xFFFFFFFF
        elif port == DMA_LOW and size == 4:
            self.address = self.address & ~0xFFFFFFFF | half
            self.transfer(self.address)
        elif port == fw_cfg.SELECTOR and size == 2:
            self.selected, self.offset = value, 0

    def transfer(self, address: int) -> None:
        """do_dma. A descriptor that is no RAM is only logged."""
        raw = self.dma.read(address, DMA_ACCESS.sizeof())
        if raw is None:
            return
        access = unpack(DMA_ACCESS, raw)
        if access.control & Control.SELECT:
            self.selected = 1
        done = False
        if access.control & Control.READ:
            left = min(access.length, max(len(self.content()) - self.offset, 0))
            there = self.selected < KNOWN or self.selected in self.items
            done = there and self.dma.pieces(access.address, left)[1]
            if done:
                self.dma.write(access.address, self.take(left))
        elif access.control & Control.WRITE:
            raise EmuError("alioth: a DMA write of fw_cfg is not implemented and ends the VMM")
        elif access.control & Control.SKIP:
            self.offset, done = self.offset + access.length, True
        self.dma.write(address, (0 if done else Control.ERROR).to_bytes(CONTROL_SIZE, "big"))


def host(
    memory: Memory,
    machine: Q35,
    ids: Sequence[int],
    elapsed: Callable[[], float],
    power: PowerPorts,
) -> Host:
    """The machine for `Ports`: power control, timer, fw_cfg; no PCI."""
    device = AliothFwCfg(HostMemory(memory, machine.ram), items(machine, ids))
    return Host(lambda set_line: (Power(power), PmTimer(PM_TIMER, elapsed), device))
