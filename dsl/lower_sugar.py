"""Which primitives do `measure`, `accept`, `handoff`, `print` and their like call? Statements that stand for
calls whose errors propagate."""

from __future__ import annotations

from dataclasses import replace

from dsl import model, tree
from dsl.constants import number_of
from dsl.diagnostics import did_you_mean, join_words
from dsl.lower_choice import ChoiceLowerer
from dsl.lower_operator import U64_MAX
from dsl.model import Bytes, Never, Statement, Unit
from formats.units import LARGE_PAGE, MIB, PAGE

LEVELS = ("error", "warning", "info", "debug")  # of `print`, most important first
DEFAULT_LEVEL = "info"
PAGES = {PAGE: "LEVEL_4K", LARGE_PAGE: "LEVEL_2M"}


class SugarLowerer(ChoiceLowerer):
    """Lowers the statements that stand for calls of primitives. Every method returns None after an error."""

    def sugar(
        self, callee: tree.Name, arguments: tuple[tree.Expression, ...], s: tree.Statement
    ) -> model.Call | None:
        """A call whose errors propagate without being asked to."""
        primitive = self.names.primitives[callee.text]
        return self.call_named(callee, arguments, primitive.fallible, s.span)

    def named(
        self, prefix: str, kind: tree.Name, arguments: tuple[tree.Expression, ...], s: tree.Statement
    ) -> list[Statement] | None:
        """`measure ... as KIND(...)` and `handoff KIND(...)` call the primitive of that name."""
        kinds = [n.removeprefix(prefix) for n in self.names.primitives if n.startswith(prefix)]
        if kind.text not in kinds:
            hint = did_you_mean(kind.text, kinds) or f"the kinds are {join_words(kinds, 'and')}"
            self.error("N01", kind.span, f"`{prefix[:-1]}` has no kind `{kind.text}`", hint)
            return None
        return self.effect(self.sugar(tree.Name(prefix + kind.text, kind.span), arguments, s))

    def measure(self, s: tree.Measure) -> list[Statement] | None:
        done = self.named("measure_", s.kind.callee, (s.subject, s.rtmr, *s.kind.arguments), s)
        if done is None or not s.optional:
            return done
        (statement,) = done
        assert isinstance(statement, model.Do)
        assert isinstance(statement.value, model.Call)
        if not isinstance(statement.value.arguments[0].type, Bytes):
            self.error("E01", s.subject.span, "only bytes can be empty", "leave `unless empty` out")
            return None
        return [model.Do(replace(statement.value, unless_empty=True), s.span)]

    def accept(self, s: tree.Accept) -> list[Statement] | None:
        whole = tree.Number(U64_MAX, s.span)
        bound = s.limit.limit if isinstance(s.limit, tree.Lazily) else s.limit
        limit: tree.Expression = whole if isinstance(bound, tree.Ranges | None) else bound
        left_out = self.left_out(s, bound) if isinstance(bound, tree.Ranges) else []
        if left_out is None:
            return None
        word = PAGES.get(s.page.value) if s.page else "LEVEL_2M"
        if word is None:
            assert s.page is not None
            self.error("E06", s.page.span, "pages are 4 KiB or 2 MiB")
            return None
        if limit is not whole:
            lowered = self.lower(limit)
            value = lowered.value if isinstance(lowered, model.Literal) else None
            if isinstance(value, int) and value < MIB:
                self.below_a_mib(value, limit, "write `up to 256 MiB`")
                return None
        if isinstance(s.limit, tree.Lazily):
            lazily = self.effect(self.sugar(tree.Name("leave_lazily", s.span), (s.plan, limit), s))
            if lazily is None:
                return None
            left_out, limit = lazily, whole
        level = tree.Name(word, s.span)
        callee = tree.Name("accept_on_all_vcpus" if s.all_vcpus else "accept", s.span)
        accept = self.effect(self.sugar(callee, (s.plan, limit, level), s))
        return None if accept is None else [*left_out, *accept]

    def below_a_mib(self, value: int, written: tree.Expression, otherwise: str) -> None:
        """Reports a bound that is most likely a number of MiB without its unit."""
        meant = isinstance(written, tree.Number) and value
        hint = f"did you mean `{value} MiB`?" if meant else otherwise
        self.error("E06", written.span, f"{value} bytes is less than a MiB", hint)

    def left_out(self, s: tree.Accept, ranges: tree.Ranges) -> list[Statement] | None:
        """What lies between the ranges is taken out of the plan before all of it is accepted."""
        bounds = [number_of(b, self.names.constants, self.program.reporter) for b in ranges.bounds]
        numbers = [b for b in bounds if b is not None]
        if len(numbers) != len(bounds):
            return None
        for number, place in zip(numbers, ranges.bounds, strict=True):
            if 0 < number < MIB:  # what lies below 1 MiB is accepted in any case
                self.below_a_mib(number, place, "write `from 0 to 256 MiB`")
                return None
        for before, after, place in zip(numbers, numbers[1:], ranges.bounds[1:], strict=False):
            if after <= before:
                self.error("E06", place.span, "ranges of memory ascend, and none is empty")
                return None
        edges = [0, *numbers, U64_MAX]
        gaps = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
        calls = [
            self.sugar(
                tree.Name("leave_out", s.span),
                (s.plan, tree.Number(start, ranges.span), tree.Number(end, ranges.span)),
                s,
            )
            for start, end in gaps
        ]
        return None if None in calls else [model.Do(call, s.span) for call in calls if call is not None]

    def print_(self, s: tree.Print) -> list[Statement] | None:
        """A call for each part; nothing if the level is above that of the firmware."""
        calls = [
            self.sugar(tree.Name("print_hex", s.span), (part.number,), s)
            if isinstance(part, tree.Hexadecimal)
            else self.sugar(tree.Name("print", s.span), (part,), s)
            for part in s.parts
        ]
        if None in calls:
            return None
        if s.level and LEVELS.index(s.level) > LEVELS.index(self.program.log_level):
            self.program.suppressed.leave_out(self.signature.name, s.span, tuple(calls))
            return []
        return [model.Do(call, s.span) for call in calls if call is not None]

    def effect(self, call: model.Call | None) -> list[Statement] | None:
        if call is None:
            return None
        pure = not call.is_flow and self.names.pure(call.callee)
        if pure and not isinstance(call.type, Unit | Never):
            hint = f"bind it: `let x = {call.callee}(...)`"
            self.error("T08", call.span, f"the result of `{call.callee}` is dropped", hint)
        return [model.Do(call, call.span)]
