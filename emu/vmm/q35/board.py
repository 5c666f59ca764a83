"""Which devices does a q35 have? The lean machine of docs/emulator.md: host bridge, LPC bridge, fw_cfg."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.cpu.memory import Memory
from emu.vmm.devices.bus import Host, SetLine
from emu.vmm.devices.fw_cfg import FwCfg, HostMemory
from emu.vmm.devices.ich9 import Pm, Reset
from emu.vmm.devices.ioapic import VERSION_EOI
from emu.vmm.devices.pci import Pci
from emu.vmm.q35 import items, tables
from emu.vmm.q35.items import Q35
from formats.q35 import SCI_IRQ


def devices(
    memory: Memory, machine: Q35, apic_ids: Sequence[int], elapsed: Callable[[], float], set_line: SetLine
) -> tuple[Reset, Pci, Pm, FwCfg]:
    """All of them. The ACPI files are built from what the firmware has programmed when the first of them is
    selected, and stay so (hw/i386/acpi-build.c acpi_build_update). EmuError: QEMU refuses the payload.
    """
    pci = Pci()

    def build() -> dict[str, bytes]:
        return tables.build(tables.Facts(apic_ids, machine.ram, pci.ecam, pci.pm_base))

    made = items.build(machine, apic_ids, build())
    late = frozenset(made.files[name] for name in tables.FILES)
    firmware = FwCfg(
        HostMemory(memory, machine.ram),
        made.content,
        late,
        lambda: {made.files[name]: data for name, data in build().items()},
    )
    return Reset(), pci, Pm(pci, elapsed, lambda level: set_line(SCI_IRQ, level)), firmware


def host(memory: Memory, machine: Q35, apic_ids: Sequence[int], elapsed: Callable[[], float]) -> Host:
    """That machine for `Ports`. Since QEMU 11 a port access has to be aligned to its size."""
    return Host(
        lambda set_line: devices(memory, machine, apic_ids, elapsed, set_line), VERSION_EOI, aligned_only=True
    )
