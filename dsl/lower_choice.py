"""Which arm does a value select? Patterns of `match`, and values that are chosen by another value."""

from __future__ import annotations

from dsl import model, tree
from dsl.constants import U64, literal
from dsl.declare import BOOL
from dsl.diagnostics import did_you_mean, join_words
from dsl.lower_expression import ExpressionLowerer
from dsl.lower_operator import is_number, show
from dsl.model import Bytes, Digest, EnumRef, Expression, Scalar, Text, Type


class ChoiceLowerer(ExpressionLowerer):
    """Lowers what selects arms, in the statements and in the expressions of one flow."""

    def choice(self, e: tree.Choice) -> Expression | None:
        subject = self.of_type(e.subject, BOOL, "a condition") if e.is_if else self.lower(e.subject)
        if subject is not None and not isinstance(subject.type, Scalar | EnumRef):
            message = f"only numbers and enumerations can be matched, this is {show(subject.type)}"
            self.error("E01", e.subject.span, message)
            subject = None
        seen: dict[int, int] = {}
        values = [self.patterns(arm, subject, seen) for arm in e.arms]
        given = [self.lower(arm.value) for arm in e.arms]
        for arm in e.arms[:-1]:
            if not arm.patterns:
                self.error("T08", arm.span, "an arm after `_` is never taken", "move `_` to the end")
                return None
        if subject is not None and e.arms[-1].patterns:
            self.exhaustive(e, subject, seen)
        lowered = [x for x in given if x is not None]
        if subject is None or len(lowered) != len(e.arms):
            return None
        kind = common_type(lowered)
        if not isinstance(kind, Scalar | EnumRef | Bytes | Digest | Text):
            self.error(
                "E01", e.span, f"{show(kind)} cannot be chosen as a value", "use `if` or `match` statements"
            )
            return None
        fitted = [self.fit(x, kind, "an arm") for x in lowered]
        arms = tuple(
            model.ChoiceArm(v, x, arm.span)
            for v, x, arm in zip(values, fitted, e.arms, strict=True)
            if x is not None
        )
        return model.Choice(subject, arms, kind, e.span) if len(arms) == len(e.arms) else None

    def patterns(
        self, arm: tree.Arm | tree.ChoiceArm, subject: Expression | None, seen: dict[int, int]
    ) -> tuple[int, ...]:
        values = []
        for pattern in arm.patterns:
            value = None if subject is None else self.pattern(pattern, subject)
            if value is None:
                continue
            if value in seen:
                self.error("E03", pattern.span, f"this value already has an arm, in line {seen[value]}")
            seen.setdefault(value, pattern.span.line)
            values.append(value)
        return tuple(values)

    def pattern(self, pattern: tree.Name | tree.Number | tree.Boolean, subject: Expression) -> int | None:
        kind = subject.type
        if isinstance(pattern, tree.Name) and isinstance(kind, EnumRef):
            members = dict(self.names.enumerations[kind.name].members)
            if pattern.text not in members:
                hint = did_you_mean(pattern.text, members)
                self.error("N03", pattern.span, f"`{kind.name}` has no member `{pattern.text}`", hint)
                return None
            return members[pattern.text]
        if isinstance(pattern, tree.Boolean):
            value: Expression | None = model.Literal(pattern.value, BOOL, pattern.span)
        elif isinstance(pattern, tree.Number):
            value = model.Literal(pattern.value, U64, pattern.span)
        elif pattern.text in self.names.constants:
            value = literal(self.names.constants[pattern.text].value, pattern.span)
        else:
            hint = did_you_mean(pattern.text, self.names.constants)
            self.error("N01", pattern.span, f"there is no constant `{pattern.text}`", hint)
            return None
        fitted = None if value is None else self.fit(value, kind, "the matched value")
        return (
            int(fitted.value) if isinstance(fitted, model.Literal) and isinstance(fitted.value, int) else None
        )

    def exhaustive(self, s: tree.Match | tree.Choice, subject: Expression, seen: dict[int, int]) -> None:
        missing: list[str] = []
        if isinstance(subject.type, EnumRef):
            missing = [m for m, v in self.names.enumerations[subject.type.name].members if v not in seen]
        elif is_number(subject.type):
            missing = ["_"]
        else:
            missing = [word for word, value in (("true", 1), ("false", 0)) if value not in seen]
        if missing:
            self.error(
                "E03", s.subject.span, f"no arm for {join_words(missing, 'and')}", "add it, or `_ -> { }`"
            )


def common_type(arms: list[Expression]) -> Type:
    """The type that all arms fit: constants take that of the others, numbers the widest."""
    kinds = [x.type for x in arms if not isinstance(x, model.Literal)] or [x.type for x in arms]
    if len(set(kinds)) == 1:
        return kinds[0]
    return U64 if all(is_number(kind) for kind in kinds) else kinds[0]
