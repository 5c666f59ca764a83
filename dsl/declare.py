"""Which types, errors, constants and primitives are there? Reads declarations (the prelude's, then the flow
file's) into the model, and lays records out as C does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dsl import tree
from dsl.constants import U64, value_of
from dsl.diagnostics import Reporter, did_you_mean
from dsl.effects import Effects, Step, effects_of, step_of
from dsl.habits import NAMES
from dsl.model import (
    Bytes,
    Constant,
    Digest,
    Enumeration,
    EnumRef,
    ErrorCode,
    Handle,
    ListOf,
    Never,
    Parameter,
    Primitive,
    Provenance,
    Record,
    RecordField,
    RecordRef,
    Scalar,
    Span,
    Text,
    Type,
    Unit,
)
from dsl.sizes import alignment, size
from formats.units import align_up

BOOL = Scalar("bool", 8)
SCALARS = {s.name: s for s in (BOOL, Scalar("u8", 8), Scalar("u16", 16), Scalar("u32", 32), U64)}
BUILT_IN: dict[str, Type] = {
    **SCALARS,
    **{t.__name__.lower(): t() for t in (Bytes, Digest, Text, Never)},
}
PROVENANCES = {p.name.lower(): p for p in Provenance}
MAX_ERROR_TEXT = 47  # ReportFatalError carries 64 bytes with the NUL, "tdforge: " taken off; see the model
FIRST_FLOW_ERROR = 256  # those of the prelude have the numbers below
OUT_OF_BOUNDS = "out_of_bounds"  # what a primitive fails with if a span it is given does not fit
LAYOUT = "layout"  # the state without a record: constant data about the image


@dataclass
class Names:
    """Everything that is declared; filled while declarations are read, not changed afterwards."""

    records: dict[str, Record] = field(default_factory=dict)
    enumerations: dict[str, Enumeration] = field(default_factory=dict)
    errors: dict[str, ErrorCode] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    primitives: dict[str, Primitive] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    effects: dict[str, Effects] = field(default_factory=dict)
    extents: dict[str, str] = field(
        default_factory=dict
    )  # primitive -> the parameter its result is a part of
    limits: dict[str, int] = field(default_factory=dict)  # primitive -> the most bytes of that part
    same_trust: dict[str, str] = field(default_factory=dict)  # primitive -> parameter with its result's trust
    handles: dict[str, None] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)  # state -> record
    hidden: dict[tuple[str, str], None] = field(default_factory=dict)  # records' fields that flows do not see
    refusals: dict[str, None] = field(default_factory=dict)  # errors that the VMM can bring about
    places: dict[str, Span] = field(default_factory=dict)

    def copy(self) -> Names:
        parts = {name: dict(value) for name, value in vars(self).items()}
        return Names(**parts)

    def claim(self, name: tree.Name, reporter: Reporter) -> None:
        """Every declared name means one thing."""
        if name.text in self.places:
            message = f"`{name.text}` is already declared {self.where(name)}"
            reporter.error("N02", name.span, message, "choose another name")
        self.places.setdefault(name.text, name.span)

    def pure(self, primitive: str) -> bool:
        """Whether nothing comes of a call of the primitive but its result or its error."""
        p, effects = self.primitives[primitive], self.effects[primitive]
        writes = any(parameter.mutable for parameter in p.parameters) or effects.writes
        return p.home == "c" and not (writes or effects.steps or effects.measures or effects.authorises)

    def where(self, name: tree.Name) -> str:
        """Where a name is declared first, as seen from another place."""
        first = self.places[name.text]
        if first.path != name.span.path:
            return f"in {Path(first.path).name}, which this file uses"
        return f"in line {first.line}"


def resolve(name: tree.TypeName, names: Names, reporter: Reporter) -> Type:
    """The type of that name; Unit after an error was reported."""
    word = name.name.text
    if word == "list":
        if name.element is None or not 0 < name.capacity <= 65536:
            reporter.error(
                "E01", name.span, "a list needs its element and its capacity", "write `list<u64, 8>`"
            )
            return Unit()
        element = resolve(name.element, names, reporter)
        if isinstance(element, ListOf | Never):
            kind = "lists" if isinstance(element, ListOf) else "`never`"
            reporter.error("E01", name.element.span, f"there are no lists of {kind}", "use one list")
            return Unit()
        return ListOf(element, name.capacity)
    if name.element is not None:
        reporter.error("E01", name.span, f"`{word}` takes no element type", "only `list<T, N>` does")
    if word in BUILT_IN:
        return BUILT_IN[word]
    if word in names.records:
        return RecordRef(word)
    if word in names.enumerations:
        return EnumRef(word)
    if word in names.handles:
        return Handle(word)
    known = [*BUILT_IN, *names.records, *names.enumerations, *names.handles, "list"]
    hint = NAMES.get(word) or did_you_mean(word, known)
    reporter.error("N01", name.span, f"there is no type `{word}`", hint)
    return Unit()


def declare(
    declarations: Iterable[tree.Declaration], names: Names, reporter: Reporter, prelude: bool
) -> None:
    """Adds declarations other than `firmware` and `flow` to `names`, in order."""
    for item in declarations:
        match item:
            case tree.Constant():
                names.claim(item.name, reporter)
                value = value_of(item.value, names.constants, reporter)
                if isinstance(value, int) and value >= 1 << 64:
                    reporter.error("E06", item.value.span, f"{value} does not fit in 64 bits")
                names.constants[item.name.text] = Constant(item.name.text, value or 0)
            case tree.Error():
                _declare_error(item, names, reporter, prelude)
            case tree.Enumeration():
                _declare_enumeration(item, names, reporter)
            case tree.Record() | tree.Handle() | tree.Step() | tree.Primitive() if not prelude:
                word = type(item).__name__.lower()
                hint = "a flow file declares constants, errors, enumerations and flows"
                reporter.error("E05", item.name.span, f"a {word} is declared in the prelude", hint)
            case tree.Record():
                _declare_record(item, names, reporter)
            case tree.Handle():
                names.claim(item.name, reporter)
                names.handles[item.name.text] = None
            case tree.Step():
                if item.name.text in names.steps:
                    reporter.error("N02", item.name.span, f"step `{item.name.text}` is already declared")
                names.steps[item.name.text] = step_of(item, reporter)
            case tree.Primitive():
                _declare_primitive(item, names, reporter)


def _declare_error(item: tree.Error, names: Names, reporter: Reporter, prelude: bool) -> None:
    names.claim(item.name, reporter)
    text = item.text.value
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= MAX_ERROR_TEXT:
        rule = f"the text of an error is 1 to {MAX_ERROR_TEXT} printable ASCII characters"
        message = f"{rule}, this one has {len(text)}"
        reporter.error("E07", item.text.span, message)
    if prelude:
        number = _prelude_number(item, names, reporter)
    else:
        number = max(FIRST_FLOW_ERROR, *(e.number + 1 for e in names.errors.values()))
        if item.number is not None:
            message = f"the errors of a flow file have the numbers from {FIRST_FLOW_ERROR}, in order"
            reporter.error("E05", item.name.span, message, "leave the number out")
        if item.untrusted:
            message = "only the prelude declares which errors the VMM can cause"
            reporter.error("E05", item.name.span, message, "leave `untrusted` out")
    names.errors.setdefault(item.name.text, ErrorCode(item.name.text, number, text))
    if item.untrusted:
        names.refusals[item.name.text] = None


def _prelude_number(item: tree.Error, names: Names, reporter: Reporter) -> int:
    if item.number is None or not 0 < item.number < FIRST_FLOW_ERROR:
        message = f"an error of the prelude has a number from 1 to {FIRST_FLOW_ERROR - 1}"
        reporter.error("E05", item.name.span, message, "take the next free one")
    elif other := next((e for e in names.errors.values() if e.number == item.number), None):
        reporter.error("N02", item.name.span, f"{item.number} is already the number of `{other.name}`")
    return item.number or 0


def _declare_enumeration(item: tree.Enumeration, names: Names, reporter: Reporter) -> None:
    names.claim(item.name, reporter)
    seen: dict[str, int] = {}
    for member, value in item.members:
        if member.text in seen or value in seen.values():
            line = next(m.span.line for m, n in item.members if m.text == member.text or n == value)
            message = (
                f"name or number of `{member.text}` occurs twice in `{item.name.text}`, first in line {line}"
            )
            reporter.error("N02", member.span, message)
        if value >= 1 << 32:
            reporter.error("E06", member.span, f"{value} does not fit in 32 bits")
        seen[member.text] = value
    names.enumerations[item.name.text] = Enumeration(item.name.text, tuple(seen.items()), item.doc)


def _declare_record(item: tree.Record, names: Names, reporter: Reporter) -> None:
    names.claim(item.name, reporter)
    fields: list[RecordField] = []
    offset, align = 0, 1
    for part in item.fields:
        kind = resolve(part.type, names, reporter)
        own = alignment(kind, names.records)
        offset = align_up(offset, own)
        provenance = PROVENANCES[part.provenance or "trusted"]
        fields.append(RecordField(part.name.text, kind, offset, part.doc, provenance))
        if part.internal:
            names.hidden[item.name.text, part.name.text] = None
        offset, align = offset + size(kind, names.records), max(align, own)
    align = max(align, item.align)
    whole = align_up(offset, align)
    names.records[item.name.text] = Record(item.name.text, tuple(fields), whole, align, item.doc)


def _declare_primitive(item: tree.Primitive, names: Names, reporter: Reporter) -> None:
    names.claim(item.name, reporter)
    parameters: list[Parameter] = []
    for p in item.parameters:
        if p.type is not None:
            kind = resolve(p.type, names, reporter)
        else:
            kind = RecordRef("Layout") if p.state and p.name.text == LAYOUT else Unit()
        if p.state and isinstance(kind, RecordRef):
            names.states.setdefault(p.name.text, kind.name)
        provenance = PROVENANCES[p.provenance or "trusted"]
        parameters.append(Parameter(p.name.text, kind, provenance, p.mutable, p.state))
    result: Type = Unit()
    trust = Provenance.TRUSTED
    if isinstance(item.result, tree.Extent):
        result = Bytes()
        trust = next((p.provenance for p in parameters if p.name == item.result.of.text), trust)
        names.extents[item.name.text] = item.result.of.text
        if item.result.limit is not None:
            names.limits[item.name.text] = item.result.limit
    elif item.result is not None:
        result = resolve(item.result.type, names, reporter)
        trust = PROVENANCES[item.result.provenance or "trusted"]
        if item.result.of is not None:
            trust = next((p.provenance for p in parameters if p.name == item.result.of.text), trust)
            names.same_trust[item.name.text] = item.result.of.text
    for error in item.errors:
        if error.text not in names.errors:
            hint = did_you_mean(error.text, names.errors)
            reporter.error("N01", error.span, f"there is no error `{error.text}`", hint)
    name = item.name.text
    effects = effects_of(item, names.steps, names.errors[OUT_OF_BOUNDS].number, reporter)
    names.effects[name] = effects
    if effects.spans and OUT_OF_BOUNDS not in (e.text for e in item.errors):
        message = f"`{name}` requires a size of its argument, so it `fails {OUT_OF_BOUNDS}`"
        reporter.error("E05", item.name.span, message)
    for parameter in parameters if item.errors else ():
        _check_errors(item, parameter, names, reporter)
    names.primitives[name] = Primitive(
        name=name,
        parameters=tuple(parameters),
        result=result,
        result_provenance=trust,
        home=item.home.text,
        errors=tuple(e.text for e in item.errors),
        internal=item.internal,
        spans=effects.spans,
        doc=item.doc,
    )


def _check_errors(item: tree.Primitive, p: Parameter, names: Names, reporter: Reporter) -> None:
    """What a primitive sees of a record may be what the VMM chose, and an error may depend on it: then it is
    declared so, or a step recorded it before."""
    fields = names.records[p.type.name].fields if isinstance(p.type, RecordRef) and not p.state else ()
    chosen = [f.name for f in fields if f.provenance.value < Provenance.MEASURED.value]
    marks = (m.step for m in names.effects[item.name.text].needs_marks if m.parameter == p.name)
    recorded = any(step in names.steps and names.steps[step].rule == "T01" for step in marks)
    if chosen and not recorded and not any(e.text in names.refusals for e in item.errors):
        message = (
            f"an error of `{item.name.text}` may depend on `{p.name}.{chosen[0]}`, which no RTMR records"
        )
        hint = f"declare it as `untrusted error`, or let the primitive need a step of T01 for `{p.name}`"
        reporter.error("E05", item.name.span, message, hint)
