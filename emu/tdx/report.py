"""What is in a TDREPORT_STRUCT? (intel/tdx-module TDX_1.5.01, tdx_api_defs.h). The MAC can never be taken
for genuine.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

SIZE = 1024
NOT_A_MAC = b"EMULATED TD: THIS IS NOT A MAC.."  # 32 bytes in place of the CPU's MAC
CPUSVN = b"EMULATED-CPUSVN."
MRSEAM = hashlib.sha384(b"tdforge emulated TDX module").digest()
TCB_SVN = bytes((1, 5)).ljust(16, b"\0")  # module 1.5, minor byte first


@dataclass(frozen=True)
class TdInfo:
    """The measured identity of a TD; all digests are 48 bytes."""

    attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]

    def pack(self) -> bytes:
        """TDINFO_STRUCT, 512 bytes."""
        head = struct.pack("<QQ", self.attributes, self.xfam)
        digests = (self.mrtd, self.mrconfigid, self.mrowner, self.mrownerconfig, *self.rtmr)
        return (head + b"".join(digests)).ljust(512, b"\0")


def build(info: TdInfo, report_data: bytes) -> bytes:
    """The 1024 bytes that TDG.MR.REPORT writes for 64 bytes of REPORTDATA."""
    valid = (
        0x1FF | 1 << 16 | 1 << 17
    )  # fields up to ATTRIBUTES and TEE_TCB_SVN2, bit i for the field at byte 8 * i
    tcb = struct.pack("<Q", valid) + TCB_SVN + MRSEAM + bytes(48) + bytes(8) + TCB_SVN
    tcb = tcb.ljust(239, b"\0")
    body = info.pack()
    mac = struct.pack("<BBBB12x", 0x81, 0, 0, 0) + CPUSVN + hashlib.sha384(tcb).digest()
    mac += hashlib.sha384(body).digest() + report_data + bytes(32) + NOT_A_MAC
    return (mac + tcb).ljust(512, b"\0") + body
