"""What may a statement that did not check have done? That counts as done, so that the trust rules do not
report its absence."""

from __future__ import annotations

from dsl import tree
from dsl.diagnostics import closest
from dsl.effects import Effects
from dsl.model import Bytes, RecordRef
from dsl.scope import Program, Scope
from dsl.tree import walk

SUGAR = {
    tree.Measure: "measure_blob",
    tree.Separate: "separate",
    tree.Accept: "accept",
    tree.Park: "park_aps",
}


def suppress(statement: tree.Statement, program: Program, scope: Scope, flow: str) -> None:
    """Notes what `statement` of `flow`, which did not check, may have been about."""
    program.suppressed.leave_out(flow, statement.span)
    for name in (n.text for n in walk(statement) if isinstance(n, tree.Name)):
        _suppress_name(name, program, scope, flow)
        _suppress_name(closest(name, scope.known()), program, scope, flow)
    if isinstance(statement, tree.Measure) and _is_unknown(statement.subject, program, scope):
        for variable in scope.variables():
            if variable.type == Bytes():
                _suppress_name(variable.name, program, scope, flow)
        program.suppressed.regions.update(program.sections)
    if type(statement) in SUGAR:
        _suppress_effects(program.names.effects[SUGAR[type(statement)]], program)
        return
    for call in walk(statement):
        if isinstance(call, tree.Call):
            _suppress_call(call, program)
            _suppress_makers(call, program, scope)


def _suppress_name(name: str, program: Program, scope: Scope, flow: str) -> None:
    variable = scope.find(name)
    if variable is not None:
        program.suppressed.variables.add((flow, variable.id))
    program.suppressed.regions.add(name)


def _is_unknown(subject: tree.Expression, program: Program, scope: Scope) -> bool:
    """Whether nothing tells what `subject` was to be: a name that is like no name that is there."""
    names = [n.text for n in walk(subject) if isinstance(n, tree.Name)]
    known = scope.known()
    return any(n not in known and not closest(n, known) for n in names)


def _suppress_call(call: tree.Call, program: Program) -> None:
    """The effects of the callee; of the one that is spelt almost like it; or of all that it may have been."""
    names, name = program.names, call.callee.text
    callable_ = [p.name for p in names.primitives.values() if not p.internal]
    if name not in names.primitives and name not in program.signatures:
        name = closest(name, [*callable_, *program.signatures])
    if name in program.signatures:
        program.suppressed.effects.update(names.steps)
    elif name in names.effects:
        _suppress_effects(names.effects[name], program)
    else:
        for other in callable_:
            parameters = [p for p in names.primitives[other].parameters if not p.state]
            if len(parameters) == len(call.arguments):
                _suppress_effects(names.effects[other], program)


def _suppress_makers(call: tree.Call, program: Program, scope: Scope) -> None:
    """The effects of what makes the records that the call takes by names which are not there."""
    primitives = program.names.primitives
    callee = primitives.get(call.callee.text)
    if callee is None:
        return
    parameters = [p for p in callee.parameters if not p.state]
    for parameter, argument in zip(parameters, call.arguments, strict=False):
        if isinstance(parameter.type, RecordRef) and _is_unknown(argument, program, scope):
            for maker in primitives.values():
                if maker.result == parameter.type:
                    _suppress_effects(program.names.effects[maker.name], program)


def _suppress_effects(effects: Effects, program: Program) -> None:
    program.suppressed.effects.update(effects.steps)
