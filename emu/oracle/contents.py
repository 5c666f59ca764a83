"""Which bytes may a VMM give? Command lines, initrds, kernels, and patterns where nobody measures."""

from __future__ import annotations

from random import Random

from formats import acpi, linux
from formats.structs import offset_of

LINE_SIZE = linux.SETUP_HEADER_OFFSET + offset_of(linux.SETUP_HEADER, "cmdline_size")
SAME = "initrd" * 100  # both a command line and an initrd: one may pass for the other
LINES = ("ro quiet", "", "ro quiet lockdown=integrity init=/bin/sh", "x" * 300, SAME)
INITRDS = (b"", SAME.encode(), b"I" + bytes(5000), b"\xff" * 4096, b"\xff" * len(SAME))


def pattern(number: int, size: int, kernel: bytes = b"") -> bytes:
    """Bytes that a VMM may put where nobody measures: each pattern is something that a firmware could take
    for what it looks for.
    """
    match number:
        case 0:
            return bytes(size)
        case 1:
            return b"\xff" * size
        case 2:
            unit = b"ro init=/bin/sh\0"
        case 3:
            unit = acpi.rsdp(0x1000).ljust(64, b"\0")
        case 4:
            unit = other_kernel(kernel).ljust(1 << 13, b"\0") if kernel else b"\1"
        case 5:
            unit = (1).to_bytes(8, "little")
        case 6:  # begins as zeros do
            unit = bytes(64) + b"\xff" * 64
        case _:
            return Random(number).randbytes(size)
    return (unit * (size // len(unit) + 1))[:size]


def other_kernel(kernel: bytes) -> bytes:
    """A kernel that differs in its code and in what its header says."""
    data = bytearray(changed_kernel(kernel, 2))
    data[LINE_SIZE] ^= 1
    return bytes(data)


def changed_kernel(kernel: bytes, choice: int) -> bytes:
    """The same kernel but for a byte that nothing but a measurement looks at."""
    data = bytearray(kernel)
    if choice & 1:
        data[0] ^= 1  # the boot sector's code, which no loader runs
    if choice & 2:
        data[-1] ^= 1
    return bytes(data)
