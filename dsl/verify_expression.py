"""Is an expression of the model one that the generator may trust? Types, names, operands, error targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsl import model
from dsl.model import (
    Bytes,
    Digest,
    EnumRef,
    Expression,
    Firmware,
    ListOf,
    Never,
    RecordRef,
    Scalar,
    Span,
    Text,
    Type,
    Unit,
    Variable,
)
from dsl.sizes import DIGEST_SIZE

MAX_ARGUMENTS = 6  # registers of the ABI
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


class ModelError(Exception):
    """The compiler made a model that does not hold together."""

    def __init__(self, span: Span, message: str) -> None:
        super().__init__(f"{span.path}:{span.line}:{span.column}: internal error of the compiler: {message}")
        self.message = message


def require(holds: bool, span: Span, message: str) -> None:
    """Raises ModelError with the message unless `holds`."""
    if not holds:
        raise ModelError(span, message)


class Scope:
    """What a place in a flow may name, and where its errors go."""

    def __init__(self, firmware: Firmware, flow: model.Flow) -> None:
        self.firmware = firmware
        self._flow = flow
        self._numbers = {e.name: e.number for e in firmware.errors}
        self._frames: list[dict[int, Variable]] = [{}]
        self._ever: set[int] = set()

    @contextmanager
    def inner(self) -> Iterator[None]:
        self._frames.append({})
        yield
        self._frames.pop()

    def define(self, variable: Variable) -> None:
        require(variable.id not in self._ever, variable.span, f"`{variable.name}` is defined twice")
        require(not isinstance(variable.type, Unit | Never), variable.span, f"`{variable.name}` is nothing")
        self._ever.add(variable.id)
        self._frames[-1][variable.id] = variable

    def find(self, variable: Variable) -> Variable | None:
        return next((f[variable.id] for f in self._frames if variable.id in f), None)

    def declared(self, number: int, span: Span) -> None:
        require(number in self._numbers.values(), span, f"no error has the number {number}")

    def may_fail(self, number: int, span: Span) -> None:
        """An error with this number arises here."""
        self.declared(number, span)
        self.may_propagate(span)

    def may_propagate(self, span: Span) -> None:
        has_target = self._flow.fallible or self._flow.on_error_fatal
        require(has_target, span, f"an error in `{self._flow.name}` has no target")

    def errors_of(self, call: model.Call) -> set[int] | None:
        """The numbers that a callee may give; None for a fallible flow, which may give any."""
        if call.is_flow:
            return None if self.firmware.flows[call.callee].fallible else set()
        return {self._numbers[e] for e in self.firmware.primitives[call.callee].errors}


def value(e: Expression, scope: Scope) -> None:
    """`e` is well formed and may stand in any place that its type allows."""
    expression(e, scope)
    constant_list = isinstance(e, model.Literal) and isinstance(e.type, ListOf)
    require(not constant_list, e.span, "a constant list stands elsewhere than behind `in`")


def is_number(kind: Type) -> bool:
    """Whether a value of the type can be counted with: u8 to u64."""
    return isinstance(kind, Scalar) and kind.name != "bool"


def fits(e: Expression, wanted: Type, span: Span, firmware: Firmware) -> None:
    """`e` may stand where a `wanted` is expected: the same type, or a narrower number."""
    have = e.type
    wider = is_number(have) and is_number(wanted) and _bits(have) <= _bits(wanted)
    require(have == wanted or wider, span, f"{have} stands where {wanted} is expected")
    if isinstance(e, model.Literal):
        _literal(e, firmware)


def _bits(kind: Type) -> int:
    return kind.bits if isinstance(kind, Scalar) else 32


def _literal(e: model.Literal, firmware: Firmware) -> None:
    if isinstance(e.value, str):
        require(isinstance(e.type, Text) and e.value.isascii(), e.span, "a text is no text")
    elif isinstance(e.value, bytes):
        digest = isinstance(e.type, Digest) and len(e.value) == DIGEST_SIZE
        require(digest or e.type == Bytes(), e.span, "constant bytes are neither bytes nor a digest")
    elif isinstance(e.value, tuple):
        require(isinstance(e.type, ListOf) and e.type.capacity == len(e.value), e.span, "a list is no list")
        for item in e.value:
            assert isinstance(e.type, ListOf)
            _literal(model.Literal(item, e.type.element, e.span), firmware)
    elif isinstance(e.type, EnumRef):
        members = firmware.enumerations[e.type.name].members
        require(e.value in [number for _, number in members], e.span, "no member has this number")
    else:
        require(isinstance(e.type, Scalar), e.span, "a number is no word")
        limit = 2 if not is_number(e.type) else 1 << _bits(e.type)
        require(0 <= e.value < limit, e.span, f"{e.value} is out of range")


def expression(e: Expression, scope: Scope, in_try: bool = False) -> None:
    """`e` is well formed."""
    firmware = scope.firmware
    match e:
        case model.Literal():
            _literal(e, firmware)
        case model.Variable():
            found = scope.find(e)
            require(found is not None, e.span, f"`{e.name}` is not defined here")
            require(found is not None and found.type == e.type, e.span, f"`{e.name}` has two types")
        case model.FieldOf():
            value(e.base, scope)
            require(e.base.type == RecordRef(e.record), e.span, f"this is no {e.record}")
            fields = {f.name: f for f in firmware.records[e.record].fields}
            field = fields.get(e.field)
            right = field is not None and (field.offset, field.type) == (e.offset, e.type)
            require(right, e.span, f"{e.record} has no such field `{e.field}`")
        case model.RegionOf():
            regions = firmware.memory if e.carved else firmware.image
            declared = any(region.name == e.name for region in regions)
            require(declared and e.type == Bytes(), e.span, f"there is no region `{e.name}`")
        case model.Length():
            value(e.base, scope)
            measurable = isinstance(e.base.type, Bytes | Text | ListOf)
            require(measurable and e.type == Scalar("u64", 64), e.span, "this has no length")
        case model.Slice():
            for part in (e.base, e.start, e.end):
                value(part, scope)
            spans = e.base.type == e.type == Bytes()
            bounds = is_number(e.start.type) and is_number(e.end.type)
            require(spans and bounds, e.span, "a slice of no bytes")
            scope.may_fail(e.error, e.span)
        case model.Index():
            value(e.base, scope)
            value(e.index, scope)
            element = e.base.type.element if isinstance(e.base.type, ListOf) else None
            require(element == e.type and is_number(e.index.type), e.span, "an index into no list")
            scope.may_fail(e.error, e.span)
        case model.Unary():
            value(e.operand, scope)
            logical = e.op == "not" and not is_number(e.type) and e.operand.type == e.type
            bitwise = e.op == "~" and e.type == Scalar("u64", 64) and is_number(e.operand.type)
            word = isinstance(e.type, Scalar)
            require(word and (logical or bitwise), e.span, f"`{e.op}` of no word for it")
        case model.Binary():
            _binary(e, scope)
        case model.Call():
            _call(e, scope, in_try)
        case model.Choice():
            _choice(e, scope)


def _choice(e: model.Choice, scope: Scope) -> None:
    value(e.subject, scope)
    kind = e.subject.type
    require(isinstance(kind, Scalar | EnumRef), e.span, "only words select")
    require(
        isinstance(e.type, Scalar | EnumRef | Bytes | Digest | Text), e.span, "this is no value to choose"
    )
    for arm in e.arms:
        for each in arm.values:
            fits(model.Literal(each, kind, arm.span), kind, arm.span, scope.firmware)
        value(arm.value, scope)
        fits(arm.value, e.type, arm.span, scope.firmware)
    seen = [each for arm in e.arms for each in arm.values]
    require(len(set(seen)) == len(seen) and bool(e.arms), e.span, "a value selects two arms or none")
    require(all(arm.values for arm in e.arms[:-1]), e.span, "an arm stands behind the one for all others")


def _binary(e: model.Binary, scope: Scope) -> None:
    value(e.left, scope)
    left, right = e.left.type, e.right.type
    if e.op == "in":
        literal = isinstance(e.right, model.Literal) and isinstance(right, ListOf)
        require(
            literal and isinstance(right, ListOf) and right.element == left, e.span, "`in` of no list for it"
        )
        expression(e.right, scope)
        require(e.type == Scalar("bool", 8), e.span, "`in` gives a bool")
        return
    value(e.right, scope)
    numbers = is_number(left) and is_number(right)
    is_bool = isinstance(e.type, Scalar) and not is_number(e.type)
    if e.op in ("and", "or"):
        require(is_bool and left == right == e.type, e.span, f"`{e.op}` of no bool")
        return
    if e.op in COMPARISONS:
        same = isinstance(left, Scalar | EnumRef | Bytes | Digest) and left == right and e.op in ("==", "!=")
        require(is_bool and (numbers or same), e.span, f"`{e.op}` of what has no order")
        return
    require(numbers and is_number(e.type), e.span, f"`{e.op}` of no number")
    if e.op in ("+", "-", "*"):
        require(_bits(e.type) == 64, e.span, f"`{e.op}` is narrower than 64 bits")
        scope.may_fail(e.error, e.span)
        return
    require(e.error == 0, e.span, f"`{e.op}` cannot fail")
    constant = e.right.number if isinstance(e.right, model.Literal) else None
    if e.op in ("/", "%"):
        require(constant is not None and constant > 0, e.span, "a divisor is no constant other than 0")
    elif e.op in ("<<", ">>"):
        require(constant is not None and constant < 64, e.span, "a shift count is no constant below 64")
    else:
        require(e.op in ("&", "|", "^"), e.span, f"there is no operator `{e.op}`")
    needed = 64 if e.op == "<<" else _needed(e)
    require(_bits(e.type) >= needed, e.span, f"`{e.op}` is narrower than what comes of it")


def _needed(e: model.Binary) -> int:
    """Bits that the result of an operator that cannot fail may take."""

    def bits(operand: Expression) -> int:
        constant = isinstance(operand, model.Literal)
        return operand.number.bit_length() if constant else _bits(operand.type)  # type: ignore[union-attr]

    match e.op:
        case "&":
            return min(bits(e.left), bits(e.right))
        case "|" | "^":
            return max(bits(e.left), bits(e.right))
    return bits(e.left)


def _is_place(e: Expression) -> bool:
    """Whether `e` is a variable or a part of one."""
    return isinstance(e, model.Variable) or (isinstance(e, model.FieldOf) and _is_place(e.base))


def _call(e: model.Call, scope: Scope, in_try: bool) -> None:
    firmware = scope.firmware
    if e.is_flow:
        require(e.callee in firmware.flows, e.span, f"there is no flow `{e.callee}`")
        flow = firmware.flows[e.callee]
        wanted = [p.type for p in flow.parameters]
        result, fallible = flow.result, flow.fallible
    else:
        require(e.callee in firmware.primitives, e.span, f"there is no primitive `{e.callee}`")
        primitive = firmware.primitives[e.callee]
        require(not primitive.internal, e.span, f"`{e.callee}` is for generated code")
        given = [p for p in primitive.parameters if not p.state]
        wanted = [p.type for p in given]
        result, fallible = primitive.result, primitive.fallible
        for argument, parameter in zip(e.arguments, given, strict=False):
            kept = not parameter.mutable or not isinstance(parameter.type, RecordRef) or _is_place(argument)
            require(kept, argument.span, f"`{e.callee}` writes to what nobody keeps")
    require(e.type == result, e.span, f"`{e.callee}` gives another type")
    require(len(e.arguments) == len(wanted), e.span, f"`{e.callee}` takes {len(wanted)} arguments")
    for argument, kind in zip(e.arguments, wanted, strict=True):
        value(argument, scope)
        fits(argument, kind, argument.span, firmware)
    require(e.attempts == 1 or (e.attempts > 1 and e.propagate), e.span, "only what propagates is retried")
    empty = not e.unless_empty or (wanted[:1] == [Bytes()] and isinstance(e.type, Unit) and not in_try)
    require(empty, e.span, "only a step on bytes is left out when they are empty")
    require(fallible or not e.propagate, e.span, f"`{e.callee}` cannot fail")
    require(e.propagate or in_try or not fallible, e.span, f"an error of `{e.callee}` is dropped")
    if e.propagate:
        scope.may_propagate(e.span)
