"""How is ACPI Machine Language written? The few encodings that a VMM's DSDT needs (ACPI 6.5, 20.2)."""

from __future__ import annotations


def package_length(size: int) -> bytes:
    """PkgLength of `size` bytes that follow it; it counts itself."""
    if size + 1 < 1 << 6:
        return bytes((size + 1,))
    total = size + 2
    return bytes((0x40 | total & 15, total >> 4))


def integer(value: int) -> bytes:
    """A constant of up to 32 bits."""
    if value < 2:
        return bytes((value,))
    return b"\x0a" + bytes((value,)) if value < 256 else b"\x0c" + value.to_bytes(4, "little")


def eisa_id(text: str) -> bytes:
    """A compressed EISA id like PNP0501: three letters of five bits, four hexadecimal digits."""
    a, b, c = (ord(letter) - 64 for letter in text[:3])
    return b"\x0c" + (a << 10 | b << 5 | c).to_bytes(2, "big") + bytes.fromhex(text[3:])


def name(segment: str, value: bytes) -> bytes:
    """Name (segment, value)."""
    return b"\x08" + segment.encode() + value


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
    """Device (segment) {terms}."""
    body = segment.encode() + b"".join(terms)
    return b"\x5b\x82" + package_length(len(body)) + body


def resources(port: int, ports: int, irq: int) -> bytes:
    """ResourceTemplate () {IO (Decode16, ...), IRQNoFlags () {irq}} (ACPI 6.5, 6.4.2)."""
    place = port.to_bytes(2, "little")
    return buffer(
        b"\x47\x01"
        + place
        + place
        + bytes((1, ports))
        + b"\x22"
        + (1 << irq).to_bytes(2, "little")
        + b"\x79\0"
    )
