"""When may a flow decide on what the VMM said? Branches on values (T01), and the comparisons that bind a
number (T03)."""

from __future__ import annotations

from dsl import model
from dsl.declare import BOOL
from dsl.model import Expression, Provenance, Scalar
from dsl.rules.context import Context
from dsl.rules.state import State
from dsl.rules.words import describe

ORDER = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}  # each with its mirror image
NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def trust_of(context: Context, e: Expression, state: State) -> Provenance:
    """The trust of an expression, without walking it again: calls count as untrusted."""
    match e:
        case model.Variable():
            if context.is_suppressed(e):
                return Provenance.TRUSTED
            obj = state.variables.get(context.key(e))
            key: int | tuple[int, int] = obj.id if obj is not None else context.key(e)
            return state.trust.get(key, Provenance.TRUSTED)
        case model.Literal() | model.Length():
            return Provenance.TRUSTED
        case model.RegionOf():
            return state.trust[context.region_objects[e.name].id]
        case model.FieldOf() | model.Index() | model.Slice():
            return trust_of(context, e.base, state)
        case model.Unary():
            return trust_of(context, e.operand, state)
        case model.Binary():
            sides = (trust_of(context, e.left, state), trust_of(context, e.right, state))
            return min(sides, key=lambda p: p.value)
        case model.Call():
            primitive = context.names.primitives.get(e.callee)
            if primitive is not None:
                return primitive.result_provenance
            return context.program.signatures[e.callee].result_provenance


def comparison(e: Expression) -> tuple[model.Variable, str, Expression] | None:
    """`variable op bound` of a comparison, turned round if the variable stands on the right."""
    if not isinstance(e, model.Binary) or e.op not in NEGATED:
        return None
    if isinstance(e.left, model.Variable) and isinstance(e.left.type, Scalar):
        return e.left, e.op, e.right
    if isinstance(e.right, model.Variable) and isinstance(e.right.type, Scalar):
        return e.right, ORDER.get(e.op, e.op), e.left
    return None


def branch(context: Context, condition: Expression, state: State, only_fails: bool) -> None:
    """T01: a branch on an untrusted value is allowed only as the bounds check that binds it, or as one side
    of which nothing but an error comes (`only_fails`), which no caller may then decide by."""
    if isinstance(condition, model.Unary) and condition.op == "not":
        branch(context, condition.operand, state, only_fails)
        return
    if isinstance(condition, model.Binary) and condition.op in ("and", "or"):
        branch(context, condition.left, state, only_fails)
        refined = state.copy()
        refine(context, condition.left, condition.op == "and", refined)
        branch(context, condition.right, refined, only_fails)
        return
    if trust_of(context, condition, state).value >= Provenance.MEASURED.value:
        return
    found = comparison(condition)
    if found is not None:
        variable, op, bound = found
        if not trust_of(context, variable, state).value < Provenance.MEASURED.value:
            culprit: Expression = bound
        elif trust_of(context, bound, state) != Provenance.TRUSTED:
            culprit = bound
        elif op in ORDER:
            return
        elif only_fails:
            context.frame.doubts.append(variable)
            return
        else:
            culprit = variable
    else:
        culprit = condition
        if isinstance(condition, model.Binary):
            left = trust_of(context, condition.left, state).value < Provenance.MEASURED.value
            culprit = condition.left if left else condition.right
    hint = "only a bounds check may look at it: `require n <= LIMIT`; to decide on it, measure it"
    name = describe(culprit)
    message = f"the flow branches on {name}, which the VMM chose and no RTMR records"
    context.distrust("branch", culprit, Provenance.MEASURED, state, message, hint)


def refine(context: Context, condition: Expression, truth: bool, state: State) -> None:
    """What is known after `condition` turned out as `truth`: a number with a trusted upper bound is trusted,
    and of bytes that are empty there is nothing to distrust."""
    if isinstance(condition, model.Unary) and condition.op == "not":
        refine(context, condition.operand, not truth, state)
        return
    if not isinstance(condition, model.Binary):
        return
    if condition.op in ("and", "or"):
        if truth == (condition.op == "and"):
            refine(context, condition.left, truth, state)
            refine(context, condition.right, truth, state)
        return
    if condition.op not in NEGATED:
        return
    empty = _empty(condition, truth)
    if empty is not None:
        obj = None
        if isinstance(empty, model.Variable):
            obj = state.variables.get(context.key(empty))
        elif isinstance(empty, model.RegionOf):
            obj = context.region_objects[empty.name]
        if obj is not None:
            state.trust[obj.id] = Provenance.TRUSTED
        return
    found = comparison(condition)
    if found is None:
        return
    variable, op, bound = found
    for name, relation, limit in ((variable, op, bound), _other_side(variable, op, bound)):
        relation = relation if truth else NEGATED[relation]
        if name is None or relation not in ("<", "<=", "==") or name.type == BOOL:
            continue
        if trust_of(context, limit, state) == Provenance.TRUSTED and _bounds(context, name, limit, state):
            state.trust[context.key(name)] = Provenance.TRUSTED


def _other_side(
    variable: model.Variable, op: str, bound: Expression
) -> tuple[model.Variable | None, str, Expression]:
    if isinstance(bound, model.Variable) and isinstance(bound.type, Scalar):
        return bound, ORDER.get(op, op), variable
    return None, op, bound


def _bounds(context: Context, variable: model.Variable, limit: Expression, state: State) -> bool:
    """A constant that no value of the type exceeds is no bound."""
    value: int | str | None = limit.number if isinstance(limit, model.Literal) else None
    if isinstance(limit, model.Variable):
        value = state.constants.get(context.key(limit))
    if value is None or not isinstance(variable.type, Scalar):
        return True
    return int(value) < (1 << variable.type.bits) - 1


def _empty(condition: model.Binary, truth: bool) -> Expression | None:
    """X if the outcome says that `X.size` is 0."""
    left, right = condition.left, condition.right
    if not isinstance(left, model.Length) or not isinstance(right, model.Literal):
        return None
    op = condition.op if truth else NEGATED[condition.op]
    zero = (op, right.number) in (("==", 0), ("<=", 0), ("<", 1))
    return left.base if zero else None
