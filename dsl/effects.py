"""What does a primitive do to the state that the trust rules follow? Steps and effects, as the prelude
declares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dsl import tree
from dsl.diagnostics import RULES, Reporter, did_you_mean, join_words
from dsl.model import SpanNeed
from formats.units import LARGE_PAGE, PAGE

# What is said when ... `{call}`: the callee; `{argument}`: the object; `{rtmr}`: the registers.
TEXTS = {
    "missing": "... a step is needed that was not taken on every path",
    "repeated": "... it is taken a second time",
    "other": "... an object is passed that the step was not taken for",
    "unrelated": "... the step was taken for the object, but for the sake of another one",
    "region": "... a memory region is used before it: the step that makes them usable",
    "late": "... something comes after it that has to come before it",
    "abandoned": "... the flow goes on after an error of a primitive that takes it",
    "unsigned": "... bytes run that are not authorised, in a firmware that takes the step anywhere",
}
PLACEHOLDERS = {"call": "", "argument": "", "rtmr": ""}


@dataclass(frozen=True)
class Step:
    """Something that is done once, and what is said if it is not. `numbered`: once for each RTMR of the
    firmware."""

    name: str
    rule: str
    numbered: bool
    texts: dict[str, tuple[str, str]]

    def says(
        self, word: str, call: str = "", argument: str = "", rtmrs: Iterable[int] = ()
    ) -> tuple[str, str]:
        """Message and hint."""
        names = [f"RTMR[{n}]" for n in rtmrs]
        message, hint = self.texts[word]
        return (
            message.format(call=call, argument=argument, rtmr=" and ".join(names)),
            hint.format(call=call, argument=argument, rtmr=", ".join(names)),
        )


@dataclass(frozen=True)
class Mark:
    """`step` was taken for the object that `parameter` is given; `relation`: for the sake of that one."""

    parameter: str
    step: str
    relation: str | None = None


@dataclass(frozen=True)
class Effects:
    """What a primitive does; parameters by name. `gives`: steps, each with the parameter that says for which
    RTMR."""

    measures: tuple[tuple[str, str], ...] = ()
    authorises: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    gives: tuple[tuple[str, str | None], ...] = ()
    needs: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    makes: tuple[Mark, ...] = ()
    needs_marks: tuple[Mark, ...] = ()
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    spans: tuple[SpanNeed, ...] = ()
    log_bytes: int = 0
    log_sizes: tuple[str, ...] = ()
    log_areas: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()

    @property
    def steps(self) -> frozenset[str]:
        """Every step that it takes, for an object or not."""
        return frozenset([*(step for step, _ in self.gives), *(mark.step for mark in self.makes)])


NO_EFFECTS = Effects()


def step_of(item: tree.Step, reporter: Reporter) -> Step:
    """The step that `item` declares; texts are tried once, so that no flow meets a wrong one."""
    texts: dict[str, tuple[str, str]] = {}
    if item.rule.text not in RULES:
        reporter.error("N01", item.rule.span, f"there is no rule `{item.rule.text}`", "T01 to T11")
    for word, message, hint in item.texts:
        if word.text not in TEXTS:
            hint_ = did_you_mean(word.text, TEXTS) or f"one of {join_words(TEXTS)}"
            reporter.error("N01", word.span, f"a step has no text `{word.text}`", hint_)
        if word.text in texts:
            reporter.error("N02", word.span, f"`{word.text}` is already declared")
        for text in (message, hint):
            try:
                text.value.format(**PLACEHOLDERS)
            except (KeyError, IndexError, ValueError):
                known = join_words([f"{{{p}}}" for p in PLACEHOLDERS])
                reporter.error("E07", text.span, "a brace without a known name", f"the names are {known}")
        texts[word.text] = (message.value, hint.value)
    return Step(item.name.text, item.rule.text, item.numbered, texts)


@dataclass
class _Reader:
    """Reads the effects of one primitive."""

    steps: dict[str, Step]
    parameters: Collection[str]
    reporter: Reporter
    span_error: int
    found: dict[str, list[tree.Effect]] = field(default_factory=dict)

    def parameter(self, name: tree.Name) -> str:
        if name.text not in self.parameters:
            hint = did_you_mean(name.text, self.parameters)
            self.reporter.error("N01", name.span, f"there is no parameter `{name.text}`", hint)
        return name.text

    def step(self, name: tree.Name, *words: str) -> str:
        """A declared step that has one of the texts `words`, which its use here may ask for."""
        declared = self.steps.get(name.text)
        if declared is None:
            self.reporter.error(
                "N01", name.span, f"there is no step `{name.text}`", did_you_mean(name.text, self.steps)
            )
        elif not any(word in declared.texts for word in words):
            self.reporter.error(
                "E05", name.span, f"step `{name.text}` has no text `{words[0]}`", "add it to the step"
            )
        return name.text

    def mark(self, names: tuple[tree.Name, ...], *words: str) -> Mark:
        relation = self.parameter(names[2]) if len(names) == 3 else None
        if relation is not None and words:
            self.step(names[1], "unrelated")
        return Mark(self.parameter(names[0]), self.step(names[1], *(words or TEXTS)), relation)

    def operands(self, word: str) -> tuple[str, ...]:
        return tuple(self.parameter(n) for e in self.found.get(word, ()) for n in e.names)

    def effects(self) -> Effects:
        each = self.found
        needs = each.get("needs", ())
        return Effects(
            measures=tuple(
                (self.parameter(e.names[0]), self.parameter(e.names[1])) for e in each.get("measures", ())
            ),
            authorises=self.operands("authorises"),
            runs=self.operands("runs"),
            gives=tuple(self.given(e) for e in each.get("gives", ())),
            needs=tuple(self.step(e.names[0], "missing") for e in needs if len(e.names) == 1),
            before=tuple(self.step(e.names[0], "late") for e in each.get("before", ())),
            makes=tuple(self.mark(e.names) for e in each.get("makes", ())),
            needs_marks=tuple(self.mark(e.names, "other") for e in needs if len(e.names) > 1),
            writes=self.operands("writes"),
            keeps=self.operands("keeps"),
            spans=tuple(self.span(e) for e in each.get("spans", ())),
            log_bytes=sum(e.number for e in each.get("logs", ())),
            log_sizes=self.operands("logs"),
            log_areas=self.operands("logs into"),
            limits=tuple((self.parameter(e.names[0]), e.number) for e in each.get("limits", ())),
        )

    def span(self, effect: tree.Effect) -> SpanNeed:
        if effect.align & (effect.align - 1) or effect.align > PAGE:  # regions begin at a page
            message = f"{effect.align} is not a power of two up to {PAGE}"
            self.reporter.error("E06", effect.span, message)
        if effect.within not in (0, LARGE_PAGE) or (effect.within and not 0 < effect.number <= effect.within):
            self.reporter.error("E06", effect.span, "a number of bytes lies within 2 MiB, if it does at all")
        names = [self.parameter(n) for n in effect.names]
        other = names[1] if len(names) == 2 else None
        return SpanNeed(names[0], effect.number, other, effect.align, effect.within, self.span_error)

    def given(self, effect: tree.Effect) -> tuple[str, str | None]:
        step = self.step(effect.names[0], "repeated", "abandoned", "late", "unsigned")
        numbered = step in self.steps and self.steps[step].numbered
        if numbered != (len(effect.names) == 2):
            message = f"step `{step}` is taken {'for a register' if numbered else 'once'}"
            self.reporter.error("E05", effect.span, message, f"`gives {step}{' of PARAMETER' * numbered}`")
        return step, self.parameter(effect.names[1]) if len(effect.names) == 2 else None


def effects_of(item: tree.Primitive, steps: dict[str, Step], span_error: int, reporter: Reporter) -> Effects:
    """The effects of a primitive. `span_error`: what it fails with if a span it is given does not fit."""
    reader = _Reader(steps, [p.name.text for p in item.parameters], reporter, span_error)
    for effect in item.effects:
        reader.found.setdefault(effect.word, []).append(effect)
    return reader.effects()
