"""Does a driver that is told a raw interrupt number on a command line get that interrupt?

`virtio_mmio.device=SIZE@ADDRESS:IRQ`, which Kata's Dragonball and libkrun pass, is a raw number of Linux,
good only where IRQ 0 to 15 are the I/O APIC's pins. Debian's kernel is built without that option. A second
serial port stands in for such a device: no table names it, and its driver requests IRQ 3 in the same way,
because PCs have it so (Linux arch/x86/include/asm/serial.h).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import initrd
import pytest
from tdbox import MIB, Firmware, finish, launched

from emu.api import RunConfig
from emu.vmm import hob as lists
from emu.vmm.devices.uart import Uart
from emu.vmm.hosts import cloud_hypervisor, dragonball
from formats import hob
from formats.ports import COM1, COM1_PORTS

BASE, PIN = 0x2F8, 3
SCRIPT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev; mount -t sysfs sys /sys
told() { echo "it came by interrupt" >&3; grep ttyS1 /proc/interrupts; }
echo "raw: $(told 3> /dev/ttyS1)"
echo "raw: tables $(cd /sys/firmware/acpi/tables; ls -d [A-Z]* | tr '\\n' ' ')"
echo "raw: done"
exec sleep 1000
"""


@dataclass
class SecondPort:
    """A serial port at BASE with another interrupt."""

    line: Callable[[bool], None]
    sent: bytearray = field(default_factory=bytearray)

    ports = range(BASE, BASE + COM1_PORTS)

    def __post_init__(self) -> None:
        self.uart = Uart(self.sent.append, self.line)

    def write(self, port: int, size: int, value: int) -> None:
        """As the first port's registers."""
        self.uart.write(port - BASE + COM1, size, value)

    def read(self, port: int, size: int) -> int:
        """The same."""
        return self.uart.read(port - BASE + COM1, size)


def tables_of(host: str) -> list[bytes]:
    """The ACPI tables that the host passes for one CPU."""
    if host == "libkrun":
        return []
    if host == "dragonball":
        return [dragonball.madt((0,), 3), dragonball.fadt(), dragonball.dsdt()]
    return [cloud_hypervisor.dsdt(), cloud_hypervisor.facp(), cloud_hypervisor.madt((0,), 0)]


def config(firmware: Firmware, kernel: bytes, host: str) -> RunConfig:
    """linux.tdf with a bzImage, but the tables of the host, and no more of it."""
    whole = replace(firmware.config, memory=256 * MIB, kernel=kernel, initrd=initrd.script(SCRIPT.encode()))
    whole = replace(whole, cmdline="console=ttyS0 quiet", until="console:raw: done")
    with launched(whole) as machine:
        launch = machine.launch
    facts = lists.Facts(launch.ram, launch.sections, len(firmware.image), (0,), None)
    rows = [row for row in lists.td_shim_spec(facts) if isinstance(row, hob.Resource)]
    written = hob.write(launch.hob_address, [*rows, *map(hob.acpi_table, tables_of(host))])
    return replace(whole, hob=written)


@pytest.mark.parametrize(
    ("host", "good"), [("libkrun", True), ("dragonball", True), ("cloud-hypervisor", False)]
)
def test_a_raw_interrupt_number(linux: Firmware, kernel: bytes, host: str, good: bool) -> None:
    """Not where the FADT is hardware-reduced: there it is nobody's number."""
    described = config(linux, kernel, host)
    with launched(described) as machine:
        ports = machine.vmm.ports
        device = SecondPort(lambda level: ports.ioapic.set_line(PIN, level))
        ports.devices = (*ports.devices, device)
        ending = finish(machine, described)
    assert ending.report.met, ending.report.end
    said = ending.report.console.replace("\r", "")
    assert "raw: tables APIC CCEL DSDT FACP" in said  # the interpreter is on
    found = re.search(r"^raw: *(\d+): *(\d+) +(\S+) +(\S+) +ttyS1$", said, re.MULTILINE)
    assert (b"it came by interrupt" in device.sent, bool(found)) == (good, good), said[-2000:]
    if found:
        assert found.group(1, 3, 4) == ("3", "IO-APIC", "3-edge")
        assert int(found.group(2)) > 0
