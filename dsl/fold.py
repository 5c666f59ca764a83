"""What comes of an operator and two constants? The only place that computes one."""

from __future__ import annotations

from collections.abc import Callable

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
        return f"a shift by {b} leaves nothing of 64 bits"
    value = _OPERATORS[op](a, b)
    return value if 0 <= value < 1 << 64 else f"{value} does not fit in 64 bits"
