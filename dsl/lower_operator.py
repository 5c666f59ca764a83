"""Does a value fit where it stands, and what do operators make of values?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from dsl import model, tree
from dsl.constants import U64, literal
from dsl.declare import BOOL, SCALARS
from dsl.fold import fold
from dsl.model import (
    Bytes,
    Digest,
    EnumRef,
    Expression,
    Handle,
    ListOf,
    Never,
    RecordRef,
    Scalar,
    Span,
    Text,
    Type,
)
from dsl.scope import Program, Scope, Signature
from dsl.sizes import DIGEST_SIZE

ARITHMETIC = ("+", "-", "*")
U64_MAX = (1 << 64) - 1


def show(kind: Type) -> str:
    """A type as the language writes it."""
    match kind:
        case Scalar() | RecordRef() | EnumRef() | Handle():
            return kind.name
        case ListOf():
            return f"list<{show(kind.element)}, {kind.capacity}>"
        case Bytes() | Digest() | Text() | Never():
            return type(kind).__name__.lower()
    return "nothing"


def is_number(kind: Type) -> bool:
    """Whether a value of the type can be counted with: u8 to u64."""
    return isinstance(kind, Scalar) and kind != BOOL


class OperatorLowerer(ABC):
    """Lowers what operators make of values in one flow. Every method returns None after an error."""

    def __init__(self, program: Program, signature: Signature) -> None:
        self.program = program
        self.names = program.names
        self.error = program.reporter.error
        self.signature = signature
        self.scope = Scope(program, signature.name)
        self.mutable: set[int] = set()  # ids of variables that a callee may write to

    @abstractmethod
    def lower(self, e: tree.Expression) -> Expression | None:
        """The value of an expression."""

    @abstractmethod
    def constant(self, e: tree.Expression) -> model.Literal | None:
        """The value of a constant expression."""

    # ---- what an expression may be used as

    def of_type(self, expression: tree.Expression, wanted: Type, what: str) -> Expression | None:
        lowered = self.lower(expression)
        return None if lowered is None else self.fit(lowered, wanted, what)

    def fit(self, value: Expression, wanted: Type, what: str) -> Expression | None:
        """`value` as `wanted`: numbers widen, constants take the width they need."""
        have = value.type
        if have == wanted:
            return value
        if isinstance(value, model.Choice):
            arms = [(arm, self.fit(arm.value, wanted, what)) for arm in value.arms]
            fitted = tuple(replace(arm, value=x) for arm, x in arms if x is not None)
            return replace(value, arms=fitted, type=wanted) if len(fitted) == len(arms) else None
        if isinstance(wanted, Scalar) and isinstance(have, Scalar) and is_number(wanted) and is_number(have):
            if isinstance(value, model.Literal) and isinstance(value.value, int):
                if value.value < 1 << wanted.bits:
                    return model.Literal(value.value, wanted, value.span)
                self.error("E06", value.span, f"{value.value} does not fit in {show(wanted)}")
                return None
            if have.bits <= wanted.bits:
                return value
            hint = f"keep the low bits with `& 0x{(1 << wanted.bits) - 1:X}`"
            self.error("E01", value.span, f"{what} is {show(wanted)}, this is {show(have)}", hint)
            return None
        if isinstance(value, model.Literal):
            if isinstance(value.value, str) and wanted == Bytes():
                return model.Literal(value.value.encode(), wanted, value.span)
            if isinstance(value.value, bytes) and wanted == Digest():
                if len(value.value) == DIGEST_SIZE:
                    return model.Literal(value.value, wanted, value.span)
                message = f"a digest has {DIGEST_SIZE} bytes, this has {len(value.value)}"
                self.error("E06", value.span, message, "SHA-384, as `sha384sum` prints it")
                return None
        hint = "a number is printed as `hex(n)`" if wanted == Text() and is_number(have) else ""
        self.error("E01", value.span, f"{what} is {show(wanted)}, this is {show(have)}", hint)
        return None

    def error_path(self, span: Span, what: str) -> None:
        """An error that arises here needs somewhere to go."""
        if not self.signature.fallible and not self.signature.fatal:
            name = self.signature.name
            if not self.program.first("error path", name):
                return
            hint = "declare the flow `fails`, or begin it with `on error fatal`"
            self.error("T08", span, f"{what}, but `{name}` does not say how errors are handled", hint)

    def status(self, name: str) -> int:
        return self.names.errors[name].number

    # ---- operators

    def binary(self, e: tree.Binary) -> Expression | None:
        if e.op == "in":
            return self.membership(e)
        left, right = self.lower(e.left), self.lower(e.right)
        if left is None or right is None:
            return None
        op, span = e.op, e.span
        if op in ("and", "or"):
            l_bool, r_bool = (self.fit(x, BOOL, f"an operand of `{op}`") for x in (left, right))
            return l_bool and r_bool and model.Binary(op, l_bool, r_bool, 0, BOOL, span)
        if op in ("==", "!=") and isinstance(left.type, Bytes | Digest | Text):
            return self.same_bytes(op, left, right, span)
        same = left.type == right.type and isinstance(left.type, Scalar | EnumRef)
        numbers = is_number(left.type) and is_number(right.type)
        if op in ("==", "!=") and (same or numbers):
            return model.Binary(op, left, right, 0, BOOL, span)
        if not numbers:
            what = f"`{op}` takes two numbers, this is {show(left.type)} and {show(right.type)}"
            hint = (
                "the fields of a record are compared one by one" if isinstance(left.type, RecordRef) else ""
            )
            self.error("E01", span, what, hint)
            return None
        if op in ("<", "<=", ">", ">="):
            return model.Binary(op, left, right, 0, BOOL, span)
        if isinstance(left, model.Literal) and isinstance(right, model.Literal):
            return self.fold(op, left.number, right.number, span)
        if op in ("/", "%", "<<", ">>"):
            value = right.number if isinstance(right, model.Literal) else None
            fits = value is not None and (value > 0 if op in "/%" else value < 64)
            if not fits:
                wanted = "a constant other than 0" if op in "/%" else "a constant below 64"
                self.error("E06", right.span, f"the right side of `{op}` is {wanted}")
                return None
        if op in ARITHMETIC:
            self.error_path(span, f"`{op}` may overflow")
        number = self.status("arithmetic_overflow") if op in ARITHMETIC else 0
        return model.Binary(op, left, right, number, self.width(op, left, right), span)

    def same_bytes(self, op: str, left: Expression, right: Expression, span: Span) -> Expression | None:
        """Bytes or digests compared; a constant takes the type of the other side."""
        kind = Digest() if Digest() in (left.type, right.type) else Bytes()
        sides = [self.fit(x, kind, f"a side of `{op}`") for x in (left, right)]
        first, second = sides
        return first and second and model.Binary(op, first, second, 0, BOOL, span)

    def membership(self, e: tree.Binary) -> Expression | None:
        """`x in LIST`: the elements take the type of `x`."""
        left = self.lower(e.left)
        is_list = isinstance(e.right, tree.List) or (
            isinstance(e.right, tree.Name)
            and e.right.text in self.names.constants
            and isinstance(self.names.constants[e.right.text].value, tuple)
        )
        right = self.constant(e.right) if is_list else self.lower(e.right)
        if left is None or right is None:
            return None
        if not isinstance(right, model.Literal) or not isinstance(right.value, tuple):
            hint = "write `x in [A, B]`, or name a constant that is a list"
            self.error("E01", right.span, f"`in` needs a constant list, this is {show(right.type)}", hint)
            return None
        if not isinstance(left.type, Scalar | Bytes | Digest):
            self.error("E01", left.span, f"a list cannot have elements of type {show(left.type)}")
            return None
        fitted = [self.fit(literal(v, right.span), left.type, "an element of the list") for v in right.value]
        values = tuple(x.value for x in fitted if isinstance(x, model.Literal))
        if len(values) != len(fitted):
            return None
        items = model.Literal(values, ListOf(left.type, len(values)), right.span)  # type: ignore[arg-type]
        return model.Binary("in", left, items, 0, BOOL, e.span)

    def width(self, op: str, left: Expression, right: Expression) -> Scalar:
        """The type of a result: `&` has the bits of its narrower side, a constant those it needs."""

        def bits(x: Expression) -> int:
            own = x.type.bits if isinstance(x.type, Scalar) else 64
            return max(x.number.bit_length(), 1) if isinstance(x, model.Literal) else own

        need = {
            "&": min(bits(left), bits(right)),
            "|": max(bits(left), bits(right)),
            "^": max(bits(left), bits(right)),
        }
        wide = need.get(op, bits(left) if op in ("/", "%", ">>") else 64)
        return next(s for s in SCALARS.values() if s != BOOL and s.bits >= wide)

    def fold(self, op: str, a: int, b: int, span: Span) -> Expression | None:
        value = fold(op, a, b)
        if isinstance(value, str):
            self.error("E06", span, value)
            return None
        return model.Literal(value, U64, span)
