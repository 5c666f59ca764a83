"""What does a change of a flow have at hand? Its text, its statements, and the arguments of its calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from dsl.model import Bytes
from interference.expressions import Impossible
from interference.maker import Maker
from interference.scope import Place, Site, block_of

ENTRY = "boot"
# What they are given, the payload gets
SHOWN = ("zero_page", "place_linux", "place_executable", "payload_hobs")
HELPERS = ("hob_extent", "linux_extent", "initrd_extent", "text_extent", "executable_extent")
ONCE = "start_log|accept|park aps|separate|load_linux|load_executable"
STATEMENT = {
    "step": rf"({ONCE}|zero_page|payload_hobs|verify_signed)\b",
    "once": rf"({ONCE})\b|let \w+ = (plan_memory|trust_anchor)\(",
    "measure": r"measure\b",
    "handoff": r"handoff\b",
}


@dataclass
class Scene:
    """One accepted flow that is to be changed. Each change returns the new text, or raises Impossible."""

    random: Random
    maker: Maker
    text: str
    places: Sequence[Place]
    sites: Sequence[Site]

    # ---- what is there

    def place(self, before: int = 1 << 30, after: int = 0) -> Place:
        """Where a statement of the entry flow may be put, between two lines."""
        able = [p for p in self.places if p.flow.name == ENTRY and after < p.line <= before]
        if not able:
            raise Impossible
        return self.random.choice(able)

    def lines_of(self, kind: str) -> list[int]:
        """The lines (from 1) of the entry flow's own statements that begin so."""
        found = {p.line for p in self.places if p.flow.name == ENTRY}
        lines = self.text.split("\n")
        return [n for n in sorted(found) if re.match(STATEMENT.get(kind, kind), lines[n - 1].strip())]

    def pick(self, items: Sequence[int]) -> int:
        """One of them."""
        if not items:
            raise Impossible
        return self.random.choice(items)

    def arguments(self, test: Callable[[Site], bool]) -> list[Site]:
        """Whole arguments of calls in the entry flow."""
        return [s for s in self.sites if s.number >= 0 and s.flow.name == ENTRY and test(s)]

    def shown(self, kind: object = Bytes(), after: int = 0) -> Site:
        """An argument of a type, mostly of what the payload gets; never of what only measures or fills."""
        able = self.arguments(lambda s: s.type == kind and s.span.line >= after and not self.is_filled(s))
        able = [s for s in able if not s.callee.startswith(("measure_", "handoff_"))]
        if not able:
            raise Impossible
        weights = [8 if s.callee in SHOWN else 1 if s.callee not in HELPERS else 0.3 for s in able]
        return self.random.choices(able, weights)[0]

    def is_filled(self, site: Site) -> bool:
        """Whether the call writes to this argument."""
        primitive = self.maker.firmware.primitives.get(site.callee)
        if primitive is None:
            return False
        p = [p for p in primitive.parameters if not p.state][site.number]
        named = p.name in [need.parameter for need in primitive.spans] or primitive.name == "start_log"
        return p.type == Bytes() and (p.mutable or named)

    def written(self, site: Site) -> str:
        """The text of an expression."""
        line = self.text.split("\n")[site.span.line - 1]
        return line[site.span.column - 1 : site.span.end_column - 1]

    def without(self, line: int) -> str:
        """The text without the statement of a line."""
        lines = self.text.split("\n")
        block = block_of(lines, line - 1)
        return "\n".join(lines[: block.start] + lines[block.stop :])

    def statement(self, line: int) -> list[str]:
        """The lines of a statement."""
        lines = self.text.split("\n")
        block = block_of(lines, line - 1)
        return [each.strip() for each in lines[block.start : block.stop]]

    def region(self) -> str:
        """Any region, or a part of one."""
        names = [n for n in (*self.maker.sizes, *self.maker.regions)]
        name = self.random.choice(names)
        return name if self.maker.chance(0.7) else self.maker.part(name, ())
