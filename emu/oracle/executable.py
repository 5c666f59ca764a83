"""What does an executable find when it starts, and which file is it?

The payload HOB list, and the image in memory. `loaded` says by the formats what a file becomes at an address,
so that an image is what was measured of it, but for its relocations.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from emu.oracle.shown import REGISTERS, Range, Read, Shown, log_of, wakeup
from formats import acpi, elf, guids, hob, linux, pe
from formats.elf import DynamicTag
from formats.errors import FormatError
from formats.hob import HobType
from formats.registers import RCX, RDI, RDX, RSI, RSP
from formats.structs import unpack
from formats.units import PAGE, align_down, align_up

if TYPE_CHECKING:
    from emu.machine import Machine

MAX_HOBS, MAX_LIST = 1024, 1 << 20  # more than any list of a firmware has
MAX_IMAGE = 64 << 20
RESERVED = int(linux.E820Type.RESERVED)
CALLED = 8  # RSP modulo 16 at a function's first instruction, in both conventions


def is_entered(machine: Machine) -> bool:
    """Whether the payload that begins is an executable: a kernel gets nothing in RDI."""
    gpr = machine.vcpus[0].regs.gpr
    return bool(gpr[RDI]) and gpr[RDI] == gpr[RCX]


def gather(machine: Machine, log_area: Range | None = None) -> Shown:
    """As `shown.gather` for a kernel; what only kernels have is empty. `log_area`: address and size of the
    event log, for a firmware that hands over no table that names it.
    """
    regs, read = machine.vcpus[0].regs, machine.read_guest
    gpr = [int(value) for value in regs.gpr]
    at, load, top = gpr[RDI], gpr[RSI], gpr[RSP]
    broken = [] if gpr[RDX] == load else ["RSI and RDX are two load addresses"]
    if top % 16 != CALLED or any(read(top, 8)):
        broken.append("RSP is not that of a function that was called from nowhere")
    hobs, size = _hobs(read, at)
    if not size:
        broken.append("RDI does not point to a HOB list with an end")
    tables = []
    for place, body in _extensions(hobs, guids.HOB_ACPI_TABLE.bytes_le):
        table = body[: int.from_bytes(body[4:8], "little")]
        tables.append((place, table))
        if len(table) < acpi.HEADER.sizeof() or sum(table) & 0xFF:
            broken.append(f"the HOB at {place:#x} has no ACPI table")
    e820: list[tuple[int, int, int]] = []
    for _, body in _extensions(hobs, guids.HOB_E820_TABLE.bytes_le):
        entries = struct.iter_unpack("<QQI", body[: len(body) // 20 * 20])
        e820 += [(start, start + length, kind) for start, length, kind in entries if length]
    end = next((end for start, end, kind in e820 if kind == RESERVED and start <= load < end), load)
    if end == load:
        broken.append(f"the memory map does not reserve the image at {load:#x}")
    image = read(load, min(end - load, MAX_IMAGE))
    found = tuple(tables)
    (mailbox_at, vector), log_at = wakeup(found), log_of(found) or log_area
    log = read(*log_at) if log_at else b""
    mailbox = read(mailbox_at, PAGE) if mailbox_at else b""
    reset_code = read(vector, PAGE - vector % PAGE) if vector else b""
    ranges = {
        "HOB list": (at, at + size),
        "image": (load, end),
        "stack": (align_down(top, PAGE), top),
        "mailbox": (mailbox_at, mailbox_at + len(mailbox)),
        "reset code": (vector, vector + len(reset_code)),
        "event log": (log_at[0], sum(log_at)) if log_at else (0, 0),
    }
    parts: dict[str, object] = {
        "entry": int(regs.rip),
        "registers": (tuple(gpr), *(int(getattr(regs, name)) for name in REGISTERS)),
        "image": (load, image),
        "acpi": found,
        "mailbox": (mailbox_at, mailbox, reset_code),
        "e820": tuple(e820),
        "event log": (log_at, log.rstrip(b"\xff")),
        "HOB list": (at, read(at, size)),
    }
    return Shown(
        parts, {}, ranges, found, tuple(e820), b"", b"", b"", log, tuple(broken), image=(load, image)
    )


def _hobs(read: Read, at: int) -> tuple[list[tuple[int, int, bytes]], int]:
    """Address, type and body of each HOB, and the size of the list with its end; 0: it has none."""
    found: list[tuple[int, int, bytes]] = []
    place = at
    while len(found) < MAX_HOBS and place - at < MAX_LIST:
        head = hob.HEADER.parse(read(place, hob.HEADER.sizeof()).ljust(hob.HEADER.sizeof(), b"\0"))
        first = HobType.PHIT if place == at else head.type
        if head.length < hob.HEADER.sizeof() or head.length % hob.ALIGNMENT or head.type != first:
            break
        if head.type == HobType.END:
            return found, place + head.length - at
        body = place + hob.HEADER.sizeof()
        found.append((place, int(head.type), read(body, head.length - hob.HEADER.sizeof())))
        place += head.length
    return found, 0


def _extensions(hobs: Iterable[tuple[int, int, bytes]], guid: bytes) -> Iterator[tuple[int, bytes]]:
    """Address and data of each GUID extension of that name."""
    for place, kind, body in hobs:
        if kind == HobType.GUID_EXT and body[:16] == guid:
            yield place + hob.GUID_EXT.sizeof(), body[16:]


# ---- what a file becomes


def is_measured(image: tuple[int, bytes], known: Iterable[bytes]) -> bool:
    """Whether some file among these bytes becomes just this image at its address, with zeros behind it."""
    load, found = image
    for data in known:
        for magic in (elf.MAGIC, pe.DOS_MAGIC):
            start = data.find(magic)
            while start >= 0:
                made = loaded(data[start:], load)
                if made and made == found[: len(made)]:
                    return True
                start = data.find(magic, start + 1)
    return False


def loaded(file: bytes, load: int) -> bytes:
    """The whole pages of an executable at an address; empty if it is none."""
    try:
        return _elf(file, load) if file.startswith(elf.MAGIC) else _pe(file, load)
    except (FormatError, struct.error):
        return b""


def _elf(file: bytes, load: int) -> bytes:
    parts = elf.executable(file).segments
    if not parts:
        return b""
    base = align_down(parts[0].virtual, PAGE)
    image = bytearray(_size(max(part.virtual + part.size for part in parts) - base))
    for part in parts:
        image[part.virtual - base : part.virtual - base + len(part.data)] = part.data
    tags = dict.fromkeys(DynamicTag, 0) | _dynamic(file)
    delta = (load - base) % (1 << 64)
    start = tags[DynamicTag.RELA] - base
    for offset, info, addend in _entries("<QQQ", image, start, tags[DynamicTag.RELASZ]):
        if info & 0xFFFF_FFFF == elf.R_RELATIVE:  # above lies a symbol, which this type has no use for
            struct.pack_into("<Q", image, offset - base, (addend + delta) % (1 << 64))
    for at in _packed(image, tags[DynamicTag.RELR] - base, tags[DynamicTag.RELRSZ], base):
        _add(image, at, delta)
    return bytes(image)


def _dynamic(file: bytes) -> dict[int, int]:
    """Values of the dynamic section by their tags."""
    header = unpack(elf.HEADER, file)
    for index in range(header.program_count):
        part = unpack(elf.PROGRAM_HEADER, file, header.program_offset + index * elf.PROGRAM_HEADER.sizeof())
        if part.type == elf.PT_DYNAMIC:
            entries = _entries("<QQ", file, part.offset, part.file_size)
            before_end = takewhile(lambda entry: entry[0] != DynamicTag.NULL, entries)
            return {tag: value for tag, value in before_end}
    return {}


def _packed(image: bytearray, start: int, size: int, base: int) -> list[int]:
    """Offsets in the image of the packed relocations: gABI 5, DT_RELR."""
    found, next_at = [], 0
    for (word,) in _entries("<Q", image, start, size):
        if word & 1:
            found += [next_at + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
            next_at += 8 * 63
        else:
            found.append(word - base)
            next_at = word - base + 8
    return found


def _pe(file: bytes, load: int) -> bytes:
    if not pe.is_executable(file):
        return b""
    at = unpack(pe.DOS_HEADER, file).pe_offset
    header = unpack(pe.HEADER, file, at)
    at += pe.HEADER.sizeof()
    optional = unpack(pe.OPTIONAL, file, at)
    fixups = unpack(
        pe.DIRECTORY, file, at + pe.OPTIONAL.sizeof() + pe.Directory.RELOCATION * pe.DIRECTORY.sizeof()
    )
    at += header.optional_size
    sections = [unpack(pe.SECTION, file, at + n * pe.SECTION.sizeof()) for n in range(header.section_count)]
    ends = [part.address + (part.memory_size or part.file_size) for part in sections]
    image = bytearray(_size(max([*ends, optional.headers_size])))
    image[: optional.headers_size] = file[: optional.headers_size]
    for part in sections:
        size = min(part.file_size, part.memory_size or part.file_size)
        image[part.address : part.address + size] = file[part.offset : part.offset + size]
    delta = (load - optional.image_base) % (1 << 64)
    place, end = fixups.address, fixups.address + fixups.size
    while place < end:
        block = unpack(pe.BLOCK, bytes(image), place)
        for (entry,) in _entries("<H", image, place + pe.BLOCK.sizeof(), block.size - pe.BLOCK.sizeof()):
            if entry >> 12 == pe.FIXUP_DIR64:
                _add(image, block.page + (entry & 0xFFF), delta)
        place += max(block.size, pe.BLOCK.sizeof())
    return bytes(image)


def _size(size: int) -> int:
    """Of an image in whole pages. FormatError: more than one that is looked at."""
    if not 0 < size <= MAX_IMAGE:
        raise FormatError("image", f"{size} bytes", f"1 to {MAX_IMAGE}")
    return align_up(size, PAGE)


def _entries(layout: str, data: bytes | bytearray, start: int, size: int) -> Iterator[tuple[int, ...]]:
    """The entries of a table, as many as are whole. struct.error: it leaves the data."""
    step = struct.calcsize(layout)
    for at in range(start, start + size // step * step, step):
        if at < 0:
            raise struct.error
        yield struct.unpack_from(layout, data, at)


def _add(image: bytearray, at: int, delta: int) -> None:
    if at < 0:
        raise struct.error
    (value,) = struct.unpack_from("<Q", image, at)
    struct.pack_into("<Q", image, at, (value + delta) % (1 << 64))
