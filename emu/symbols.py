"""Which symbol and source line does an address belong to? Read from an ELF with DWARF beside the image,
if there is one.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from emu.signals import EmuError


@dataclass(frozen=True)
class Symbol:
    """A named range of linear addresses."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class Symbols:
    """Symbols by address, and the ELF they are from; both empty without one."""

    symbols: tuple[Symbol, ...] = ()
    elf: bytes = b""

    @cached_property
    def lines(self) -> list[tuple[int, str]]:
        """Source lines by address, read when one is asked for: of most runs none is."""
        return _lines(self.elf)

    def name(self, address: int) -> str:
        """symbol+0xoffset, or an empty text."""
        at = bisect.bisect_right(self.symbols, address, key=lambda s: s.start) - 1
        if at < 0 or address >= self.symbols[at].end:
            return ""
        symbol = self.symbols[at]
        offset = address - symbol.start
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def source(self, address: int) -> str:
        """file:line, or an empty text."""
        if not self.name(address):
            return ""
        at = bisect.bisect_right(self.lines, address, key=lambda line: line[0]) - 1
        return self.lines[at][1] if at >= 0 else ""

    def ranges(self, names: tuple[str, ...]) -> list[tuple[int, int]]:
        """Address ranges of symbols with these names."""
        return [(s.start, s.end) for s in self.symbols if s.name in names]


def _lines(content: bytes) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    elf = ELFFile(BytesIO(content)) if content else None
    if elf is None or not elf.has_dwarf_info():
        return found
    dwarf = elf.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        files = program["file_entry"]
        first = 0 if program["version"] >= 5 else 1
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            number = state.file - first
            if state.end_sequence or not 0 <= number < len(files):
                found.append((state.address, ""))
            else:
                found.append((state.address, f"{files[number].name.decode(errors='replace')}:{state.line}"))
    return sorted(found)


def _symbols(elf: Any) -> list[Symbol]:
    table = elf.get_section_by_name(".symtab")
    if table is None:
        return []
    named: dict[int, tuple[str, int]] = {}
    for item in table.iter_symbols():
        kind, section = item["st_info"]["type"], item["st_shndx"]
        if (
            not item.name
            or kind not in ("STT_FUNC", "STT_NOTYPE", "STT_OBJECT")
            or section in ("SHN_UNDEF", "SHN_ABS")
        ):
            continue
        start, size = int(item["st_value"]), int(item["st_size"])
        if start not in named or kind == "STT_FUNC" or size > named[start][1]:
            named[start] = (item.name, size)
    starts = sorted(named)
    ends = [*starts[1:], starts[-1] + 1] if starts else []
    return [
        Symbol(at, at + named[at][1] if named[at][1] else end, named[at][0])
        for at, end in zip(starts, ends, strict=True)
    ]


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> Symbols:
    return Symbols(tuple(_symbols(ELFFile(BytesIO(content)))), content)


def read(path: Path | None) -> Symbols:
    """Symbols of an ELF file, none when path is None. EmuError when the file is no ELF."""
    if path is None:
        return Symbols()
    try:
        return _parsed(path.read_bytes())
    except (OSError, ELFError) as error:
        raise EmuError(f"{path}: not a readable ELF file: {error}") from None
