"""What is an expression worth? Its trust, the memory it spans, and what it may not be made of (T02 to T04,
T06)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from dsl import model
from dsl.layout import OWNED
from dsl.model import EnumRef, Expression, Provenance, Scalar
from dsl.rules.context import TRUSTED, Context
from dsl.rules.state import Place, State, Value, constant_place, join, least
from dsl.rules.trust import branch, refine
from dsl.rules.words import bound_hint, describe
from dsl.tree import walk


class ValueWalker(Context, ABC):
    """Evaluates expressions on a state, in the order in which generated code does."""

    @abstractmethod
    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        """Walks a call; no state if it does not come back."""

    def now(self, value: Value, state: State) -> Value:
        """`value` when `state` is reached: a call since may have written to where it lies."""
        if value.object is None:
            return value
        return replace(value, trust=least(value.trust, state.trust[value.object.id]))

    # ---- expressions

    def value(self, e: Expression, state: State) -> tuple[State | None, Value]:
        """The value, and the state after its calls; no state if it does not come back."""
        match e:
            case model.Literal():
                if isinstance(e.value, bytes) and isinstance(e.type, model.Bytes):
                    return state, self.new_value(state, TRUSTED, (constant_place(e.value),), len(e.value))
                constant = e.value if isinstance(e.value, str | int) else None
                return state, Value(TRUSTED, None, constant)
            case model.Variable():
                return state, self._variable(e, state)
            case model.RegionOf():
                return state, self._region_value(e, state)
            case model.Call():
                return self.call(e, state)
            case model.Length():
                after, _ = self.value(e.base, state)
                return after, Value(TRUSTED)  # bounded by its region, or by the list's capacity
            case model.FieldOf():
                after, base = self.value(e.base, state)
                return after, self.part(base, e.type, after or state)
            case model.Index():
                after, base = self.value(e.base, state)
                after = self._bound(e.index, after, "an index") if after is not None else None
                return after, self.part(self.now(base, after or state), e.type, after or state)
            case model.Slice():
                return self._slice(e, state)
            case model.Unary():
                after, operand = self.value(e.operand, state)
                return after, Value(operand.trust)
            case model.Binary():
                return self._binary(e, state)

    def _variable(self, e: model.Variable, state: State) -> Value:
        key = self.key(e)
        obj = state.variables.get(key)
        if self.is_suppressed(e):
            if obj is not None:
                state.trust[obj.id] = TRUSTED
            return Value(TRUSTED, obj, state.constants.get(key))
        owner: int | tuple[int, int] = key if obj is None else obj.id
        return Value(state.trust.get(owner, TRUSTED), obj, state.constants.get(key))

    def _region_value(self, e: model.RegionOf, state: State) -> Value:
        for step in self.names.steps.values() if e.carved else ():
            missing = "region" in step.texts and not self.has(step.name, state.must)
            if missing and self.first((step.name, None)):
                message, hint = step.says("region", argument=describe(e))
                self.error("carved", e.span, message, hint, step.rule)
        section = self.program.sections.get(e.name)
        if e.name in OWNED and section is not None:
            message = f"`{e.name}` belongs to generated code"
            self.error("owned", e.span, message, "declare a region of its own for this")
        obj = self.region_objects[e.name]
        return Value(state.trust[obj.id], obj)

    def part(self, whole: Value, kind: model.Type, state: State) -> Value:
        """A field or element: worth what the whole is worth."""
        if isinstance(kind, Scalar | EnumRef):
            return Value(whole.trust)
        obj = whole.object
        if obj is None:
            return self.new_value(state, whole.trust, self.unknown_place(), None)
        return self.new_value(state, whole.trust, tuple({Place(p.root) for p in obj.places}), obj.size_limit)

    def _bound(self, e: Expression, state: State, what: str) -> State | None:
        after, value = self.value(e, state)
        if value.trust.value < TRUSTED.value:
            message = f"{describe(e)} is {value.trust.name.lower()}: it cannot be {what} before it is checked"
            self.distrust("bounded index", e, TRUSTED, after or state, message, bound_hint(e))
        return after

    def _slice(self, e: model.Slice, state: State) -> tuple[State | None, Value]:
        after, base = self.value(e.base, state)
        for bound in (e.start, e.end):
            after = self._bound(bound, after, "a bound of a slice") if after is not None else None
        base = self.now(base, after or state)
        low = e.start.number if isinstance(e.start, model.Literal) else None
        high = e.end.number if isinstance(e.end, model.Literal) else None
        obj = base.object
        places = self.unknown_place()
        size_limit = None
        if obj is not None:
            places = tuple(p.part(low, high) for p in obj.places)
            size_limit = obj.size_limit
        if high is not None:
            length = max(0, high - (low or 0))
            size_limit = length if size_limit is None else min(size_limit, length)
        return after, self.new_value(after or state, base.trust, places, size_limit)

    def _binary(self, e: model.Binary, state: State) -> tuple[State | None, Value]:
        after, left = self.value(e.left, state)
        if after is None:
            return None, left
        if e.op in ("and", "or"):
            if left.trust.value < Provenance.MEASURED.value and calls(e.right):
                branch(self, e.left, after, only_fails=False)
            skipped = after.copy()
            refine(self, e.left, e.op == "and", after)
            refine(self, e.left, e.op != "and", skipped)
            taken, right = self.value(e.right, after)
            return join(skipped, taken), Value(least(left.trust, right.trust))
        after, right = self.value(e.right, after)
        return after, Value(least(left.trust, right.trust))


def calls(e: Expression) -> bool:
    """Whether something is called in `e`."""
    return any(isinstance(node, model.Call) for node in walk(e))
