"""Where did the instructions go? Exact counts by symbol, from the native core's counts by block."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.observe import Observer
from emu.symbols import Symbols
from formats import tdvf

if TYPE_CHECKING:
    from emu.machine import Ending, Machine
    from emu.vcpu import Vcpu

# Linear addresses of a Linux kernel (Documentation/arch/x86/x86_64/mm.rst)
KERNEL, MODULES, UPPER_HALF = 0xFFFFFFFF80000000, 0xFFFFFFFFA0000000, 1 << 63


@dataclass(frozen=True)
class Row:
    """Instructions that all vCPUs executed under one name."""

    name: str
    instructions: int
    share: float  # of all


@dataclass(frozen=True)
class Counted:
    """Straight-line code and how many instructions were executed there."""

    begin: int
    end: int
    instructions: int
    mode: int


def region(address: int, image: tuple[int, int], ram_end: int) -> str:
    """What code without a symbol is called."""
    if image[0] <= address < image[1]:
        return "[firmware]"
    if address >= UPPER_HALF:
        if address < KERNEL:
            return "[kernel, outside its image]"
        return "[kernel]" if address < MODULES else "[kernel modules]"
    return "[payload before the kernel proper]" if address < ram_end else "[user]"


class Namer:
    """Names of addresses; remembers where each named range ends."""

    def __init__(self, tables: tuple[Symbols, ...], image: tuple[int, int], ram_end: int) -> None:
        self.tables, self.image, self.ram_end = tables, image, ram_end

    def name(self, address: int) -> str:
        """Symbol, or region in brackets."""
        for table in self.tables:
            at = bisect.bisect_right(table.symbols, address, key=lambda s: s.start) - 1
            if at >= 0 and address < table.symbols[at].end:
                return table.symbols[at].name
        return region(address, self.image, self.ram_end)


def attribute(counted: list[Counted], namer: Namer, starts: Callable[[Counted], list[int]]) -> Counter[str]:
    """Instructions by name. Code that spans two names is split; `starts` tells where instructions begin."""
    found: Counter[str] = Counter()
    for item in counted:
        first = namer.name(item.begin)
        if first == namer.name(item.end - 1):
            found[first] += item.instructions
            continue
        places = starts(item) or [item.begin]
        times, rest = divmod(item.instructions, len(places))
        for place in places:
            found[namer.name(place)] += times
        found[first] += rest
    return +found


def read_counted(vcpu: Vcpu) -> list[Counted]:
    """What the native core counted on one vCPU so far."""
    room = vcpu.lib.td_profile_read(vcpu.handle, vcpu.ffi.NULL, 0)
    out = vcpu.ffi.new("td_counted[]", max(room, 1))
    filled = min(room, vcpu.lib.td_profile_read(vcpu.handle, out, room))
    rows = ((int(c.begin), int(c.end), int(c.instructions), int(c.mode)) for c in out[0:filled])
    return [Counted(*row) for row in rows if row[2]]


def instruction_starts(vcpu: Vcpu, code: Counted) -> list[int]:
    """Addresses of the instructions in a range, empty when its code cannot be read."""
    begin, end = code.begin, code.end
    out = vcpu.ffi.new("uint8_t[]", end - begin + 16)
    if not vcpu.lib.td_read_linear(vcpu.handle, begin, out, end - begin):
        return []
    found, at = [], 0
    while at < end - begin:
        length = int(vcpu.lib.td_insn_length(out + at, end - begin - at, code.mode or 64))
        if length <= 0:
            break
        found.append(begin + at)
        at += length
    return found


class Profile(Observer):
    """Counts from the start of the run; `rows` is filled at its end."""

    def __init__(self, kernel: Symbols | None = None) -> None:
        self.kernel = kernel
        self.rows: list[Row] = []

    def on_start(self, machine: Machine) -> None:
        for vcpu in machine.vcpus:
            vcpu.lib.td_profile_start(vcpu.handle)

    def on_end(self, machine: Machine, ending: Ending) -> None:
        tables = (machine.symbols, self.kernel) if self.kernel else (machine.symbols,)
        code = [s for s in machine.launch.sections if s.type == tdvf.SectionType.BFV]
        image = (min(s.address for s in code), 1 << 32) if code else (0, 0)
        namer = Namer(tables, image, machine.launch.ram[-1][1])
        total: Counter[str] = Counter()
        for vcpu in machine.vcpus:

            def starts(code: Counted, of: Vcpu = vcpu) -> list[int]:
                return instruction_starts(of, code)

            total += attribute(read_counted(vcpu), namer, starts)
        everything = total.total() or 1
        self.rows = [Row(name, n, n / everything) for name, n in total.most_common()]
