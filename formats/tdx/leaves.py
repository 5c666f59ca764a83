"""Which functions does the TDX module offer to a guest? Leaf numbers of TDCALL, RAX bits 15:0.

Source: Intel TDX Module 1.5 ABI, guest-side interface functions; intel/tdx-module TDX_1.5.01, tdx_api_defs.h.
"""

from __future__ import annotations

from enum import IntEnum


class Leaf(IntEnum):
    """TDG.VP.VMCALL is VP_VMCALL, and so on."""

    VP_VMCALL = 0
    VP_INFO = 1
    MR_RTMR_EXTEND = 2
    VP_VEINFO_GET = 3
    MR_REPORT = 4
    VP_CPUIDVE_SET = 5
    MEM_PAGE_ACCEPT = 6
    VM_RD = 7
    VM_WR = 8
    VP_RD = 9
    VP_WR = 10
    SYS_RD = 11
    SYS_RDALL = 12
    SERVTD_RD = 18
    SERVTD_WR = 20
    MR_VERIFYREPORT = 22
    MEM_PAGE_ATTR_RD = 23
    MEM_PAGE_ATTR_WR = 24
    VP_ENTER = 25
    VP_INVEPT = 26
    VP_INVVPID = 27


LEAF_NAMES = {int(leaf): f"TDG.{leaf.name.replace('_', '.')}" for leaf in Leaf}

RTMRS = 4  # TDG.MR.RTMR.EXTEND: RTMR[0] to RTMR[3]
RTMR_DATA_SIZE, RTMR_DATA_ALIGN = 48, 64  # the same: an SHA-384 digest, 64-byte aligned
REPORT_SIZE, REPORT_DATA_SIZE = 1024, 64  # TDG.MR.REPORT: the report, REPORTDATA; aligned to their sizes
GPAW_MASK = 0x3F  # TDG.VP.INFO: RCX bits 5:0
