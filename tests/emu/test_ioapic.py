"""Does the I/O APIC of QEMU have level-triggered pins and an EOI register?"""

from __future__ import annotations

import guest

from emu.cpu.apic import Message
from emu.vmm.devices.ioapic import BASE, VERSION_EOI, IoApic


def chip() -> tuple[IoApic, list[Message]]:
    """QEMU's, and what it sends."""
    sent: list[Message] = []
    return IoApic(sent.append, VERSION_EOI), sent


def entry(apic: IoApic, pin: int, value: int) -> None:
    """Writes a redirection entry."""
    for half in (1, 0):
        apic.write(0, 0x10 + 2 * pin + half)
        apic.write(0x10, value >> 32 * half & 0xFFFFFFFF)


def low(apic: IoApic, pin: int) -> int:
    """The lower half of one."""
    apic.write(0, 0x10 + 2 * pin)
    return apic.read(0x10)


def test_version_of_the_io_apic() -> None:
    apic, _ = chip()
    apic.write(0, 1)
    assert apic.read(0x10) == 0x00170020
    with guest.machine(guest.for_qemu(guest.build("main: halt\n").image), vmm="qemu") as td:
        td.vmm.ports.write_memory(BASE, 4, 1)
        assert td.vmm.ports.read_memory(BASE + 0x10, 4) == 0x00170020


def test_a_level_pin_sends_again_after_its_end() -> None:
    apic, sent = chip()
    entry(apic, 9, 0x8041)
    apic.set_line(9, True)
    apic.set_line(9, True)
    assert sent == [Message(0x41, 0, 0, logical=False)]
    assert low(apic, 9) == 0xC041
    apic.write(0x40, 0x42)
    assert len(sent) == 1
    apic.write(0x40, 0x41)
    assert len(sent) == 2
    apic.set_line(9, False)
    apic.write(0x40, 0x41)
    assert (len(sent), low(apic, 9)) == (2, 0x8041)
    apic.set_line(9, True)
    assert len(sent) == 3


def test_a_masked_level_pin_sends_when_it_is_unmasked() -> None:
    apic, sent = chip()
    entry(apic, 9, 0x18041)
    apic.set_line(9, True)
    assert sent == []
    entry(apic, 9, 0x8041)
    assert len(sent) == 1
    entry(apic, 9, 0x41)  # an edge has no remote IRR
    assert low(apic, 9) == 0x41


def test_an_edge_pin_is_the_same_there() -> None:
    apic, sent = chip()
    entry(apic, 4, 0x44)
    for level in (True, True, False, True):
        apic.set_line(4, level)
    assert len(sent) == 2
    apic.write(0x40, 0x44)
    assert len(sent) == 2


def test_other_hosts_have_no_eoi_register() -> None:
    sent: list[Message] = []
    apic = IoApic(sent.append)
    entry(apic, 9, 0x8041)
    apic.set_line(9, True)
    apic.write(0x40, 0x41)
    assert len(sent) == 1
