"""What does each VMM do differently? RAM layout and TD HOB style per VMM
(Dragonball dbs_boot; Cloud Hypervisor arch/src/x86_64/tdx, layout.rs; QEMU hw/i386/tdvf-hob.c, pc_q35.c)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

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
    border.
    """

    name: str
    style: HobStyle
    low_top: int
    low_border: int  # RAM smaller than this lies wholly below 4 GiB
    packed_payload_info: bool = False
    payload_info: bool = True

    def ram(self, size: int) -> tuple[tuple[int, int], ...]:
        """RAM ranges (start, end) for this much memory, in bytes."""
        if size <= self.low_border:
            return ((0, size),)
        return ((0, self.low_top), (FOUR_GIB, FOUR_GIB + size - self.low_top))


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("td-shim", HobStyle.DRAGONBALL, 3 * GIB, 3 * GIB),
        Preset("cloud-hypervisor", HobStyle.CLOUD_HYPERVISOR, 3 * GIB, 3 * GIB, packed_payload_info=True),
        Preset("cloud-hypervisor-v43", HobStyle.CLOUD_HYPERVISOR, 3 * GIB, 3 * GIB),
        Preset("legacy", HobStyle.LEGACY, 3 * GIB, 3 * GIB),
        Preset("qemu", HobStyle.QEMU, 2 * GIB, 0xB0000000 - 1, payload_info=False),
    )
}
