"""What comes of an operator and two constants? The only place that computes one."""

from __future__ import annotations

from collections.abc import Callable

from dsl import model

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}
FOLDED = frozenset(_OPERATORS)


def fold(op: str, a: int, b: int) -> int | str:
    """The value, or why there is none."""
    if op in ("/", "%") and b == 0:
        return "division by zero"
    if op in ("<<", ">>") and b > 63:
        return f"a shift is by 0 to 63 bits, not by {b}"
    value = _OPERATORS[op](a, b)
    return value if 0 <= value < 1 << 64 else f"{value} does not fit in 64 bits"


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def known_condition(e: model.Expression) -> bool | None:
    """What a condition comes to, if only constants decide."""
    match e:
        case model.Literal(value=bool() as value):
            return value
        case model.Unary(op="not", operand=operand):
            inner = known_condition(operand)
            return None if inner is None else not inner
        case model.Binary(op="and" | "or" as op, left=left, right=right):
            decides = op == "or"
            sides = known_condition(left), known_condition(right)
            if sides[0] is decides:
                return decides
            return None if None in sides else sides[1]  # what stands on the left is still computed
        case model.Binary(op=op, left=model.Literal() as left, right=model.Literal() as right):
            if op in _COMPARISONS and isinstance(left.value, int) and isinstance(right.value, int):
                return _COMPARISONS[op](left.number, right.number)
    return None
