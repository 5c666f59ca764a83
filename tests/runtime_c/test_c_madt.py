"""Does the MADT list the CPUs of the TD, each once, whatever the VMM's MADT says?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from acpitables import IOAPIC, ISO, MAILBOX, MAILBOX_PAGE, WAKEUP, Tables, lapic, make_log, x2apic
from ccore import CORE, LIB, CoreError, check, make_cpus, make_vmm

from formats import acpi
from formats.acpi import MadtType

VECTOR_AT = 0x800 + 1024


def test_many_cpus_become_x2apic_entries():
    cpus = Tables(cpus=300).cpus
    assert [cpu for _, cpu in cpus] == list(range(300))
    assert [kind for kind, _ in cpus] == [MadtType.LAPIC] * 255 + [MadtType.X2APIC] * 45


def test_the_vmms_cpus_and_interrupts_are_taken_but_not_its_wakeup():
    entries = [lapic(2), x2apic(0), x2apic(1), lapic(9, flags=0), lapic(8, flags=2), IOAPIC, ISO, WAKEUP]
    built = Tables([acpi.madt(entries, acpi.MadtFlags.PCAT_COMPAT)], 3)
    assert built.cpus == [(MadtType.LAPIC, 0), (MadtType.LAPIC, 1), (MadtType.LAPIC, 2)]
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


@pytest.mark.parametrize("vector", [1, 0x7FFF_0050, 2**64 - 1])
def test_a_mailbox_that_names_a_reset_vector(vector: int) -> None:
    """Where the firmware's part of the mailbox names it, behind a byte for each vCPU; 0 is no vector."""
    with reset_vector(vector):
        (*_, (kind, wakeup)) = Tables(cpus=2).madt
    assert (kind, wakeup.length, wakeup.mailbox_version) == (MadtType.MP_WAKEUP, 24, 1)
    assert (wakeup.mailbox_address, wakeup.reset_vector) == (MAILBOX, vector)
    (*_, (kind, wakeup)) = Tables(cpus=2).madt
    assert (kind, wakeup.length, wakeup.mailbox_version) == (MadtType.MP_WAKEUP, 16, 0)


@contextmanager
def reset_vector(vector: int) -> Iterator[None]:
    """In the mailbox of these tests, full of what the firmware keeps elsewhere there."""
    page = bytearray(b"\x01" * 4096)
    page[VECTOR_AT : VECTOR_AT + 8] = vector.to_bytes(8, "little")
    MAILBOX_PAGE.memory[:4096] = bytes(page)
    yield
    MAILBOX_PAGE.memory[:4096] = bytes(4096)


def test_a_mailbox_too_small_to_name_one() -> None:
    area, out = CORE.guarded(65536), CORE.ffi.new("uint64_t *")
    with pytest.raises(CoreError, match="out_of_bounds"):
        check(
            LIB.acpi_tables(
                CORE.span(area.address, 65536),
                make_vmm([], ()),
                make_cpus(2),
                CORE.span(MAILBOX, VECTOR_AT + 7),
                make_log(),
                out,
            )
        )


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
    assert cpus == Tables(cpus=300).cpus


@pytest.mark.parametrize("entries", [[lapic(0), x2apic(0)], [lapic(0), lapic(1), lapic(1)]])
def test_a_cpu_listed_twice(entries: list[bytes]):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt(entries)], 2)


def test_two_cpus_of_one_id():
    """collect_cpus refuses them before. Here an id is that of one entry, even if their number fits."""
    for entries in ([lapic(0)], [lapic(0), lapic(0)]):
        with pytest.raises(CoreError, match="cpus_mismatch"):
            Tables([acpi.madt(entries)], [0, 0])


SPARSE = (4, 0, 1, 2, 5, 6, 300)  # the boot CPU first, then ascending


def test_cpus_are_in_our_order_with_the_uids_of_the_vmm():
    """However the VMM orders them: Linux takes the first for the boot CPU."""
    theirs = [x2apic(300), *(lapic(each) for each in (6, 5, 4, 2, 1, 0))]
    built = Tables([acpi.madt(theirs)], SPARSE)
    assert [cpu for _, cpu in built.cpus] == list(SPARSE)
    assert built.cpus == Tables(cpus=SPARSE).cpus
    uids = acpi.madt_entry(MadtType.LAPIC, processor_uid=77, apic_id=9, flags=1)
    ((_, entry), _) = Tables([acpi.madt([uids])], [9]).madt
    assert (entry.processor_uid, entry.apic_id, entry.flags) == (77, 9, 1)
    assert [entry.processor_uid for _, entry in Tables(cpus=SPARSE).madt[:7]] == list(range(7))


def test_entries_of_cpus_that_are_not_there_are_dropped_if_they_are_disabled():
    """A VMM with room for more CPUs (Dragonball; Cloud Hypervisor with max > boot) lists them, too."""
    entries = [lapic(0), lapic(1, flags=2), lapic(2), *(x2apic(cpu, flags=0) for cpu in range(3, 600))]
    assert [cpu for _, cpu in Tables([acpi.madt(entries)], [0, 2]).cpus] == [0, 2]
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([*entries, x2apic(600)])], [0, 2])


@pytest.mark.parametrize(
    "entries",
    [
        [lapic(0), lapic(2, flags=0)],  # disabled
        [lapic(0)],  # missing
        [lapic(0), lapic(1)],  # another one
        [lapic(0), lapic(2), lapic(255)],  # an id that is everybody's
        [lapic(0), lapic(2), x2apic(2**32 - 1)],
        [lapic(255)],
        [x2apic(2**32 - 1)],
        [],
    ],
)
def test_the_vmms_enabled_cpus_must_be_ours(entries: list[bytes]):
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt(entries)], [0, 2])


def test_a_local_apic_entry_of_id_255_names_no_cpu():
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt([lapic(0), lapic(255)])], [0, 255])


def test_an_x2apic_entry_takes_an_id_below_255_too():
    assert Tables([acpi.madt([x2apic(254), x2apic(255)])], [254, 255]).cpus == [
        (MadtType.LAPIC, 254),
        (MadtType.X2APIC, 255),
    ]


def test_undefined_flags_of_the_vmms_madt_are_dropped():
    built = Tables([acpi.madt([lapic(0)], 0xFFFF_FFFF)])
    assert acpi.MADT.parse(built.one(b"APIC")).flags == acpi.MadtFlags.PCAT_COMPAT


def test_a_cpu_above_the_ids_of_local_apics_that_is_listed_twice():
    """As many entries as CPUs, so that their number alone tells nothing."""
    entries = [x2apic(cpu) for cpu in (*range(299), 298)]
    with pytest.raises(CoreError, match="cpus_mismatch"):
        Tables([acpi.madt(entries)], 300)


def test_id_255_of_a_local_apic_is_the_broadcast_and_names_no_cpu():
    entries = [x2apic(cpu) for cpu in range(300) if cpu != 255]
    with pytest.raises(CoreError, match="cpus_mismatch"):
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
