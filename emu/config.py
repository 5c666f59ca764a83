"""What is one run? Everything that is chosen before it starts; the same RunConfig gives the same run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from emu.signals import EmuError
from emu.tdx import topology
from emu.tdx.launch import ORDERS
from emu.tdx.params import TdParams
from emu.vmm.devices.clock import EPOCH
from formats.units import GIB, MIB, PAGE

HOST_PAGE_SIZES = LARGE_PAGES, _ = "2M", "4K"
MAX_VCPUS = 512  # more than the 300 at which tables and loops outgrow a byte; each costs host memory
MODULES = MODULE_1_5_01, MODULE_NEWER = "1.5.01", "newer"
MIN_MEMORY, MAX_MEMORY = 16 * MIB, 1 << 46  # a power of 2 that GPAW 48 has room for


@dataclass(frozen=True)
class RunConfig:
    """One run. Sizes in bytes; `host_page_size` 4K makes 2 MiB accepts mismatch; instructions of the symbols
    in `skip_count` are counted separately.
    """

    image: bytes
    image_name: str
    memory: int = 2 * GIB
    vcpus: int = 1
    apic_ids: str = ""  # see emu.tdx.topology
    vmm: str = "td-shim-spec"  # see emu.vmm.choose
    module: str = MODULE_1_5_01  # the TDX module, one of MODULES
    kernel: bytes | None = None
    initrd: bytes | None = None
    cmdline: str = ""
    until: str = "handoff"  # see emu.ending
    mrtd_order: str = "single-pass"
    elf: Path | None = None
    host_page_size: str | None = None  # of private memory; None: as the host of that VMM maps it
    hob: bytes | None = None  # instead of the VMM's own TD HOB; the RAM it claims is given
    max_instructions: int = 20_000_000_000  # of one vCPU
    skip_count: tuple[str, ...] = ()
    td: TdParams = field(default_factory=TdParams)  # TD_PARAMS but for `vcpus`, which are those above
    seed: int = 0  # of the order in which vCPUs take turns
    rtc: str = EPOCH.isoformat()  # what the clock shows at the start
    stdin: bytes = b""  # what the serial port receives
    map_gpa_retry: bool = False  # MapGPA does 2 MiB at a time and answers RETRY
    script: Path | None = None  # a file of functions that watch and change what the VMM does (emu.vmm.script)

    @property
    def params(self) -> TdParams:
        """TD_PARAMS of the run."""
        return replace(self.td, vcpus=self.vcpus)

    def check(self) -> None:
        """EmuError: what no run can have, in one line."""
        if self.mrtd_order not in ORDERS:
            raise EmuError(f"mrtd order {self.mrtd_order!r}: expected one of {', '.join(ORDERS)}")
        if self.host_page_size not in (None, *HOST_PAGE_SIZES):
            raise EmuError(f"host page size {self.host_page_size!r}: expected 2M or 4K")
        if self.module not in MODULES:
            raise EmuError(f"module {self.module!r}: expected {' or '.join(MODULES)}")
        check_vcpus(self.vcpus)
        topology.parse(self.apic_ids, self.vcpus)
        check_memory(self.memory)
        if self.initrd is not None and self.kernel is None:
            raise EmuError("an initrd without a kernel")


def check_vcpus(number: int) -> None:
    """Can a TD have this number of vCPUs? EmuError."""
    if not 1 <= number <= MAX_VCPUS:
        raise EmuError(f"vcpus {number}: expected 1 to {MAX_VCPUS}")


def check_memory(size: int) -> None:
    """Can a TD have this much? EmuError."""
    if not MIN_MEMORY <= size <= MAX_MEMORY or size % PAGE:
        raise EmuError(f"memory: {size} bytes; a TD gets at least 16 MiB and at most 64 TiB, in whole pages")
