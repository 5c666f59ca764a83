"""What does an expression mean? Finds names and types and makes the model's expression, or reports why it
cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from dsl import model, tree
from dsl.constants import U64, literal, value_of
from dsl.declare import BOOL, SCALARS
from dsl.diagnostics import did_you_mean
from dsl.fold import fold
from dsl.model import (
    Bytes,
    Digest,
    EnumRef,
    Expression,
    Handle,
    ListOf,
    Never,
    Parameter,
    RecordRef,
    Scalar,
    Span,
    Text,
    Type,
)
from dsl.scope import Program, Scope, Signature
from dsl.sizes import DIGEST_SIZE

ARITHMETIC = ("+", "-", "*")
MAX_ATTEMPTS = 1_000_000
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
    return isinstance(kind, Scalar) and kind != BOOL


class ExpressionLowerer(ABC):
    """Lowers the expressions of one flow. Every method returns None after it reported an error."""

    def __init__(self, program: Program, signature: Signature) -> None:
        self.program = program
        self.names = program.names
        self.error = program.reporter.error
        self.signature = signature
        self.scope = Scope(program, signature.name)
        self.mutable: set[int] = set()  # ids of variables that a callee may write to

    @abstractmethod
    def choice(self, e: tree.Choice) -> Expression | None:
        """A value that is chosen by another."""

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

    # ---- forms

    def lower(self, e: tree.Expression) -> Expression | None:
        match e:
            case tree.Number():
                if e.value >= 1 << 64:
                    self.error("E06", e.span, f"{e.value} does not fit in 64 bits")
                    return None
                return model.Literal(e.value, U64, e.span)
            case tree.String() | tree.Hex() | tree.List():
                return self.single(self.constant(e), e.span)
            case tree.Boolean():
                return model.Literal(e.value, BOOL, e.span)
            case tree.Name():
                return self.name(e)
            case tree.Field():
                return self.field(e)
            case tree.Index():
                return self.index(e)
            case tree.Slice():
                return self.slice(e)
            case tree.Call():
                return self.call(e, propagate=False)
            case tree.Propagate():
                if isinstance(e.operand, tree.Call):
                    return self.call(e.operand, propagate=True, span=e.span)
                self.error("E01", e.span, "only a call can be followed by `?`")
                return None
            case tree.Retry():
                return self.retry(e.call, e.times, e.span)
            case tree.Choice():
                return self.choice(e)
            case tree.Unary():
                wanted = BOOL if e.op == "not" else U64
                operand = self.of_type(e.operand, wanted, f"the operand of `{e.op}`")
                if e.op == "~" and isinstance(operand, model.Literal):
                    return model.Literal(~operand.number & U64_MAX, U64, e.span)
                return operand and model.Unary(e.op, operand, wanted, e.span)
            case tree.Binary():
                return self.binary(e)

    def constant(self, e: tree.Expression) -> model.Literal | None:
        value = value_of(e, self.names.constants, self.program.reporter)
        return None if value is None else literal(value, e.span)

    def single(self, value: model.Literal | None, span: Span) -> Expression | None:
        """A constant that is no list."""
        if value is None or not isinstance(value.value, tuple):
            return value
        self.error("E01", span, "a constant list is allowed only on the right of `in`", "write `x in LIST`")
        return None

    def name(self, e: tree.Name) -> Expression | None:
        if e.text in self.scope:
            variable = self.scope.find(e.text)
            return variable and model.Variable(variable.id, variable.name, variable.type, e.span)
        if e.text in self.program.sections or e.text in self.program.regions:
            return model.RegionOf(e.text, e.text in self.program.regions, Bytes(), e.span)
        if constant := self.names.constants.get(e.text):
            return self.single(literal(constant.value, e.span), e.span)
        self.scope.unknown(e)
        return None

    def field(self, e: tree.Field) -> Expression | None:
        word = e.name.text
        if isinstance(e.base, tree.Name) and e.base.text in self.names.enumerations:
            enumeration = self.names.enumerations[e.base.text]
            for member, value in enumeration.members:
                if member == word:
                    return model.Literal(value, EnumRef(enumeration.name), e.span)
            hint = did_you_mean(word, (m for m, _ in enumeration.members))
            self.error("N03", e.name.span, f"`{enumeration.name}` has no member `{word}`", hint)
            return None
        if isinstance(e.base, tree.Name) and e.base.text == "firmware":
            if (number := self.program.release.get(word)) is not None:
                return model.Literal(number, U64, e.span)
            hint = did_you_mean(word, self.program.release) or "it has svn, major, minor and patch"
            self.error("N03", e.name.span, f"`firmware` has no `{word}`", hint)
            return None
        base = self.lower(e.base)
        if base is None:
            return None
        match base.type:
            case Bytes() | Text():
                if word == "size":
                    return model.Length(base, U64, e.span)
                known = ["size"]
            case ListOf():
                if word == "count":
                    return model.Length(base, U64, e.span)
                known = ["count"]
            case RecordRef(name):
                fields = self.names.records[name].fields
                for f in fields:
                    if f.name == word and (name, word) in self.names.hidden:
                        self.error(
                            "N04", e.name.span, f"`{word}` is for generated code, a flow names the region"
                        )
                        return None
                    if f.name == word:
                        return model.FieldOf(base, name, word, f.offset, f.type, e.span)
                known = [f.name for f in fields if (name, f.name) not in self.names.hidden]
            case _:
                known = []
        hint = did_you_mean(word, known) or (f"it has {', '.join(f'`{k}`' for k in known)}" if known else "")
        self.error("N03", e.name.span, f"{show(base.type)} has no field `{word}`", hint)
        return None

    def index(self, e: tree.Index) -> Expression | None:
        base = self.lower(e.base)
        index = self.of_type(e.index, U64, "an index")
        if base is None or index is None:
            return None
        if not isinstance(base.type, ListOf):
            hint = (
                "`u8_at(x, i)?` reads a byte, `x[start .. end]` is a part"
                if isinstance(base.type, Bytes)
                else ""
            )
            self.error("E01", e.base.span, f"only a list can be indexed, this is {show(base.type)}", hint)
            return None
        self.error_path(e.span, "the index may be out of bounds")
        return model.Index(base, index, self.status("out_of_bounds"), base.type.element, e.span)

    def slice(self, e: tree.Slice) -> Expression | None:
        base = self.of_type(e.base, Bytes(), "what is sliced")
        start = self.of_type(e.start, U64, "the start of a slice")
        end = self.of_type(e.end, U64, "the end of a slice")
        if base is None or start is None or end is None:
            return None
        self.error_path(e.span, "the slice may be out of bounds")
        return model.Slice(base, start, end, self.status("out_of_bounds"), Bytes(), e.span)

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

    # ---- calls

    def retry(self, c: tree.Call, times: int, span: Span) -> model.Call | None:
        if not 1 < times <= MAX_ATTEMPTS:
            self.error("E06", span, f"a call can be made 2 to {MAX_ATTEMPTS} times, not {times}")
            return None
        call = self.call(c, propagate=True, span=span)
        return None if call is None else replace(call, attempts=times)

    def call(
        self, c: tree.Call, propagate: bool, span: Span | None = None, in_try: bool = False
    ) -> model.Call | None:
        """A call of a flow or primitive; `in_try`: its errors are handled where it stands."""
        return self.call_named(c.callee, c.arguments, propagate, span or c.span, in_try)

    def call_named(
        self,
        callee: tree.Name,
        given: tuple[tree.Expression, ...],
        propagate: bool,
        span: Span,
        in_try: bool = False,
    ) -> model.Call | None:
        name = callee.text
        lowered = [self.lower(a) for a in given]
        if flow := self.program.signatures.get(name):
            parameters, result, fallible = flow.parameters, flow.result, flow.fallible
        elif primitive := self.names.primitives.get(name):
            if primitive.internal:
                self.error("N04", callee.span, f"`{name}` is for generated code, a flow does not call it")
                return None
            parameters = tuple(p for p in primitive.parameters if not p.state)
            result, fallible = primitive.result, primitive.fallible
        else:
            if name not in self.program.lost and self.program.first("callee", name):
                callable_ = [p.name for p in self.names.primitives.values() if not p.internal]
                hint = did_you_mean(name, [*callable_, *self.program.signatures])
                self.error("N01", callee.span, f"there is no flow or primitive `{name}`", hint)
            return None
        if len(given) != len(parameters):
            listed = ", ".join(f"{p.name}: {show(p.type)}" for p in parameters)
            count = f"{len(parameters)} argument{'s' * (len(parameters) != 1)}"
            message = f"`{name}` takes {count}, not {len(given)}"
            self.error("E02", span, message, f"it is declared {name}({listed})")
            return None
        arguments = [self.argument(a, p, name) for a, p in zip(lowered, parameters, strict=True)]
        if not in_try:
            self.check_propagation(name, fallible, propagate, span)
        if any(a is None for a in arguments):
            return None
        complete = tuple(a for a in arguments if a is not None)
        return model.Call(name, flow is not None, complete, propagate and fallible, result, span)

    def argument(self, value: Expression | None, p: Parameter, callee: str) -> Expression | None:
        if value is None:
            return None
        fitted = self.fit(value, p.type, f"`{p.name}` of `{callee}`")
        if fitted is not None and p.mutable and isinstance(p.type, RecordRef):
            root = fitted
            while isinstance(root, model.FieldOf):
                root = root.base
            if not isinstance(root, model.Variable):
                self.error("E01", value.span, f"`{callee}` writes to `{p.name}`", "bind it with `let` first")
                return None
            if root.id not in self.mutable:
                hint = f"declare it `{root.name}: mut {show(root.type)}`"
                self.error(
                    "E01",
                    value.span,
                    f"`{callee}` writes to `{root.name}`, a read-only parameter",
                    hint,
                )
                return None
        return fitted

    def check_propagation(self, name: str, fallible: bool, propagate: bool, span: Span) -> None:
        if fallible and not propagate:
            hint = f"write `{name}(...)?`, or `try {name}(...) {{ }} on _ {{ }}`"
            self.error("T08", span, f"an error of `{name}` would be dropped", hint)
        elif propagate and not fallible:
            self.error("E01", span, f"`{name}` cannot fail", "leave the `?` out")
        elif propagate:
            self.error_path(span, f"`{name}` may fail")
