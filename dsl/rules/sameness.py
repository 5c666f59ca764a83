"""Does it make a difference? Whether two ways through a flow do the same, and whether a value is the same
whatever its parts are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from dsl import model
from dsl.fold import known_condition
from dsl.model import Expression, Scalar, Span, Statement
from dsl.tree import walk

AGAIN = "again"  # behind the last statement of a loop's body
Steps = tuple[Statement | str, ...]


def shape(node: object, bound: dict[int, int] | None = None) -> object:
    """`node` without places and without the names that it binds itself; equal for what does the same. No two
    `fail` are equal: each is meant to decide."""
    if bound is None:
        found = [n.variable for n in walk(node) if isinstance(n, model.Let | model.Try | model.For)]
        bound = {v.id: -1 - place for place, v in enumerate(v for v in found if v is not None)}
    if isinstance(node, tuple):
        return tuple(shape(item, bound) for item in node)
    if isinstance(node, Span):
        return None
    if isinstance(node, model.Variable):
        return model.Variable, bound.get(node.id, node.id)
    if isinstance(node, model.Fail) or not dataclasses.is_dataclass(node):
        return node
    return type(node), *(shape(getattr(node, f.name), bound) for f in dataclasses.fields(node))


def _leaves(step: Statement | str) -> bool:
    return step == AGAIN or isinstance(step, model.Return | model.Fail)


def _to_end(steps: Iterable[Statement | str]) -> Steps:
    """`steps` up to the first that leaves, or all."""
    found: list[Statement | str] = []
    for step in steps:
        found.append(step)
        if _leaves(step):
            break
    return tuple(found)


def same(ways: list[Steps], rest: Steps) -> bool:
    """Whether all `ways` do the same, each with `rest` behind it."""
    ends = [any(_leaves(step) for step in way) for way in ways]
    if any(ends) and not all(ends):
        ways = [_to_end((*way, *rest)) for way in ways]
    return len({len(way) for way in ways}) <= 1 and all(shape(way) == shape(ways[0]) for way in ways[1:])


def constant(e: Expression) -> bool:
    """Whether `e` has the same value whatever is in its variables."""
    match e:
        case model.Literal():
            return True
        case model.Unary():
            return constant(e.operand)
        case model.Choice():
            return all(shape(arm.value) == shape(e.arms[0].value) for arm in e.arms) and constant(
                e.arms[0].value
            )
        case model.Binary(op="and" | "or"):
            sides = known_condition(e.left), known_condition(e.right)
            return (e.op == "or") in sides or _opposites(e.left, e.right) or _both(e)
        case model.Binary():
            return _both(e) or _absorbs(e) or _itself(e)
    return False


def _both(e: model.Binary) -> bool:
    return constant(e.left) and constant(e.right)


def _opposites(a: Expression, b: Expression) -> bool:
    """`v or not v`"""
    pairs = ((a, b), (b, a)) if not _calls(a) else ()
    return any(
        isinstance(x, model.Unary) and x.op == "not" and shape(x.operand) == shape(y) for x, y in pairs
    )


def _itself(e: model.Binary) -> bool:
    """`v == v`, `v - v`"""
    alike = e.op in ("==", "!=", "<", "<=", ">", ">=", "-", "^") and shape(e.left) == shape(e.right)
    return alike and not _calls(e.left)  # which may answer something else the next time


def _calls(e: Expression) -> bool:
    return any(isinstance(node, model.Call) for node in walk(e))


def _absorbs(e: model.Binary) -> bool:
    """`v & 0`, `v % 1`, and comparisons with what no number of its type lies beyond."""
    left, right = _number(e.left), _number(e.right)
    match e.op:
        case "&" | "*":
            return 0 in (left, right)
        case "%":
            return right == 1
        case "<" | ">=":
            return right == 0 or left == _largest(e.right)
        case ">" | "<=":
            return left == 0 or right == _largest(e.left)
    return False


def _number(e: Expression) -> int | None:
    return e.number if isinstance(e, model.Literal) and isinstance(e.value, int) else None


def _largest(e: Expression) -> int:
    return (1 << e.type.bits) - 1 if isinstance(e.type, Scalar) else -1
