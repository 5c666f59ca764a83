"""What does an expression mean? Finds names and types and makes the model's expression, or reports why it
cannot."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from dsl import model, tree
from dsl.constants import U64, literal, value_of
from dsl.declare import BOOL
from dsl.diagnostics import did_you_mean
from dsl.lower_operator import U64_MAX, OperatorLowerer, show
from dsl.model import (
    Bytes,
    EnumRef,
    Expression,
    ListOf,
    Parameter,
    RecordRef,
    Span,
    Text,
)

MAX_ATTEMPTS = 1_000_000


class ExpressionLowerer(OperatorLowerer):
    """Lowers the expressions of one flow. Every method returns None after it reported an error."""

    @abstractmethod
    def choice(self, e: tree.Choice) -> Expression | None:
        """A value that is chosen by another."""

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
                        self.error("N04", e.name.span, f"`{word}` is for generated code, no flow sees it")
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
