"""Does somebody read what a flow returns? A verdict that is dropped, or bound and never looked at, decides
nothing (T08)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dsl import model
from dsl.model import Never, Unit
from dsl.rules.values import calls, can_fail
from dsl.tree import walk

Live = frozenset[int]  # ids of the variables that are read later
Report = Callable[[int | None, model.Call], None]


def unread(flow: model.Flow, report: Callable[[str, int | None, model.Call], None]) -> None:
    """Calls `report` for each call whose result nobody reads: the flow, and the variable that has it."""
    _block(flow.body, frozenset(), partial(report, flow.name))


def _block(statements: tuple[model.Statement, ...], live: Live, report: Report) -> Live:
    """The variables that are live before `statements`, given those after them."""
    for s in reversed(statements):
        live = _statement(s, live, report)
    return live


def _statement(s: model.Statement, live: Live, report: Report) -> Live:
    match s:
        case model.Let() | model.Assign():
            read = s.variable.id in live
            if not read:
                _dropped(s.value, s.variable, report)
            used = read or calls(s.value) or can_fail(s.value)
            return live - {s.variable.id} | (_reads(s.value) if used else frozenset())
        case model.Do():
            _dropped(s.value, None, report)
            return live | _reads(s.value)
        case model.If():
            sides = _block(s.then, live, report) | _block(s.otherwise, live, report)
            decides = s.then or s.otherwise or calls(s.condition) or can_fail(s.condition)
            return sides | (_reads(s.condition) if decides else frozenset())
        case model.Match():
            arms = [_block(arm.body, live, report) for arm in s.arms] or [live]
            return frozenset().union(*arms) | _reads(s.subject)
        case model.Try():
            body = _block(s.body, live, report)
            if s.variable is None or s.variable.id not in body:
                _dropped(s.call, s.variable, report)
            handlers = [_block(handler.body, live, report) for handler in s.handlers]
            return body.union(*handlers) - _bound(s.variable) | _reads(s.call)
        case model.For():
            before, after = live, _block(s.body, live, _silent)
            while not after <= before:
                before, after = before | after, _block(s.body, before | after, _silent)
            _block(s.body, before, report)
            return before - {s.variable.id} | _reads(s.items)
        case model.Return():
            return _reads(s.value) if s.value is not None else frozenset()
        case model.Fail():
            return frozenset()


def _dropped(value: model.Expression, variable: model.Variable | None, report: Report) -> None:
    if isinstance(value, model.Call) and value.is_flow and not isinstance(value.type, Unit | Never):
        report(None if variable is None else variable.id, value)


def _silent(variable: int | None, call: model.Call) -> None:
    """While a loop is not yet understood."""


def _bound(variable: model.Variable | None) -> Live:
    return frozenset() if variable is None else frozenset({variable.id})


def _reads(e: model.Expression) -> Live:
    return frozenset(node.id for node in walk(e) if isinstance(node, model.Variable))
