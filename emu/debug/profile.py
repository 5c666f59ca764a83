"""Where did the instructions go? Exact counts by symbol, from the native core's counts by block."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from emu.cpu.probe import Counted
from emu.ending import Ending
from emu.observe import Observer
from emu.symbols import Symbols
from emu.view import Machine
from formats import tdvf
from formats.units import FOUR_GIB

# Linear addresses of a Linux kernel (Documentation/arch/x86/x86_64/mm.rst)
KERNEL, MODULES, UPPER_HALF = 0xFFFFFFFF80000000, 0xFFFFFFFFA0000000, 1 << 63
USER = "[user]"


@dataclass(frozen=True)
class Row:
    """Instructions that all vCPUs executed under one name."""

    name: str
    instructions: int
    share: float  # of all


def region(address: int, image: tuple[int, int], ram_end: int) -> str:
    """What code without a symbol is called."""
    if image[0] <= address < image[1]:
        return "[firmware]"
    if address >= UPPER_HALF:
        if address < KERNEL:
            return "[kernel, outside its image]"
        return "[kernel]" if address < MODULES else "[kernel modules]"
    return "[payload before the kernel proper]" if address < ram_end else "[other]"


class Namer:
    """Names of addresses; remembers where each named range ends."""

    def __init__(self, tables: tuple[Symbols, ...], image: tuple[int, int], ram_end: int) -> None:
        self.tables, self.image, self.ram_end = tables, image, ram_end

    def name(self, address: int, user: bool = False) -> str:
        """Symbol, or region in brackets. All that runs at CPL 3 has one name: no table knows programs."""
        if user:
            return USER
        for table in self.tables:
            at = bisect.bisect_right(table.symbols, address, key=lambda s: s.start) - 1
            if at >= 0 and address < table.symbols[at].end:
                return table.symbols[at].name
        return region(address, self.image, self.ram_end)


def attribute(counted: list[Counted], namer: Namer, starts: Callable[[Counted], list[int]]) -> Counter[str]:
    """Instructions by name. Code that spans two names is split; `starts` are the starts of instructions."""
    found: Counter[str] = Counter()
    for item in counted:
        first = namer.name(item.begin, item.user)
        if first == namer.name(item.end - 1, item.user):
            found[first] += item.instructions
            continue
        places = starts(item) or [item.begin]
        times, rest = divmod(item.instructions, len(places))
        for place in places:
            found[namer.name(place, item.user)] += times
        found[first] += rest
    return +found


class Profile(Observer):
    """Counts from the start of the run; `rows` is filled at its end."""

    def __init__(self, kernel: Symbols | None = None) -> None:
        self.kernel = kernel
        self.rows: list[Row] = []

    def on_start(self, machine: Machine) -> None:
        for vcpu in machine.vcpus:
            vcpu.probe.profile_start()

    def on_end(self, machine: Machine, ending: Ending) -> None:
        tables = (machine.symbols, self.kernel) if self.kernel else (machine.symbols,)
        code = [s for s in machine.launch.sections if s.type == tdvf.SectionType.BFV]
        image = (min(s.address for s in code), FOUR_GIB) if code else (0, 0)
        namer = Namer(tables, image, machine.launch.ram[-1][1])
        total: Counter[str] = Counter()
        for vcpu in machine.vcpus:
            total += attribute(vcpu.probe.profile(), namer, vcpu.probe.instruction_starts)
        everything = total.total() or 1
        self.rows = [Row(name, n, n / everything) for name, n in total.most_common()]
