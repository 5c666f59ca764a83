"""Is a model one that the generator may trust? Every property that generated code relies on, checked between
compiler and generator.

The compiler refuses what an author gets wrong; a model that fails here is a mistake of the compiler itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsl import model
from dsl.layout import WITHIN_BFV
from dsl.model import Bytes, EnumRef, Firmware, ListOf, Never, RecordRef, Scalar, Span, Type, Unit
from dsl.rules.paths import Paths, Ways
from dsl.sizes import alignment, size
from dsl.tree import walk
from dsl.verify_expression import MAX_ARGUMENTS, Scope, expression, fits, require, value
from formats.units import LARGE_PAGE, PAGE, align_up

MAX_ERROR_TEXT = 47  # of the 64 bytes that ReportFatalError carries; "tdforge: " is in front, a NUL behind


def verify(firmware: Firmware) -> None:
    """Raises ModelError at the first property that does not hold."""
    start = Span(firmware.path, 1, 1, 1, 1)
    _errors(firmware, start)
    _regions(firmware, start)
    for record in firmware.records.values():
        _record(firmware, record, start)
    for primitive in firmware.primitives.values():
        _primitive(firmware, primitive, start)
    boot = firmware.flows.get("boot")
    require(boot is not None, start, "there is no flow `boot`")
    if boot is not None:
        takes_td = [p.type for p in boot.parameters] == [RecordRef("VpInfo")]
        require(takes_td, boot.span, "`boot` takes one VpInfo")
        require(isinstance(boot.result, Never) and boot.on_error_fatal, boot.span, "`boot` never returns")
    _no_recursion(firmware)
    for flow in firmware.flows.values():
        _Flow(firmware, flow).verify()
    paths = Paths(firmware.flows, firmware.primitives)
    for flow in firmware.flows.values():
        ends = isinstance(flow.result, Unit) or Ways.FALLS not in paths.flow(flow.name)
        require(ends, flow.span, "a path ends without a result")


def _errors(firmware: Firmware, start: Span) -> None:
    numbers = [e.number for e in firmware.errors]
    require(len(set(numbers)) == len(numbers), start, "two errors have one number")
    for error in firmware.errors:
        require(0 < error.number < 1 << 32, start, f"the number of `{error.name}` is no status")
        text = error.text
        printable = text.isascii() and text.isprintable() and 0 < len(text) <= MAX_ERROR_TEXT
        require(printable, start, f"the text of `{error.name}` is not what a VMM is sent")


def _regions(firmware: Firmware, start: Span) -> None:
    names = [*(s.name for s in firmware.image), *(r.name for r in firmware.memory)]
    require(len(set(names)) == len(names), start, "two regions have one name")
    for name in ("paging", "stack"):
        own = next((s for s in firmware.image if s.name == name), None)
        placed = own is not None and own.kind == "TempMem" and own.address is not None and own.size
        require(bool(placed), start, f"there is no TempMem section `{name}` with an address and a size")
    for section in firmware.image:
        placed = section.address is not None and section.size is not None
        inside = section.kind in ("BFV", *WITHIN_BFV)
        require(placed != inside, section.span, "all but BFV and its parts have an address and a size")
    limits = {region.limit for region in firmware.memory}
    require(len(limits) < 2, start, "the regions of `memory` have different limits")


def _record(firmware: Firmware, record: model.Record, start: Span) -> None:
    end = 0
    for field in record.fields:
        place = align_up(end, alignment(field.type, firmware.records))
        require(field.offset == place, start, f"`{record.name}.{field.name}` is not where C has it")
        end = place + size(field.type, firmware.records)
    require(record.size == align_up(end, record.align), start, f"`{record.name}` is not as large as in C")


def _primitive(firmware: Firmware, primitive: model.Primitive, start: Span) -> None:
    require(primitive.home in ("c", "generated"), start, f"`{primitive.name}` has no home")
    count = len(primitive.parameters) + (not isinstance(primitive.result, Unit | Never))
    require(count <= MAX_ARGUMENTS, start, f"`{primitive.name}` has more than six arguments")
    states = dict(firmware.states)
    for parameter in primitive.parameters:
        known = not parameter.state or parameter.name == "layout" or parameter.name in states
        require(known, start, f"`{primitive.name}` takes the state `{parameter.name}`, which nobody keeps")
    names = {e.name for e in firmware.errors}
    for need in primitive.spans:
        spans = {p.name for p in primitive.parameters if isinstance(p.type, Bytes) and not p.state}
        known = need.parameter in spans and (need.other is None or need.other in spans)
        require(known, start, f"`{primitive.name}` has no bytes `{need.parameter}`")
        page = need.align in (1 << n for n in range(PAGE.bit_length()))
        block = need.within in (0, LARGE_PAGE) and (not need.within or 0 < need.minimum <= need.within)
        require(page and block and 0 <= need.minimum < 1 << 31, start, f"`{need.parameter}` fits nowhere")
        require(need.error in [e.number for e in firmware.errors], start, "a span has no error")
    for error in primitive.errors:
        require(error in names, start, f"`{primitive.name}` gives `{error}`, which has no number")


def _no_recursion(firmware: Firmware) -> None:
    """Stack depth is proven at build time."""
    done: set[str] = set()

    def visit(flow: model.Flow, above: tuple[str, ...]) -> None:
        require(flow.name not in above, flow.span, f"`{flow.name}` calls itself")
        if flow.name in done:
            return
        for call in calls_of(flow.body):
            if call.is_flow and call.callee in firmware.flows:
                visit(firmware.flows[call.callee], (*above, flow.name))
        done.add(flow.name)

    for flow in firmware.flows.values():
        visit(flow, ())


def calls_of(body: tuple[model.Statement, ...]) -> Iterable[model.Call]:
    """Every call in the statements, however deep."""
    return (node for node in walk(body) if isinstance(node, model.Call))


class _Flow:
    """The statements of one flow."""

    def __init__(self, firmware: Firmware, flow: model.Flow) -> None:
        self.firmware, self.flow = firmware, flow
        self.scope = Scope(firmware, flow)

    def verify(self) -> None:
        flow = self.flow
        require(not (flow.fallible and flow.on_error_fatal), flow.span, "errors have two targets")
        count = len(flow.parameters) + (not isinstance(flow.result, Unit | Never))
        require(count <= MAX_ARGUMENTS, flow.span, "a flow has more than six arguments")
        for parameter in flow.parameters:
            self.scope.define(parameter)
        self.block(flow.body)

    def block(self, body: tuple[model.Statement, ...]) -> None:
        with self.scope.inner():
            for each in body:
                self.statement(each)

    def statement(self, s: model.Statement) -> None:
        match s:
            case model.Let():
                value(s.value, self.scope)
                fits(s.value, s.variable.type, s.span, self.firmware)
                self.scope.define(s.variable)
            case model.Assign():
                expression(s.variable, self.scope)
                word = isinstance(s.variable.type, Scalar | EnumRef)
                require(word, s.span, "only a word can be assigned")
                value(s.value, self.scope)
                fits(s.value, s.variable.type, s.span, self.firmware)
            case model.Do():
                expression(s.value, self.scope)
            case model.If():
                value(s.condition, self.scope)
                require(_is_bool(s.condition.type), s.span, "a condition is no bool")
                self.block(s.then)
                self.block(s.otherwise)
            case model.Match():
                self.match(s)
            case model.Try():
                self.try_(s)
            case model.For():
                value(s.items, self.scope)
                items = s.items.type
                element = items.element if isinstance(items, ListOf) else None
                require(s.variable.type == element, s.span, "the loop variable is no element of the list")
                with self.scope.inner():
                    self.scope.define(s.variable)
                    self.block(s.body)
            case model.Return():
                self.return_(s)
            case model.Fail():
                self.scope.may_fail(s.error, s.span)

    def match(self, s: model.Match) -> None:
        value(s.subject, self.scope)
        kind = s.subject.type
        require(isinstance(kind, Scalar | EnumRef), s.span, "only words are matched")
        default = [not arm.values for arm in s.arms]
        require(not any(default[:-1]), s.span, "an arm stands behind `_`")
        seen = [v for arm in s.arms for v in arm.values]
        require(len(set(seen)) == len(seen), s.span, "a value has two arms")
        for arm_value in seen:
            fits(model.Literal(arm_value, kind, s.span), kind, s.span, self.firmware)
        if not any(default):
            require(_all_values(kind, self.firmware) <= set(seen), s.span, "a value has no arm")
        for arm in s.arms:
            self.block(arm.body)

    def try_(self, s: model.Try) -> None:
        require(not s.call.propagate, s.span, "the error of a `try` goes elsewhere, too")
        expression(s.call, self.scope, in_try=True)
        errors = self.scope.errors_of(s.call)
        require(errors != set(), s.span, "what is tried cannot fail")
        handled = {number for h in s.handlers for number in h.errors}
        complete = any(not h.errors for h in s.handlers)
        require(complete or (errors is not None and errors <= handled), s.span, "an error has no handler")
        with self.scope.inner():
            if s.variable is not None:
                require(s.variable.type == s.call.type, s.span, "the variable is not what the call gives")
                self.scope.define(s.variable)
            self.block(s.body)
        for h in s.handlers:
            for number in h.errors:
                self.scope.declared(number, h.span)
            self.block(h.body)

    def return_(self, s: model.Return) -> None:
        wanted = self.flow.result
        require(not isinstance(wanted, Never), s.span, "a flow that never returns does")
        if s.value is None:
            require(isinstance(wanted, Unit), s.span, "nothing is returned")
            return
        value(s.value, self.scope)
        fits(s.value, wanted, s.span, self.firmware)


def _is_bool(kind: Type) -> bool:
    return isinstance(kind, Scalar) and kind.name == "bool"


def _all_values(kind: Type, firmware: Firmware) -> set[int]:
    """The values of a type that has few; of a number, more than arms can name."""
    if isinstance(kind, EnumRef):
        return {number for _, number in firmware.enumerations[kind.name].members}
    return {0, 1} if _is_bool(kind) else {-1}
