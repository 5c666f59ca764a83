"""Which parts of the prelude does a flow see? Loads dsl/prelude: core, and each capability that a file `uses`
with those it builds on in turn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from dsl import tree
from dsl.declare import BUILT_IN, Names, declare
from dsl.diagnostics import Reporter, closest, did_you_mean, join_words
from dsl.model import Span
from dsl.parse import parse

PRELUDE = Path(__file__).with_name("prelude")
CORE = "core"


@cache
def capabilities() -> tuple[str, ...]:
    """The names that may follow `uses`."""
    return tuple(sorted(p.stem for p in PRELUDE.glob("*.tdf") if p.stem != CORE))


@cache
def _file(capability: str) -> tuple[tree.File, str]:
    path = PRELUDE / f"{capability}.tdf"
    text = path.read_text(encoding="utf-8")
    reporter = Reporter(text)
    file = parse(text, str(path), reporter)
    _refuse(reporter)
    return file, text


def _refuse(reporter: Reporter) -> None:
    if reporter.diagnostics:
        raise ValueError("\n".join(d.render() for d in reporter.diagnostics))


def used(file: tree.File) -> list[tree.Name]:
    """What a file names in `uses`."""
    return [name for d in file.declarations if isinstance(d, tree.Uses) for name in d.names]


def _in_order(wanted: Iterable[str]) -> list[str]:
    """What is wanted, and what that builds on, which comes first."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for below in used(_file(name)[0]):
                visit(below.text)
            order.append(name)

    for name in (CORE, *sorted(wanted)):
        visit(name)
    return order


@cache
def _names(wanted: frozenset[str]) -> Names:
    names = Names()
    for capability in _in_order(wanted):
        file, text = _file(capability)
        reporter = Reporter(text)
        declare(file.declarations, names, reporter, prelude=True)
        _refuse(reporter)
    return names


def prelude(uses: Iterable[str] | None = None) -> Names:
    """The declarations of core and of the capabilities in `uses` (default: all), in a copy of the caller's
    own. ValueError if the prelude itself is wrong."""
    return _names(frozenset(capabilities() if uses is None else uses)).copy()


def capability_of(name: str) -> str:
    """The capability that declares a name of the prelude."""
    return Path(prelude().places[name].path).stem


def names_for(file: tree.File, reporter: Reporter) -> Names:
    """The declarations a flow file sees. A capability whose names it takes without `uses` is reported once,
    and then counts as used."""
    wanted: dict[str, tree.Name] = {}
    named = {name.text for name in used(file)}
    for name in used(file):
        if name.text == CORE:
            reporter.error("N02", name.span, "`core` is always included", "leave it out")
        elif name.text not in capabilities():
            meant = closest(name.text, capabilities())
            hint = did_you_mean(name.text, capabilities())
            hint = hint or f"the capabilities are {join_words(capabilities(), 'and')}"
            reporter.error("N01", name.span, f"the prelude has no capability `{name.text}`", hint)
            if meant and meant not in named:
                wanted[meant] = name
        elif name.text in wanted:
            reporter.error("N02", name.span, f"`{name.text}` is already used")
        else:
            wanted[name.text] = name
    visible = {capability: None for capability in _in_order(wanted)}
    everything = prelude().places
    nodes = list(tree.walk(file.declarations))
    own = set(_bound(nodes))
    places = ((n.text, f"`{n.text}`", n.span) for n in _names_in(nodes) if n.text not in own)
    for part, shown, span in sorted(
        (*places, *_constructs(nodes, visible)), key=lambda n: (n[2].line, n[2].column)
    ):
        if part in everything:
            capability = capability_of(part)
            if capability not in visible:
                message = f"{shown} is part of `{capability}`, which this file does not use"
                reporter.error("N01", span, message, f"add `uses {capability}`")
                visible |= dict.fromkeys(_in_order([capability]))
    return prelude(visible.keys() - {CORE})


def _bound(nodes: Sequence[object]) -> Iterator[str]:
    """Names that the file itself gives a meaning."""
    for node in nodes:
        match node:
            case tree.Let() | tree.For() | tree.Parameter() | tree.Section() | tree.Region():
                yield node.name.text
            case tree.Flow() | tree.Constant() | tree.Error() | tree.Enumeration():
                yield node.name.text
            case tree.Try(name=tree.Name() as name):
                yield name.text


def _names_in(nodes: Sequence[object]) -> Iterator[tree.Name]:
    """Every name of a file but those of built-in types: `digest` is one, and a primitive of `measure`."""
    types = {id(n.name) for n in nodes if isinstance(n, tree.TypeName) and n.name.text in BUILT_IN}
    return (node for node in nodes if isinstance(node, tree.Name) and id(node) not in types)


def _constructs(nodes: Sequence[object], visible: Collection[str]) -> Iterator[tuple[str, str, Span]]:
    """What stands for a call of a primitive: its name, how a message calls the construct, and where it is."""
    for node in nodes:
        match node:
            case tree.Measure():
                yield _kind("measure_", node.kind.callee, "`measure ... as {kind}`", node.span, visible)
            case tree.Handoff():
                yield _kind("handoff_", node.call.callee, "`handoff {kind}`", node.span, visible)
            case tree.Separate():
                yield "separate", "`separate`", node.span
            case tree.Accept(all_vcpus=True):
                yield "accept_on_all_vcpus", "`accept ... on all vcpus`", node.span
            case tree.Accept():
                yield "accept", "`accept`", node.span
            case tree.Lazily():
                yield "leave_lazily", "`accept ... rest lazily`", node.span
            case tree.Park():
                yield "park_aps", "`park aps`", node.span
            case tree.Memory() if node.regions:
                yield "plan_memory", "a `memory` region", node.regions[0].span


def _kind(
    prefix: str, kind: tree.Name, shown: str, span: Span, visible: Collection[str]
) -> tuple[str, str, Span]:
    """The primitive of that kind. If nothing declares the kind, which is reported elsewhere: one that the
    file sees, or the one that is probably meant.
    """
    name = prefix + kind.text
    if name in prelude().primitives:
        return name, shown.format(kind=kind.text), span
    kinds = kinds_of(prefix)
    seen = [each for each in kinds if capability_of(each) in visible]
    return (seen or [closest(name, kinds) or kinds[0]])[0], f"`{prefix[:-1]}`", span


def kinds_of(prefix: str) -> list[str]:
    """The primitives, of all capabilities, whose names begin with `prefix`."""
    return [name for name in prelude().primitives if name.startswith(prefix)]
