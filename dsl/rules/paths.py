"""How may a block of statements be left? Falls off its end, returns, or hands over; what is left is an error.

Structure alone decides: each side of a condition may be taken, a loop may run any number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Flag, auto

from dsl import model
from dsl.model import Never, Primitive
from dsl.tree import walk


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
        ways = Ways.FALLS
        for statement in statements:
            if Ways.FALLS not in ways:
                break
            ways = ways & ~Ways.FALLS | self._statement(statement)
        return ways

    def _statement(self, s: model.Statement) -> Ways:
        made = [(self._call(call), certain) for call, certain in _calls(s)]
        ways = _any(way & Ways.HANDS_OVER for way, _ in made)  # also of arguments of a call that then fails
        if any(certain and Ways.FALLS not in way for way, certain in made):
            handlers = s.handlers if isinstance(s, model.Try) else ()
            return ways | _any(self.block(handler.body) for handler in handlers)
        return ways | self._inner(s)

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


def _calls(s: model.Statement) -> Iterator[tuple[model.Call, bool]]:
    """The calls in the expressions that `s` itself computes, and whether each is made on every path."""
    match s:
        case model.Let() | model.Assign() | model.Do() | model.Return():
            expression: model.Expression | None = s.value
        case model.If():
            expression = s.condition
        case model.Match():
            expression = s.subject
        case model.Try():
            expression = s.call
        case model.For():
            expression = s.items
        case _:
            return
    if expression is None:
        return
    perhaps: set[int] = set()  # what is computed on some paths only
    for node in walk(expression):
        sides: tuple[model.Expression, ...] = ()
        if isinstance(node, model.Binary) and node.op in ("and", "or"):
            sides = (node.right,)
        elif isinstance(node, model.Choice):
            sides = tuple(arm.value for arm in node.arms)
        perhaps |= {id(inner) for side in sides for inner in walk(side)}
        if isinstance(node, model.Call):
            yield node, id(node) not in perhaps
