"""What does each VMM do differently? RAM layout and TD HOB style per VMM
(Dragonball dbs_boot; Cloud Hypervisor arch/src/x86_64/tdx, layout.rs; QEMU hw/i386/tdvf-hob.c, pc_q35.c) and
the size of private pages (Linux arch/x86/kvm/vmx/tdx.c tdx_sept_set_private_spte: 4 KiB only)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from emu.vmm.kvm_msr import MCG_CAP_KVM, MCG_CAP_QEMU
from formats.units import FOUR_GIB, GIB


class HobStyle(enum.Enum):
    """Which parts a VMM's TD HOB has and how it names memory."""

    DRAGONBALL = "dragonball"
    CLOUD_HYPERVISOR = "cloud-hypervisor"
    QEMU = "qemu"
    LEGACY = "legacy"


@dataclass(frozen=True)
class Preset:
    """One VMM as a policy: RAM below 4 GiB holds up to `low_top` bytes unless `low_limit` moves the
    border. `large_pages`: its host maps private memory in 2 MiB pages, which the TDX module allows and KVM
    does not do.
    """

    name: str
    style: HobStyle
    low_top: int
    low_border: int  # RAM smaller than this lies wholly below 4 GiB
    packed_payload_info: bool = False
    payload_info: bool = True
    large_pages: bool = False
    mcg_cap: int = MCG_CAP_KVM
    fw_cfg: bool = False  # a q35, which passes the payload through fw_cfg

    def ram(self, size: int) -> tuple[tuple[int, int], ...]:
        """RAM ranges (start, end) for this much memory, in bytes."""
        if size <= self.low_border:
            return ((0, size),)
        return ((0, self.low_top), (FOUR_GIB, FOUR_GIB + size - self.low_top))


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("td-shim", HobStyle.DRAGONBALL, 3 * GIB, 3 * GIB, large_pages=True),
        Preset("cloud-hypervisor", HobStyle.CLOUD_HYPERVISOR, 3 * GIB, 3 * GIB, packed_payload_info=True),
        Preset("cloud-hypervisor-v43", HobStyle.CLOUD_HYPERVISOR, 3 * GIB, 3 * GIB),
        Preset("legacy", HobStyle.LEGACY, 3 * GIB, 3 * GIB, large_pages=True),
        Preset(
            "qemu",
            HobStyle.QEMU,
            2 * GIB,
            0xB0000000 - 1,
            payload_info=False,
            mcg_cap=MCG_CAP_QEMU,
            fw_cfg=True,
        ),
    )
}
