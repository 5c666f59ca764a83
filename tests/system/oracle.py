"""What do the specifications alone say of a TD? Readers of struct and hashlib that share nothing with the
product.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha384
from itertools import pairwise

Read = Callable[[int, int], bytes]
PAGE = 4096
FOUR_GIB = 1 << 32

# ---- measurement


def extend(register: bytes, digest: bytes) -> bytes:
    """TDG.MR.RTMR.EXTEND: SHA-384 over the old value and the digest."""
    return sha384(register + digest).digest()


def extended(*data: bytes) -> str:
    """Hex value of a register that began as zeros and took the digest of each piece of data."""
    register = bytes(48)
    for piece in data:
        register = extend(register, sha384(piece).digest())
    return register.hex()


@dataclass(frozen=True)
class Event:
    """One entry of the event log; `register` counts from 1 = RTMR[0]."""

    register: int
    type: int
    digest: bytes
    data: bytes

    def information(self) -> tuple[str, bytes]:
        """Name and content of an EV_PLATFORM_CONFIG_FLAGS event."""
        (size,) = struct.unpack_from("<I", self.data, 16)
        assert len(self.data) == 20 + size
        return self.data[:16].rstrip(b"\0").decode(), self.data[20:]

    def blob(self) -> tuple[str, int, int]:
        """Name, address and length of an EV_EFI_PLATFORM_FIRMWARE_BLOB2 event."""
        size = self.data[0]
        name = self.data[1 : 1 + size]
        assert name.endswith(b"\0")
        address, length = struct.unpack("<QQ", self.data[1 + size :])
        return name[:-1].decode(), address, length


def cut(log: bytes) -> bytes:
    """The log without its fill; TCG PFP readers know no end mark."""
    end = log.index(b"\xff" * 8)
    assert set(log[end:]) == {0xFF}
    return log[:end]


def events(log: bytes) -> list[Event]:
    """The hashed events of a crypto-agile log with SHA-384 alone (TCG PC Client PFP, 10)."""
    index, kind, size = struct.unpack_from("<II20xI", log)
    assert (index, kind) == (0, 3)
    spec = log[32 : 32 + size]
    assert spec[:16] == b"Spec ID Event03\0"
    assert struct.unpack_from("<IHH", spec, 24) == (1, 0x000C, 48)
    found, at = [], 32 + size
    while at < len(log):
        register, kind, count, algorithm, digest, size = struct.unpack_from("<IIIH48sI", log, at)
        assert (count, algorithm) == (1, 0x000C)
        assert 1 <= register <= 4
        assert at + 66 + size <= len(log)
        found.append(Event(register, kind, digest, log[at + 66 : at + 66 + size]))
        at += 66 + size
    return found


def replay(found: list[Event]) -> tuple[str, ...]:
    """RTMR[0] to RTMR[3] that the events stand for."""
    registers = [bytes(48)] * 4
    for event in found:
        registers[event.register - 1] = extend(registers[event.register - 1], event.digest)
    return tuple(register.hex() for register in registers)


def setup_size(file: bytes) -> int:
    """How long a bzImage says that its setup part is."""
    return ((file[0x1F1] or 4) + 1) * 512


def kernel_extent(file: bytes) -> bytes:
    """What docs/event-log.md says is hashed of a bzImage: setup and protected-mode part, nothing behind."""
    return file[: setup_size(file) + struct.unpack_from("<I", file, 0x1F4)[0] * 16]


# What a host writes into a setup part (QEMU hw/i386/x86-common.c x86_load_linux): offset, size; loadflags bit
WRITTEN = ((0x1FA, 2), (0x210, 1), (0x218, 8), (0x224, 2), (0x228, 4), (0x250, 8))
LOADFLAGS, CAN_USE_HEAP = 0x211, 0x80


def unwritten(kernel: bytes) -> bytes:
    """A kernel without what a host writes into its setup part."""
    plain = bytearray(kernel)
    for at, size in WRITTEN:
        plain[at : at + size] = bytes(size)
    plain[LOADFLAGS] &= ~CAN_USE_HEAP & 0xFF
    return bytes(plain)


@dataclass(frozen=True)
class Section:
    """A TDVF metadata entry (TDVF design guide, 11)."""

    offset: int
    raw: int
    address: int
    size: int
    type: int
    attributes: int


def sections(image: bytes) -> list[Section]:
    """The metadata entries, found through the pointer at the image's end - 0x20."""
    (at,) = struct.unpack_from("<I", image, len(image) - 0x20)
    signature, length, version, count = struct.unpack_from("<4sIII", image, at)
    assert (signature, version, length) == (b"TDVF", 1, 16 + 32 * count)
    return [Section(*struct.unpack_from("<IIQQII", image, at + 16 + 32 * i)) for i in range(count)]


def mrtd(image: bytes, two_pass: bool) -> str:
    """MRTD by the TDX module's ABI: 128 bytes for a page's ADD, 128 and the chunk for each of 16 EXTENDs."""

    def add(page: int) -> bytes:
        return b"MEM.PAGE.ADD" + bytes(4) + struct.pack("<Q", page) + bytes(104)

    def measure(page: int, content: bytes) -> bytes:
        heads = (
            b"MR.EXTEND" + bytes(7) + struct.pack("<Q", page + at) + bytes(104) for at in range(0, PAGE, 256)
        )
        return b"".join(head + content[256 * i : 256 * i + 256] for i, head in enumerate(heads))

    total = sha384()
    for section in sections(image):
        content = image[section.offset : section.offset + section.raw].ljust(section.size, b"\0")
        pages = [(section.address + at, content[at : at + PAGE]) for at in range(0, section.size, PAGE)]
        steps = [(add(gpa), measure(gpa, page) if section.attributes & 1 else b"") for gpa, page in pages]
        if two_pass:
            total.update(b"".join(first for first, _ in steps) + b"".join(second for _, second in steps))
        else:
            total.update(b"".join(first + second for first, second in steps))
    return total.hexdigest()


def cpus(ids: int | Sequence[int]) -> bytes:
    """What is measured of the CPUs: how many, then the APIC id of each, as docs/event-log.md has it.

    `ids` are those of the vCPUs by index; a number: so many, whose ids are their indices.
    """
    first, *others = range(ids) if isinstance(ids, int) else ids
    return struct.pack(f"<{2 + len(others)}I", 1 + len(others), first, *sorted(others))


def hob_list(section: bytes, base: int) -> bytes:
    """The list that is measured: from the PHIT to what its EfiEndOfHobList (offset 48) names."""
    (end,) = struct.unpack_from("<Q", section, 48)
    return section[: end - base]


# ---- what the payload is given


@dataclass(frozen=True)
class BootParams:
    """The fields of a zero page that matter here (Linux Documentation/arch/x86/zero-page.rst)."""

    page: bytes

    def word(self, offset: int) -> int:
        """The u32 at an offset."""
        return int(struct.unpack_from("<I", self.page, offset)[0])

    @property
    def rsdp(self) -> int:
        """acpi_rsdp_addr."""
        return int(struct.unpack_from("<Q", self.page, 0x70)[0])

    @property
    def e820(self) -> list[tuple[int, int, int]]:
        """(start, end, type) of each entry."""
        entries = (struct.unpack_from("<QQI", self.page, 0x2D0 + 20 * i) for i in range(self.page[0x1E8]))
        return [(start, start + size, kind) for start, size, kind in entries]

    @property
    def initrd(self) -> tuple[int, int]:
        """Address and size."""
        return self.word(0x218) | self.word(0xC0) << 32, self.word(0x21C) | self.word(0xC4) << 32

    @property
    def command_line(self) -> int:
        """Its address."""
        return self.word(0x228) | self.word(0xC8) << 32


def boot_params(read: Read, address: int) -> BootParams:
    """The zero page at a GPA."""
    page = read(address, PAGE)
    assert page[0x202:0x206] == b"HdrS"
    return BootParams(page)


def text_at(read: Read, address: int) -> str:
    """The NUL-terminated text at a GPA."""
    return read(address, PAGE).split(b"\0", 1)[0].decode()


def checked(data: bytes) -> bytes:
    """ACPI: all bytes add up to zero."""
    assert sum(data) % 256 == 0
    return data


def acpi_table(read: Read, address: int) -> bytes:
    """One table by the length in its header."""
    (size,) = struct.unpack("<I", read(address + 4, 4))
    return checked(read(address, size))


def acpi_tables(read: Read, rsdp: int) -> list[tuple[int, bytes]]:
    """Address and bytes of every table that the RSDP leads to: XSDT, what it lists, the FADT's DSDT."""
    root = read(rsdp, 36)
    assert root[:8] == b"RSD PTR "
    checked(root[:20])
    checked(root)
    (xsdt,) = struct.unpack_from("<Q", root, 24)
    places = [xsdt, *(entry for (entry,) in struct.iter_unpack("<Q", acpi_table(read, xsdt)[36:]))]
    found = [(place, acpi_table(read, place)) for place in places]
    fadt = next(table for _, table in found if table[:4] == b"FACP")
    (dsdt,) = struct.unpack_from("<Q", fadt, 140)
    (low,) = struct.unpack_from("<I", fadt, 40)
    assert dsdt or low
    assert low in (0, dsdt or low)
    return [*found, (dsdt or low, acpi_table(read, dsdt or low))]


def madt_entries(table: bytes) -> list[bytes]:
    """The MADT's entries, type first, then length (ACPI 6.5, 5.2.12)."""
    found, at = [], 44
    while at < len(table):
        assert table[at + 1] >= 2
        found.append(table[at : at + table[at + 1]])
        at += table[at + 1]
    assert at == len(table)
    return found


# ---- page tables


@dataclass(frozen=True)
class Mapping:
    """Linear addresses [start, end) with one set of rights, mapped to themselves."""

    start: int
    end: int
    writable: bool
    executable: bool

    @property
    def rights(self) -> str:
        """As in a listing: r, rw, rx, rwx."""
        return "r" + "w" * self.writable + "x" * self.executable


def _leaves(
    read: Read, table: int, level: int, base: int, writable: bool, executable: bool, shared: int
) -> Iterator[Mapping]:
    span = 1 << 12 + 9 * level
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", read(table, PAGE))):
        if not entry & 1:
            continue
        start = base + index * span
        can_write, can_execute = writable and bool(entry & 2), executable and not entry >> 63
        place = entry & 0x000F_FFFF_FFFF_F000
        if level and not entry & 0x80:
            yield from _leaves(read, place, level - 1, start, can_write, can_execute, shared)
            continue
        assert place & ~(0x1000 if level else 0) & ~shared == start, f"{start:#x} is mapped to {place:#x}"
        yield Mapping(start, start + span, can_write, can_execute)


def mappings(read: Read, cr3: int, shared: int = 0) -> list[Mapping]:
    """What four-level page tables map (Intel SDM volume 3, 4.5), neighbours with equal rights joined.
    `shared`: the bit that selects the shared alias of an address, where a page may have it.
    """
    found: list[Mapping] = []
    for leaf in _leaves(read, cr3 & 0x000F_FFFF_FFFF_F000, 3, 0, True, True, shared):
        last = found[-1] if found else None
        if last and last.end == leaf.start and last.rights == leaf.rights:
            found[-1] = Mapping(last.start, leaf.end, leaf.writable, leaf.executable)
        else:
            found.append(leaf)
    return found


def rights(found: list[Mapping], start: int, end: int) -> str:
    """The one set of rights of [start, end); "none" if nothing of it is mapped, "mixed" otherwise."""
    parts = [m for m in found if m.start < end and start < m.end]
    if not parts:
        return "none"
    whole = (
        parts[0].start <= start and end <= parts[-1].end and all(a.end == b.start for a, b in pairwise(parts))
    )
    kinds = {m.rights for m in parts}
    return kinds.pop() if whole and len(kinds) == 1 else "mixed"
