"""Does the firmware take the lists of memory and CPUs that hosts really write?

The rows are those of TD HOBs written by Dragonball (Kata 7c6ba40c), by Cloud Hypervisor (v47.0, and v31 or an
older one in a TD on hardware) and by QEMU for the sections of OVMF's IntelTdx build, row by row and in their
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import oracle
import pytest
from tdbox import GIB, LINUX, MIB, Firmware, made, stopped

from emu.api import run
from formats import acpi, hob
from formats.acpi import LapicFlags, MadtType

RAM, ADDED, MMIO = 7, 0, 1
LAPIC, X2APIC = MadtType.LAPIC, MadtType.X2APIC
ENABLED, LATER = LapicFlags.ENABLED, LapicFlags(0)


def rows(*given: tuple[int, int, int]) -> list[hob.Hob]:
    return [hob.Resource(kind, start, size, 0x403 if kind == MMIO else 7) for kind, start, size in given]


def lapics(*flags: LapicFlags) -> hob.Hob:
    entries = [acpi.madt_entry(LAPIC, processor_uid=n, apic_id=n, flags=each) for n, each in enumerate(flags)]
    return hob.acpi_table(acpi.madt(entries))


@dataclass(frozen=True)
class Host:
    """A list, the memory and vCPUs that it stands for, and where the TD HOB lies."""

    hobs: Sequence[hob.Hob]
    memory: int
    vcpus: int
    base: int = 0x800000


CLOUD_HYPERVISOR = (
    (MMIO, 0xC0000000, 0x3EE00000),
    (MMIO, 1 << 32, 0x3FFEFFEEFFFF),  # its end is on no page
)
HOSTS = {
    "dragonball, 4 of 6 CPUs": Host(
        [
            *rows((RAM, 0, 2 * GIB), (ADDED, 0xFF000000, 16 * MIB), (MMIO, 3 * GIB, 0x3F000000)),
            hob.payload_info(2, 0x1000000),
            lapics(*4 * [ENABLED], LATER, LATER),
        ],
        2 * GIB,
        4,
    ),
    "dragonball, RAM on both sides": Host(
        [
            *rows((RAM, 0, 3 * GIB), (ADDED, 0xFF000000, 16 * MIB), (RAM, 4 * GIB, 2 * GIB)),
            *rows((MMIO, 3 * GIB, 0x3F000000)),
            hob.payload_info(2, 0x1000000),
            lapics(ENABLED),
        ],
        5 * GIB,
        1,
    ),
    "cloud hypervisor": Host(
        [
            *rows((RAM, 0, 2 * GIB), (ADDED, 0xFF040000, 0x1000), (ADDED, 0xFF041000, 0x20000)),
            *rows((ADDED, 0xFF061000, 0x20000), *CLOUD_HYPERVISOR),
            hob.acpi_table(
                acpi.madt(
                    [
                        acpi.madt_entry(
                            X2APIC, x2apic_id=n, processor_uid=n, flags=LapicFlags(3 if n < 3 else 2)
                        )
                        for n in range(4)
                    ]
                )
            ),
            hob.payload_info_packed(1, 0x861000),
        ],
        2 * GIB,
        3,
    ),
    "cloud hypervisor before v32": Host(
        [
            *rows((RAM, 0, GIB), (ADDED, 0xFF040000, 0x1000), (ADDED, 0xFF042000, 0x20000)),
            *rows((ADDED, 0xFF062000, 0x20000), *CLOUD_HYPERVISOR),
            hob.acpi_table(
                acpi.madt(
                    [
                        acpi.madt_entry(LAPIC, processor_uid=0, apic_id=0, flags=LapicFlags(3)),
                        acpi.madt_entry(MadtType.IOAPIC, ioapic_id=0, address=0xFEC00000),
                    ]
                )
            ),
            hob.payload_info(1, 0x901000),
        ],
        GIB,
        1,
    ),
    "qemu, 2047 MiB": Host(
        [
            *rows((RAM, 0, 0x800000), (ADDED, 0x800000, 0x6000), (RAM, 0x806000, 0x3000)),
            *rows((ADDED, 0x809000, 0x2000), (ADDED, 0x80B000, 0x2000), (RAM, 0x80D000, 0x3000)),
            *rows((ADDED, 0x810000, 0x10000), (RAM, 0x820000, 0x7F6E0000)),
        ],
        2047 * MIB,
        2,
        0x809000,
    ),
}
# OVMF's sections, as far as this firmware has them: HOB at 80_9000, then TempMem, then what the VMM augments.
LIKE_OVMF = (("0x0080_0000", "0x0080_9000"), ("64 KiB  at 0x0080_9000", " 8 KiB  at 0x0080_9000"))


@pytest.fixture(scope="module")
def firmware(linux: Firmware, tiny: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Firmware]:
    """By the address of the TD HOB."""
    folder = tmp_path_factory.mktemp("hosts")
    text = LINUX.read_text()
    for old, new in LIKE_OVMF:
        assert old in text
        text = text.replace(old, new)
    flow = folder / "ovmf.tdf"
    flow.write_text(text)
    return {0x800000: linux, 0x809000: made(flow, folder / "build", tiny)}


@pytest.mark.parametrize("name", HOSTS)
def test_the_list_of_a_host(firmware: dict[int, Firmware], name: str) -> None:
    host = HOSTS[name]
    written = hob.write(host.base, host.hobs)
    built = firmware[host.base]
    config = replace(built.config, hob=written, memory=host.memory, vcpus=host.vcpus)
    with stopped(config) as td:
        assert td.report.handoff is not None, td.report.end
        given = oracle.boot_params(td.read, td.boot_params)
        tables = {table[:4]: table for _, table in oracle.acpi_tables(td.read, given.rsdp)}
    # All RAM of the list, and the image, is in the E820; nothing of the window below 4 GiB is RAM.
    image = [entry for entry in given.e820 if entry[0] >= 0xFC000000 and entry[1] <= 1 << 32]
    assert [kind for _, _, kind in image] == [2]
    assert sum(end - start for start, end, _ in given.e820 if (start, end) not in {i[:2] for i in image}) == (
        host.memory
    )
    # RTMR[0] is a function of the list and the number of CPUs, of which the MADT lists those that are there.
    good = bytes(4)
    assert td.report.rtmr[0] == oracle.extended(written, oracle.cpus(host.vcpus), good)
    enabled = [e for e in oracle.madt_entries(tables[b"APIC"]) if e[0] in (0, 9) and e[8 if e[0] else 4] & 1]
    assert len(enabled) == host.vcpus
    assert td.report.aps == [] if host.vcpus == 1 else all(ap["parked"] for ap in td.report.aps)


def test_alioths_machine_is_no_q35(qemu: Firmware, tiny: bytes) -> None:
    """It takes the image and gives the files, but has another chipset."""
    report = run(replace(qemu.config, vmm="alioth", kernel=tiny + bytes(8192)))
    assert report.end["detail"] == "tdforge: q35: another chipset, or it does not obey"
