"""What stands where in a flow that was accepted? Places for statements, expressions, and their scope."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from dsl import model
from dsl.model import Expression, Firmware, Flow, Span, Statement, Type

Scope = tuple[tuple[str, Type], ...]  # variables, the oldest first
NODES = (model.Literal, model.Variable, model.FieldOf, model.RegionOf, model.Length, model.Slice, model.Index)
NODES += (model.Unary, model.Binary, model.Call, model.Choice)


@dataclass(frozen=True)
class Place:
    """Where a statement may be put: before a line (from 1), in a flow."""

    line: int
    scope: Scope
    flow: Flow


@dataclass(frozen=True)
class Site:
    """An expression on one line that another of its type may replace. `callee`: of the call that it is an
    argument of, or a part of one; empty if of none. `number`: which argument it is, -1 for a part of one."""

    span: Span
    type: Type
    scope: Scope
    flow: Flow
    callee: str = ""
    number: int = -1

    @property
    def argument(self) -> bool:
        """Whether something is called with it."""
        return bool(self.callee)


def _blocks(s: Statement) -> Iterator[tuple[tuple[Statement, ...], Scope]]:
    """The blocks of a statement and what each of them binds."""
    match s:
        case model.If():
            yield s.then, ()
            yield s.otherwise, ()
        case model.Match():
            yield from ((arm.body, ()) for arm in s.arms)
        case model.For():
            yield s.body, ((s.variable.name, s.variable.type),)
        case model.Try():
            yield s.body, ((s.variable.name, s.variable.type),) if s.variable else ()
            yield from ((handler.body, ()) for handler in s.handlers)


def _expressions(s: Statement) -> list[Expression]:
    """The expressions that stand in a statement itself, not in its blocks."""
    found = [getattr(s, f.name) for f in fields(s) if f.name != "variable"]
    return [e for e in found if isinstance(e, NODES)]


def _parts(e: Expression) -> Iterator[Expression]:
    for f in fields(e):
        part = getattr(e, f.name)
        if isinstance(part, tuple):
            values = (p.value if isinstance(p, model.ChoiceArm) else p for p in part)
            yield from (p for p in values if is_dataclass(p) and isinstance(p, NODES))
        elif isinstance(part, NODES):
            yield part


def _sites(e: Expression, scope: Scope, flow: Flow, callee: str = "", number: int = -1) -> Iterator[Site]:
    if e.span.line == e.span.end_line and not isinstance(e.type, model.Unit | model.Never):
        yield Site(e.span, e.type, scope, flow, callee, number)
    given = e.arguments if isinstance(e, model.Call) else ()
    for part in _parts(e):
        if part.span == e.span:  # what a statement adds by itself has the statement's place
            continue
        if isinstance(e, model.Call):
            which = next((n for n, a in enumerate(given) if a is part), -1)
            yield from _sites(part, scope, flow, e.callee, which)
        else:
            yield from _sites(part, scope, flow, callee)


def survey(firmware: Firmware) -> tuple[list[Place], list[Site]]:
    """Every place and every site of a firmware's flows."""
    places: list[Place] = []
    sites: list[Site] = []

    def block(body: tuple[Statement, ...], scope: Scope, flow: Flow, outer: int) -> None:
        line = outer
        for s in body:
            if s.span.line > line:
                places.append(Place(s.span.line, scope, flow))
            line = max(line, s.span.end_line)
            for e in _expressions(s):
                sites.extend(_sites(e, scope, flow))
            for inner, bound in _blocks(s):
                block(inner, scope + bound, flow, s.span.line)
            if isinstance(s, model.Let):
                scope = (*scope, (s.variable.name, s.variable.type))

    for flow in firmware.flows.values():
        block(flow.body, tuple((p.name, p.type) for p in flow.parameters), flow, flow.span.line)
    return places, sites


def given(firmware: Firmware, text: str) -> dict[tuple[str, int], list[str]]:
    """What the flows pass to each parameter of a primitive, as it is written: by its name and number."""
    lines = text.split("\n")
    found: dict[tuple[str, int], list[str]] = {}

    def look(e: Expression) -> None:
        if isinstance(e, model.Call) and not e.is_flow:
            for number, a in enumerate(e.arguments):
                if a.span.line == a.span.end_line and a.span != e.span:
                    written = lines[a.span.line - 1][a.span.column - 1 : a.span.end_column - 1]
                    found.setdefault((e.callee, number), []).append(written)
        for part in _parts(e):
            look(part)

    def block(body: tuple[Statement, ...]) -> None:
        for s in body:
            for e in _expressions(s):
                look(e)
            for inner, _ in _blocks(s):
                block(inner)

    for flow in firmware.flows.values():
        block(flow.body)
    return found


# ---- text


def indent_of(line: str) -> int:
    """Spaces in front."""
    return len(line) - len(line.lstrip())


def block_of(lines: list[str], index: int) -> range:
    """The lines of the statement that begins at a line: it alone, or up to the `}` that closes it."""
    depth = 0
    for end in range(index, len(lines)):
        code = re.sub(r'"(?:[^"\\]|\\.)*"|//.*', "", lines[end])
        depth += code.count("{") - code.count("}")
        if depth <= 0:
            return range(index, end + 1)
    return range(index, len(lines))


def replaced(text: str, span: Span, new: str) -> str:
    """The text with something else in a span of one line."""
    lines = text.split("\n")
    line = lines[span.line - 1]
    lines[span.line - 1] = line[: span.column - 1] + new + line[span.end_column - 1 :]
    return "\n".join(lines)


def inserted(text: str, line: int, new: list[str]) -> str:
    """The text with lines, indented as it is there, before a line (from 1)."""
    lines = text.split("\n")
    pad = " " * indent_of(lines[line - 1]) if line <= len(lines) else ""
    lines[line - 1 : line - 1] = [pad + each for each in new]
    return "\n".join(lines)
