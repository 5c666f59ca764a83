"""What payload does a test of the VMM's side need? A bzImage that is all header."""

from __future__ import annotations


def bzimage(size: int = 0x1A00) -> bytes:
    """A header of protocol 2.15 with two setup sectors; the rest counts up."""
    whole = bytearray(index * 7 & 0xFF for index in range(size))
    whole[0x1F1] = 2  # setup_sects
    whole[0x1F4:0x1F8] = ((size - 0x600) // 16).to_bytes(4, "little")
    whole[0x1FE:0x200] = b"\x55\xaa"
    whole[0x202:0x206] = b"HdrS"
    whole[0x206:0x208] = (0x20F).to_bytes(2, "little")
    whole[0x211] = 1  # loaded high
    whole[0x236:0x238] = (3).to_bytes(2, "little")  # 64-bit entry, above 4 GiB
    return bytes(whole)
