"""How is ACPI Machine Language written? The few encodings that a VMM's DSDT needs (ACPI 6.5, 20.2)."""

from __future__ import annotations

import enum


def package_length(size: int) -> bytes:
    """PkgLength of `size` bytes that follow it; it counts itself."""
    if size + 1 < 1 << 6:
        return bytes((size + 1,))
    more = 1 if size + 2 < 1 << 12 else 2
    total = size + 1 + more
    return bytes((more << 6 | total & 15,)) + (total >> 4).to_bytes(more, "little")


def integer(value: int) -> bytes:
    """A constant of up to 32 bits."""
    if value < 2:
        return bytes((value,))
    for prefix, size in ((b"\x0a", 1), (b"\x0b", 2)):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    return b"\x0c" + value.to_bytes(4, "little")


def eisa_id(text: str) -> bytes:
    """A compressed EISA id like PNP0501: three letters of five bits, four hexadecimal digits."""
    a, b, c = (ord(letter) - 64 for letter in text[:3])
    return b"\x0c" + (a << 10 | b << 5 | c).to_bytes(2, "big") + bytes.fromhex(text[3:])


def name(segment: str, value: bytes) -> bytes:
    """Name (segment, value)."""
    return b"\x08" + segment.encode() + value


def string(text: str) -> bytes:
    """A string of ASCII."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def package(*values: bytes) -> bytes:
    """Package () {values}."""
    body = bytes((len(values),)) + b"".join(values)
    return b"\x12" + package_length(len(body)) + body


def buffer(data: bytes) -> bytes:
    """Buffer () {data}."""
    body = integer(len(data)) + data
    return b"\x11" + package_length(len(body)) + body


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) {terms}."""
    body = path.encode() + b"".join(terms)
    return b"\x10" + package_length(len(body)) + body


def device(segment: str, *terms: bytes) -> bytes:
    """Device (segment) {terms}; a path of two segments begins with a dot."""
    body = segment.encode() + b"".join(terms)
    return b"\x5b\x82" + package_length(len(body)) + body


def word(value: int) -> bytes:
    """Two bytes, as resources have them."""
    return value.to_bytes(2, "little")


def io(port: int, ports: int, alignment: int = 1) -> bytes:
    """IO (Decode16, port, port, alignment, ports) (ACPI 6.5, 6.4.2.5)."""
    return b"\x47\x01" + word(port) * 2 + bytes((alignment, ports))


def interrupt(number: int) -> bytes:
    """Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {number} (6.4.3.6)."""
    return b"\x89\x06\x00\x03\x01" + number.to_bytes(4, "little")


def irq(number: int) -> bytes:
    """IRQNoFlags () {number} (6.4.2.1)."""
    return b"\x22" + word(1 << number)


def memory32(base: int, size: int) -> bytes:
    """Memory32Fixed (ReadWrite, base, size) (6.4.3.4)."""
    return b"\x86\x09\x00\x01" + base.to_bytes(4, "little") + size.to_bytes(4, "little")


class Space(enum.IntEnum):
    """Resource type of an address space descriptor (6.4.3.5)."""

    MEMORY = 0
    IO = 1
    BUS = 2


_TAGS = {2: 0x88, 4: 0x87, 8: 0x8A}  # word, double word, quad word
_FIXED = 0x0C  # produces what is fixed at both ends, positive decode
_FLAGS = {Space.MEMORY: 1, Space.IO: 3, Space.BUS: 0}  # read and write; the entire range


def window(space: Space, width: int, first: int, last: int) -> bytes:
    """An address space that a bridge hands on, its numbers `width` bytes wide: WordBusNumber, WordIO,
    DWordMemory, QWordMemory (6.4.3.5).
    """
    numbers = (0, first, last, 0, last - first + 1)
    body = bytes((space, _FIXED, _FLAGS[space])) + b"".join(n.to_bytes(width, "little") for n in numbers)
    return bytes((_TAGS[width],)) + word(len(body)) + body


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate () {descriptors}; a checksum of zero is none (6.4.2.9)."""
    return buffer(b"".join(descriptors) + b"\x79\x00")
