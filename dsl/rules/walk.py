"""Which paths does a flow have, and what is known on each? Walks statements, joins paths, and asks the
rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl import model
from dsl.model import ListOf, Never, Provenance, Scalar, Span, Unit
from dsl.rules.calls import CallRules
from dsl.rules.state import State, Value, join
from dsl.rules.trust import branch, refine
from dsl.scope import Program, Signature

MAX_PASSES = 8  # trust has four levels and only falls from pass to pass
MAX_CALLS = 2000


def check(program: Program, flows: dict[str, model.Flow], entry: str, incomplete: bool) -> int:
    """Reports what breaks a rule; returns the bytes the event log can need.

    `incomplete`: some lines did not parse, so that the absence of a step proves nothing.
    """
    walker = Walker(program, flows)
    if entry in flows:
        walker.assume = incomplete
        walker.run(flows[entry])
        walker.finish(flows[entry])
    for flow in flows.values():
        if flow.name not in walker.walked:
            walker.told = set()
            walker.assume = True  # never called: nothing is known of where it would stand
            walker.run(flow)
    return walker.worst


@dataclass
class Frame:
    """One call of a flow while it is walked."""

    flow: model.Flow
    signature: Signature
    number: int
    exits: State | None = None
    result: Value | None = None
    granted: set[str] = field(default_factory=set)


class Walker(CallRules):
    """Walks flows statement by statement; calls of flows are walked where they stand."""

    def __init__(self, program: Program, flows: dict[str, model.Flow]) -> None:
        super().__init__(program)
        self.flows = flows
        self.walked: set[str] = set()
        self.frames: list[Frame] = []
        self.calls = 0

    def run(self, flow: model.Flow) -> State | None:
        """Walks `flow` as if nothing had been done before; parameters are worth what they are declared."""
        state = self.start()
        signature = self.program.signatures[flow.name]
        values = []
        for parameter in signature.parameters:
            if isinstance(parameter.type, Scalar | model.EnumRef):
                values.append(Value(parameter.provenance))
            else:
                values.append(self.new_value(state, parameter.provenance, self.unknown_place(), None))
        return self.enter(flow, values, state)

    # ---- flows

    def call_flow(self, call: model.Call, values: list[Value], state: State) -> tuple[State | None, Value]:
        flow, signature = self.flows[call.callee], self.program.signatures[call.callee]
        for value, parameter, argument in zip(values, signature.parameters, call.arguments, strict=True):
            self.check_trust(value, parameter, argument, call, state)
        self.calls += 1
        if self.calls > MAX_CALLS:
            hint = "call flows less deeply"
            self.error("T10", call.span, f"more than {MAX_CALLS} calls of flows have to be followed", hint)
            return None, Value(Provenance.TRUSTED)
        declared: list[Value] = []
        inner = state.copy()
        for value, parameter in zip(values, signature.parameters, strict=True):
            if value.thing is None:
                declared.append(Value(parameter.provenance, None, value.constant))
            else:
                thing = value.thing
                inside = self.new_value(inner, parameter.provenance, thing.place, thing.most)
                declared.append(inside)
                if inside.thing is not None and thing.id in inner.plans:
                    inner.plans |= {inside.thing.id}
        after = self.enter(flow, declared, inner)
        frame = self.last_frame
        if after is not None:
            for value, inside, parameter in zip(values, declared, signature.parameters, strict=True):
                if value.thing is None or inside.thing is None:
                    continue
                if after.trust[inside.thing.id].value > parameter.provenance.value:
                    old = after.trust[value.thing.id]
                    after.trust[value.thing.id] = max(
                        old, after.trust[inside.thing.id], key=lambda p: p.value
                    )
                if inside.thing.id in after.plans:
                    after.plans |= {value.thing.id}
        if self.frames:
            self.frames[-1].granted |= frame.granted
        result = Value(signature.result_provenance)
        if after is not None and not isinstance(flow.result, Scalar | model.EnumRef | Unit | Never):
            inside_result = frame.result.thing if frame.result is not None else None
            place = inside_result.place if inside_result else self.unknown_place()
            most = inside_result.most if inside_result else None
            result = self.new_value(after, signature.result_provenance, place, most)
            if inside_result and inside_result.id in after.plans and result.thing is not None:
                after.plans |= {result.thing.id}
        return after, result

    def enter(self, flow: model.Flow, values: list[Value], state: State) -> State | None:
        """Walks the body; the state where the flow returns, None if it never does."""
        self.walked.add(flow.name)
        self.next_frame += 1
        frame = Frame(flow, self.program.signatures[flow.name], self.next_frame)
        self.frames.append(frame)
        for variable, value in zip(flow.parameters, values, strict=False):
            self.bind(variable, value, state)
        end = self.block(flow.body, state)
        if end is not None:
            self.falls_off(flow, end)
            frame.exits = join(frame.exits, end)
        self.last_frame = self.frames.pop()
        return None if isinstance(flow.result, Never) else frame.exits

    def falls_off(self, flow: model.Flow, end: State) -> None:
        last = flow.span
        brace = Span(last.path, last.end_line, max(1, last.end_column - 1), last.end_line, last.end_column)
        if isinstance(flow.result, Never):
            message = f"a path of `{flow.name}` ends here, neither in a handoff nor in an error"
            self.error("T08", brace, message, "end it with `handoff NAME(...)` or `fail ERROR`")
        elif not isinstance(flow.result, Unit):
            self.error("T08", brace, f"a path of `{flow.name}` ends here without a result", "add `return`")

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def key(self, variable: model.Variable) -> tuple[int, int]:
        return self.frame.number, variable.id

    def is_waived(self, variable: model.Variable) -> bool:
        return (self.frame.flow.name, variable.id) in self.program.waived.variables

    def note_granted(self, step: str) -> None:
        self.frame.granted.add(step)

    def bind(self, variable: model.Variable, value: Value, state: State) -> None:
        if value.thing is not None:
            state.variables[self.key(variable)] = value.thing
        else:
            state.trust[self.key(variable)] = value.trust

    # ---- statements

    def block(self, statements: tuple[model.Statement, ...], state: State | None) -> State | None:
        for statement in statements:
            if state is None:
                self.error("T08", statement.span, "this is never reached", "the path ended before it")
                return None
            state = self.statement(statement, state)
        return state

    def statement(self, s: model.Statement, state: State) -> State | None:
        match s:
            case model.Let() | model.Assign():
                after, value = self.value(s.value, state)
                if after is not None:
                    self.bind(s.variable, value, after)
                if isinstance(s, model.Assign):  # another value, another cause
                    own = self.key(s.variable)
                    self.told = {c for c in self.told if not (isinstance(c, tuple) and own in c)}
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
                return None

    def if_(self, s: model.If, state: State) -> State | None:
        after, value = self.value(s.condition, state)
        if after is None:
            return None
        only_fails = any(len(b) == 1 and isinstance(b[0], model.Fail) for b in (s.then, s.otherwise))
        if value.trust.value < Provenance.MEASURED.value:
            branch(self, s.condition, after, only_fails)
        then, otherwise = after.copy(), after.copy()
        refine(self, s.condition, True, then)
        refine(self, s.condition, False, otherwise)
        return join(self.block(s.then, then), self.block(s.otherwise, otherwise))

    def match(self, s: model.Match, state: State) -> State | None:
        after, value = self.value(s.subject, state)
        if after is None:
            return None
        if value.trust.value < Provenance.MEASURED.value:
            branch(self, s.subject, after, False)
        ends = [self.block(arm.body, after.copy()) for arm in s.arms]
        joined: State | None = None
        for end in ends:
            joined = join(joined, end)
        return joined if s.arms else after

    def try_(self, s: model.Try, state: State) -> State | None:
        self.frames[-1], outer = Frame(self.frame.flow, self.frame.signature, self.frame.number), self.frame
        before = state.copy()
        after, value = self.value(s.call, state)
        attempt, self.frames[-1] = self.frame, outer
        outer.granted |= attempt.granted
        failed = join(before, after) or before
        failed.may |= frozenset(attempt.granted)
        if after is not None and s.variable is not None:
            self.bind(s.variable, value, after)
        joined = self.block(s.body, after) if after is not None or s.body else None
        for handler in s.handlers:
            joined = join(joined, self.block(handler.body, failed.copy()))
        return joined

    def for_(self, s: model.For, state: State) -> State | None:
        after, value = self.value(s.items, state)
        if after is None:
            return None
        capacity = s.items.type.capacity if isinstance(s.items.type, ListOf) else 1
        start, per_round = after, 0
        for _ in range(MAX_PASSES):
            inside = start.copy()
            self.bind(s.variable, self.part(value, s.variable.type, inside), inside)
            end = self.block(s.body, inside)
            if end is not None:
                per_round = max(per_round, end.logged - start.logged)
                end.logged = start.logged
            joined = join(start.copy(), end)
            assert joined is not None
            settled = all(joined.trust.get(k) == v for k, v in start.trust.items())
            done = settled and joined.may == start.may and joined.written == start.written
            start = joined
            if done and joined.copied == start.copied:
                break
        start.logged += per_round * capacity
        self.worst = max(self.worst, start.logged)
        return start

    def return_(self, s: model.Return, state: State) -> State | None:
        after: State | None = state
        if s.value is not None:
            after, value = self.value(s.value, state)
            self.check_result(value, self.frame.signature, s.value)
            if after is not None:
                self.frame.result = value if self.frame.exits is None else self._either(value, after)
        self.frame.exits = join(self.frame.exits, after)
        return None

    def _either(self, value: Value, state: State) -> Value:
        """What is returned on several paths: where it lies is known only if it is the same thing."""
        before = self.frame.result
        if before is None or before.thing is None or value.thing is None or before.thing == value.thing:
            return value
        sizes = (before.thing.most, value.thing.most)
        most = None if None in sizes else max(s for s in sizes if s is not None)
        return self.new_value(state, value.trust, self.unknown_place(), most)
