"""What does a flow do? Lowers its statements to the model: sugar becomes calls of primitives, names become
variables.

A statement that does not check is reported and left out; reports of what it would have done are suppressed
(scope.Suppressed), so that one mistake gives one diagnostic.
"""

from __future__ import annotations

from collections.abc import Iterator

from dsl import model, tree
from dsl.constants import U64
from dsl.declare import BOOL, resolve
from dsl.diagnostics import did_you_mean, join_words
from dsl.fold import known_condition
from dsl.lower_operator import show
from dsl.lower_sugar import SugarLowerer
from dsl.model import EnumRef, Expression, ListOf, Never, RecordRef, Scalar, Statement, Unit
from dsl.scope import Program, Signature
from dsl.suppress import suppress


def lower_flow(flow: tree.Flow, signature: Signature, program: Program) -> model.Flow:
    """One flow in the model; its mistakes are in the reporter of the program."""
    return FlowLowerer(program, signature).flow(flow)


class FlowLowerer(SugarLowerer):
    """Lowers the statements of one flow."""

    def flow(self, flow: tree.Flow) -> model.Flow:
        parameters = []
        for written, known in zip(flow.parameters, self.signature.parameters, strict=True):
            variable = self.scope.bind(written.name, known.type)
            if variable is not None:
                parameters.append(variable)
                if known.mutable or not isinstance(known.type, RecordRef):
                    self.mutable.add(variable.id)
        s = self.signature
        body = self.block(flow.body)
        return model.Flow(s.name, tuple(parameters), s.result, s.fallible, s.fatal, body, flow.span, flow.doc)

    def block(self, block: tree.Block) -> tuple[Statement, ...]:
        with self.scope.inner():
            return tuple(self.statements(block.statements))

    def statements(self, statements: tuple[tree.Statement, ...]) -> Iterator[Statement]:
        for statement in statements:
            lowered = self.statement(statement)
            if lowered is not None:
                yield from lowered
                continue
            suppress(statement, self.program, self.scope, self.signature.name)
            if isinstance(statement, tree.Handoff | tree.Return | tree.Fail):
                yield model.Fail(0, statement.span)  # so that the path ends where the author ended it

    def statement(self, s: tree.Statement) -> list[Statement] | None:
        """The statements that `s` stands for, or None after an error."""
        match s:
            case tree.Let():
                return self.let(s)
            case tree.Assign():
                return self.assign(s)
            case tree.Do():
                if s.times is not None:
                    return self.effect(self.retry(s.call, s.times, s.span))
                return self.effect(self.call(s.call, s.propagate, s.span))
            case tree.If():
                return self.if_(s)
            case tree.Match():
                return self.match(s)
            case tree.For():
                return self.for_(s)
            case tree.Try():
                return self.try_(s)
            case tree.Return():
                return self.return_(s)
            case tree.Fail():
                self.error_path(s.span, "this fails")
                number = self.error_number(s.error)
                return None if number is None else [model.Fail(number, s.span)]
            case tree.Require():
                return self.require(s)
            case tree.Measure():
                return self.measure(s)
            case tree.Separate():
                callee = tree.Name("separate", s.span)
                calls = [self.sugar(callee, (rtmr,), s) for rtmr in s.rtmrs]
                return None if None in calls else [model.Do(c, s.span) for c in calls if c is not None]
            case tree.Accept():
                return self.accept(s)
            case tree.Park():
                callee = tree.Name("park_aps_with_reset" if s.reset else "park_aps", s.span)
                return self.effect(self.sugar(callee, (s.region,), s))
            case tree.Handoff():
                return self.named("handoff_", s.call.callee, s.call.arguments, s)
            case tree.Print():
                return self.print_(s)

    # ---- plain statements

    def let(self, s: tree.Let) -> list[Statement] | None:
        value = self.lower(s.value)
        kind = None if value is None else value.type
        if value is not None and s.type is not None:
            kind = resolve(s.type, self.names, self.program.reporter)
            value = None if isinstance(kind, Unit) else self.fit(value, kind, f"`{s.name.text}`")
        if value is not None and isinstance(value.type, Unit | Never):
            self.error("E01", s.value.span, "this has no value to bind", "write the call as a statement")
            value = None
        variable = self.scope.bind(s.name, None if value is None else kind)
        if variable is None or value is None:
            return None
        self.mutable.add(variable.id)
        return [model.Let(variable, value, s.span)]

    def assign(self, s: tree.Assign) -> list[Statement] | None:
        if s.name.text not in self.scope:
            self.lower(s.value)
            self.scope.unassignable(s.name)
            return None
        variable = self.scope.find(s.name.text)
        if variable is None:
            return None
        if not isinstance(variable.type, Scalar | EnumRef):
            hint = "bind a new name with `let`"
            self.error(
                "E01",
                s.name.span,
                f"only numbers can be assigned, `{s.name.text}` is {show(variable.type)}",
                hint,
            )
            return None
        value = self.of_type(s.value, variable.type, f"`{s.name.text}`")
        return None if value is None else [model.Assign(variable, value, s.span)]

    def condition(self, e: tree.Expression) -> Expression:
        """A condition; a constant one after an error, so that what it guards is still checked."""
        lowered = self.of_type(e, BOOL, "a condition")
        return lowered if lowered is not None else model.Literal(True, BOOL, e.span)

    def if_(self, s: tree.If) -> list[Statement]:
        condition = self.condition(s.condition)
        then = self.block(s.then)
        otherwise: tuple[Statement, ...] = ()
        if isinstance(s.otherwise, tree.Block):
            otherwise = self.block(s.otherwise)
        elif s.otherwise is not None:
            otherwise = tuple(self.if_(s.otherwise))
        return [model.If(condition, then, otherwise, s.span)]

    def require(self, s: tree.Require) -> list[Statement] | None:
        number: int | None = self.names.errors["requirement_failed"].number
        if s.error is not None:
            number = self.error_number(s.error)
        self.error_path(s.span, "a requirement may not be met")
        condition = self.of_type(s.condition, BOOL, "a condition")
        if condition is None or number is None:
            return None
        known = known_condition(condition)
        if known is False:
            uses_svn = any(isinstance(n, tree.Name) and n.text == "svn" for n in tree.walk(s.condition))
            hint = f"this firmware's svn is {self.program.release['svn']}"
            hint = hint if uses_svn else "write `fail ERROR` if that is meant"
            self.error("E08", s.condition.span, "this requirement is never met", hint)
            return None
        if known:
            return []
        refused = model.Unary("not", condition, BOOL, condition.span)
        return [model.If(refused, (model.Fail(number, s.span),), (), s.span)]

    def match(self, s: tree.Match) -> list[Statement]:
        subject = self.lower(s.subject)
        if subject is not None and not isinstance(subject.type, Scalar | EnumRef):
            self.error(
                "E01",
                s.subject.span,
                f"only numbers and enumerations can be matched, this is {show(subject.type)}",
            )
            subject = None
        seen: dict[int, int] = {}  # value -> line of its arm
        arms: list[model.Arm] = []
        default = False
        for arm in s.arms:
            if default:
                self.error(
                    "T08", arm.span, "this arm is never taken: `_` stands before it", "move `_` to the end"
                )
            values = self.patterns(arm, subject, seen)
            default = default or not arm.patterns
            arms.append(model.Arm(values, self.block(arm.body), arm.span))
        if subject is not None and not default:
            self.exhaustive(s, subject, seen)
        subject = subject or model.Literal(0, U64, s.subject.span)
        return [model.Match(subject, tuple(arms), s.span)]

    def for_(self, s: tree.For) -> list[Statement] | None:
        items = self.lower(s.items)
        if items is not None and not isinstance(items.type, ListOf):
            self.error("E01", s.items.span, f"`for` runs over a list, this is {show(items.type)}")
            items = None
        with self.scope.inner():
            element = items.type.element if items is not None and isinstance(items.type, ListOf) else None
            variable = self.scope.bind(s.name, element)
            body = self.block(s.body)
        if items is None or variable is None:
            return [model.If(model.Literal(True, BOOL, s.span), body, (), s.span)]
        return [model.For(variable, items, body, s.span)]

    def try_(self, s: tree.Try) -> list[Statement] | None:
        call = self.call(s.call, propagate=False, in_try=True)
        errors: tuple[str, ...] | None = None  # None: a flow, which may give any
        if call is not None:
            fallible = self.names.primitives.get(call.callee) or self.program.signatures[call.callee]
            if not fallible.fallible:
                self.error("E01", s.call.span, f"`{call.callee}` cannot fail", "write it as a statement")
            if isinstance(fallible, model.Primitive):
                errors = fallible.errors
        with self.scope.inner():
            variable = None
            if s.name is not None:
                kind = None if call is None else call.type
                if isinstance(kind, Unit | Never):
                    self.error("E01", s.name.span, f"`{s.call.callee.text}` returns no value to bind")
                    kind = None
                variable = self.scope.bind(s.name, kind)
                if variable is not None:
                    self.mutable.add(variable.id)
            body = self.block(s.body)
        handlers = self.handlers(s, call, errors)
        if call is None:
            return [
                model.If(model.Literal(True, BOOL, s.span), body, h.body, h.span) for h in handlers[:1]
            ] or None
        return [model.Try(call, variable, body, handlers, s.span)]

    def handlers(
        self, s: tree.Try, call: model.Call | None, errors: tuple[str, ...] | None
    ) -> tuple[model.Handler, ...]:
        seen: dict[str, int] = {}  # error -> line of its handler
        handlers = []
        default = False
        for h in s.handlers:
            numbers = []
            if default:
                self.error(
                    "T08", h.span, "this handler is never reached: `on _` stands before it", "move it up"
                )
            for error in h.errors:
                number = self.error_number(error)
                if number is not None and errors is not None and error.text not in errors:
                    self.error(
                        "E01",
                        error.span,
                        f"`{s.call.callee.text}` never fails with `{error.text}`",
                        f"it fails with {join_words(errors)}" if errors else "",
                    )
                if error.text in seen:
                    message = f"`{error.text}` already has a handler, in line {seen[error.text]}"
                    self.error("E03", error.span, message)
                seen.setdefault(error.text, error.span.line)
                if number is not None:
                    numbers.append(number)
            default = default or not h.errors
            if not h.body.statements:
                hint = "print a line, fail, or continue in another way"
                self.error("T08", h.span, "an empty handler drops the error", hint)
            handlers.append(model.Handler(tuple(numbers), self.block(h.body), h.span))
        missing = [e for e in errors or () if e not in seen]
        if call is not None and not default and (missing or errors is None):
            what = (
                f"{join_words(missing, 'and')} of `{call.callee}`"
                if missing
                else f"errors of `{call.callee}`"
            )
            self.error("T08", s.call.span, f"no handler for {what}", "add `on _ { fail ... }`")
        return tuple(handlers)

    def return_(self, s: tree.Return) -> list[Statement] | None:
        wanted = self.signature.result
        if isinstance(wanted, Never):
            hint = "end the path with `handoff` or `fail`"
            self.error("T08", s.span, f"`{self.signature.name}` is `never`: it does not return", hint)
            return None
        if s.value is None:
            if not isinstance(wanted, Unit):
                self.error(
                    "E01",
                    s.span,
                    f"`{self.signature.name}` returns {show(wanted)}, but this `return` has no value",
                )
                return None
            return [model.Return(None, s.span)]
        if isinstance(wanted, Unit):
            self.error(
                "E01",
                s.value.span,
                f"`{self.signature.name}` returns nothing",
                "declare a result, such as `-> u64`",
            )
            return None
        value = self.of_type(s.value, wanted, f"the result of `{self.signature.name}`")
        return None if value is None else [model.Return(value, s.span)]

    def error_number(self, name: tree.Name) -> int | None:
        if code := self.names.errors.get(name.text):
            return code.number
        if name.text not in self.program.lost and self.program.first("error", name.text):
            self.error(
                "N01",
                name.span,
                f"there is no error `{name.text}`",
                did_you_mean(name.text, self.names.errors),
            )
        return None
