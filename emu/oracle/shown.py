"""What does a kernel find when it starts? Every byte that a firmware hands over, by the name of its part."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from emu.oracle.lazy import NOTHING_LEFT, Lazy, follow
from formats import acpi, limits, linux
from formats.errors import FormatError
from formats.structs import offset_of, plain
from formats.units import PAGE

if TYPE_CHECKING:
    from emu.machine import Machine

Read = Callable[[int, int], bytes]
Range = tuple[int, int]

RSI = 6  # in encoding order
ENTRY_64 = 0x200  # of the protected-mode part: Linux Documentation/arch/x86/boot.rst, 64-bit boot protocol
# Address and size of what libkrun's code in front of a vmlinux has the kernel read, whatever boot_params say
NAMED = (
    (limits.VMLINUX_INITRD, limits.VMLINUX_INITRD_END - limits.VMLINUX_INITRD),
    (limits.VMLINUX_LINE, linux.CMDLINE_COPY_SIZE),
)
MAX_FILE = 256 << 20  # of a kernel or initrd; what is no boot_params may name any size
MAX_LINE, MAX_TABLE, MAX_TABLES = 4096, 1 << 20, 64  # more than a firmware that was checked makes

# The parts of a hand-over, in the order in which a difference is reported: what points to the others comes
# last. A kernel has no image and no HOB list, an executable none of what boot_params lead to.
PARTS = (
    "entry",
    "registers",
    "kernel",
    "image",
    "initrd",
    "command line",
    "rsdp",
    "acpi",
    "mailbox",
    "e820",
    "event log",
    "HOB list",
    "boot_params",
)
OF_EXECUTABLES = ("image", "HOB list")
REGISTERS = (
    "rflags",
    "cr0",
    "cr3",
    "cr4",
    "efer",
    "gdt_base",
    "gdt_limit",
    "idt_base",
    "idt_limit",
    "cs",
    "ss",
)


@dataclass(frozen=True)
class Shown:
    """One hand-over. `parts`: comparable values by name (of PARTS). `ranges`: where each thing that is handed
    over lies. `broken`: pointers that lead nowhere.
    """

    parts: Mapping[str, object]
    header: Mapping[str, int]  # the setup header in boot_params
    ranges: Mapping[str, Range]
    tables: tuple[tuple[int, bytes], ...]  # address and bytes of each ACPI table
    e820: tuple[tuple[int, int, int], ...]  # start, end, type
    kernel: bytes  # the protected-mode part as loaded
    initrd: bytes
    line: bytes
    log: bytes
    broken: tuple[str, ...]
    in_window: bool = False  # a vmlinux, without a setup header of its own
    lazy: Lazy = NOTHING_LEFT
    image: tuple[int, bytes] = (0, b"")  # address and bytes of an executable in memory


def gather(machine: Machine, log_area: Range | None = None, window: Range | None = None) -> Shown:
    """Reads the hand-over of a machine that stopped at the payload's first instruction. `log_area`: address
    and size of the event log, for a firmware that hands over no table that names it; `window`: of memory that
    a vmlinux was loaded into, which no header tells.
    """
    regs = machine.vcpus[0].regs

    def read(gpa: int, size: int) -> bytes:
        return machine.read_guest(gpa, min(size, MAX_FILE))

    entry, address = int(regs.rip), int(regs.gpr[RSI])
    page = read(address, PAGE).ljust(PAGE, b"\0")
    parsed = linux.SETUP_HEADER.parse(page[linux.SETUP_HEADER_OFFSET :])
    header = {name: value for name, value in parsed.items() if isinstance(value, int)}
    broken = [] if header["header"] == linux.HEADER_MAGIC else ["RSI does not point to boot_params"]
    load = window[0] if window else entry - ENTRY_64
    kernel = read(*window).rstrip(b"\0") if window else read(load, header["syssize"] * linux.SYSSIZE_UNIT)
    initrd_at = header["ramdisk_image"] | _number(page, "ext_ramdisk_image") << 32
    named_initrd, named_line = [read(*piece).rstrip(b"\0") if window else b"" for piece in NAMED]
    initrd = read(initrd_at, header["ramdisk_size"] | _number(page, "ext_ramdisk_size") << 32)
    line_at = header["cmd_line_ptr"] | _number(page, "ext_cmd_line_ptr") << 32
    line, ended, _ = read(line_at, MAX_LINE).partition(b"\0") if line_at else (b"", b"\0", b"")
    broken += [] if ended else ["the command line has no NUL"]
    rsdp = _number(page, "acpi_rsdp_addr")
    root = read(rsdp, acpi.RSDP.sizeof()) if rsdp else b""
    tables, faults = _tables(read, root) if rsdp else ((), [])
    broken += faults
    (mailbox_at, vector), log_at = wakeup(tables), log_of(tables) or log_area
    log = read(*log_at) if log_at else b""
    mailbox = read(mailbox_at, PAGE) if mailbox_at else b""
    reset_code = read(vector, PAGE - vector % PAGE) if vector else b""
    table = page[_place("e820_table")[0] :]
    count = min(_number(page, "e820_entries"), linux.E820_MAX_ENTRIES)
    entries = list(struct.iter_unpack("<QQI", table[: count * linux.E820_ENTRY.sizeof()]))
    e820 = tuple((start, start + size, kind) for start, size, kind in entries)
    lazy = follow(read, page, rsdp, e820)
    broken += lazy.broken
    ranges = {
        "boot_params": (address, address + PAGE),
        "kernel": (load, load + len(kernel)),
        "window": (load, sum(window)) if window else _window(header, load, len(kernel)),
        "initrd": (initrd_at, initrd_at + len(initrd)),
        "command line": (line_at, line_at + len(line) + 1) if line_at else (0, 0),
        "rsdp": (rsdp, rsdp + len(root)),
        "mailbox": (mailbox_at, mailbox_at + len(mailbox)),
        "reset code": (vector, vector + len(reset_code)),
        "event log": (log_at[0], sum(log_at)) if log_at else (0, 0),
        "EFI tables": lazy.area,
    }
    ranges |= {f"{_name(t)} at {at:#x}": (at, at + len(t)) for at, t in tables}
    values = (
        entry,
        (address, tuple(int(v) for v in regs.gpr), *(int(getattr(regs, name)) for name in REGISTERS)),
        (load, kernel),
        (initrd_at, initrd, named_initrd),
        (line, named_line) if window else line,
        (rsdp, root),
        tables,
        (mailbox_at, mailbox, reset_code),
        (e820, lazy) if lazy.content else e820,
        (log_at, log.rstrip(b"\xff")),
        _without(page, "acpi_rsdp_addr", "e820_entries", "e820_table"),
    )
    own = [part for part in PARTS if part not in OF_EXECUTABLES]
    parts = dict(zip(own, values, strict=True))
    return Shown(
        parts, header, ranges, tables, e820, kernel, initrd, line, log, tuple(broken), bool(window), lazy
    )


@cache
def _place(name: str) -> Range:
    """Where a field of boot_params begins and ends."""
    start = offset_of(linux.BOOT_PARAMS, name)
    fields = plain(linux.BOOT_PARAMS).subcons
    return start, start + next(int(f.sizeof()) for f in fields if f.name == name)


def _number(page: bytes, name: str) -> int:
    start, end = _place(name)
    return int.from_bytes(page[start:end], "little")


def _without(page: bytes, *names: str) -> bytes:
    """boot_params without fields that are compared on their own."""
    left = bytearray(page)
    for start, end in map(_place, names):
        left[start:end] = bytes(end - start)
    return bytes(left)


def _window(header: Mapping[str, int], load: int, size: int) -> Range:
    """Where the kernel unpacks itself to (arch/x86/boot/compressed/head_64.S)."""
    start, alignment = header["pref_address"], header["kernel_alignment"] or 1
    if header["relocatable_kernel"]:
        start = max(start, -(-load // alignment) * alignment)
    return start, start + max(header["init_size"], size)


def _name(table: bytes) -> str:
    return table[:4].decode("ascii", "backslashreplace")


def _tables(read: Read, root: bytes) -> tuple[tuple[tuple[int, bytes], ...], list[str]]:
    """Every table that an RSDP leads to: the XSDT, what it lists, the FADT's DSDT and FACS."""
    if len(root) < acpi.RSDP.sizeof() or root[:8] != acpi.RSDP_SIGNATURE or sum(root) & 0xFF:
        return (), ["there is no RSDP at the RSDP address"]
    found: dict[int, bytes] = {}
    faults: list[str] = []

    def follow(address: int, what: str) -> bytes:
        if not address or address in found or len(found) >= MAX_TABLES:
            return b""
        size = int.from_bytes(read(address + 4, 4), "little")
        data = read(address, size) if size <= MAX_TABLE else b""
        facs = what == "FACS"  # the one table without a checksum
        if len(data) < (8 if facs else acpi.HEADER.sizeof()) or (sum(data) & 0xFF and not facs):
            faults.append(f"{what} at {address:#x} is not an ACPI table")
            return b""
        found[address] = data
        return data

    xsdt = follow(int(acpi.RSDP.parse(root).xsdt_address), "the XSDT")
    body = xsdt[acpi.HEADER.sizeof() :]
    for (address,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8]):
        table = follow(address, "an entry of the XSDT")
        if table[:4] == b"FACP":
            fadt = acpi.FADT.parse(table.ljust(acpi.FADT.sizeof(), b"\0"))  # older ones are shorter
            follow(int(fadt.x_dsdt or fadt.dsdt), "the DSDT")
            follow(int(fadt.x_firmware_ctrl or fadt.firmware_ctrl), "FACS")
    return tuple(sorted(found.items())), faults


def madt(tables: tuple[tuple[int, bytes], ...]) -> list[tuple[int, Any]]:
    """Type and fields of the entries of the MADT, none if it cannot be read."""
    for _, table in tables:
        if table[:4] == b"APIC":
            try:
                return list(acpi.madt_entries(table))
            except FormatError:
                return []
    return []


def wakeup(tables: tuple[tuple[int, bytes], ...]) -> Range:
    """Addresses of the wakeup mailbox and of its reset vector; 0 for what is not there."""
    for kind, entry in madt(tables):
        if kind == acpi.MadtType.MP_WAKEUP:
            return int(entry.mailbox_address), int(getattr(entry, "reset_vector", 0))
    return 0, 0


def log_of(tables: tuple[tuple[int, bytes], ...]) -> Range | None:
    """Address and size of the event log, as the CCEL table has them."""
    for _, table in tables:
        if table[:4] == b"CCEL" and len(table) >= acpi.CCEL.sizeof():
            ccel = acpi.CCEL.parse(table)
            return int(ccel.log_area_address), min(int(ccel.log_area_length), MAX_TABLE)
    return None
