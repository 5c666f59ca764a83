"""Which paths does a flow have, and what is known on each? Walks statements, joins paths, and asks the
rules."""

from __future__ import annotations

from dataclasses import replace

from dsl import model
from dsl.model import ListOf, Never, Provenance, RecordRef, Span, Unit
from dsl.rules.attempts import TryRules
from dsl.rules.state import Frame, Object, State, Value, found, join
from dsl.rules.trust import RECORDED, decide, learn_arm, refine, unrecorded
from dsl.rules.values import promised, size
from dsl.rules.verdicts import Verdicts
from dsl.rules.words import depends, describe, record_hint
from dsl.scope import Program
from dsl.sizes import is_word

MAX_CALLS = 2000
MAX_FLOWS_DEEP = 32


def check(
    program: Program,
    flows: dict[str, model.Flow],
    entry: str,
    disabled: frozenset[str] = frozenset(),
) -> int:
    """Reports what breaks a rule; returns the bytes the event log can need.

    `disabled`: rules of dsl.rules.table that are not reported: a test can show what each one prevents.
    """
    walker = Walker(program, flows, disabled)
    if entry in flows:
        walker.run(flows[entry])
        walker.finish(flows[entry])
    for flow in flows.values():
        if flow.name not in walker.walked and not walker.gave_up:
            walker.reported = set()
            walker.assume = True  # never called: nothing is known of where it would stand
            walker.run(flow)
    verdicts = Verdicts(program.names, flows, program.suppressed)
    for flow in flows.values() if not walker.gave_up else ():
        verdicts.unused(flow, walker.unused)
    return walker.worst


class Walker(TryRules):
    """Walks flows statement by statement; calls of flows are walked where they stand."""

    def __init__(self, program: Program, flows: dict[str, model.Flow], disabled: frozenset[str]) -> None:
        super().__init__(program, flows, disabled)
        self.walked: set[str] = set()
        self.calls = 0
        self.gave_up = False

    def run(self, flow: model.Flow) -> None:
        """Walks `flow` as if nothing had been done before; parameters have their declared trust."""
        state = self.start()
        signature = self.program.signatures[flow.name]
        values = []
        for parameter in signature.parameters:
            if is_word(parameter.type):
                values.append(promised(parameter.type, parameter.provenance))
            else:
                values.append(self.new_value(state, parameter.provenance, self.unknown_place(), None))
        self.enter(flow, values, state)

    # ---- flows

    def call_flow(self, call: model.Call, values: list[Value], state: State) -> tuple[State | None, Value]:
        flow, signature = self.flows[call.callee], self.program.signatures[call.callee]
        for value, parameter, argument in zip(values, signature.parameters, call.arguments, strict=True):
            self.check_shared(value, parameter, argument, call, state)
            self.check_trust(value, parameter, argument, call, state)
        self.calls += 1
        if self.calls > MAX_CALLS or len(self.frames) > MAX_FLOWS_DEEP:
            if not self.gave_up:
                self.gave_up = True
                message = f"more than {MAX_CALLS} calls of flows have to be followed"
                if len(self.frames) > MAX_FLOWS_DEEP:
                    message = f"flows call each other more than {MAX_FLOWS_DEEP} deep"
                self.error("calls", call.span, message, "call flows less deeply")
            never = isinstance(flow.result, Never)
            return (None if never else state), promised(signature.result, signature.result_provenance)
        inner = state.copy()
        declared = [
            replace(promised(parameter.type, parameter.provenance), constant=value.constant)
            if value.object is None
            else self.alias(inner, parameter.provenance, value.object)
            for value, parameter in zip(values, signature.parameters, strict=True)
        ]
        after, frame = self.enter(flow, declared, inner)
        if signature.fallible:
            self.frame.fails(frame.failed)
            self.frame.doubts += frame.doubts
        result = promised(signature.result, signature.result_provenance)
        if after is None:
            return None, result
        for value, inside, parameter in zip(values, declared, signature.parameters, strict=True):
            if value.object is None or inside.object is None:
                continue
            if after.trust[inside.object.id].value > parameter.provenance.value:
                old = after.trust[value.object.id]
                after.trust[value.object.id] = max(old, after.trust[inside.object.id], key=lambda p: p.value)
            after.name_alias(inside.object, value.object)
        if not (is_word(flow.result) or isinstance(flow.result, Unit | Never)):
            made = frame.result.object if frame.result is not None else None
            if made is None:
                return after, self.new_value(after, signature.result_provenance, self.unknown_place(), None)
            return after, self.alias(after, signature.result_provenance, made)
        return after, result

    def alias(self, state: State, trust: Provenance, obj: Object) -> Value:
        """Another name for `obj`, or a copy of it, with `trust`."""
        value = self.new_value(state, trust, obj.places, obj.size_limit, obj.sized, *found(obj))
        assert value.object is not None
        self.named_first[value.object.id] = obj.id
        state.name_alias(obj, value.object)
        return value

    def enter(self, flow: model.Flow, values: list[Value], state: State) -> tuple[State | None, Frame]:
        """Walks the body; the state where the flow returns, None if it never does, and how it was left."""
        self.walked.add(flow.name)
        self.next_frame += 1
        refusals = len(self.refusals)
        frame = Frame(self.program.signatures[flow.name], self.next_frame, refusals=refusals)
        self.frames.append(frame)
        frame.fails(state if frame.signature.fallible else None)
        for variable, value in zip(flow.parameters, values, strict=False):
            self.bind(variable, value, state)
        end = self.block(flow.body, state)
        if end is not None:
            self.falls_off(flow, end)
            frame.exits = join(frame.exits, end)
        self.frames.pop()
        del self.refusals[refusals:]
        return None if isinstance(flow.result, Never) else frame.exits, frame

    def unused(self, call: model.Call, read: bool) -> None:
        what = "decides nothing" if read else "is never read"
        hint = "use it in a decision, or let the flow `fail` instead"
        self.error("unread", call.span, f"the result of `{call.callee}` {what}", hint)

    def falls_off(self, flow: model.Flow, end: State) -> None:
        last = flow.span
        brace = Span(last.path, last.end_line, max(1, last.end_column - 1), last.end_line, last.end_column)
        if isinstance(flow.result, Never):
            message = f"a path of `{flow.name}` ends here, neither in a handoff nor in an error"
            self.error("ends", brace, message, "end it with `handoff NAME(...)` or `fail ERROR`")
        elif not isinstance(flow.result, Unit):
            self.error("ends", brace, f"a path of `{flow.name}` ends here without a result", "add `return`")

    # ---- statements

    def block(self, statements: tuple[model.Statement, ...], state: State | None) -> State | None:
        for statement in statements:
            if state is None:
                self.error("unreachable", statement.span, "this is never reached", "every path ends earlier")
                return None
            state = self.statement(statement, state)
        return state

    def statement(self, s: model.Statement, state: State) -> State | None:
        match s:
            case model.Let() | model.Assign():
                after, value = self.value(s.value, state)
                if after is not None and isinstance(s.value.type, RecordRef) and value.object is not None:
                    value = self.alias(
                        after, value.trust, value.object
                    )  # a copy: what is done to one is not to both
                if after is not None and isinstance(s, model.Assign):
                    value = self.doubtful(s.value, value, after)
                if after is not None:
                    self.bind(s.variable, value, after)
                if isinstance(s, model.Assign):  # another value, another cause
                    own = self.key(s.variable)
                    self.reported = {c for c in self.reported if not (isinstance(c, tuple) and own in c)}
                return after
            case model.Do():
                return self.value(s.value, state)[0]
            case model.If():
                return self.if_(s, state)
            case model.Match():
                return self.match(s, state)
            case model.Try():
                return self.try_(s, state)
            case model.For():
                return self.for_(s, state)
            case model.Return():
                return self.return_(s, state)
            case model.Fail():
                self.frame.fails(state)
                return None

    def if_(self, s: model.If, state: State) -> State | None:
        after, _ = self.value(s.condition, state)
        if after is None:
            return None
        decide(self, s.condition, after, all(self.paths.goes_on(b) for b in (s.then, s.otherwise)))
        cause = self.chosen_by(s.condition)
        joined: State | None = None
        for truth, body in ((True, s.then), (False, s.otherwise)):
            inside = after.copy()
            refine(self, s.condition, truth, inside)
            with self.way(self.paths.goes_on(body), cause):
                joined = join(joined, self.block(body, inside))
        return joined

    def chosen_by(self, e: model.Expression) -> str:
        """How messages call an error that `e` leads to, if nothing records `e`."""
        culprit = unrecorded(self, e)
        return "" if culprit is None else depends(culprit)

    def match(self, s: model.Match, state: State) -> State | None:
        after, _ = self.value(s.subject, state)
        if after is None:
            return None
        going_on = [arm for arm in s.arms if self.paths.goes_on(arm.body)]
        decide(self, s.subject, after, len(going_on) > 1)
        cause = self.chosen_by(s.subject)
        joined: State | None = None
        before: set[int] = set()
        for arm in s.arms:
            inside = after.copy()
            learn_arm(self, s.subject, arm.values, before, inside)
            before |= set(arm.values)
            with self.way(arm in going_on, cause):
                joined = join(joined, self.block(arm.body, inside))
        return joined if s.arms else after

    def for_(self, s: model.For, state: State) -> State | None:
        base, value = self.value(s.items, state)
        if base is None:
            return None
        if not size(value).recorded:
            message = f"the number of repetitions depends on {describe(s.items)}, which no RTMR records"
            self.distrust("repeat", s.items, RECORDED, base, message, record_hint(s.items))
        capacity = s.items.type.capacity if isinstance(s.items.type, ListOf) else 1
        keys, newest = tuple(base.trust), self.last_object

        def before(state: State) -> object:
            """What `state` says of what there was before the loop: from pass to pass it only shrinks."""
            places = {u.place for u in state.used} | state.copied
            old = {p for p in places if not isinstance(p.root, int) or p.root <= newest}
            facts = [(state.trust[k], k in state.checked) for k in keys]
            steps = state.must, state.may, state.marks, state.optional, state.unsure, state.shared
            return facts, steps, state.constants, old

        start, per_round, rounds = base, 0, 0
        while True:
            rounds += 1  # what one did, and what the VMM then refused, is seen by the next
            inside = start.copy()
            inside.logged = base.logged + per_round * (capacity - 1)  # so many rounds may have gone before
            self.bind(s.variable, self.part(self.now(value, inside), s.variable.type, inside), inside)
            logged = inside.logged
            end = self.block(s.body, inside)
            longest = max(per_round, end.logged - logged) if end is not None else per_round
            joined = join(start.copy(), end)
            assert joined is not None
            converged = rounds > 1 and longest == per_round and before(joined) == before(start)
            start, per_round = joined, longest
            start.logged = base.logged + per_round * capacity
            if converged:
                self.worst = max(self.worst, start.logged)
                return start

    def return_(self, s: model.Return, state: State) -> State | None:
        after: State | None = state
        if s.value is not None:
            after, value = self.value(s.value, state)
            if after is not None:
                value = self.doubtful(s.value, value, after)
            self.check_result(value, self.frame.signature, s.value)
            if after is not None:
                self.frame.result = value if self.frame.exits is None else self._either(value, after)
        self.frame.exits = join(self.frame.exits, after)
        return None

    def _either(self, value: Value, state: State) -> Value:
        """What is returned on several paths."""
        before = self.frame.result
        if before is None or before.object is None or value.object is None or before.object == value.object:
            return value
        sizes = (before.object.size_limit, value.object.size_limit)
        size_limit = None if None in sizes else max(s for s in sizes if s is not None)
        places = tuple({p.bounds() for p in (*before.object.places, *value.object.places)})
        found_by = found(before.object, value.object)
        return self.new_value(state, value.trust, places, size_limit, False, *found_by)
