"""What is an expression worth? Its trust, the memory it spans, and what it may not be made of (T02 to T04,
T06)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from dsl import model
from dsl.layout import OWNED
from dsl.model import EnumRef, Expression, Provenance, Scalar, Span
from dsl.rules.state import Frame, Place, State, Thing, Value, join, least
from dsl.rules.trust import branch, refine
from dsl.rules.words import bound_hint, describe
from dsl.scope import Program
from dsl.tree import walk

TRUSTED = Provenance.TRUSTED


class ValueWalker(ABC):
    """Evaluates expressions on a state, in the order in which generated code does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = program.names
        self.assume = (
            False  # steps count as taken: the flow is not seen where it is called, or lines are missing
        )
        self.worst = 0
        self.next_frame = 0
        self.last_thing = 0
        self.places: dict[int, tuple[Place, ...]] = {}
        self.frames: list[Frame] = []
        self.region_things: dict[str, Thing] = {}
        self.told: set[object] = set()  # causes that were reported: what else comes of them is not

    @abstractmethod
    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        """Walks a call; no state if it does not come back."""

    # ---- the flow that is walked

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def key(self, variable: model.Variable) -> tuple[int, int]:
        return self.frame.number, variable.id

    def is_waived(self, variable: model.Variable) -> bool:
        return (self.frame.signature.name, variable.id) in self.program.waived.variables

    # ---- things

    def error(self, code: str, span: Span, message: str, hint: str = "") -> None:
        self.program.reporter.error(code, span, message, hint)

    def first(self, cause: object) -> bool:
        """Whether `cause` is new; one mistake is told once, where it first does harm."""
        new = cause not in self.told
        self.told.add(cause)
        return new

    def distrust(
        self, code: str, e: Expression, wanted: Provenance, state: State, message: str, hint: str
    ) -> None:
        """Reports that `e` is worth less than `wanted`, once for all uses of what it names; from here on it
        counts as worth that."""
        cause = self._identity(e, state)
        if isinstance(e, model.Variable | model.RegionOf) and cause in state.trust:
            have = state.trust[cause]
            if have != Provenance.SHARED:  # that it is read twice is another mistake
                state.trust[cause] = Provenance(max(have.value, wanted.value))
        if cause is None or self.first((code, cause, wanted)):
            self.error(code, e.span, message, hint)

    def _identity(self, e: Expression, state: State) -> Any:
        """The same for all expressions that name the same value; None for one that is made where it
        stands."""
        match e:
            case model.Variable():
                thing = state.variables.get(self.key(e))
                return thing.id if thing is not None else self.key(e)
            case model.RegionOf():
                return self.region_things[e.name].id
            case model.FieldOf() | model.Index() | model.Slice():
                base = self._identity(e.base, state)
                return None if base is None else (base, type(e).__name__, getattr(e, "field", ""))
        return None

    def new_value(
        self, state: State, trust: Provenance, places: tuple[Place, ...], most: int | None
    ) -> Value:
        self.last_thing += 1
        thing = Thing(self.last_thing, places, most)
        self.places[thing.id] = places
        state.trust[thing.id] = trust
        return Value(trust, thing)

    def unknown_place(self) -> tuple[Place, ...]:
        self.last_thing += 1
        return (Place(self.last_thing),)

    def start(self) -> State:
        """What is known before the first step: what the VMM loaded is untrusted, what the launch measured is
        not."""
        state = State()
        p = self.program
        for section in p.sections.values():
            at_launch = section.measured or section.kind == "BFV"
            trust = TRUSTED if at_launch or section.name in p.waived.regions else Provenance.UNTRUSTED
            self._region(state, section.name, section.size, trust)
        for region in p.regions.values():
            self._region(state, region.name, region.size, TRUSTED)  # cleared by `accept`
        return state

    def _region(self, state: State, name: str, size: int | None, trust: Provenance) -> None:
        thing = self.region_things.get(name)
        if thing is None:
            value = self.new_value(state, trust, (Place(name, 0, size, exact=True),), size)
            assert value.thing is not None
            self.region_things[name] = value.thing
        else:
            state.trust[thing.id] = trust

    def now(self, value: Value, state: State) -> Value:
        """`value` when `state` is reached: a call since may have written to where it lies."""
        if value.thing is None:
            return value
        return replace(value, trust=least(value.trust, state.trust[value.thing.id]))

    def has(self, step: str, steps: frozenset[str]) -> bool:
        return self.assume or step in steps or step in self.program.waived.effects

    # ---- expressions

    def value(self, e: Expression, state: State) -> tuple[State | None, Value]:
        """The value, and the state after its calls; no state if it does not come back."""
        match e:
            case model.Literal():
                constant = e.value if isinstance(e.value, str) else int(e.value)
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
        thing = state.variables.get(key)
        if self.is_waived(e):
            if thing is not None:
                state.trust[thing.id] = TRUSTED
            return Value(TRUSTED, thing, state.constants.get(key))
        owner: int | tuple[int, int] = key if thing is None else thing.id
        return Value(state.trust.get(owner, TRUSTED), thing, state.constants.get(key))

    def _region_value(self, e: model.RegionOf, state: State) -> Value:
        if e.carved and not self.has("accepted", state.must) and self.first("accepted"):
            message = f"memory region `{e.name}` is used before RAM is accepted on every path"
            self.error("T04", e.span, message, "`accept` the RAM plan first")
        section = self.program.sections.get(e.name)
        if e.name in OWNED and section is not None:
            message = f"`{e.name}` belongs to generated code"
            self.error("T06", e.span, message, "declare a region of its own for this")
        thing = self.region_things[e.name]
        return Value(state.trust[thing.id], thing)

    def part(self, whole: Value, kind: model.Type, state: State) -> Value:
        """A field or element: worth what the whole is worth."""
        if isinstance(kind, Scalar | EnumRef):
            return Value(whole.trust)
        thing = whole.thing
        if thing is None:
            return self.new_value(state, whole.trust, self.unknown_place(), None)
        return self.new_value(state, whole.trust, tuple({Place(p.root) for p in thing.places}), thing.most)

    def _bound(self, e: Expression, state: State, what: str) -> State | None:
        after, value = self.value(e, state)
        if value.trust.value < TRUSTED.value:
            message = f"{describe(e)} is {value.trust.name.lower()}: it cannot be {what} before it is checked"
            self.distrust("T03", e, TRUSTED, after or state, message, bound_hint(e))
        return after

    def _slice(self, e: model.Slice, state: State) -> tuple[State | None, Value]:
        after, base = self.value(e.base, state)
        for bound in (e.start, e.end):
            after = self._bound(bound, after, "a bound of a slice") if after is not None else None
        base = self.now(base, after or state)
        low = e.start.value if isinstance(e.start, model.Literal) else None
        high = e.end.value if isinstance(e.end, model.Literal) else None
        thing = base.thing
        places = self.unknown_place()
        most = None
        if thing is not None:
            places = tuple(p.part(_number(low), _number(high)) for p in thing.places)
            most = thing.most
        if high is not None:
            length = max(0, int(high) - int(low or 0))
            most = length if most is None else min(most, length)
        return after, self.new_value(after or state, base.trust, places, most)

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


def _number(value: int | str | None) -> int | None:
    return None if value is None else int(value)


def calls(e: Expression) -> bool:
    """Whether something is called in `e`."""
    return any(isinstance(node, model.Call) for node in walk(e))
