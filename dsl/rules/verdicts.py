"""Does something depend on what a flow returns? A verdict that reaches no decision and no step decides
nothing (T08).

What is used is followed backwards: from the steps, errors and results of a flow to the conditions they stand
under and the variables those are made of, and through the parameters of the flows that are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dsl import model
from dsl.declare import Names
from dsl.fold import known_condition
from dsl.model import Expression, Never, Span, Unit
from dsl.rules.sameness import AGAIN, Steps, constant, same, shape
from dsl.rules.values import can_fail
from dsl.scope import Suppressed
from dsl.tree import walk

Live = frozenset[int]  # ids of the variables on which something depends later
Report = Callable[[model.Call, bool], None]  # a call whose result is dropped; whether something reads it

NOTHING: Live = frozenset()


@dataclass(frozen=True)
class Uses:
    """`parameters`: the places of those on which depends what a flow does or returns; `acts`: it does more
    than return a result."""

    parameters: frozenset[int]
    acts: bool


class Verdicts:
    """What is used in the flows of one program, which do not recurse."""

    def __init__(self, names: Names, flows: dict[str, model.Flow], suppressed: Suppressed) -> None:
        self.names = names
        self.flows = flows
        self.suppressed = suppressed
        self._uses: dict[str, Uses] = {}

    def unused(self, flow: model.Flow, report: Report) -> None:
        """Calls `report` for each call in `flow` of another flow on whose result nothing depends."""
        _Body(self, flow, True, report).steps()

    def uses(self, name: str) -> Uses:
        if name not in self._uses:
            flow = self.flows[name]
            live, _ = _Body(self, flow, True, _silent).steps()
            _, steps = _Body(self, flow, False, _silent).steps()
            used = frozenset(place for place, variable in enumerate(flow.parameters) if variable.id in live)
            self._uses[name] = Uses(used, any(not isinstance(step, model.Return) for step in steps))
        return self._uses[name]

    def pure(self, call: model.Call) -> bool:
        """Whether nothing comes of `call` but its result."""
        if call.is_flow:
            return not self.uses(call.callee).acts
        return self.names.pure(call.callee) and not call.propagate

    def acts(self, e: Expression) -> bool:
        """Whether computing `e` takes a step or may fail."""
        return can_fail(e) or any(isinstance(n, model.Call) and not self.pure(n) for n in walk(e))


class _Body:
    """The body of one flow, `read`: something depends on its result."""

    def __init__(self, verdicts: Verdicts, flow: model.Flow, read: bool, report: Report) -> None:
        self.verdicts = verdicts
        self.flow = flow
        self.read = read
        self.report = report
        left_out = verdicts.suppressed
        self.kept = {variable for name, variable in left_out.variables | left_out.read if name == flow.name}
        self.gaps = [span for name, span in left_out.statements if name == flow.name]
        everything = list(walk(flow.body))
        binders = model.Let | model.Assign | model.Try | model.For
        bound = {id(s.variable) for s in everything if isinstance(s, binders)}
        self.named = {n.id for n in everything if isinstance(n, model.Variable) and id(n) not in bound}

    def steps(self) -> tuple[Live, Steps]:
        """The variables that are used when the flow begins, and the statements that make a difference."""
        end: Steps = (model.Return(None, self.flow.span),) if isinstance(self.flow.result, Unit) else ()
        live, steps = self.block(self.flow.body, NOTHING, end)
        return live | self.kept, steps + ("gap",) * bool(self.gaps)

    def block(self, statements: tuple[model.Statement, ...], live: Live, rest: Steps) -> tuple[Live, Steps]:
        """The same of a block, given what is used after it and done behind it."""
        steps: Steps = ()
        for s in reversed(statements):
            live, steps = self.statement(s, live, steps, rest)
        return live, steps

    def statement(self, s: model.Statement, live: Live, behind: Steps, rest: Steps) -> tuple[Live, Steps]:
        match s:
            case model.Let() | model.Assign():
                used = s.variable.id in live | self.kept
                inner = self.value(s.value, used, s.variable.id in self.named)
                done = used or self.verdicts.acts(s.value)
                return live - {s.variable.id} | inner, ((s, *behind) if done else behind)
            case model.Do():
                done = self.verdicts.acts(s.value)
                return live | self.value(s.value, False, read=False), ((s, *behind) if done else behind)
            case model.If():
                truth = None if self.gaps else known_condition(s.condition)
                ways = [way for way, side in ((s.then, True), (s.otherwise, False)) if truth in (None, side)]
                return self.branch(s, s.condition, ways, live, (behind, rest))
            case model.Match():
                return self.branch(s, s.subject, [arm.body for arm in s.arms], live, (behind, rest))
            case model.Try():
                return self.try_(s, live, behind, rest)
            case model.For():
                return self.for_(s, live, behind)
            case model.Return():
                if s.value is None:
                    return NOTHING, (s,)
                done = self.read or self.verdicts.acts(s.value)
                return self.value(s.value, self.read), (s if done else replace(s, value=None),)
            case model.Fail():
                return NOTHING, (s,)

    def branch(
        self,
        s: model.If | model.Match,
        subject: Expression,
        ways: list[tuple[model.Statement, ...]],
        live: Live,
        after: tuple[Steps, Steps],
    ) -> tuple[Live, Steps]:
        """A statement that takes one of `ways`. `after`: what is done behind it in its block, and behind that
        block."""
        behind, rest = after
        each = [self.block(way, live, behind + rest) for way in ways]
        before = frozenset().union(*(used for used, _ in each)) if each else live
        steps = [own for _, own in each]
        decides = self.gap(s.span) or not same(steps, behind + rest)
        before |= self.value(subject, decides)
        if decides:
            return before, (_with(s, steps), *behind)
        first = steps[0] if steps else ()
        return before, (
            *((model.Do(subject, s.span),) if self.verdicts.acts(subject) else ()),
            *first,
            *behind,
        )

    def try_(self, s: model.Try, live: Live, behind: Steps, rest: Steps) -> tuple[Live, Steps]:
        body, steps = self.block(s.body, live, behind + rest)
        handlers = [self.block(handler.body, live, behind + rest) for handler in s.handlers]
        used = s.variable is not None and s.variable.id in body | self.kept
        done = bool(steps) or any(own for _, own in handlers) or self.gap(s.span)
        named = s.variable is not None and s.variable.id in self.named
        inner = self.value(s.call, used or (done and not s.call.is_flow), named)  # its error decides
        bound = frozenset() if s.variable is None else frozenset({s.variable.id})
        before = (body - bound).union(inner, *(own for own, _ in handlers))
        return before, ((s, *behind) if done or self.verdicts.acts(s.call) else behind)

    def for_(self, s: model.For, live: Live, behind: Steps) -> tuple[Live, Steps]:
        report, self.report = self.report, _silent
        while True:  # what the next round uses is used after this one
            inner, steps = self.block(s.body, live, (AGAIN,))
            if inner - {s.variable.id} <= live:
                break
            live |= inner - {s.variable.id}
        self.report = report
        self.block(s.body, live, (AGAIN,))
        done = bool(steps) or self.gap(s.span)
        live |= self.value(s.items, done)
        return live, ((s, *behind) if done else behind)

    def gap(self, span: Span) -> bool:
        """Whether a statement within `span` is not in the model, so that nothing is known of what it uses."""
        first, last = (span.line, span.column), (span.end_line, span.end_column)
        return any(first <= (g.line, g.column) and (g.end_line, g.end_column) <= last for g in self.gaps)

    # ---- expressions

    def value(self, e: Expression, used: bool, read: bool = True) -> Live:
        """The variables that are used where `e` is computed. `used`: something depends on its value; `read`:
        something reads it."""
        match e:
            case model.Variable():
                return frozenset({e.id}) if used else NOTHING
            case model.Literal() | model.RegionOf():
                return NOTHING
            case model.FieldOf() | model.Length():
                return self.value(e.base, used)
            case model.Unary():
                return self.value(e.operand, used)
            case model.Slice():
                return self._all((e.base, e.start, e.end))  # which may fail
            case model.Index():
                return self._all((e.base, e.index))
            case model.Binary():
                if e.error:
                    return self._all((e.left, e.right))
                used = used and not constant(e)
                skips = e.op in ("and", "or") and self.verdicts.acts(e.right)
                return self.value(e.left, used or skips) | self.value(e.right, used)
            case model.Choice():
                used = used and not constant(e)
                arms = [self.value(arm.value, used) for arm in e.arms]
                differ = used and any(shape(arm.value) != shape(e.arms[0].value) for arm in e.arms[1:])
                chosen = differ or any(self.verdicts.acts(arm.value) for arm in e.arms)
                return self.value(e.subject, chosen).union(*arms)
            case model.Call():
                return self._call(e, used, read)

    def _all(self, parts: tuple[Expression, ...]) -> Live:
        return NOTHING.union(*(self.value(part, True) for part in parts))

    def _call(self, call: model.Call, used: bool, read: bool) -> Live:
        if not call.is_flow:
            used = used or not self.verdicts.pure(call)
            return NOTHING.union(*(self.value(a, used) for a in call.arguments))
        if not used and not isinstance(call.type, Unit | Never):
            self.report(call, read)
            used = True  # what comes of that is not another mistake
        places = self.verdicts.uses(call.callee).parameters
        return NOTHING.union(*(self.value(a, place in places) for place, a in enumerate(call.arguments)))


def _with(s: model.If | model.Match, ways: list[Steps]) -> model.Statement:
    """`s` with only what makes a difference in each of its ways."""
    blocks: list[tuple[model.Statement, ...]] = [
        tuple(x for x in way if not isinstance(x, str)) for way in ways
    ]
    if isinstance(s, model.If):
        return replace(s, then=blocks[0], otherwise=blocks[1])
    return replace(s, arms=tuple(replace(arm, body=b) for arm, b in zip(s.arms, blocks, strict=True)))


def _silent(call: model.Call, read: bool) -> None:
    """While a loop is not yet understood, or for what was reported before."""
