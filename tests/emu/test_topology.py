"""Which APIC ids do vCPUs get, and where do they show?"""

from __future__ import annotations

import guest
import pytest

from emu.cpu.apic import LocalApic, Message
from emu.signals import EmuError
from emu.tdx import topology
from emu.vmm import acpi as vmm_acpi
from formats import acpi
from formats.acpi import MadtType


@pytest.mark.parametrize(
    ("text", "vcpus", "ids"),
    [
        ("", 4, (0, 1, 2, 3)),
        ("7", 1, (7,)),
        ("2,0,1", 3, (2, 0, 1)),
        ("sockets=2,cores=3", 6, (0, 1, 2, 4, 5, 6)),
        ("threads=1,cores=3,sockets=2", 6, (0, 1, 2, 4, 5, 6)),
        ("sockets=2,cores=2,threads=3", 12, (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14)),
        ("cores=5,threads=2", 10, tuple(range(10))),
    ],
)
def test_ids(text: str, vcpus: int, ids: tuple[int, ...]) -> None:
    assert topology.parse(text, vcpus).ids == ids


@pytest.mark.parametrize(
    ("text", "vcpus", "message"),
    [
        ("0,1", 3, "2 of them for 3 vCPUs"),
        ("0,1,1", 3, "different numbers"),
        ("0,4294967295", 2, "up to 0xfffffffe"),
        ("0,x", 2, "expected numbers"),
        ("sockets=2,cores=3", 5, "are 6 vCPUs, the TD has 5"),
        ("sockets=2,rooms=3", 6, "expected numbers of sockets, cores, threads"),
        ("sockets=2,sockets=3", 6, "expected numbers of sockets"),
        ("sockets=0", 1, "expected numbers of sockets"),
    ],
)
def test_ids_that_no_host_gives(text: str, vcpus: int, message: str) -> None:
    with pytest.raises(EmuError, match=message):
        topology.parse(text, vcpus)


def test_levels_of_a_topology() -> None:
    shown = topology.parse("sockets=2,cores=3,threads=2", 12)
    assert [shown.leaf(subleaf, 7) for subleaf in range(3)] == [
        (1, 2, 0x100, 9),
        (3, 6, 0x201, 9),
        (0, 0, 2, 9),
    ]


def apic(apic_id: int) -> LocalApic:
    return LocalApic(0, apic_id, lambda: 0, lambda *_: None, 40)


def test_messages_go_by_the_id_and_not_by_the_index() -> None:
    assert apic(291).read(0x802) == 291
    assert apic(291).read(0x80D) == 0x12_0008
    assert apic(291).matches(Message(0x40, 0, 291, logical=False), 1)
    assert not apic(291).matches(Message(0x40, 0, 0, logical=False), 1)
    assert apic(291).matches(Message(0x40, 0, 0x12_0008, logical=True), 1)
    assert apic(291).matches(Message(0x40, 0, 5, logical=False, shorthand=1), 0)  # oneself, by index


def test_the_madt_lists_ids_and_cpus_that_could_be_added() -> None:
    entries = list(acpi.madt_entries(vmm_acpi.madt((4, 0, 300), absent=2)))
    assert [kind for kind, _ in entries] == [
        MadtType.LAPIC,
        MadtType.LAPIC,
        *[MadtType.X2APIC] * 3,
        MadtType.IOAPIC,
    ]
    found = [
        (entry.get("apic_id", entry.get("x2apic_id", -1)), entry.processor_uid, entry.flags)
        for _, entry in entries[:-1]
    ]
    assert found == [(4, 0, 1), (0, 1, 1), (300, 2, 1), (301, 3, 0), (302, 4, 0)]


ASK = """
main:
    movl $0x802, %r12d
    vmcall 0x1F
    keep 0, %r11
    movl $0xB, %r12d
    movl $0, %r13d
    vmcall 0x0A
    keep 1, %r15
    halt
"""


@pytest.mark.parametrize("module", ["1.5.01", "newer"])
def test_a_guest_is_told_by_the_vmm(module: str) -> None:
    done = guest.run(ASK, apic_ids="37", module=module)
    assert done.words[:2] == (37, 37)
