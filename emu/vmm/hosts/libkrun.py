"""What does libkrun put into a TD with td-shim? A vmlinux as libkrunfw flattens it, an initrd, a trampoline,
an MP table (libkrun pull request 694: src/vmm/src/linux/tee/tdshim.rs, src/vmm/src/builder.rs
measure_tdshim_regions, src/arch/src/x86_64/mptable.rs; libkrunfw bin2cbundle.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from emu.config import RunConfig
from emu.signals import EmuError
from emu.vmm.contents import Contents
from emu.vmm.devices import ioapic
from formats import acpi, elf, limits, linux
from formats.errors import FormatError
from formats.structs import offset_of
from formats.units import KIB, align_up

INITRD, COMMAND_LINE = limits.VMLINUX_INITRD, limits.VMLINUX_LINE
MP_TABLE = 0x9FC00  # arch/src/x86_64/mptable.rs
COMMAND_LINE_MAX = 0x10000
MAX_CPUS = 254  # mptable.rs MAX_SUPPORTED_CPUS
BUNDLE_MASK, BUNDLE_UNIT = 0xFFFFFFF, 64 * KIB  # bin2cbundle.py: the bundle's address and size

# Intel MultiProcessor Specification 1.4, chapter 4: entry types, and what libkrun writes into the entries
CPU, BUS, IOAPIC, INTERRUPT, LOCAL_INTERRUPT = range(5)
APIC_VERSION, ENABLED, BOOT_CPU = 0x14, 1, 2
CPU_SIGNATURE, CPU_FEATURES = 0x600, 0x201
INT, NMI, EXT_INT, ALL_CPUS = 0, 1, 3, 0xFF
ISA_INTERRUPTS = 16


def flatten(kernel: bytes) -> tuple[int, bytes, int]:
    """The bundle of a vmlinux: its address, its bytes, the entry. The first segment lies where its virtual
    address says, the others at their physical distance from it; what follows a segment's bytes is not in it.
    FormatError, EmuError: no bundle can be made.
    """
    file = elf.executable(kernel, place="libkrun: kernel")
    if not file.segments:
        raise EmuError("libkrun: kernel without a segment to load")
    load = file.segments[0].virtual & BUNDLE_MASK
    bundle = bytearray()
    for part in file.segments:
        place = part.physical - load
        if place < len(bundle) or (place and part is file.segments[0]):
            raise EmuError(f"libkrun: kernel segment at {part.physical:#x}, expected {load + len(bundle):#x}")
        bundle.extend(bytes(place - len(bundle)))
        bundle.extend(part.data)
    return load, bytes(bundle.ljust(align_up(len(bundle), BUNDLE_UNIT), b"\0")), file.entry


def trampoline(initrd_size: int) -> bytes:
    """38 bytes of code: three fields of the boot_params at RSI, then on to the code that follows."""
    fields = (("ramdisk_image", INITRD), ("ramdisk_size", initrd_size), ("cmd_line_ptr", COMMAND_LINE))
    code = b""
    for name, value in fields:
        at = linux.SETUP_HEADER_OFFSET + offset_of(linux.SETUP_HEADER, name)
        code += b"\xb8" + value.to_bytes(4, "little")  # mov eax, value
        code += b"\x89\x86" + at.to_bytes(4, "little")  # mov [rsi + at], eax
    return code + b"\xe9" + bytes(4)  # jmp to the next instruction


def mp_table(cpus: int) -> bytes:
    """Floating pointer and configuration table: CPUs, an ISA bus, the I/O APIC, its 16 interrupts."""
    io_id = cpus + 1
    entries = b""
    for index in range(cpus):
        flags = ENABLED | (0 if index else BOOT_CPU)
        entries += struct.pack("<BBBBIIQ", CPU, index, APIC_VERSION, flags, CPU_SIGNATURE, CPU_FEATURES, 0)
    entries += struct.pack("<BB6s", BUS, 0, b"ISA   ")
    entries += struct.pack("<BBBBI", IOAPIC, io_id, APIC_VERSION, ENABLED, ioapic.BASE)
    for number in range(ISA_INTERRUPTS):
        entries += struct.pack("<BBHBBBB", INTERRUPT, INT, 0, 0, number, io_id, number)
    entries += struct.pack("<BBHBBBB", LOCAL_INTERRUPT, EXT_INT, 0, 0, 0, 0, 0)
    entries += struct.pack("<BBHBBBB", LOCAL_INTERRUPT, NMI, 0, 0, 0, ALL_CPUS, 1)
    pointer_size, header = 16, "<4sHBb8s12sIHHIHBB"
    length = struct.calcsize(header) + len(entries)
    fields = (b"PCMP", length, 4, 0, b"FC      ", b"0" * 12, 0, 0, 0, acpi.LAPIC_ADDRESS, 0, 0, 0)
    table = bytearray(struct.pack(header, *fields) + entries)
    table[7] = acpi.checksum(bytes(table))
    pointer = bytearray(struct.pack("<4sIBBB5s", b"_MP_", MP_TABLE + pointer_size, 1, 4, 0, b""))
    pointer[10] = acpi.checksum(bytes(pointer))
    return bytes(pointer + table)


def load(config: RunConfig, memory: Contents, ram: Sequence[tuple[int, int]]) -> int:
    """Writes it all into low RAM and returns the entry: the trampoline's. EmuError: libkrun refuses."""
    if config.kernel is None or config.initrd is None:
        missing = "initrd" if config.kernel is not None else "kernel"
        raise EmuError(f"libkrun: no {missing}; a TD takes both from libkrunfw (MissingKernelConfig)")
    if len(config.cmdline) + 1 > COMMAND_LINE_MAX:
        raise EmuError(
            f"libkrun: a command line of {len(config.cmdline)} bytes, at most {COMMAND_LINE_MAX - 1}"
        )
    try:
        start, bundle, entry = flatten(config.kernel)
    except FormatError as error:
        raise EmuError(f"{error}; libkrunfw is made of a vmlinux") from None
    code = trampoline(len(config.initrd))
    for what, at, data in (
        ("kernel", start, bundle),
        ("initrd", INITRD, config.initrd),
        ("MP table", MP_TABLE, mp_table(config.vcpus)),
        ("trampoline", entry - len(code), code),
        ("command line", COMMAND_LINE, config.cmdline.encode() + b"\0"),
    ):
        end = at + len(data)
        if not any(low <= at and end <= high for low, high in ram):
            raise EmuError(f"libkrun: {what} {at:#x} to {end:#x} does not lie in RAM")
        memory.write(at, data)
    return entry - len(code)
