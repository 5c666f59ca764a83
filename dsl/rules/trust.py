"""When may a flow decide on what the VMM said? Branches on values (T01), and the comparisons that bind a
number (T03)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsl import model
from dsl.declare import BOOL
from dsl.model import Expression, Provenance, Scalar
from dsl.rules.state import State
from dsl.rules.words import describe

if TYPE_CHECKING:
    from dsl.rules.values import ValueWalker

ORDER = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}  # each with its mirror image
NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def worth(walker: ValueWalker, e: Expression, state: State) -> Provenance:
    """The trust of an expression, without walking it again: calls count as untrusted."""
    match e:
        case model.Variable():
            if walker.is_waived(e):
                return Provenance.TRUSTED
            thing = state.variables.get(walker.key(e))
            key: int | tuple[int, int] = thing.id if thing is not None else walker.key(e)
            return state.trust.get(key, Provenance.TRUSTED)
        case model.Literal() | model.Length():
            return Provenance.TRUSTED
        case model.RegionOf():
            return state.trust[walker.region_things[e.name].id]
        case model.FieldOf() | model.Index() | model.Slice():
            return worth(walker, e.base, state)
        case model.Unary():
            return worth(walker, e.operand, state)
        case model.Binary():
            sides = (worth(walker, e.left, state), worth(walker, e.right, state))
            return min(sides, key=lambda p: p.value)
        case model.Call():
            primitive = walker.names.primitives.get(e.callee)
            if primitive is not None:
                return primitive.result_provenance
            return walker.program.signatures[e.callee].result_provenance


def comparison(e: Expression) -> tuple[model.Variable, str, Expression] | None:
    """`variable op bound` of a comparison, turned round if the variable stands on the right."""
    if not isinstance(e, model.Binary) or e.op not in NEGATED:
        return None
    if isinstance(e.left, model.Variable) and isinstance(e.left.type, Scalar):
        return e.left, e.op, e.right
    if isinstance(e.right, model.Variable) and isinstance(e.right.type, Scalar):
        return e.right, ORDER.get(e.op, e.op), e.left
    return None


def branch(walker: ValueWalker, condition: Expression, state: State, only_fails: bool) -> None:
    """T01: a branch on an untrusted value is allowed only as the bounds check that binds it, or as one side
    of which nothing but an error comes (`only_fails`), which no caller may then decide by."""
    if isinstance(condition, model.Unary) and condition.op == "not":
        branch(walker, condition.operand, state, only_fails)
        return
    if isinstance(condition, model.Binary) and condition.op in ("and", "or"):
        branch(walker, condition.left, state, only_fails)
        refined = state.copy()
        refine(walker, condition.left, condition.op == "and", refined)
        branch(walker, condition.right, refined, only_fails)
        return
    if worth(walker, condition, state).value >= Provenance.MEASURED.value:
        return
    found = comparison(condition)
    if found is not None:
        variable, op, bound = found
        if not worth(walker, variable, state).value < Provenance.MEASURED.value:
            culprit: Expression = bound
        elif worth(walker, bound, state) != Provenance.TRUSTED:
            culprit = bound
        elif op in ORDER:
            return
        elif only_fails:
            walker.frame.doubts.append(variable)
            return
        else:
            culprit = variable
    else:
        culprit = condition
        if isinstance(condition, model.Binary):
            left = worth(walker, condition.left, state).value < Provenance.MEASURED.value
            culprit = condition.left if left else condition.right
    hint = "only a bounds check may look at it: `require n <= LIMIT`; to decide on it, measure it"
    name = describe(culprit)
    message = f"the flow branches on {name}, which the VMM chose and no RTMR records"
    walker.distrust("T01", culprit, Provenance.MEASURED, state, message, hint)


def refine(walker: ValueWalker, condition: Expression, truth: bool, state: State) -> None:
    """What is known after `condition` turned out as `truth`: a number with a trusted upper bound is trusted,
    and of bytes that are empty there is nothing to distrust."""
    if isinstance(condition, model.Unary) and condition.op == "not":
        refine(walker, condition.operand, not truth, state)
        return
    if not isinstance(condition, model.Binary):
        return
    if condition.op in ("and", "or"):
        if truth == (condition.op == "and"):
            refine(walker, condition.left, truth, state)
            refine(walker, condition.right, truth, state)
        return
    if condition.op not in NEGATED:
        return
    empty = _empty(condition, truth)
    if empty is not None:
        thing = None
        if isinstance(empty, model.Variable):
            thing = state.variables.get(walker.key(empty))
        elif isinstance(empty, model.RegionOf):
            thing = walker.region_things[empty.name]
        if thing is not None:
            state.trust[thing.id] = Provenance.TRUSTED
        return
    found = comparison(condition)
    if found is None:
        return
    variable, op, bound = found
    for name, relation, limit in ((variable, op, bound), _other_side(variable, op, bound)):
        relation = relation if truth else NEGATED[relation]
        if name is None or relation not in ("<", "<=", "==") or name.type == BOOL:
            continue
        if worth(walker, limit, state) == Provenance.TRUSTED and _bounds(walker, name, limit, state):
            state.trust[walker.key(name)] = Provenance.TRUSTED


def _other_side(
    variable: model.Variable, op: str, bound: Expression
) -> tuple[model.Variable | None, str, Expression]:
    if isinstance(bound, model.Variable) and isinstance(bound.type, Scalar):
        return bound, ORDER.get(op, op), variable
    return None, op, bound


def _bounds(walker: ValueWalker, variable: model.Variable, limit: Expression, state: State) -> bool:
    """A constant that no value of the type exceeds is no bound."""
    value = limit.value if isinstance(limit, model.Literal) else None
    if isinstance(limit, model.Variable):
        value = state.constants.get(walker.key(limit))
    if value is None or not isinstance(variable.type, Scalar):
        return True
    return int(value) < (1 << variable.type.bits) - 1


def _empty(condition: model.Binary, truth: bool) -> Expression | None:
    """X if the outcome says that `X.size` is 0."""
    left, right = condition.left, condition.right
    if not isinstance(left, model.Length) or not isinstance(right, model.Literal):
        return None
    op = condition.op if truth else NEGATED[condition.op]
    zero = (op, int(right.value)) in (("==", 0), ("<=", 0), ("<", 1))
    return left.base if zero else None
