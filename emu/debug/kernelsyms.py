"""Which symbols does a kernel have? From a System.map or from a vmlinux with its symbol table."""

from __future__ import annotations

import re
from pathlib import Path

from emu.signals import EmuError
from emu.symbols import Symbol, Symbols
from emu.symbols import read as read_elf

LINE = re.compile(r"([0-9a-fA-F]{8,16}) ([A-Za-z?]) (\S+)(?:\s+\[\S+\])?")
PER_CPU_END = 0x1000000  # addresses of per-CPU variables are offsets, not places


def parse(text: str, place: str) -> Symbols:
    """A System.map: address, type and name on each line. EmuError names the first line that is not."""
    named: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(line.strip())
        if not found:
            raise EmuError(f"{place}:{number}: neither an ELF file nor a line of a System.map: {line[:60]!r}")
        address = int(found[1], 16)
        if address >= PER_CPU_END:
            named.setdefault(address, found[3])
    starts = sorted(named)
    ends = [*starts[1:], starts[-1] + 1] if starts else []
    return Symbols(tuple(Symbol(at, end, named[at]) for at, end in zip(starts, ends, strict=True)))


def read(path: Path) -> Symbols:
    """Symbols of a System.map or a vmlinux. EmuError when it is neither or holds none."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                found = read_elf(path)
            else:
                found = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise EmuError(f"cannot read symbols {path}: {error.strerror}") from None
    if not found.symbols:
        raise EmuError(f"{path}: no symbols in it")
    return found
