"""What may follow from an error that is handled? The rules of `try` (T01, and steps not gone on from)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dsl import model
from dsl.rules.calls import CallRules
from dsl.rules.paths import Paths, Ways
from dsl.rules.state import Frame, State, Value, join
from dsl.rules.values import can_fail
from dsl.rules.words import depends, describe
from dsl.scope import Program
from dsl.tree import walk


class TryRules(CallRules):
    """Walks a `try`: its call, its body, and each handler from wherever the call may have failed."""

    def __init__(
        self, program: Program, flows: Mapping[str, model.Flow], disabled: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(program, disabled)
        self.flows = flows
        self.paths = Paths(flows, program.names.primitives)
        calls = [node for node in walk(tuple(flows.values())) if isinstance(node, model.Call)]
        effects = [self.names.effects[call.callee] for call in calls if not call.is_flow]
        self.anywhere = frozenset(step for each in effects for step in each.steps)

    @abstractmethod
    def block(self, statements: tuple[model.Statement, ...], state: State | None) -> State | None:
        """Walks statements; the state behind them, None if no path gets there."""

    def bind(self, variable: model.Variable, value: Value, state: State) -> None:
        key = self.key(variable)
        if value.object is None:
            state.set_number(key, value)
            return
        state.variables[key] = value.object
        state.constants.pop(key, None)

    def try_(self, s: model.Try, state: State) -> State | None:
        outer = self.frame
        attempt = Frame(outer.signature, outer.number)
        self.frames[-1] = attempt
        before = state.copy()
        if any(self.paths.goes_on(handler.body) for handler in s.handlers):
            self.survivable.add(id(s.call))
        after, value = self.value(s.call, state)
        self.frames[-1] = outer
        failed = join(before, attempt.failed)
        assert failed is not None
        if any(can_fail(a) for a in s.call.arguments):  # their errors are not this statement's
            outer.fails(attempt.failed)
        outer.doubts += attempt.doubts
        if after is not None and s.variable is not None:
            self.bind(s.variable, value, after)
        with self.handled(s, attempt, failed):
            joined = self.block(s.body, after) if after is not None or s.body else None
            for handler in s.handlers:
                with self.way(self.paths.goes_on(handler.body), self.leads(s, attempt, handler)):
                    joined = join(joined, self.block(handler.body, failed.copy()))
        if joined is not None and any(d.refusal for d in attempt.doubts[attempt.argued :]):
            goes_on = (self.paths.goes_on(handler.body) for handler in self._refusing(s))
            joined.forget(before.trust if any(goes_on) else {})
        return joined

    @contextmanager
    def handled(self, s: model.Try, attempt: Frame, failed: State) -> Iterator[None]:
        """What may not be decided by an error, or be gone on from. Whether the VMM makes a call fail is not
        recorded either: until all ways are one again, the flow takes no step and sets no trusted number."""
        going_on = [handler for handler in s.handlers if self.paths.goes_on(handler.body)]
        doubts = attempt.doubts[attempt.argued :] if going_on else []
        for doubt in [d for d in doubts if not d.refusal][:1]:
            cause = describe(doubt.culprit)
            message = f"the flow decides by an error of `{s.call.callee}`, which depends on {cause}"
            hint = "measure it first, or let every path of every handler end with `fail`"
            self.error("error decides", s.call.span, message, hint)
        if going_on:
            self.abandons(s.call, failed)
        depth = len(self.refusals)
        if any(handler in going_on for handler in self._refusing(s)):
            self.refusals += [d.refusal for d in doubts if d.refusal][:1]
        yield
        ways = [self.paths.block(block) for block in (s.body, *(handler.body for handler in s.handlers))]
        if not any(Ways.RETURNS in way for way in ways):
            del self.refusals[depth:]

    def leads(self, s: model.Try, attempt: Frame, handler: model.Handler) -> str:
        """Which unrecorded cause may lead to the handler, if any."""
        for doubt in attempt.doubts[attempt.argued :]:
            if doubt.refusal is None:
                return depends(doubt.culprit)
            if handler in self._refusing(s):
                return f"an error of `{doubt.refusal.callee}`"
        return ""

    def _refusing(self, s: model.Try) -> tuple[model.Handler, ...]:
        """The handlers to which a refusal of the VMM may lead; a flow may give it any number."""
        if s.call.is_flow:
            return s.handlers
        errors = self.names.primitives[s.call.callee].errors
        open_ = {self.names.errors[e].number for e in errors if e in self.names.refusals}
        found = []
        for handler in s.handlers:
            caught = open_ & set(handler.errors) if handler.errors else open_
            found += [handler] if caught else []
            open_ -= caught
        return tuple(found)
