"""What is in a TDREPORT_STRUCT? (intel/tdx-module TDX_1.5.01, tdx_api_defs.h). The MAC can never be taken
for genuine.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from formats.quote import TD_INFO, TD_INFO_SIZE, TEE_TDX
from formats.structs import pack
from formats.tdx import status
from formats.tdx.leaves import REPORT_SIZE

MAC_STRUCT_SIZE = 256
MAC_COVERS = 224  # bytes of REPORTMACSTRUCT before its MAC
TCB_INFO_SIZE = 239
NOT_A_MAC = b"EMULATED, NO MAC"  # first half of the 32 bytes: whoever looks sees what it is
MAC_KEY = b"This key is public: reports of an emulated TD prove nothing."
CPUSVN = b"EMULATED-CPUSVN."
MRSEAM = b"EMULATED TDX MODULE, MEASURED BY NOBODY".ljust(48, b".")
TCB_SVN = bytes((5, 1)).ljust(16, b"\0")  # module 1.5, minor byte first
# Fields of TEE_TCB_INFO up to ATTRIBUTES, and TEE_TCB_SVN2: bit i for the one at byte 8 * i
VALID = 0x1FF | 1 << 16 | 1 << 17


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
        return pack(TD_INFO, **vars(self))


def mac(covered: bytes) -> bytes:
    """What stands in place of the CPU's MAC: words that say so, and a keyed digest under a public key."""
    return NOT_A_MAC + hmac.digest(MAC_KEY, covered, "sha256")[: 32 - len(NOT_A_MAC)]


def build(info: TdInfo, report_data: bytes) -> bytes:
    """The 1024 bytes that TDG.MR.REPORT writes for 64 bytes of REPORTDATA."""
    tcb = struct.pack("<Q", VALID) + TCB_SVN + MRSEAM + bytes(48) + bytes(8) + TCB_SVN
    tcb = tcb.ljust(TCB_INFO_SIZE, b"\0")
    body = info.pack()
    head = struct.pack("<BBBB12x", TEE_TDX, 0, 0, 0) + CPUSVN + hashlib.sha384(tcb).digest()
    head += hashlib.sha384(body).digest() + report_data + bytes(32)
    return (head + mac(head) + tcb).ljust(REPORT_SIZE - TD_INFO_SIZE, b"\0") + body


def verify(mac_struct: bytes) -> int:
    """TDG.MR.VERIFYREPORT: status for the first 256 bytes of a report. Only reports made here pass."""
    covered = mac_struct[:MAC_COVERS]
    if covered[16:32] != CPUSVN:
        return status.INVALID_CPUSVN
    genuine = hmac.compare_digest(mac(covered), mac_struct[MAC_COVERS:MAC_STRUCT_SIZE])
    return status.SUCCESS if genuine else status.INVALID_REPORTMACSTRUCT
