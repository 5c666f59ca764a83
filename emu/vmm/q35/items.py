"""Which items does QEMU's fw_cfg hold? (hw/i386/fw_cfg.c fw_cfg_arch_create, hw/nvram/fw_cfg.c
fw_cfg_common_realize, pc.c, x86-common.c; the files of a machine without disks and network cards.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.vmm.backing import Range
from emu.vmm.q35 import kernel, smbios
from formats import fw_cfg
from formats.fw_cfg import FILE_FIRST, Feature, Key
from formats.linux import E820_ENTRY, E820Type
from formats.structs import pack
from formats.units import FOUR_GIB

KVM_IDENTITY_MAP = (0xFEFFC000, 0x4000)  # target/i386/kvm/kvm.c kvm_arch_init
# S3 and S4 with their types, S0 and S5 always (hw/isa/lpc_ich9.c, hw/acpi/core.c: etc/system-states)
SYSTEM_STATES = bytes((0x80, 0, 0, 0x81, 0x82, 0x80))
SMI_FEATURES = 7  # broadcast and both kinds of CPU hotplug (lpc_ich9.c)
ROMS = {"genroms/kvmvapic.bin": 9216}  # sizes; code for a BIOS, of which there is nothing here
KERNEL_ROM = ("genroms/linuxboot_dma.bin", 1536)
NO_HPET = b"\xff"


@dataclass(frozen=True)
class DirectBoot:
    """`-kernel`, `-initrd` and `-append`."""

    kernel: bytes
    initrd: bytes | None
    cmdline: bytes


@dataclass(frozen=True)
class Q35:
    """What fw_cfg says of the machine: RAM ranges and the payload."""

    ram: tuple[Range, ...]
    boot: DirectBoot | None = None


@dataclass(frozen=True)
class Items:
    """`content` by key, and the keys of the files by name."""

    content: dict[int, bytes]
    files: dict[str, int]


def e820(ram: Sequence[Range]) -> bytes:
    """KVM's range, then RAM."""
    entries = [(*KVM_IDENTITY_MAP, E820Type.RESERVED)]
    entries += [(start, end - start, E820Type.RAM) for start, end in ram]
    return b"".join(pack(E820_ENTRY, addr=start, size=size, type=kind) for start, size, kind in entries)


def files(boot: DirectBoot | None, ram: Sequence[Range], acpi: dict[str, bytes]) -> dict[str, bytes]:
    """Content by name."""
    structures = smbios.tables()
    found = acpi | {
        "bios-geometry": b"",
        "bootorder": b"",
        "etc/boot-fail-wait": b"\xff" * 4,
        "etc/e820": e820(ram),
        "etc/smbios/smbios-anchor": smbios.anchor(structures),
        "etc/smbios/smbios-tables": b"".join(structures),
        "etc/smi/features-ok": b"\1",
        "etc/smi/requested-features": bytes(8),
        "etc/smi/supported-features": SMI_FEATURES.to_bytes(8, "little"),
        "etc/system-states": SYSTEM_STATES,
        "etc/tpm/log": b"",
    }
    found |= {name: bytes(size) for name, size in ROMS.items()}
    if boot:
        name, size = KERNEL_ROM
        found |= {name: bytes(size), kernel.KERNEL_FILE: boot.kernel}
        found["bootorder"] = f"/rom@{name}\0".encode()
    return found


def build(machine: Q35, apic_ids: Sequence[int], acpi: dict[str, bytes]) -> Items:
    """All items; `acpi` has the three files of the tables. EmuError: QEMU refuses the payload."""
    ram, boot = machine.ram, machine.boot
    named = files(boot, ram, acpi)
    keys = {name: FILE_FIRST + index for index, name in enumerate(sorted(named))}
    limit = max(apic_ids) + 1
    numbers: dict[int, tuple[int, int]] = {
        Key.ID: (4, Feature.TRADITIONAL | Feature.DMA),
        Key.RAM_SIZE: (8, sum(end - start for start, end in ram)),
        Key.NOGRAPHIC: (2, 0),
        Key.NB_CPUS: (2, len(apic_ids)),
        Key.MAX_CPUS: (2, limit),
        Key.BOOT_MENU: (2, 0),
        Key.KERNEL_ENTRY: (4, 0),
        Key.INITRD_ADDR: (4, 0),
        Key.INITRD_SIZE: (4, 0),
        Key.IRQ0_OVERRIDE: (4, 1),
    }
    content = {key: value.to_bytes(size, "little") for key, (size, value) in numbers.items()}
    content |= {
        Key.SIGNATURE: fw_cfg.SIGNATURE,
        Key.UUID: bytes(16),
        Key.NUMA: bytes(8 * (1 + limit)),
        Key.ACPI_TABLES: b"",
        Key.HPET: NO_HPET,
        Key.FILE_DIR: fw_cfg.directory({name: (keys[name], len(named[name])) for name in sorted(named)}),
    }
    if boot:
        low = next((end for start, end in ram if not start and end <= FOUR_GIB), 0)
        content |= kernel.items(boot.kernel, boot.initrd, boot.cmdline, low)
    content |= {keys[name]: data for name, data in named.items()}
    return Items(content, keys)
