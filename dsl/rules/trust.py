"""When may a flow decide by what the VMM said? Branches (T01), and what a comparison says of a number.

A decision needs values that are recorded. Without that, all paths but one end in an error: two boots that
both get to the handoff have then taken the same one. On that path `==` says which value it is, an order
comparison only that the number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsl import model
from dsl.declare import BOOL
from dsl.model import EnumRef, Expression, Scalar
from dsl.rules.context import Context
from dsl.rules.state import State, Value, number
from dsl.rules.words import describe, record_hint

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
RECORDED = number(recorded=True, bounded=False)


def unrecorded(context: Context, e: Expression) -> Expression | None:
    """The part of `e` that no register records, if any."""
    value = context.values.get(id(e))
    if value is None or value.recorded:
        return None
    match e:
        case model.Binary():
            return unrecorded(context, e.left) or unrecorded(context, e.right) or e
        case model.Unary():
            return unrecorded(context, e.operand) or e
    return e


def decide(context: Context, e: Expression, state: State, goes_on: bool) -> None:
    """T01: what the flow does next depends on `e`; `goes_on`: on more than one path it is no error."""
    culprit = unrecorded(context, e)
    if culprit is None:
        return
    if not goes_on:
        context.doubted(culprit)
        return
    message = f"the flow branches on {describe(culprit)}, which the VMM chose and no RTMR records"
    context.distrust("branch", culprit, RECORDED, state, message, record_hint(culprit))


def refine(context: Context, condition: Expression, truth: bool, state: State) -> None:
    """What is known after `condition` turned out as `truth`."""
    match condition:
        case model.Unary(op="not"):
            refine(context, condition.operand, not truth, state)
        case model.Variable():
            learn(context, condition, number(recorded=True, bounded=True, constant=int(truth)), state)
        case model.Binary(op="and" | "or"):
            if truth == (condition.op == "and"):
                refine(context, condition.left, truth, state)
                refine(context, condition.right, truth, state)
        case model.Binary(op="in") if truth:
            learn(context, condition.left, number(recorded=False, bounded=True), state)
        case model.Binary() if condition.op in NEGATED:
            op = condition.op if truth else NEGATED[condition.op]
            _compare(context, condition.left, op, condition.right, state)
            _compare(context, condition.right, MIRRORED[op], condition.left, state)


def _compare(context: Context, e: Expression, op: str, other: Expression, state: State) -> None:
    """`e op other` holds."""
    value = context.values.get(id(other))
    if value is None:
        return
    match e:
        case model.Variable() if op == "==":
            learn(context, e, value, state)
        case model.Variable() if op in ("<", "<=") and value.bounded and excludes(value, e):
            learn(context, e, number(recorded=False, bounded=True), state)


def excludes(limit: Value, e: Expression) -> bool:
    """A constant that no value of the type exceeds is no bound, and masks nothing."""
    if not isinstance(limit.constant, int) or not isinstance(e.type, Scalar):
        return True
    return limit.constant < (1 << e.type.bits) - 1


def learn(context: Context, e: Expression, fact: Value, state: State) -> None:
    """The number that `e` names equals one of which `fact` is known, or `fact` is all that is new."""
    if not isinstance(e, model.Variable) or not isinstance(e.type, Scalar | EnumRef):
        return
    state.learn(context.key(e), fact)


def learn_arm(
    context: Context, subject: Expression, values: Iterable[int], before: Iterable[int], state: State
) -> None:
    """`subject` selected the arm of `values`, or that of all others if there are none. `before`: what selects
    an earlier arm."""
    values = tuple(values)
    if not values and subject.type == BOOL:
        values = tuple({0, 1}.difference(before))
    if len(values) == 1:
        learn(context, subject, number(recorded=True, bounded=True, constant=values[0]), state)
        if subject.type == BOOL:
            refine(context, subject, values == (1,), state)
    elif values:
        learn(context, subject, number(recorded=False, bounded=True), state)
