"""What does an expression give? Its trust, the memory it spans, and what it may not be made of.

Trust is computed here and nowhere else: `values` keeps what each expression gave when it was last evaluated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from dsl import model
from dsl.declare import BOOL
from dsl.fold import FOLDED, fold
from dsl.layout import OWNED, WITHIN_BFV
from dsl.model import EnumRef, Expression, Provenance, Span
from dsl.rules.context import TRUSTED, Context
from dsl.rules.state import Place, State, Value, constant_place, found, join, lowest, number
from dsl.rules.trust import decide, excludes, learn_arm, refine, unrecorded
from dsl.rules.words import bound_hint, describe, record_hint
from dsl.sizes import is_word
from dsl.tree import walk

CHECKED = number(recorded=False, bounded=True)


class ValueWalker(Context, ABC):
    """Evaluates expressions on a state, in the order in which generated code does."""

    @abstractmethod
    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        """Walks a call; no state if it does not come back."""

    def now(self, value: Value, state: State) -> Value:
        """`value` when `state` is reached: a call since may have written to where it lies."""
        if value.object is None:
            return value
        return replace(value, trust=lowest(value.trust, self.trust_of(value.object, state)))

    def doubt(self, state: State, *operands: tuple[Expression, Value]) -> None:
        """An operation that can fail; that it does may depend on an operand that nothing records."""
        self.frame.fails(state)
        culprits = [e for e, value in operands if not value.recorded]
        for e in culprits[:1]:
            self.doubted(unrecorded(self, e) or e)

    def doubtful(self, e: Expression, value: Value, state: State) -> Value:
        """The trust of a variable or a result that is set because of a decision of the VMM."""
        if len(self.refusals) <= self.frame.refusals:  # what calls this flow is the caller's matter
            return value
        if value.object is None:
            return number(recorded=False, bounded=value.bounded)
        self.refused(e.span, "what is returned here", self.refusals[-1])
        return value

    def refused(self, span: Span, what: str, cause: model.Call) -> None:
        """Reports that the VMM decides `what`, by making `cause` fail."""
        message = f"the VMM decides {what}: it can make `{cause.callee}` fail, which no RTMR records"
        hint = "do it where the ways of the `try` have joined again, or let every handler end with `fail`"
        self.error("refusal", span, message, hint)

    # ---- expressions

    def value(self, e: Expression, state: State) -> tuple[State | None, Value]:
        """The value, and the state after its calls; no state if it does not come back."""
        after, value = self._value(e, state)
        self.values[id(e)] = value
        return after, value

    def _value(self, e: Expression, state: State) -> tuple[State | None, Value]:
        match e:
            case model.Literal():
                if isinstance(e.value, bytes) and isinstance(e.type, model.Bytes):
                    place = constant_place(e.value)
                    return state, self.new_value(state, TRUSTED, (place,), len(e.value), True)
                constant = e.value if isinstance(e.value, str | int) else None
                return state, Value(TRUSTED, None, constant)
            case model.Variable():
                return state, self._variable(e, state)
            case model.RegionOf():
                return state, self._region_value(e, state)
            case model.Call():
                return self.call(e, state)
            case model.Length():
                after, base = self.value(e.base, state)
                return after, size(base)
            case model.FieldOf():
                after, base = self.value(e.base, state)
                fields = self.names.records[e.record].fields
                own = next(f.provenance for f in fields if f.name == e.field)
                whole = replace(base, trust=lowest(base.trust, own))
                part = self.part(whole, e.type, after or state)
                # What a trusted record holds is in its range, recorded or not: who made it saw to that.
                return after, replace(part, checked=part.checked or base.trust == TRUSTED)
            case model.Index():
                return self._index(e, state)
            case model.Slice():
                return self._slice(e, state)
            case model.Unary():
                after, operand = self.value(e.operand, state)
                bounded = operand.trust == TRUSTED or e.type == BOOL  # `~` of a small number is a large one
                return after, number(operand.recorded, bounded)
            case model.Binary():
                return self._binary(e, state)
            case model.Choice():
                return self._choice(e, state)

    def private(self, e: Expression, value: Value, operator: str, state: State) -> None:
        """T02: an operator reads bytes where they lie."""
        if value.trust == Provenance.SHARED:
            message = f"{describe(e)} is shared with the VMM, `{operator}` would read it in place"
            hint = "copy it into private memory once: `let copy = copy_in(buffer, x)?`"
            self.distrust("shared argument", e, Value(Provenance.UNTRUSTED), state, message, hint)

    def _choice(self, e: model.Choice, state: State) -> tuple[State | None, Value]:
        """What is chosen has the least trust of what may be."""
        after, _ = self.value(e.subject, state)
        if after is None:
            return None, Value(TRUSTED)
        decide(self, e.subject, after, goes_on=True)
        joined: State | None = None
        given = []
        before: set[int] = set()
        for arm in e.arms:
            inside = after.copy()
            learn_arm(self, e.subject, arm.values, before, inside)
            before |= set(arm.values)
            end, value = self.value(arm.value, inside)
            joined = join(joined, end)
            given.append(self.now(value, end or inside))
        objects = [v.object for v in given if v.object is not None]
        if joined is None or not objects:
            return joined, number(all(v.recorded for v in given), all(v.bounded for v in given))
        limits = [obj.size_limit for obj in objects]
        limit = max((n for n in limits if n is not None), default=None) if None not in limits else None
        places = tuple({place.bounds() for obj in objects for place in obj.places})
        trust = lowest(*(v.trust for v in given))
        sized = all(obj.sized for obj in objects)
        return joined, self.new_value(joined, trust, places, limit, sized, *found(*objects))

    def _variable(self, e: model.Variable, state: State) -> Value:
        key = self.key(e)
        obj = state.variables.get(key)
        if self.is_suppressed(e):
            if obj is not None:
                state.trust[obj.id] = TRUSTED
            return Value(TRUSTED, obj, state.constants.get(key))
        if obj is None:
            return state.number(key)
        return Value(self.trust_of(obj, state), obj, state.constants.get(key))

    def _region_value(self, e: model.RegionOf, state: State) -> Value:
        for step in self.names.steps.values() if e.carved else ():
            missing = "region" in step.texts and not self.has(step.name, state.must)
            if missing and self.first((step.name, None)):
                message, hint = step.says("region", argument=describe(e))
                self.error("carved", e.span, message, hint, step.rule)
        section = self.program.sections.get(e.name)
        if section is not None and (e.name in OWNED or section.kind == "BFV"):  # the code has its data there
            message = f"`{e.name}` belongs to generated code"
            self.error("owned", e.span, message, "declare a region of its own for this")
        if section is not None and section.kind in WITHIN_BFV:
            self.error("owned", e.span, f"`{e.name}` ({section.kind}) is for tools that read the image", "")
        if section is not None and section.kind == "PermMem":
            message = f"`{e.name}` is RAM for `accept`, which nothing maps before"
            self.error("owned", e.span, message, "declare a `memory` region, which is carved from it")
        obj = self.region_objects[e.name]
        return Value(state.trust[obj.id], obj)

    def part(self, whole: Value, kind: model.Type, state: State) -> Value:
        """A field or element has the trust of the whole; of bytes, what they hold was not looked at."""
        if is_word(kind):
            return promised(kind, whole.trust)
        obj = whole.object
        trust = lowest(whole.trust, Provenance.MEASURED) if kind == model.Bytes() else whole.trust
        if obj is None:
            return self.new_value(state, trust, self.unknown_place(), None, whole.recorded)
        places = tuple({Place(p.root) for p in obj.places})
        value = self.new_value(state, trust, places, obj.size_limit, whole.recorded, obj.found_by)
        assert value.object is not None
        self.part_of[value.object.id] = obj.id
        return value

    def _bound(self, e: Expression, state: State, what: str, where: str) -> tuple[State | None, Value]:
        """An index or a bound of a slice. Memory safety asks that it cannot leave its range; a measurement
        records what bytes hold and how many they are, but not `where` they lie."""
        after, value = self.value(e, state)
        if where and not value.recorded:
            message = f"{describe(e)} decides {where}: the VMM chose it and no RTMR records it"
            hint = record_hint(e, value.bounded)
            self.distrust("recorded place", e, Value(TRUSTED), after or state, message, hint)
            value = Value(TRUSTED)
        elif not value.bounded:
            have = value.trust.name.lower()
            message = f"{describe(e)} is {have}: it cannot be {what} before it is checked"
            self.distrust("bounded index", e, CHECKED, after or state, message, bound_hint(e))
        return after, value

    def _index(self, e: model.Index, state: State) -> tuple[State | None, Value]:
        after, base = self.value(e.base, state)
        if after is None:
            return None, base
        number_only = is_word(e.type)
        where = "" if number_only else "which element is taken"
        after, index = self._bound(e.index, after, "an index", where)
        if after is None:
            return None, base
        base = self.now(base, after)
        self.doubt(after, (e.index, index), (e.base, size(base)))
        if number_only and not index.recorded:
            base = replace(base, trust=lowest(base.trust, Provenance.UNTRUSTED))
        return after, self.part(base, e.type, after)

    def _slice(self, e: model.Slice, state: State) -> tuple[State | None, Value]:
        after, base = self.value(e.base, state)
        bounds = []
        start = "" if base.trust == Provenance.SHARED else "where a part of memory begins"
        for bound, where in ((e.start, start), (e.end, "")):
            if after is not None:
                after, value = self._bound(bound, after, "a bound of a slice", where)
                bounds.append(value)
        if after is None:
            return None, base
        base = self.now(base, after)
        self.doubt(after, *zip((e.start, e.end, e.base), (*bounds, size(base)), strict=True))
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
        sized = all(value.recorded for value in bounds)
        trust = base.trust if sized else lowest(base.trust, Provenance.UNTRUSTED)
        found_by = obj.found_by if obj is not None else ()
        return after, self.new_value(after, trust, places, size_limit, sized, found_by)

    def _binary(self, e: model.Binary, state: State) -> tuple[State | None, Value]:
        after, left = self.value(e.left, state)
        if after is None:
            return None, left
        if e.op in ("and", "or"):
            if not left.recorded and calls(e.right):
                decide(self, e.left, after, goes_on=True)
            elif not left.recorded and can_fail(e.right):
                self.doubt(after, (e.left, left))
            before, skipped = after.trust, after.copy()
            after = after.copy()
            refine(self, e.left, e.op == "and", after)
            refine(self, e.left, e.op != "and", skipped)
            taken, right = self.value(e.right, after)
            joined = join(skipped, taken)
            if joined is not None:
                joined.forget(before)
            return joined, number(left.recorded and right.recorded, bounded=True)
        after, right = self.value(e.right, after)
        if after is None:
            return None, right
        left = self.now(left, after)  # bytes are compared where they lie
        for side, value in ((e.left, left), (e.right, right)):
            self.private(side, value, e.op, after)
        if e.error:
            self.doubt(after, (e.left, left), (e.right, right))
        known = left.recorded and right.recorded
        return after, number(known, _bounded(e, left, right), _constant(e, left, right))


def size(whole: Value) -> Value:
    """The size of bytes or the count of a list: bounded by their region or capacity. A measurement records
    it, because what is hashed has one length only."""
    return number(whole.recorded or (whole.object is not None and whole.object.sized), bounded=True)


def _constant(e: model.Binary, left: Value, right: Value) -> int | None:
    """What the result is, if constants alone decide."""
    if e.op not in FOLDED or not isinstance(left.constant, int) or not isinstance(right.constant, int):
        return None
    result = fold(e.op, left.constant, right.constant)
    return result if isinstance(result, int) else None


def _bounded(e: model.Binary, left: Value, right: Value) -> bool:
    """Whether the result cannot leave its range."""
    match e.op:
        case "&":
            masks = ((left, e.right), (right, e.left))
            return any(mask.bounded and excludes(mask, other) for mask, other in masks)
        case "%":
            return True
        case "-":
            return left.bounded
        case "==" | "!=" | "<" | "<=" | ">" | ">=" | "in":
            return True
    return left.bounded and right.bounded


def calls(e: Expression) -> bool:
    """Whether something is called in `e`."""
    return any(isinstance(node, model.Call) for node in walk(e))


def can_fail(e: Expression) -> bool:
    """Whether an error may arise while `e` is computed."""
    return any(
        isinstance(node, model.Slice | model.Index)
        or (isinstance(node, model.Binary) and node.error != 0)
        or (isinstance(node, model.Call) and node.propagate)
        for node in walk(e)
    )


def promised(kind: model.Type, provenance: Provenance) -> Value:
    """What a declaration says of a number of that type."""
    value = Value(provenance)
    narrow = kind == BOOL or isinstance(kind, EnumRef)
    return number(value.recorded, value.bounded or narrow)
