"""What does a name mean in a flow? Scopes, flow signatures, and what is suppressed after a mistake so that
it is reported once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dsl import tree
from dsl.declare import PROVENANCES, Names, resolve
from dsl.diagnostics import Reporter, closest, did_you_mean
from dsl.habits import NAMES
from dsl.model import (
    Bytes,
    ImageSection,
    ListOf,
    MemoryRegion,
    Never,
    Parameter,
    Provenance,
    RecordRef,
    Span,
    Type,
    Unit,
    Variable,
)
from dsl.tree import walk

# Words that begin a statement or an expression cannot be names that a flow declares.
TAKEN = frozenset(
    (
        *("accept", "and", "else", "fail", "false", "firmware", "for", "handoff", "if", "let", "match"),
        *("measure", "not", "on", "or", "park", "print", "require", "retry", "return", "separate", "true"),
        *("try", "unless", "with"),
    )
)


@dataclass(frozen=True)
class Signature:
    """What a caller knows of a flow."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    result_provenance: Provenance
    fallible: bool
    fatal: bool
    span: Span


@dataclass
class Suppressed:
    """What nothing more is said about, because a statement that did not check may have dealt with it.
    `statements`, by flow: where one was left out, because of a mistake or because it is above the log level;
    `read`: variables that such a statement read."""

    variables: set[tuple[str, int]] = field(default_factory=set)  # flow and variable id
    regions: set[str] = field(default_factory=set)
    effects: set[str] = field(default_factory=set)
    statements: set[tuple[str, Span]] = field(default_factory=set)
    read: set[tuple[str, int]] = field(default_factory=set)

    def leave_out(self, flow: str, span: Span, read: object = ()) -> None:
        """Notes that a statement of `flow` is left out, which read the variables in `read` (of the model)."""
        self.statements.add((flow, span))
        self.read |= {(flow, node.id) for node in walk(read) if isinstance(node, Variable)}


@dataclass
class Program:
    """One flow file while it is lowered."""

    names: Names
    reporter: Reporter
    sections: dict[str, ImageSection]
    regions: dict[str, MemoryRegion]
    signatures: dict[str, Signature]
    release: dict[str, int]  # what `firmware.NAME` is
    log_level: str
    lost: frozenset[str]
    suppressed: Suppressed = field(default_factory=Suppressed)
    reported: set[tuple[str, ...]] = field(default_factory=set)

    def first(self, *cause: str) -> bool:
        """Whether `cause` was not reported yet: an unknown name is reported where it first stands."""
        new = cause not in self.reported
        self.reported.add(cause)
        return new


def signature(flow: tree.Flow, names: Names, reporter: Reporter) -> Signature:
    """What callers see of a flow; a parameter or a result that a flow cannot have is reported."""
    parameters = []
    for p in flow.parameters:
        if p.state or p.type is None:
            reporter.error(
                "E05",
                p.span,
                f"parameter `{p.name.text}` of a flow needs a type",
                "the compiler supplies the state",
            )
        kind: Type = resolve(p.type, names, reporter) if p.type is not None else Unit()
        if isinstance(kind, Never | ListOf):
            reporter.error(
                "E01", p.span, f"`{p.name.text}` cannot be passed to a flow", "pass the record that holds it"
            )
        if p.mutable and not isinstance(kind, RecordRef | Bytes | Unit):
            reporter.error(
                "E01",
                p.span,
                f"`{p.name.text}` is passed by value and cannot be written to",
                "return it",
            )
        provenance = PROVENANCES[p.provenance or "trusted"]
        parameters.append(Parameter(p.name.text, kind, provenance, p.mutable))
    result: Type = Unit()
    trust = Provenance.TRUSTED
    if isinstance(flow.result, tree.Extent):
        reporter.error("E05", flow.result.span, "`extent of` is for primitives", "return `untrusted bytes`")
    elif flow.result is not None:
        if flow.result.of is not None:
            reporter.error("E05", flow.result.of.span, "`of` is for primitives", "declare its trust level")
        result = resolve(flow.result.type, names, reporter)
        trust = PROVENANCES[flow.result.provenance or "trusted"]
    if flow.fails and flow.on_error_fatal:
        hint = "drop one of them"
        reporter.error(
            "T08", flow.name.span, f"`{flow.name.text}` cannot have both `fails` and `on error fatal`", hint
        )
    if len(parameters) + (not isinstance(result, Unit | Never)) > 6:
        reporter.error("E02", flow.name.span, "a flow has at most six parameters, counting its result")
    fatal = flow.on_error_fatal
    return Signature(
        flow.name.text, tuple(parameters), result, trust, flow.fails and not fatal, fatal, flow.name.span
    )


class Scope:
    """The variables of one flow. A name that did not check is there as None."""

    def __init__(self, program: Program, flow: str) -> None:
        self._program = program
        self._flow = flow
        self._stack: list[dict[str, Variable | None]] = [{}]
        self._lines: dict[str, int] = {}  # where each name was first bound
        self._next = 0

    @contextmanager
    def inner(self) -> Iterator[None]:
        self._stack.append({})
        yield
        self._stack.pop()

    def bind(self, name: tree.Name, kind: Type | None) -> Variable | None:
        """A new variable; None if `kind` is None because its value did not check."""
        p = self._program
        report, before = p.reporter.error, len(p.reporter)
        if name.text in TAKEN:
            report("N02", name.span, f"`{name.text}` is a keyword", "choose another name")
        elif name.text in self:
            message = f"`{name.text}` is already a variable, declared in line {self._lines[name.text]}"
            report("N02", name.span, message, "names are never shadowed")
        elif name.text in p.sections or name.text in p.regions or name.text in p.names.constants:
            where = p.names.where(name)
            message = f"`{name.text}` already names a region or a constant, {where}"
            report("N02", name.span, message, "choose another name")
        self._lines.setdefault(name.text, name.span.line)
        variable = None if kind is None else Variable(self._next, name.text, kind, name.span)
        self._next += 1
        right = len(p.reporter) == before
        self._stack[-1][name.text] = variable if right else None  # of a wrong name, uses say nothing more
        return variable

    def find(self, name: str) -> Variable | None:
        return next((frame[name] for frame in reversed(self._stack) if name in frame), None)

    def __contains__(self, name: str) -> bool:
        return any(name in frame for frame in self._stack)

    def variables(self) -> list[Variable]:
        return [v for frame in self._stack for v in frame.values() if v is not None]

    def known(self) -> list[str]:
        """Every name that an expression may use here."""
        p = self._program
        return [*(n for frame in self._stack for n in frame), *p.sections, *p.regions, *p.names.constants]

    def unassignable(self, name: tree.Name) -> None:
        """Reports the assignment to a name that is no variable."""
        p = self._program
        if name.text in p.names.places:
            message = f"`{name.text}`, declared {p.names.where(name)}, is not a variable"
            p.reporter.error("E01", name.span, message, "only a variable can be assigned")
        elif closest(name.text, self.known()):
            self.unknown(name)
        elif name.text not in p.lost and p.first("name", self._flow, name.text):
            hint = f"bind it first: `let {name.text} = ...`"
            p.reporter.error("N01", name.span, f"there is no `{name.text}` here", hint)

    def unknown(self, name: tree.Name) -> None:
        p = self._program
        if name.text in p.lost or not p.first("name", self._flow, name.text):
            return
        hint = NAMES.get(name.text) or did_you_mean(name.text, self.known())
        if name.text in p.names.primitives or name.text in p.signatures:
            hint = f"a call is written `{name.text}(...)`"
        p.reporter.error("N01", name.span, f"there is no `{name.text}` here", hint)
