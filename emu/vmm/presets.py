"""What does each VMM do differently? RAM layout, TD HOB, loading and power control per VMM
(Dragonball dbs_boot, dbs_acpi; Cloud Hypervisor arch/src/x86_64/tdx, layout.rs; libkrun tdshim.rs; QEMU
hw/i386/tdvf-hob.c, pc_q35.c; Alioth firmware/ovmf) and the size of private pages (Linux
arch/x86/kvm/vmx/tdx.c tdx_sept_set_private_spte: 4 KiB only).

A name with a colon is a variant of the VMM before it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

from emu.vmm import hob as lists
from emu.vmm.devices.power import (
    KEYBOARD,
    OF_SPECIFICATION,
    OFF,
    RESET,
    SLEEP,
    SLEEP_ENABLE,
    SLEEP_TYPE_5,
    PowerPorts,
    Switch,
)
from emu.vmm.hob import Facts
from emu.vmm.hosts import alioth, cloud_hypervisor, dragonball, libkrun
from emu.vmm.kvm_msr import MCG_CAP_KVM, MCG_CAP_QEMU
from formats import vmms
from formats.hob import Hob
from formats.vmms import Vmm


class Kernel(enum.Enum):
    """Which kernel file a VMM takes, and how it reaches the firmware."""

    SECTION = "a file in the Payload section"
    SEGMENTS = "a vmlinux, its segments at their addresses"
    BUNDLE = "a vmlinux and an initrd as libkrunfw bundles them"
    FW_CFG = "a bzImage through QEMU's fw_cfg"
    ALIOTH = "a bzImage through Alioth's fw_cfg"


@dataclass(frozen=True)
class Preset:
    """One VMM as a policy. `vmm`: its RAM, and what it takes for an image. `large_pages`: its host maps
    private memory in 2 MiB pages, which the TDX module allows and KVM does not do.
    """

    name: str
    hobs: Callable[[Facts], list[Hob]]
    vmm: Vmm
    kernel: Kernel = Kernel.SECTION
    power: PowerPorts = (KEYBOARD,)
    pm_timer: int = 0  # its port
    zeros: bool = False  # ports without a device: zero, as KVM leaves the answer; else the VMM's all ones
    memory_ones: bool = False  # addresses without a device: the VMM's all ones; else zero
    large_pages: bool = False
    mcg_cap: int = MCG_CAP_KVM
    volumes: bool = False  # of the image file it loads what BFV and CFV sections hold, and nothing else
    page_aug: bool = False  # pages with PAGE.AUG are left for the TD to accept
    exact_attributes: bool = False  # a section is measured if its attributes are MR.EXTEND and nothing else
    last_hob: bool = False  # of several TD_HOB sections, the last one counts
    any_payload: bool = False  # its Payload section takes a vmlinux or an executable too, not only a bzImage
    max_cpus: int = 0  # 0: no limit
    igvm: bool = False  # it takes an IGVM file too
    indexed: bool = False  # a vCPU's APIC id is its index; else ids may be chosen
    max_id: int = 0  # the largest APIC id that it can tell of; 0: any that a CPU can have


_SPEC = Preset(
    "td-shim-spec",
    lists.td_shim_spec,
    vmms.SPECIFICATION,
    power=OF_SPECIFICATION,
    zeros=True,
    large_pages=True,
    page_aug=True,
    any_payload=True,
    igvm=True,
)
_OFF = Switch(SLEEP.port, OFF, SLEEP_ENABLE | SLEEP_TYPE_5, shows=0)
_CLOUD_HYPERVISOR = Preset(
    "cloud-hypervisor",
    lists.cloud_hypervisor,
    vmms.CLOUD_HYPERVISOR,
    power=(_OFF, Switch(SLEEP.port, RESET, cloud_hypervisor.RESET_VALUE, shows=0), KEYBOARD),
    pm_timer=cloud_hypervisor.PM_TIMER,
    zeros=True,
    max_cpus=0xFF,  # vm_config.rs boot_vcpus, a byte up to v47
    max_id=0xFF,  # cpu.rs create_vcpu, `x2apic_id as u8`
    exact_attributes=True,
    last_hob=True,
    volumes=True,
)
PRESETS = {
    preset.name: preset
    for preset in (
        _SPEC,
        replace(_SPEC, name="td-shim-spec:legacy", hobs=lists.legacy),
        _CLOUD_HYPERVISOR,
        replace(_CLOUD_HYPERVISOR, name="cloud-hypervisor:v43", hobs=lists.cloud_hypervisor_v43),
        Preset(
            "dragonball",
            lists.dragonball,
            vmms.DRAGONBALL,
            zeros=True,
            kernel=Kernel.SEGMENTS,
            last_hob=True,
            volumes=True,
            max_cpus=dragonball.MAX_CPUS,
            indexed=True,
        ),
        Preset(
            "libkrun",
            lists.libkrun,
            vmms.LIBKRUN,
            zeros=True,
            kernel=Kernel.BUNDLE,
            max_cpus=libkrun.MAX_CPUS,
            indexed=True,
        ),
        Preset(
            "qemu",
            lists.qemu,
            vmms.QEMU,
            kernel=Kernel.FW_CFG,
            max_id=0xFFFE,  # fw_cfg tells the limit, one more, in 16 bits
            mcg_cap=MCG_CAP_QEMU,
        ),
        Preset(
            "alioth",
            lists.qemu,
            vmms.ALIOTH,
            kernel=Kernel.ALIOTH,
            power=(_OFF, Switch(alioth.RESET, RESET, alioth.RESET_VALUE, shows=0)),
            memory_ones=True,
            last_hob=True,
        ),
    )
}
RENAMED = {
    "td-shim": "td-shim-spec",
    "legacy": "td-shim-spec:legacy",
    "cloud-hypervisor-v43": "cloud-hypervisor:v43",
}
TAKE_SECTION = tuple(name for name, preset in PRESETS.items() if preset.kernel is Kernel.SECTION)
"""Those that load the same image with the same kernel file."""
