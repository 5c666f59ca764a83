"""Which SMBIOS tables does the machine have? The system's name and the end (DMTF DSP0134 2.8), where QEMU's
hw/smbios/smbios.c has ten structures.
"""

from __future__ import annotations

ANCHOR_SIZE, VERSION = 31, (2, 8)
SYSTEM, END = 1, 127
WAKE_UP_POWER_SWITCH = 6
NAMES = (b"QEMU", b"Standard PC (Q35 + ICH9, 2009)", b"pc-q35-10.2")


def structure(kind: int, handle: int, fields: bytes = b"", texts: tuple[bytes, ...] = ()) -> bytes:
    """Header, fields and texts of one structure."""
    head = bytes((kind, 4 + len(fields))) + handle.to_bytes(2, "little")
    return head + fields + (b"".join(text + b"\0" for text in texts) or b"\0") + b"\0"


def tables() -> tuple[bytes, ...]:
    """The structures."""
    system = bytes((1, 2, 3, 0)) + bytes(16) + bytes((WAKE_UP_POWER_SWITCH, 0, 0))
    return structure(SYSTEM, 0x100, system, NAMES), structure(END, 0x7F00)


def anchor(structures: tuple[bytes, ...]) -> bytes:
    """The 32-bit entry point; address and checksums are left to the firmware, as QEMU does."""
    size = sum(map(len, structures))
    major, minor = VERSION
    whole = b"_SM_\0" + bytes((ANCHOR_SIZE, major, minor))
    whole += max(map(len, structures)).to_bytes(2, "little") + bytes(6)
    whole += b"_DMI_\0" + size.to_bytes(2, "little") + bytes(4) + len(structures).to_bytes(2, "little")
    return whole + bytes((major << 4 | minor,))
