"""How may a block of statements be left? Falls off its end, returns, or hands over; what is left is an error.

Structure alone decides: each side of a condition may be taken, a loop may run any number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Flag, auto

from dsl import model
from dsl.model import Never, Primitive


class Ways(Flag):
    """Ways out of a block other than an error."""

    NONE = 0
    FALLS = auto()
    RETURNS = auto()
    HANDS_OVER = auto()


class Paths:
    """The ways out of the blocks of one program, whose flows do not recurse."""

    def __init__(self, flows: Mapping[str, model.Flow], primitives: Mapping[str, Primitive]) -> None:
        self._flows = flows
        self._primitives = primitives
        self._known: dict[str, Ways] = {}

    def goes_on(self, block: Iterable[model.Statement]) -> bool:
        """Whether some path through `block` ends otherwise than in an error."""
        return bool(self.block(block))

    def block(self, statements: Iterable[model.Statement]) -> Ways:
        return _in_order(self._statement(statement) for statement in statements)

    def _statement(self, s: model.Statement) -> Ways:
        first = _expression(s)
        ways = Ways.FALLS if first is None else self._value(first)
        if Ways.FALLS in ways:
            return ways & ~Ways.FALLS | self._inner(s)
        handlers = s.handlers if isinstance(s, model.Try) else ()
        return ways | _any(self.block(handler.body) for handler in handlers)

    def _value(self, e: model.Expression) -> Ways:
        """The ways out while `e` is computed; falls off its end if there may be a value."""
        match e:
            case model.Binary(op="and" | "or"):
                return self._value(e.left) | self._value(e.right) & ~Ways.FALLS
            case model.Choice():
                return _in_order((self._value(e.subject), _any(self._value(arm.value) for arm in e.arms)))
            case model.Call():
                return _in_order((*(self._value(a) for a in e.arguments), self._call(e)))
            case model.Binary():
                return _in_order(self._value(side) for side in (e.left, e.right))
            case model.Slice():
                return _in_order(self._value(part) for part in (e.base, e.start, e.end))
            case model.Index():
                return _in_order(self._value(part) for part in (e.base, e.index))
            case model.FieldOf() | model.Length():
                return self._value(e.base)
            case model.Unary():
                return self._value(e.operand)
        return Ways.FALLS

    def _inner(self, s: model.Statement) -> Ways:
        """The ways out once the expressions of `s` have their values."""
        match s:
            case model.Fail():
                return Ways.NONE
            case model.Return():
                return Ways.RETURNS
            case model.If():
                return self.block(s.then) | self.block(s.otherwise)
            case model.Match():
                return _any(self.block(arm.body) for arm in s.arms) if s.arms else Ways.FALLS
            case model.Try():
                return self.block(s.body) | _any(self.block(handler.body) for handler in s.handlers)
            case model.For():
                return self.block(s.body) | Ways.FALLS
        return Ways.FALLS

    def _call(self, call: model.Call) -> Ways:
        if call.is_flow:
            ways = self.flow(call.callee)
            back = Ways.FALLS if ways & (Ways.FALLS | Ways.RETURNS) else Ways.NONE
            return back | ways & Ways.HANDS_OVER
        never = isinstance(self._primitives[call.callee].result, Never)
        return Ways.HANDS_OVER if never else Ways.FALLS

    def flow(self, name: str) -> Ways:
        """The ways out of a flow."""
        if name not in self._known:
            self._known[name] = self.block(self._flows[name].body)
        return self._known[name]


def _any(ways: Iterable[Ways]) -> Ways:
    joined = Ways.NONE
    for way in ways:
        joined |= way
    return joined


def _in_order(parts: Iterable[Ways]) -> Ways:
    """One after the other, as far as each falls off its end."""
    ways = Ways.FALLS
    for part in parts:
        if Ways.FALLS in ways:
            ways = ways & ~Ways.FALLS | part
    return ways


def _expression(s: model.Statement) -> model.Expression | None:
    """What `s` itself computes first."""
    match s:
        case model.Let() | model.Assign() | model.Do() | model.Return():
            return s.value
        case model.If():
            return s.condition
        case model.Match():
            return s.subject
        case model.Try():
            return s.call
        case model.For():
            return s.items
    return None
