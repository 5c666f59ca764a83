"""How does Kata Containers start an image? What changes in its configuration, with QEMU and with Dragonball.

Kata's container image stays as configured: both refuse a configuration that has an image and an initrd
(kata-containers src/libs/kata-types/src/config/hypervisor/mod.rs, BootInfo::validate).
"""

import json
from collections.abc import Mapping

from emu.vmm.hosts.dragonball import MAX_CPUS, MEMORY_UNIT, MOST_MEMORY
from formats.elf import MAGIC
from formats.units import MIB
from tdforge.errors import UserError
from tdforge.files import read
from tdforge.hosts import Launch

QEMU_CPUS = 240  # Kata's Go runtime cuts more: govmm/vmm_amd64.go
DRAGONBALL_MEMORY = 64 * MIB  # kata-types config/hypervisor/dragonball.rs validate refuses less
LEAST_MEMORY = 256 * MIB  # below it takes its default: its config.go, MinHypervisorMemory


def toml(table: str, values: Mapping[str, str | int | bool | None]) -> str:
    """A table of TOML; None leaves a key out. JSON's texts are TOML's, if they are not escaped to ASCII."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]
    return "\n".join([f"[{table}]", *lines, ""])


def _values(launch: Launch) -> dict[str, str | int | bool | None]:
    """The keys that both hypervisors read. UserError: an initrd was asked for."""
    if launch.initrd:
        raise UserError("Kata boots its own image of a root file system, so it takes no --initrd")
    return {
        "firmware": str(launch.image),
        "confidential_guest": True,
        "kernel": str(launch.kernel) if launch.kernel else None,
        "kernel_params": launch.given_cmdline,
        "default_vcpus": launch.vcpus,
        "default_memory": launch.memory // MIB,
    }


def kata(launch: Launch) -> str:
    """What changes in configuration-qemu-tdx.toml (src/runtime/config); its kernel stays if none is given.
    UserError: what Kata would change without a word.
    """
    if launch.vcpus > QEMU_CPUS or launch.memory < LEAST_MEMORY:
        raise UserError(
            f"Kata gives QEMU at most {QEMU_CPUS} vCPUs and {LEAST_MEMORY // MIB} MiB of memory at least"
        )
    return toml("hypervisor.qemu", _values(launch))


def dragonball(launch: Launch) -> str:
    """What changes in runtime-rs's configuration-dragonball.toml, read by pull request 13659 (46b7ac07).

    Kata without it refuses a firmware. UserError: the kernel is no ELF file, or too many vCPUs.
    """
    if launch.kernel and read(launch.kernel, "kernel")[: len(MAGIC)] != MAGIC:
        raise UserError(f"Dragonball loads a vmlinux, an ELF file, and {launch.kernel} is none")
    if launch.vcpus > MAX_CPUS:
        raise UserError(f"Dragonball has at most {MAX_CPUS} vCPUs")
    if launch.memory % MEMORY_UNIT or not DRAGONBALL_MEMORY <= launch.memory <= MOST_MEMORY:
        raise UserError("Dragonball takes an even number of MiB of memory, 64 MiB to 1 TiB")
    return "# kata-containers pull request 13659\n" + toml("hypervisor.dragonball", _values(launch))
