"""Which values will RTMR[0] to RTMR[3] have when a flow hands over, if that follows from the image alone?

Every way to a handoff is followed; what is measured there has to be known at build time: texts and numbers of
the flow, and sections that the image file fills. What a primitive finds is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from dsl import model
from dsl.capabilities import prelude
from dsl.model import Expression, Firmware
from dsl.tree import walk
from formats.eventlog import Separator
from formats.tdx.leaves import RTMRS

Event = tuple[int, bytes]  # register and what its digest covers
Events = frozenset[tuple[Event, ...]]  # of the ways that lead to one point
Value = int | bytes | None
MEASURES = (
    "measure_blob",
    "measure_platform_config",
    "measure_number",
)  # the digest covers the subject alone
SEPARATE = "separate"
DIGEST_SIZE, NUMBER_SIZE, MOST_WAYS = 48, 8, 64
NOWHERE: Events = frozenset()


class Unknown(Exception):
    """The registers depend on more than the image; the text says where."""

    def __init__(self, what: str, span: model.Span) -> None:
        super().__init__(f"line {span.line}: {what}")


def registers(firmware: Firmware, contents: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """RTMR[0] to RTMR[3] at the handoff. `contents`: all bytes of the sections that the image fills, by name.
    Unknown says which step measures what only a run has.
    """
    ways = _Ways(firmware, contents)
    boot = firmware.flows["boot"]
    ways.flow(boot, (None,), frozenset([()]))
    if len(ways.ends) != 1:
        raise Unknown(f"{len(ways.ends)} different ways end in a handoff", boot.span)
    found = [bytes(DIGEST_SIZE)] * RTMRS
    for rtmr, data in next(iter(ways.ends)):
        found[rtmr] = hashlib.sha384(found[rtmr] + hashlib.sha384(data).digest()).digest()
    return tuple(found)


class _Ways:
    """Follows all ways at once; those that end in an error hand nothing over."""

    def __init__(self, firmware: Firmware, contents: Mapping[str, bytes]) -> None:
        self.firmware, self.contents = firmware, contents
        self.ends: set[tuple[Event, ...]] = set()

    def flow(self, flow: model.Flow, given: tuple[Value, ...], events: Events) -> Events:
        changed = {node.variable.id for node in walk(flow.body) if isinstance(node, model.Assign)}
        values = dict(zip((p.id for p in flow.parameters), given, strict=True))
        return _Flow(self, changed, values).all(flow.body, events)


class _Flow:
    """One call of a flow. `values` by variable; one that is `changed` later has none."""

    def __init__(self, ways: _Ways, changed: set[int], values: dict[int, Value]) -> None:
        self.ways, self.changed, self.values = ways, changed, values
        self.returned = NOWHERE

    def all(self, body: tuple[model.Statement, ...], events: Events) -> Events:
        return self.block(body, events) | self.returned

    def block(self, body: tuple[model.Statement, ...], events: Events) -> Events:
        for each in body:
            events = self.statement(each, events)
            if len(events) > MOST_WAYS:
                raise Unknown("too many ways", each.span)
        return events

    def statement(self, s: model.Statement, events: Events) -> Events:
        match s:
            case model.Let():
                self.values[s.variable.id] = self.value(s.value)
                return self.expression(s.value, events)
            case model.Assign() | model.Do():
                return self.expression(s.value, events)
            case model.If():
                events = self.expression(s.condition, events)
                return self.block(s.then, events) | self.block(s.otherwise, events)
            case model.Match():
                events = self.expression(s.subject, events)
                return frozenset().union(*(self.block(arm.body, events) for arm in s.arms))
            case model.Try():
                done = self.expression(s.call, events)
                if done != events and done:
                    raise Unknown("an error may come before a measurement or behind it", s.span)
                handled = (self.block(h.body, events) for h in s.handlers)
                return self.block(s.body, done).union(*handled)
            case model.For():
                events = self.expression(s.items, events)
                if self.block(s.body, events) - events:
                    raise Unknown("a measurement for each item of a list", s.span)
                return events
            case model.Return():
                self.returned |= self.expression(s.value, events) if s.value is not None else events
                return NOWHERE
            case model.Fail():
                return NOWHERE

    def expression(self, e: Expression, events: Events) -> Events:
        """The events of the calls in it, in the order in which they are made."""
        match e:
            case model.Call():
                return self.call(e, events)
            case model.Binary(op="and" | "or"):
                left = self.expression(e.left, events)
                return left | self.expression(e.right, left)
            case model.Choice():
                events = self.expression(e.subject, events)
                return frozenset().union(*(self.expression(arm.value, events) for arm in e.arms))
            case model.Binary():
                return self.expression(e.right, self.expression(e.left, events))
            case model.Slice():
                return self.expression(e.end, self.expression(e.start, self.expression(e.base, events)))
            case model.Index():
                return self.expression(e.index, self.expression(e.base, events))
            case model.Unary():
                return self.expression(e.operand, events)
            case model.FieldOf() | model.Length():
                return self.expression(e.base, events)
            case _:
                return events

    def call(self, call: model.Call, events: Events) -> Events:
        for argument in call.arguments:
            events = self.expression(argument, events)
        given = tuple(self.value(argument) for argument in call.arguments)
        if call.is_flow:
            return self.ways.flow(self.ways.firmware.flows[call.callee], given, events)
        if call.callee == SEPARATE:
            return self.measured(given[0], Separator.OK.to_bytes(4, "little"), call, events)
        if prelude().effects[call.callee].measures:
            return self.measured(given[1], self.subject(call, given[0]), call, events)
        if isinstance(call.type, model.Never):
            self.ways.ends |= events
            return NOWHERE
        return events

    def subject(self, call: model.Call, value: Value) -> bytes:
        if call.callee not in MEASURES or value is None:
            raise Unknown(f"`{call.callee}` of what only a run has", call.span)
        return value.to_bytes(NUMBER_SIZE, "little") if isinstance(value, int) else value

    def measured(self, rtmr: Value, data: bytes, call: model.Call, events: Events) -> Events:
        assert isinstance(rtmr, int)  # dsl/rules/steps.py
        if call.unless_empty and not data:
            return events
        return frozenset((*way, (rtmr, data)) for way in events)

    def value(self, e: Expression) -> Value:
        """What is known of it at build time."""
        match e:
            case model.Literal(value=bool() | int() | bytes()):
                return e.value if isinstance(e.value, bytes) else e.number
            case model.Literal(value=str() as text):
                return text.encode("ascii")
            case model.Variable():
                return None if e.id in self.changed else self.values.get(e.id)
            case model.RegionOf():
                return self.ways.contents.get(e.name)
            case model.Slice():
                whole, start, end = (self.value(part) for part in (e.base, e.start, e.end))
                if isinstance(whole, bytes) and isinstance(start, int) and isinstance(end, int):
                    if not start <= end <= len(whole):
                        raise Unknown("a part that ends outside of its whole ends the boot", e.span)
                    return whole[start:end]
            case model.Length():
                whole = self.value(e.base)
                return len(whole) if isinstance(whole, bytes) else None
        return None
