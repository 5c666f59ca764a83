"""How does a host build a TD? TDH.MNG.INIT, VP.INIT, MEM.PAGE.ADD, MR.EXTEND and MR.FINALIZE with the states
that allow them (intel/tdx-module TDX_1.5.01, op_state_lookup.c and tdh_*.c).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from emu.signals import EmuError
from emu.tdx.measure import CHUNK, AddedRegion, add_record, extend_record
from emu.tdx.params import TdParams
from formats.tdx import status
from formats.units import PAGE

LEVEL_4K = 0
ORDERS = ("single-pass", "two-pass")


class State(enum.Enum):
    """OP_STATE of a TD, as far as a launch goes."""

    UNINITIALIZED = "uninitialized"
    INITIALIZED = "initialized"
    RUNNABLE = "runnable"


@dataclass
class Td:
    """A TD while its host builds it. Every call returns a status of the module; `pages` maps the
    GPA of each page that was added to its source."""

    params: TdParams
    state: State = State.UNINITIALIZED
    pages: dict[int, AddedRegion] = field(default_factory=dict)
    vcpus: list[int] = field(default_factory=list)  # the host's RCX of every vCPU, by VCPU_INDEX
    mrtd: bytes = b""

    def __post_init__(self) -> None:
        self._digest = hashlib.sha384()

    def mng_init(self) -> int:
        """TDH.MNG.INIT: TD_PARAMS that break a rule are refused (EmuError says which)."""
        if self.state is not State.UNINITIALIZED:
            return status.OP_STATE_INCORRECT
        self.params.check()
        self.state = State.INITIALIZED
        return status.SUCCESS

    def vp_init(self, rcx: int) -> int:
        """TDH.VP.INIT: the next VCPU_INDEX; `rcx` is what the guest finds in RCX and R8."""
        if self.state is not State.INITIALIZED:
            return status.OP_STATE_INCORRECT
        if len(self.vcpus) >= (self.params.max_vcpus or self.params.vcpus):
            return status.MAX_VCPUS_EXCEEDED
        self.vcpus.append(rcx)
        return status.SUCCESS

    def _private_page(self, gpa: int, alignment: int) -> bool:
        return not gpa % alignment and not gpa >> self.params.gpaw - 1

    def page_add(self, gpa: int, source: AddedRegion, level: int = LEVEL_4K) -> int:
        """TDH.MEM.PAGE.ADD of the 4 KiB page of `source` at this GPA: MRTD takes the GPA, not the content."""
        if self.state is not State.INITIALIZED:
            return status.OP_STATE_INCORRECT
        if level != LEVEL_4K or not self._private_page(gpa, PAGE):
            return status.OPERAND_INVALID | status.RCX
        if gpa in self.pages:
            return status.EPT_ENTRY_STATE_INCORRECT | status.RCX
        self.pages[gpa] = source
        self._digest.update(add_record(gpa))
        return status.SUCCESS

    def mr_extend(self, gpa: int) -> int:
        """TDH.MR.EXTEND of the 256 bytes at a GPA of a page that was added."""
        if self.state is not State.INITIALIZED:
            return status.OP_STATE_INCORRECT
        if not self._private_page(gpa, CHUNK):
            return status.OPERAND_INVALID | status.RCX
        source = self.pages.get(gpa - gpa % PAGE)
        if source is None:  # the operand id says that the walk ended early: nothing near, so no table
            near = any(page >> 21 == gpa >> 21 for page in self.pages)
            return status.EPT_ENTRY_NOT_PRESENT | (0 if near else status.RCX)
        self._digest.update(extend_record(gpa, source.chunk(gpa - source.gpa)))
        return status.SUCCESS

    def mr_finalize(self) -> int:
        """TDH.MR.FINALIZE: MRTD is closed, the TD can run."""
        if self.state is not State.INITIALIZED:
            return status.OP_STATE_INCORRECT
        if not self.vcpus:
            return status.NO_VCPUS
        self.mrtd, self.state = self._digest.digest(), State.RUNNABLE
        return status.SUCCESS

    def vp_enter(self, index: int) -> int:
        """Whether TDH.VP.ENTER would run this vCPU."""
        if self.state is not State.RUNNABLE:
            return status.OP_STATE_INCORRECT
        return status.SUCCESS if index < len(self.vcpus) else status.OPERAND_INVALID | status.RCX


def _must(result: int, what: str) -> None:
    if result != status.SUCCESS:
        raise EmuError(f"{what}: the TDX module answers {result:#018x}")


def build(
    params: TdParams, regions: Iterable[AddedRegion], hob_address: int, order: str = "single-pass"
) -> Td:
    """A TD as its VMM launches it, one host call after another. Order "single-pass": each page is added and
    extended before the next (mainline KVM); "two-pass": a region's pages are all added, then all extended
    (out-of-tree KVM of the 8.2 era). EmuError: which call the module refuses.
    """
    if order not in ORDERS:
        raise EmuError(f"unknown MRTD order {order!r}: expected one of {', '.join(ORDERS)}")
    td = Td(params)
    _must(td.mng_init(), "TDH.MNG.INIT")
    for index in range(params.vcpus):
        _must(td.vp_init(hob_address), f"TDH.VP.INIT of vCPU {index}")
    for region in regions:
        addresses = range(region.gpa, region.gpa + region.length, PAGE)
        for gpa in addresses:
            if result := td.page_add(gpa, region):
                _must(result, f"TDH.MEM.PAGE.ADD of GPA {gpa:#x}")
            if region.measured and order == "single-pass":
                _extend(td, gpa)
        if region.measured and order == "two-pass":
            for gpa in addresses:
                _extend(td, gpa)
    _must(td.mr_finalize(), "TDH.MR.FINALIZE")
    return td


def _extend(td: Td, page: int) -> None:
    for gpa in range(page, page + PAGE, CHUNK):
        if result := td.mr_extend(gpa):
            _must(result, f"TDH.MR.EXTEND of GPA {gpa:#x}")
