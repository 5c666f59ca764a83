"""How is an image started by QEMU, by libvirt, by Alioth? A command line or XML, each with the source that it
was derived from; others are in `kata.py` and `krun.py`. Nothing ran on TDX hardware (docs/hosts.md)."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from formats.units import MIB
from tdforge.errors import UserError

# QEMU docs/system/i386/tdx.rst; what a TD cannot have (SMM, PIC) and what nobody needs is off.
LEAN = "kernel-irqchip=split,smm=off,pic=off,hpet=off,sata=off,smbus=off,i8042=off,vmport=off,usb=off"
QUOTES = "/var/run/tdx-qgs/qgs.socket"
SEPT_VE_DISABLE = 1 << 28  # ATTRIBUTES, libvirt's policy
CMDLINE = "console=ttyS0"
LIBVIRT_CPUS = 255  # more want an IOMMU with extended interrupt mode: libvirt src/qemu/qemu_validate.c


@dataclass(frozen=True)
class Launch:
    """What is to be started. Sizes in bytes; `more`: words for QEMU itself."""

    image: Path
    kernel: Path | None = None
    initrd: Path | None = None
    given_cmdline: str | None = None
    memory: int = 2048 * MIB
    vcpus: int = 1
    more: Sequence[str] = ()

    @property
    def cmdline(self) -> str:
        """The kernel's command line, the default one if none was given."""
        return CMDLINE if self.given_cmdline is None else self.given_cmdline

    def qemu_files(self) -> list[str]:
        """-kernel, -initrd and -append."""
        words = []
        if self.kernel:
            words += ["-kernel", str(self.kernel), "-append", self.cmdline]
        if self.initrd:
            words += ["-initrd", str(self.initrd)]
        return words


def plain_qemu(launch: Launch, qemu: Sequence[str]) -> list[str]:
    """The command of QEMU without TDX: the same machine, emulated, nothing protected."""
    machine = f"q35,{LEAN.replace('kernel-irqchip=split,', '')}"
    return [
        *qemu,
        *("-accel", "tcg", "-cpu", "max", "-m", f"{launch.memory // MIB}M", "-smp", str(launch.vcpus)),
        *("-machine", machine, "-bios", str(launch.image), *launch.qemu_files()),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", *launch.more),
    ]


def tdx_qemu(launch: Launch) -> str:
    """The command line of QEMU 10.1 and newer with TDX (QEMU docs/system/i386/tdx.rst)."""
    quotes = {"type": "unix", "path": QUOTES}
    guest = json.dumps({"qom-type": "tdx-guest", "id": "tdx0", "quote-generation-socket": quotes})
    words = [
        *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", f"{launch.memory // MIB}M"),
        *("-smp", f"{launch.vcpus},sockets={launch.vcpus},cores=1,threads=1"),
        *("-machine", f"q35,confidential-guest-support=tdx0,{LEAN}", "-object", guest),
        *("-bios", str(launch.image), *launch.qemu_files()),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", *launch.more),
    ]
    return shlex.join(words) + "\n"


def libvirt(launch: Launch) -> str:
    """A domain of libvirt (tests/qemuxmlconfdata/launch-security-tdx.xml); pflash cannot be used with TDX.
    UserError: more vCPUs than it takes.
    """
    if launch.vcpus > LIBVIRT_CPUS:
        raise UserError(
            f"libvirt takes at most {LIBVIRT_CPUS} vCPUs without an IOMMU, and this domain has none"
        )
    boot = f"\n    <kernel>{escape(str(launch.kernel))}</kernel>" if launch.kernel else ""
    boot += f"\n    <initrd>{escape(str(launch.initrd))}</initrd>" if launch.initrd else ""
    boot += f"\n    <cmdline>{escape(launch.cmdline)}</cmdline>" if launch.kernel else ""
    return f"""\
<domain type='kvm'>
  <name>tdforge</name>
  <memory unit='MiB'>{launch.memory // MIB}</memory>
  <vcpu>{launch.vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader type='rom' readonly='yes'>{escape(str(launch.image))}</loader>{boot}
  </os>
  <features>
    <acpi/>
    <ioapic driver='qemu'/>
  </features>
  <cpu mode='host-passthrough'/>
  <clock offset='utc'>
    <timer name='hpet' present='no'/>
  </clock>
  <launchSecurity type='tdx'>
    <policy>{SEPT_VE_DISABLE:#x}</policy>
    <quoteGenerationService path='{QUOTES}'/>
  </launchSecurity>
  <devices>
    <serial type='pty'/>
    <console type='pty'/>
  </devices>
</domain>
"""


def alioth(launch: Launch) -> str:
    """Alioth's command line (docs/coco.md)."""
    words = ["alioth", "boot", "--memory", f"size={launch.memory // MIB}M", "--cpu", f"count={launch.vcpus}"]
    if launch.kernel:
        words += ["--kernel", str(launch.kernel), f"--cmdline={launch.cmdline}"]
    if launch.initrd:
        words += ["--initramfs", str(launch.initrd)]
    words += ["--coco", f"tdx,attr={SEPT_VE_DISABLE:#x}", "--firmware", str(launch.image)]
    return shlex.join(words) + "\n"
