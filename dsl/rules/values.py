"""What is an expression worth? Its trust, the memory it spans, and what it may not be made of (T02 to T04,
T06)."""

from __future__ import annotations

from typing import Any

from dsl import model
from dsl.layout import OWNED
from dsl.model import EnumRef, Expression, Provenance, Scalar, Span
from dsl.rules.state import Place, State, Thing, Value, join, least
from dsl.scope import Program

TRUSTED = Provenance.TRUSTED


def describe(e: Expression) -> str:
    """How a message calls an expression."""
    match e:
        case model.Variable() | model.RegionOf():
            return f"`{e.name}`"
        case model.FieldOf():
            base = describe(e.base).strip("`")
            return f"`{base}.{e.field}`" if base != "this" else f"`{e.field}`"
        case model.Call():
            return f"what `{e.callee}` returns"
        case model.Slice() | model.Index():
            base = describe(e.base)
            return f"a part of {base}" if base != "this" else base
    return "this"


def bound_hint(e: Expression) -> str:
    """How an untrusted number becomes a trusted one."""
    if isinstance(e, model.Variable):
        return f"check it first: `require {e.name} <= LIMIT`"
    return "bind it and check it first: `let n = ...`, `require n <= LIMIT`"


class ValueWalker:
    """Evaluates expressions on a state, in the order in which generated code does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = program.names
        self.assume = (
            False  # steps count as taken: the flow is not seen where it is called, or lines are missing
        )
        self.worst = 0
        self.next_frame = 0
        self._next_thing = 0
        self.places: dict[int, Place] = {}
        self.region_things: dict[str, Thing] = {}
        self.told: set[object] = set()  # causes that were reported: what else comes of them is not

    # ---- provided by the walker

    def key(self, variable: model.Variable) -> tuple[int, int]:
        raise NotImplementedError

    def is_waived(self, variable: model.Variable) -> bool:
        raise NotImplementedError

    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        raise NotImplementedError

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

    def new_value(self, state: State, trust: Provenance, place: Place, most: int | None) -> Value:
        self._next_thing += 1
        thing = Thing(self._next_thing, place, most)
        self.places[thing.id] = place
        state.trust[thing.id] = trust
        return Value(trust, thing)

    def unknown_place(self) -> Place:
        self._next_thing += 1
        return Place(self._next_thing)

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
            value = self.new_value(state, trust, Place(name, 0, size, exact=True), size)
            assert value.thing is not None
            self.region_things[name] = value.thing
        else:
            state.trust[thing.id] = trust

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
                return after, self.part(base, e.type, after or state)
            case model.Slice():
                return self._slice(e, state)
            case model.Unary():
                after, operand = self.value(e.operand, state)
                return after, Value(operand.trust)
            case model.Binary():
                return self._binary(e, state)

    def _variable(self, e: model.Variable, state: State) -> Value:
        if self.is_waived(e):
            thing = state.variables.get(self.key(e))
            if thing is not None:
                state.trust[thing.id] = TRUSTED
            return Value(TRUSTED, thing)
        thing = state.variables.get(self.key(e))
        if thing is not None:
            return Value(state.trust.get(thing.id, TRUSTED), thing)
        return Value(state.trust.get(self.key(e), TRUSTED))

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
        place = Place(thing.place.root) if thing is not None else self.unknown_place()
        return self.new_value(state, whole.trust, place, thing.most if thing is not None else None)

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
        low = e.start.value if isinstance(e.start, model.Literal) else None
        high = e.end.value if isinstance(e.end, model.Literal) else None
        thing = base.thing
        place, most = self.unknown_place(), None
        if thing is not None:
            begin = thing.place.start + (int(low) if low is not None and thing.place.exact else 0)
            known = low is not None and high is not None and thing.place.exact
            end = thing.place.start + int(high) if high is not None and thing.place.exact else thing.place.end
            place = Place(thing.place.root, begin, end, exact=known)
            most = thing.most
        if high is not None:
            length = max(0, int(high) - int(low or 0))
            most = length if most is None else min(most, length)
        return after, self.new_value(after or state, base.trust, place, most)

    def _binary(self, e: model.Binary, state: State) -> tuple[State | None, Value]:
        from dsl.rules.trust import refine

        after, left = self.value(e.left, state)
        if after is None:
            return None, left
        if e.op in ("and", "or"):
            skipped = after.copy()
            refine(self, e.left, e.op == "and", after)
            refine(self, e.left, e.op != "and", skipped)
            taken, right = self.value(e.right, after)
            return join(skipped, taken), Value(least(left.trust, right.trust))
        after, right = self.value(e.right, after)
        return after, Value(least(left.trust, right.trust))
