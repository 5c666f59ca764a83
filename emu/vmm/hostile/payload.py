"""How can a kernel, an initrd bundle or a command line lie? Changes that know the setup header's fields."""

from __future__ import annotations

from random import Random

from formats import bundle, linux
from formats.structs import offset_of, size_of
from formats.units import PAGE

# Fields of the setup header (formats/linux.py), and values that hurt.
WORDS = (0, 1, 0xFFF, 0x1000, 0x1FFFFF, 0x200000, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF)
FIELDS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("setup_sects", (0, 1, 2, 3, 4, 31, 63, 64, 127, 255)),
    ("syssize", (0, 1, 0x1F, 0x20, 0x21, 0x40, 0xFFFFF, 0x100000, 0x0FFFFFFF, 0xFFFFFFFF)),
    ("boot_flag", (0, 0x55AA)),
    ("jump", (0, 0x62EB, 0x63EB, 0x66EB, 0x8EEB, 0x8FEB, 0xFFEB, 0x6AE9)),
    ("header", (0, 0x53726449)),
    ("version", (0, 0x0200, 0x020B, 0x020C, 0x0FFF, 0xFFFF)),
    ("loadflags", (0, 1, 3, 0x81, 0xFF)),
    ("initrd_addr_max", WORDS),
    ("kernel_alignment", (*WORDS, 0x1000, 0x2000, 0x400000, 0x8000000, 0x20000000)),
    ("relocatable_kernel", (0, 0, 2, 255)),
    ("xloadflags", (0, 2, 3, 0xFFFF)),
    ("cmdline_size", (*WORDS, 3, 16)),
    ("setup_data", (PAGE, 1 << 47, (1 << 64) - 1)),
    ("pref_address", (*WORDS, 0x100000, 0xA00000, 0xA00400, 8 << 20, 0x3000000, 1 << 63)),
    ("pref_address", ((1 << 64) - PAGE, 1 << 32, 1 << 47, 0xFFFF0000, 0xFFFF7000)),
    ("init_size", (*WORDS, 0x800000, 0xF00000, 0x1000000, 0x2800000, 0xC0000000)),
    ("init_size", (0x100000, 0x200000, 0x600000)),
    # windows that end, or begin, in what the firmware has carved from the top of 64 or 128 MiB
    ("init_size", (0x2FF8000, 0x2FE0000, 0x6FF8000, 0x6FE0000)),
    ("pref_address", (0x3F00000, 0x3E00000, 0x7F00000, 0x7E00000)),
)  # fmt: skip


def _place(name: str) -> tuple[int, int]:
    """Offset in the file and size of a field; `jump` goes with the distance behind its opcode."""
    size = size_of(linux.SETUP_HEADER, name) + (name == "jump")
    return linux.SETUP_HEADER_OFFSET + offset_of(linux.SETUP_HEADER, name), size


def _initrd_lie(rng: Random, payload: bytearray) -> str:
    head = payload.find(bundle.GUID.bytes_le)
    if head < 0:
        return _field_lie(rng, payload)
    value = rng.choice((0, 1, PAGE - 1, PAGE, 16 << 20, 1 << 32, 1 << 63, (1 << 64) - 1, rng.getrandbits(24)))
    at = head + offset_of(bundle.HEADER, "initrd_size")
    payload[at : at + 8] = value.to_bytes(8, "little")
    return f"payload: the initrd has {value:#x} bytes"


def _field_lie(rng: Random, payload: bytearray) -> str:
    name, values = rng.choice(FIELDS)
    at, size = _place(name)
    value = rng.choice(values) if rng.random() < 0.85 else rng.getrandbits(8 * size)
    if at + size <= len(payload):
        payload[at : at + size] = value.to_bytes(size, "little")
    return f"payload: {name} is {value:#x}"


def _bits_lie(rng: Random, payload: bytearray) -> str:
    count = rng.randrange(1, 9)
    for _ in range(count):
        payload[rng.randrange(min(len(payload), linux.SETUP_HEADER_END_MAX))] ^= 1 << rng.randrange(8)
    return f"payload: {count} bits of the setup header flipped"


def _cut_lie(rng: Random, payload: bytearray) -> str:
    keep = rng.choice(
        (
            0,
            1,
            linux.SETUP_HEADER_OFFSET,
            0x200,
            0x26F,
            linux.SETUP_HEADER_END_MAX,
            len(payload) // 2,
            len(payload) - 1,
        )
    )
    del payload[keep:]
    return f"payload: {keep} bytes of it only"


LIES = ((_field_lie, 12), (_initrd_lie, 3), (_bits_lie, 1), (_cut_lie, 1))


def payload(rng: Random, honest: bytes) -> tuple[bytes, list[str]]:
    """One to three lies about a kernel or bundle, and their texts."""
    data, texts = bytearray(honest), []
    if not data:
        return b"", []
    for _ in range(rng.choice((1, 1, 2, 3))):
        lie = rng.choices([one for one, _ in LIES], [weight for _, weight in LIES])[0]
        if data:
            texts.append(lie(rng, data))
    return bytes(data), texts


def command_line(rng: Random, honest: bytes, size: int) -> tuple[bytes, str]:
    """Another content of a PayloadParam section of `size` bytes, and what it is."""
    text = honest.split(b"\0", 1)[0]
    match rng.randrange(7):
        case 0:
            return b"x" * size, "command line: no NUL in its section"
        case 1:
            return b"y" * (size - 1) + b"\0", "command line: as long as its section"
        case 2:
            return b"", "command line: empty"
        case 3:
            length = rng.choice((2046, 2047, 2048, 2049))
            return b"z" * length + b"\0", f"command line: {length} characters"
        case 4:
            return rng.randbytes(size), "command line: random bytes"
        case 5:
            return text + b" \xff\x1b[2J\x01\n\0", "command line: control characters"
    return text + b"\0" + rng.randbytes(size - len(text) - 1), "command line: random bytes after its NUL"
