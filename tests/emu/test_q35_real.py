"""Is the emulated q35 the machine that a real QEMU makes? Debian's is asked the same questions, stopped
before its first instruction.
"""

from __future__ import annotations

import struct
from pathlib import Path

import guest
import pytest
from qemuguest import BUFFER, KERNEL, SHARED, image
from realqemu import MACHINES, Emulated, before_10, both, program, strict

from emu.vmm.devices.fw_cfg import FwCfg
from formats import fw_cfg
from formats.fw_cfg import Control, Key

# -- items


@pytest.mark.parametrize("payload", [False, True], ids=["no kernel", "kernel"])
def test_the_directory(payload: bool, tmp_path: Path) -> None:
    with both(tmp_path if payload else None) as (qemu, emulated):
        theirs, ours = ({name: size for name, (_, size) in m.files().items()} for m in (qemu, emulated))
        if payload and before_10():
            theirs["etc/boot/kernel"] = len(KERNEL)
        assert list(ours) == sorted(theirs)
        different = {name for name in ours if ours[name] != theirs[name]}
        assert different == {"etc/smbios/smbios-tables"}  # docs/emulator.md: simplified


@MACHINES
def test_fixed_items(memory: int, vcpus: int, tmp_path: Path) -> None:
    kinds = {key for key in Key if key not in (Key.FILE_DIR, Key.SETUP_DATA)}
    names = ("bootorder", "etc/boot-fail-wait", "etc/system-states")
    names += ("etc/smi/features-ok", "etc/smi/requested-features", "etc/smi/supported-features")
    with both(tmp_path, memory, vcpus) as (qemu, emulated):
        for key in sorted(kinds):
            assert emulated.item(key, 3000) == qemu.item(key, 3000), key
        for name in names:
            assert emulated.file(name) == qemu.file(name), name


def test_the_setup_part_is_patched_only_without_tdx(tmp_path: Path) -> None:
    """Of a confidential guest QEMU leaves it alone; the rest of the file is the same."""
    with both(tmp_path) as (qemu, emulated):
        setup = (KERNEL[0x1F1] + 1) * 512
        theirs, ours = (machine.item(Key.SETUP_DATA, setup) for machine in (qemu, emulated))
        assert ours == KERNEL[:setup]
        different = {at for at in range(setup) if theirs[at] != ours[at]}
        header = {0x210, 0x211, *range(0x218, 0x220), *range(0x224, 0x226), *range(0x228, 0x22C)}
        assert different
        assert different <= header


@MACHINES
def test_ram_in_e820(memory: int, vcpus: int) -> None:
    with both(memory=memory, vcpus=vcpus) as (qemu, emulated):
        theirs, ours = (
            list(struct.iter_unpack("<QQI", machine.file("etc/e820"))) for machine in (qemu, emulated)
        )
        assert ours == [(0xFEFFC000, 0x4000, 2), *(entry for entry in theirs if entry[2] == 1)]


# -- registers of fw_cfg

REGISTERS = (
    *[(0x510, 1), (0x510, 2), (0x511, 1)],
    *[(port, size) for port in range(0x514, 0x51C) for size in (1, 2, 4) if port + size <= 0x51C],
    *[(port, 2) for port in (0x511, 0x512, 0x513)],
)


def test_registers_of_fw_cfg() -> None:
    with both() as pair:
        for port, size in REGISTERS:
            if port % size and not strict():
                continue
            for machine in pair:
                machine.out(0x510, 2, Key.SIGNATURE)
            found = [(m.inp(port, size), m.inp(0x511, 1), m.inp(0x510, 1), m.inp(0x511, 1)) for m in pair]
            assert found[0] == found[1], (hex(port), size)
        for key in (Key.FILE_DIR, 0x06, 0x7F, 0x8002, 0xC002, 0x4000, 0xFFFF):
            for machine in pair:
                machine.out(0x510, 2, key)
            found = [tuple(m.inp(0x511, 1) for _ in range(6)) for m in pair]
            assert found[0] == found[1], hex(key)
        for port, size, value in ((0x510, 1, 1), (0x511, 1, 1)):
            for machine in pair:
                machine.out(0x510, 2, Key.SIGNATURE)
                machine.inp(0x511, 1)
                machine.out(port, size, value)
            assert pair[0].inp(0x511, 1) == pair[1].inp(0x511, 1), hex(port)


RW = Control.READ | Control.WRITE
TRANSFERS = (  # control, length, data address
    (Control.SELECT | Control.READ, 4, BUFFER),
    (Control.READ, 4, BUFFER + 4),
    (Control.SELECT | Control.READ, 64, BUFFER + 1),
    (0x06 << 16 | Control.SELECT | Control.READ, 16, BUFFER),
    (Control.SELECT | Control.SKIP, 2, 0),
    (Control.READ, 2, BUFFER),
    (Control.SKIP, 1000, BUFFER),
    (Control.READ, 8, BUFFER),
    (Control.SELECT | Control.WRITE, 4, BUFFER),
    (Control.SELECT | Control.WRITE, 0, BUFFER),
    (Control.SELECT | RW | Control.SKIP, 4, BUFFER + 32),
    (Control.SELECT | 0xE0, 4, BUFFER),
    (Control.SELECT, 4, BUFFER),
    (0, 4, BUFFER),
    (Control.SELECT | Control.READ, 0, 0xFFFFFFFF0000),
    (Control.SELECT | Control.READ, 4, guest.MEMORY),
    (Control.SELECT | Control.READ, 8, guest.MEMORY - 4),
    (Control.READ, 8, BUFFER),
    (Control.SELECT | Control.READ, 4, 1 << 40),
    (Control.SELECT | Control.READ, 4, BUFFER | SHARED),
    (0x8004 << 16 | Control.SELECT | Control.READ, 4, BUFFER),
    (Key.FILE_DIR << 16 | Control.SELECT | Control.READ, 100, BUFFER),
)


def test_transfers() -> None:
    with both() as pair:
        for step, transfer in enumerate(TRANSFERS):
            found = [(m.dma(*transfer), m.read(BUFFER, 128), m.read(guest.MEMORY - 4, 4)) for m in pair]
            assert found[0] == found[1], (step, transfer)
            rest = [machine.inp(0x511, 1) for machine in pair]
            assert rest[0] == rest[1], (step, transfer)


# -- chipset


def test_configuration_space() -> None:
    """Every register after a reset, and what is left of ones and zeros written to it. PCIEXBAR and PMBASE
    have tests of their own; register A0 of the LPC bridge locks itself there.
    """
    with both() as pair:
        for where in range(0, 0x10000, 0x100):
            for machine in pair:
                machine.out(0xCF8, 4, 0x80000000 | where)
            assert pair[0].inp(0xCFC, 4) == pair[1].inp(0xCFC, 4), hex(where)
        for where in (0, 0xF800):
            for at in range(0, 256, 4):
                if at in (0x50, 0x9C) and before_10():
                    continue  # TSEG and SMRAM, which are there in spite of smm=off
                found = []
                for machine in pair:
                    machine.out(0xCF8, 4, 0x80000000 | where | at)
                    seen = [machine.inp(0xCFC, 4)]
                    if at not in (0x60, 0xA0):
                        for value in (0xFFFFFFFF, 0):
                            machine.out(0xCFC, 4, value)
                            seen.append(machine.inp(0xCFC, 4))
                    found.append(seen)
                assert found[0] == found[1], (hex(where), hex(at))


def test_ecam() -> None:
    with both() as pair:
        places = (0xE0000000, 0xE0000002, 0xE00F8000, 0xE0001000, 0xE0000100, 0xE8000000, 0xEFFFF000)
        for value in (0xE0000000, 0xE0000001, 0xE8000001, 0xE0000003, 0xE4000005, 0xE0000007, 0):
            if value & 6 and not strict():
                continue
            for machine in pair:
                machine.out(0xCF8, 4, 0x80000060)
                machine.out(0xCFC, 4, value)
            for place in places:
                size = 2 if place & 2 else 4
                assert pair[0].read(place, size) == pair[1].read(place, size), (hex(value), hex(place))


def test_power_management() -> None:
    registers = (0x600, 0x602, 0x604, 0x606, 0x60C, 0x610, 0x618, 0x61C, 0x638, 0x640, 0x65C)
    wide = (0x608, 0x620, 0x624, 0x628, 0x62C, 0x630, 0x634)
    narrow = ((0x630, 1), (0x630, 2), (0x634, 2), (0x608, 1), (0x620, 1), (0x624, 2), (0x600, 1))
    watchdog = tuple(range(0x660, 0x680, 2))
    steps = ((0x602, 0xFFFF), (0x602, 0), (0x600, 1), (0x604, 0xDFFF), (0x604, 0), (0x604, 0x1C01))
    with both() as pair:

        def compare(what: object) -> None:
            for port, size in (*[(p, 2) for p in (*registers, *watchdog)], *[(p, 4) for p in wide], *narrow):
                assert pair[0].inp(port, size) == pair[1].inp(port, size), (what, hex(port))

        compare("off")
        for machine in pair:
            machine.out(0xCF8, 4, 0x8000F840)
            machine.out(0xCFC, 4, 0x601)
        compare("base")
        for machine in pair:
            program(machine)
        compare("on")
        for port, value in steps:
            for machine in pair:
                machine.out(port, 2, value)
            compare((hex(port), hex(value)))
        halves = ((0x605, 0x04), (0x604, 0xFF)) if not before_10() else ((0x604, 0xFF),)
        for port, value in (*halves, (0xCF9, 0x02), (0xCF9, 0x0A), (0xCF9, 0xF8)):
            for machine in pair:
                machine.out(port, 1, value)
            compare((hex(port), hex(value)))
            assert pair[0].inp(0xCF9, 1) == pair[1].inp(0xCF9, 1)
        for port, size, value in ((0x628, 4, 0x12345678), (0x62A, 1, 0xFF), (0x602, 1, 0x21), (0x603, 1, 5)):
            for machine in pair:
                machine.out(port, size, value)
            compare("events")
        odd = [(0x600, 4), (0x604, 4), (0x603, 2), (0x60E, 4), (0x61, 2), (0xCFB, 2)]
        for port, size in odd if strict() else []:
            assert pair[0].inp(port, size) == pair[1].inp(port, size), hex(port)


def test_ports_where_nobody_is() -> None:
    with both() as pair:
        for port in (0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x92, 0xA0, 0x4D0, 0xB004):
            assert [machine.inp(port, 1) for machine in pair] == [0xFF, 0xFF], hex(port)


def test_the_chip_is_that_of_the_emulated_machine() -> None:
    """The helper above asks the device that a guest has."""
    with guest.machine(image(), vmm="qemu") as td:
        chip = next(part for part in td.vmm.ports.board if isinstance(part, FwCfg))
        assert fw_cfg.read_directory(chip.items[Key.FILE_DIR]) == Emulated(td).files()
