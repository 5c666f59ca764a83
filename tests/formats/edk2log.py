"""A log as EDK2's OvmfPkg, GRUB and Linux's EFI stub write it in a TD, by the specifications' tables and
struct alone, and what a TD with it has in its registers.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

SPEC_ID = b"Spec ID Event03\0" + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, 0xC, 48, 0)
GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
COMMAND_LINE = "root=/dev/vda1 ro"
GRUB_LINE = f"/boot/vmlinuz {COMMAND_LINE}"
INITRD = b"an initrd of the distribution"
KERNEL = 13  # which of the entries is the kernel's


@dataclass(frozen=True)
class Entry:
    """One event: index as in the log (1 is RTMR[0]), what was hashed or else its digest."""

    index: int
    kind: int
    measured: bytes
    data: bytes
    other: bytes = b""

    @property
    def digest(self) -> bytes:
        return self.other or hashlib.sha384(self.measured).digest()

    def pack(self) -> bytes:
        head = struct.pack("<IIIH", self.index, self.kind, 1, 0xC)
        return head + self.digest + struct.pack("<I", len(self.data)) + self.data


def whole(index: int, kind: int, data: bytes) -> Entry:
    return Entry(index, kind, data, data)


def variable(name: str, value: bytes) -> bytes:
    return GLOBAL + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def image(path: str) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT with a path of one file."""
    text = path.encode("utf-16-le") + b"\0\0"
    nodes = struct.pack("<BBH", 4, 4, 4 + len(text)) + text + struct.pack("<BBH", 0x7F, 0xFF, 4)
    return struct.pack("<QQQQ", 0x7B00_0000, 0x1_0000, 0, len(nodes)) + nodes


def tag(number: int, text: bytes) -> bytes:
    return struct.pack("<II", number, len(text)) + text


ENTRIES = (
    Entry(1, 0x8000000B, b"the TD HOB", b"\x09TdxTable\0" + struct.pack("<Q", 1) + bytes(24)),
    Entry(1, 0x8000000A, b"the CFV", b"\x29Fv(XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX)\0" + bytes(16)),
    whole(1, 0x80000001, variable("SecureBoot", b"\0")),
    whole(1, 0x80000001, variable("PK", b"")),
    whole(1, 4, bytes(4)),
    Entry(1, 0xA, b"the DSDT", b"ACPI DATA"),
    Entry(1, 0x80000002, b"\0\0", variable("BootOrder", b"\0\0")),
    whole(2, 0x80000007, b"Calling EFI Application from Boot Option"),
    whole(2, 4, bytes(4)),
    Entry(2, 0x80000003, b"shim", image("\\EFI\\BOOT\\BOOTX64.EFI")),
    Entry(3, 0xD, b"", b"MokList\0"),
    Entry(3, 0xD, b"linux /boot/vmlinuz", b"grub_cmd: linux /boot/vmlinuz\0"),
    Entry(3, 0xD, GRUB_LINE.encode(), b"kernel_cmdline: " + GRUB_LINE.encode() + b"\0"),
    Entry(2, 0x80000003, b"a kernel", image("\\vmlinuz")),
    Entry(3, 6, (COMMAND_LINE + "\0").encode("utf-16-le"), tag(0x8F3B22ED, b"LOADED_IMAGE::LoadOptions\0")),
    Entry(3, 6, INITRD, tag(0x8F3B22EC, b"Linux initrd\0")),
    whole(2, 0x80000007, b"Exit Boot Services Invocation"),
    whole(2, 0x80000007, b"Exit Boot Services Returned with Success"),
)
AREA = 0x10000


def log(entries: tuple[Entry, ...] = ENTRIES) -> bytes:
    """The log area, with zeros behind as OVMF leaves it."""
    first = struct.pack("<II20sI", 1, 3, bytes(20), len(SPEC_ID)) + SPEC_ID
    return (first + b"".join(entry.pack() for entry in entries)).ljust(AREA, b"\0")


def registers(entries: tuple[Entry, ...] = ENTRIES) -> list[bytes]:
    """RTMR[0] to RTMR[3] after these events."""
    found = [bytes(48)] * 4
    for entry in entries:
        found[entry.index - 1] = hashlib.sha384(found[entry.index - 1] + entry.digest).digest()
    return found


def quote(rtmr: list[bytes]) -> bytes:
    """A quote of version 4 that states these registers."""
    head = struct.pack("<HHI4x16s20x", 4, 2, 0x81, b"vendor of the QE")
    return head + bytes(136) + b"m" * 48 + bytes(144) + b"".join(rtmr) + bytes(64) + struct.pack("<I", 0)
