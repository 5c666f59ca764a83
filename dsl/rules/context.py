"""What does every rule have at hand? The program, the flows on the way, the objects met so far, and the one
way to report a mistake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dsl import model
from dsl.model import Expression, Provenance, Span
from dsl.rules.state import Doubt, Frame, Object, Place, State, Value, highest, lowest, taken
from dsl.rules.table import RULES
from dsl.rules.words import depends
from dsl.scope import Program

TRUSTED = Provenance.TRUSTED


@dataclass
class Attempt:
    """One attempt of a retry on the way. `steps`: taken so far; `outside`: doomed ways that it stands on
    itself."""

    outside: int
    steps: list[model.Call] = field(default_factory=list)


class Context:
    """Shared by all rules while the flows of one program are walked."""

    def __init__(self, program: Program, disabled: frozenset[str] = frozenset()) -> None:
        self.program = program
        self.names = program.names
        self.disabled = disabled
        if unknown := disabled - RULES.keys():
            raise ValueError(f"no such rule: {', '.join(sorted(unknown))}")
        self.assume = (
            False  # steps count as taken: the flow is not seen where it is called, or lines are missing
        )
        self.anywhere: frozenset[str] = frozenset()  # steps that some flow takes, on whatever path
        self.worst = 0
        self.next_frame = 0
        self.last_object = 0
        self.places: dict[int, tuple[Place, ...]] = {}
        self.named_first: dict[int, int] = {}  # an object, and the one of which it is another name
        self.part_of: dict[int, int] = {}  # a part of a record or a list, and the whole
        self.frames: list[Frame] = []
        self.region_objects: dict[str, Object] = {}
        self.values: dict[int, Value] = {}  # of each expression, by its id, when it was last evaluated
        self.refusals: list[model.Call] = []  # calls of which nothing records whether the VMM made them fail
        self.attempted: list[Attempt] = []  # for each retry on the way
        self.doomed: list[str] = []  # causes of the ways that end in an error and that nothing records
        self.survivable: set[int] = set()  # calls (by id) of which a `try` goes on from an error
        self.survived: list[list[model.Call]] = []  # for each on the way: calls that the VMM may have refused
        self.reported: set[object] = set()  # causes that were reported: what else comes of them is not

    # ---- the flow that is walked

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def key(self, variable: model.Variable) -> tuple[int, int]:
        return self.frame.number, variable.id

    def is_suppressed(self, variable: model.Variable) -> bool:
        return (self.frame.signature.name, variable.id) in self.program.suppressed.variables

    def doubted(self, culprit: Expression) -> None:
        """Something unrecorded decides whether an error arises here."""
        self.frame.doubts.append(Doubt(culprit))
        self._tried_again(depends(culprit))

    def refusable(self, call: model.Call) -> None:
        """The VMM decides whether `call` fails, and no RTMR records it."""
        self.frame.doubts.append(Doubt(call, call))
        for refusals in self.survived:
            refusals.append(call)
        self._tried_again(f"an error of `{call.callee}`")

    def _tried_again(self, cause: str) -> None:
        """Reports steps that an attempt took before it failed in a way that no register records."""
        for attempt in self.attempted:
            for step in attempt.steps[-1:]:
                self.called_again(step, cause)

    def called_again(self, step: model.Call, cause: str) -> None:
        message = f"the VMM decides how often `{step.callee}` is called: it is called again after {cause}"
        hint = "take steps outside the retried call, or last in it"
        self.error("refusal", step.span, f"{message}, which no RTMR records", hint)

    def taken_in_attempt(self, step: model.Call) -> None:
        """A step of a call that is retried: it counts even if the attempt then fails."""
        for attempt in self.attempted:
            attempt.steps.append(step)
            for cause in self.doomed[attempt.outside :][:1]:
                self.called_again(step, cause)

    @contextmanager
    def way(self, goes_on: bool, cause: str) -> Iterator[None]:
        """Walks a way that `cause` selects, which nothing records if it is not empty."""
        doomed = [] if goes_on or not cause else [cause]
        self.doomed += doomed
        yield
        del self.doomed[len(self.doomed) - len(doomed) :]

    # ---- objects

    def error(self, rule: str, span: Span, message: str, hint: str = "", code: str = "") -> bool:
        """Reports that `rule` (a name of dsl.rules.table) is broken, unless a test took the rule out; whether
        it did."""
        if rule in self.disabled:
            return False
        self.program.reporter.error(RULES[rule].code or code, span, message, hint)
        return True

    def first(self, cause: object) -> bool:
        """Whether `cause` is new; one mistake is reported once, where it first does harm."""
        new = cause not in self.reported
        self.reported.add(cause)
        return new

    def distrust(
        self, rule: str, e: Expression, wanted: Value, state: State, message: str, hint: str
    ) -> None:
        """Reports that `e` has less trust than `wanted`, once for all uses of what it names; from here on it
        counts as having that."""
        cause = self.identity(e, state)
        self._believe(e.base if isinstance(e, model.Length) else e, wanted, state)
        if cause is None or self.first((rule, cause, wanted)):
            self.error(rule, e.span, message, hint)

    def _believe(self, e: Expression, wanted: Value, state: State) -> None:
        cause = self.identity(e, state)
        if isinstance(e, model.Variable) and isinstance(cause, tuple):
            state.learn(cause, wanted)
        elif isinstance(e, model.Variable | model.RegionOf):
            have = state.trust.get(cause, Provenance.SHARED)
            if have != Provenance.SHARED:  # that it is read twice is another mistake
                state.trust[cause] = highest(have, wanted.trust)

    def identity(self, e: Expression, state: State) -> Any:
        """The same for all expressions that name the same value; None for one that is made where it
        stands."""
        match e:
            case model.Variable():
                obj = state.variables.get(self.key(e))
                return obj.id if obj is not None else self.key(e)
            case model.RegionOf():
                return self.region_objects[e.name].id
            case model.FieldOf() | model.Index() | model.Slice() | model.Length():
                base = self.identity(e.base, state)
                return None if base is None else (base, type(e).__name__, getattr(e, "field", ""))
        return None

    def new_value(
        self,
        state: State,
        trust: Provenance,
        places: tuple[Place, ...],
        size_limit: int | None,
        sized: bool = False,
        found_by: tuple[int, ...] = (),
        found_by_itself: bool = False,
    ) -> Value:
        """A new object. `found_by_itself`: what it holds decides where it begins, so none of its parts is
        recorded before it is.
        """
        self.last_object += 1
        found_by = (*found_by, self.last_object) if found_by_itself else found_by
        obj = Object(self.last_object, places, size_limit, sized, found_by)
        self.places[obj.id] = places
        state.trust[obj.id] = trust
        return Value(trust, obj)

    def trust_of(self, obj: Object, state: State) -> Provenance:
        """The trust that an object has now: none is recorded whose place is not."""
        trust = state.trust.get(obj.id, TRUSTED)
        return lowest(trust, Provenance.UNTRUSTED) if self.lost(obj.found_by, state) else trust

    def lost(self, found_by: Iterable[int], state: State) -> bool:
        """Whether one of the objects is not recorded by any of its names."""
        for name in found_by:
            names = [name]
            while (name := self.named_first.get(name, 0)) != 0:
                names.append(name)
            if not any(n not in state.changed and Value(state.trust.get(n, TRUSTED)).recorded for n in names):
                return True
        return False

    def unknown_place(self) -> tuple[Place, ...]:
        self.last_object += 1
        return (Place(self.last_object),)

    def start(self) -> State:
        """What is known before the first step: what the VMM loaded is untrusted, what the launch measured is
        not."""
        state = State()
        p = self.program
        for section in p.sections.values():
            trust = (
                TRUSTED if section.measured or section.name in p.suppressed.regions else Provenance.UNTRUSTED
            )
            self._region(state, section.name, section.size, trust)
        for region in p.regions.values():
            self._region(state, region.name, region.size, TRUSTED)  # cleared by `accept`
        return state

    def _region(self, state: State, name: str, size: int | None, trust: Provenance) -> None:
        obj = self.region_objects.get(name)
        if obj is None:
            value = self.new_value(state, trust, (Place(name, 0, size, exact=True),), size, True)
            assert value.object is not None
            self.region_objects[name] = value.object
        else:
            state.trust[obj.id] = trust

    def has(self, step: str, steps: frozenset[str], rtmr: int | None = None) -> bool:
        return self.assume or taken(step, rtmr) in steps or step in self.program.suppressed.effects
