"""Does the MADT list the CPUs of the TD, each once, whatever the VMM's MADT says?"""

from __future__ import annotations

import pytest
from acpitables import IOAPIC, ISO, MAILBOX, WAKEUP, Tables, lapic, x2apic
from ccore import CoreError

from formats import acpi
from formats.acpi import MadtType


def test_many_cpus_become_x2apic_entries():
    cpus = Tables(vcpus=300).cpus
    assert [cpu for _, cpu in cpus] == list(range(300))
    assert [kind for kind, _ in cpus] == [MadtType.LAPIC] * 255 + [MadtType.X2APIC] * 45


def test_the_vmms_cpus_and_interrupts_are_taken_but_not_its_wakeup():
    entries = [lapic(2), x2apic(0), x2apic(1), lapic(9, flags=0), lapic(8, flags=2), IOAPIC, ISO, WAKEUP]
    built = Tables([acpi.madt(entries, acpi.MadtFlags.PCAT_COMPAT)], 3)
    assert built.cpus == [(MadtType.LAPIC, 2), (MadtType.LAPIC, 0), (MadtType.LAPIC, 1)]
    kinds = [kind for kind, _ in built.madt]
    assert kinds == [
        MadtType.LAPIC,
        MadtType.LAPIC,
        MadtType.LAPIC,
        MadtType.IOAPIC,
        MadtType.ISO,
        MadtType.MP_WAKEUP,
    ]
    assert built.madt[-1][1].mailbox_address == MAILBOX
    assert acpi.MADT.parse(built.one(b"APIC")).flags == acpi.MadtFlags.PCAT_COMPAT


@pytest.mark.parametrize("vcpus", [0, 1, 3])
def test_cpu_count_must_match(vcpus):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), lapic(1)])], vcpus)


@pytest.mark.parametrize("last", [lapic(3), x2apic(3), x2apic(1000)])
def test_ids_that_no_parked_cpu_answers_to(last):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), lapic(1), last])], 3)


def test_many_cpus_of_the_vmm():
    cpus = Tables([acpi.madt([x2apic(cpu) for cpu in range(300)])], 300).cpus
    assert cpus == Tables(vcpus=300).cpus


def test_a_cpu_listed_twice():
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), x2apic(0)])], 2)


def test_undefined_flags_of_the_vmms_madt_are_dropped():
    built = Tables([acpi.madt([lapic(0)], 0xFFFF_FFFF)])
    assert acpi.MADT.parse(built.one(b"APIC")).flags == acpi.MadtFlags.PCAT_COMPAT


def test_a_td_without_cpus_has_no_tables():
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([], 0)


def test_a_cpu_above_the_ids_of_local_apics_that_is_listed_twice():
    """As many entries as CPUs, so that their number alone tells nothing."""
    entries = [x2apic(cpu) for cpu in (*range(299), 298)]
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt(entries)], 300)


def test_id_255_of_a_local_apic_is_the_broadcast_and_names_no_cpu():
    entries = [x2apic(cpu) for cpu in range(300) if cpu != 255]
    with pytest.raises(CoreError, match="acpi_malformed"):
        Tables([acpi.madt([*entries, lapic(255)])], 300)


def test_a_uid_that_a_local_apic_cannot_hold_becomes_the_id():
    cpus = [(0, 255), (1, 256), (2, 0x1_0005)]
    entries = [
        acpi.madt_entry(MadtType.X2APIC, processor_uid=uid, x2apic_id=cpu, flags=1) for cpu, uid in cpus
    ]
    madt = Tables([acpi.madt(entries)], 3).madt
    assert [(e.apic_id, e.processor_uid) for kind, e in madt if kind == MadtType.LAPIC] == [
        (0, 255),
        (1, 1),
        (2, 2),
    ]


def test_entries_that_are_of_no_use_to_an_os_in_a_td_are_dropped():
    """Local APIC address override (5) and I/O SAPIC (6), in the range of the kinds that are taken."""
    others = [bytes([5, 12]) + bytes(10), bytes([6, 16]) + bytes(14)]
    assert Tables([acpi.madt([lapic(0), *others])], 1).madt == Tables([acpi.madt([lapic(0)])], 1).madt
