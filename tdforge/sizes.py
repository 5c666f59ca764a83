"""How does a person write a number of bytes, and how is one shown?"""

import re

from formats.units import GIB, KIB, MIB

UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": KIB * GIB}


def parse_size(text: str) -> int:
    """Bytes from `2G`, `257 MiB`, `0x1000` or `4096`; units are powers of 1024. Raises ValueError."""
    match = re.fullmatch(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*(?:([KMGT])(?:i?B)?)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number with an optional unit, such as 512M or 2G")
    return int(match[1], 0) * UNITS[(match[2] or "").upper()]


def show_size(size: int) -> str:
    """`size` bytes in the largest unit that divides it: 2 GiB, 257 MiB, 4097 bytes."""
    for unit in ("T", "G", "M", "K"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]} {unit}iB"
    return f"{size} byte{'' if size == 1 else 's'}"
