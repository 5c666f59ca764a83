"""What is known at one point of a flow? Trust of every value, steps taken, bytes logged; and how paths
join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dsl.model import Call, Expression, Provenance
from dsl.scope import Signature


def taken(step: str, rtmr: int | None = None) -> str:
    """How `must` and `may` call a step, or one for a register."""
    return step if rtmr is None else f"{step} RTMR[{rtmr}]"


@dataclass(frozen=True)
class Place:
    """Bytes [start, end) of `root`: a region's name, the content of a constant, or a number for memory of
    unknown origin; end None: unknown."""

    root: str | int | bytes
    start: int = 0
    end: int | None = None
    exact: bool = False  # start and end are not only bounds

    def part(self, low: int | None, high: int | None) -> Place:
        """[low, high) of this place, as far as the numbers are known."""
        if not self.exact:
            return self
        return Place(
            self.root,
            self.start + (low or 0),
            self.end if high is None else self.start + high,
            exact=low is not None and high is not None,
        )

    def bounds(self) -> Place:
        """Somewhere in this place."""
        return replace(self, exact=False)

    def overlaps(self, other: Place) -> bool:
        if self.root != other.root:
            return False
        before = self.end is not None and self.end <= other.start
        after = other.end is not None and other.end <= self.start
        return not before and not after

    def within(self, others: Iterable[Place]) -> bool:
        """Whether one of the others, of which start and end are known, holds all of it."""
        return any(
            self.root == o.root
            and o.start <= self.start
            and (o.end is None or (self.end is not None and self.end <= o.end))
            for o in others
        )


def constant_place(content: bytes) -> Place:
    """Where a constant of the image lies, which nothing may write to."""
    return Place(content, 0, len(content), exact=True)


@dataclass(frozen=True)
class Object:
    """A value that is more than a number: bytes, a record, a list. `places`: where all that it spans lies;
    `size_limit`: the largest number of bytes it can have; `sized`: its size follows from recorded values
    alone, whatever it holds; `found_by`: other objects on which it depends where it lies."""

    id: int
    places: tuple[Place, ...]
    size_limit: int | None
    sized: bool = False
    found_by: tuple[int, ...] = ()

    @property
    def place(self) -> Place | None:
        """Where it lies if that is known exactly."""
        return self.places[0] if len(self.places) == 1 and self.places[0].exact else None

    @property
    def identity(self) -> object:
        """The same for all names of the same bytes, from their first to their last."""
        return self.id if self.place is None else (self.place.root, self.place.start, self.place.end)


@dataclass(frozen=True)
class Value:
    """What an expression gives: its trust, and the object or the constant if it is one.

    Of a number two facts are known. It is *recorded* if it follows from an RTMR or MRTD, and *bounded* if it
    cannot leave its range. Trusted is both, measured is recorded alone; an unrecorded one may be `checked`,
    that is, bounded nevertheless."""

    trust: Provenance
    object: Object | None = None
    constant: int | str | None = None
    checked: bool = False

    @property
    def recorded(self) -> bool:
        return self.trust.value >= Provenance.MEASURED.value

    @property
    def bounded(self) -> bool:
        return self.checked or self.trust == Provenance.TRUSTED


def found(*objects: Object) -> tuple[tuple[int, ...], bool]:
    """What one more name for one of the objects is found by: others, and whether by what it holds itself."""
    others = tuple(name for obj in objects for name in obj.found_by if name != obj.id)
    return others, any(obj.id in obj.found_by for obj in objects)


def number(recorded: bool, bounded: bool, constant: int | str | None = None) -> Value:
    """A number of which these two facts are known."""
    trust = Provenance.UNTRUSTED
    if recorded:
        trust = Provenance.TRUSTED if bounded else Provenance.MEASURED
    return Value(trust, None, constant, bounded)


@dataclass(frozen=True)
class Doubt:
    """Something unrecorded that decides whether an error arises; `refusal`: the call that the VMM can
    make fail."""

    culprit: Expression
    refusal: Call | None = None


@dataclass(frozen=True)
class Use:
    """A step that put bytes where they must stay, or (`reads`) left something behind that points to them."""

    place: Place
    by: str
    reads: bool = False


@dataclass
class State:
    """`must`: steps taken on every path that leads here, as `taken` calls them; `may`: on some. `marks`: the
    steps that were taken for an object on every path, with the object for whose sake, both by identity.
    `checked`: variables whose numbers are bounded. `optional`: RTMRs whose last event may be missing.
    `logged_by`: objects on which addresses in the event log depend. `changed`: objects that were written over
    before a register recorded them: what was found by them can no more be. `unsure`: states of
    primitives, such as the page tables, that the VMM may or may not have let the flow change. `shared`: what
    the VMM shares on every path."""

    trust: dict[int | tuple[int, int], Provenance] = field(default_factory=dict)
    variables: dict[tuple[int, int], Object] = field(default_factory=dict)
    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    marks: frozenset[tuple[object, str, object]] = frozenset()
    constants: dict[tuple[int, int], int | str] = field(default_factory=dict)
    used: frozenset[Use] = frozenset()
    copied: frozenset[Place] = frozenset()
    logged: int = 0
    checked: frozenset[tuple[int, int]] = frozenset()
    optional: frozenset[int] = frozenset()
    logged_by: frozenset[int] = frozenset()
    changed: frozenset[int] = frozenset()
    unsure: frozenset[str] = frozenset()
    shared: frozenset[Place] = frozenset()

    def copy(self) -> State:
        return State(
            dict(self.trust),
            dict(self.variables),
            self.must,
            self.may,
            self.marks,
            dict(self.constants),
            self.used,
            self.copied,
            self.logged,
            self.checked,
            self.optional,
            self.logged_by,
            self.changed,
            self.unsure,
            self.shared,
        )

    def number(self, key: tuple[int, int]) -> Value:
        """The number that a variable holds."""
        trust = self.trust.get(key, Provenance.TRUSTED)
        return Value(trust, None, self.constants.get(key), key in self.checked)

    def set_number(self, key: tuple[int, int], value: Value) -> None:
        """From here on the variable holds `value`, or that is known of it."""
        self.trust[key] = number(value.recorded, value.bounded).trust
        self.checked = self.checked | {key} if value.bounded else self.checked - {key}
        self.constants.pop(key, None)
        if value.constant is not None:
            self.constants[key] = value.constant

    def learn(self, key: tuple[int, int], fact: Value) -> None:
        """What is known of the number that a variable holds is this, too."""
        have = self.number(key)
        constant = have.constant if fact.constant is None else fact.constant
        both = number(have.recorded or fact.recorded, have.bounded or fact.bounded, constant)
        self.set_number(key, both)

    def forget(self, before: Mapping[int | tuple[int, int], Provenance]) -> None:
        """Two ways, of which nothing records which was taken, meet again: what each knew of a number is not
        what both know."""
        for key, trust in before.items():
            if isinstance(key, tuple):
                self.trust[key] = lowest(self.trust[key], trust)

    def grant(self, step: str) -> None:
        self.must |= {step}
        self.may |= {step}

    def lower(
        self, places: tuple[Place, ...], trust: Provenance, objects: dict[int, tuple[Place, ...]]
    ) -> None:
        """Whatever lies in `places` is trusted no more than `trust` from here on."""
        lowered = {key for key, own in objects.items() if key in self.trust and overlap(own, places)}
        self.changed |= {key for key in lowered if not Value(self.trust[key]).recorded}
        for key in lowered:
            self.trust[key] = lowest(self.trust[key], trust)

    def name_alias(self, old: Object, new: Object) -> None:
        """What is marked of `old`, or was for its sake, is so of `new`."""

        def renamed(identity: object) -> object:
            return new.identity if identity == old.identity else identity

        self.marks |= {(renamed(owner), step, renamed(sake)) for owner, step, sake in self.marks}


@dataclass
class Frame:
    """One call of a flow while it is walked, or what a `try` attempts. `exits`: where it returns, `failed`:
    where an error leaves it; `doubts`: what unrecorded decides whether one does, of which the first
    `argued` are those of a call's arguments; `refusals`: how many calls that the VMM may have refused it was
    called behind."""

    signature: Signature
    number: int
    exits: State | None = None
    failed: State | None = None
    result: Value | None = None
    doubts: list[Doubt] = field(default_factory=list)
    argued: int = 0
    refusals: int = 0

    def fails(self, state: State | None) -> None:
        if state is not None:
            self.failed = join(self.failed, state.copy())


def overlap(some: tuple[Place, ...], others: tuple[Place, ...]) -> bool:
    """Whether any of the places has bytes in common with any of the others."""
    return any(a.overlaps(b) for a in some for b in others)


def lowest(*values: Provenance) -> Provenance:
    """The lowest of the trust levels."""
    return Provenance(min(v.value for v in values))


def highest(*values: Provenance) -> Provenance:
    """The highest of the trust levels."""
    return Provenance(max(v.value for v in values))


def join(a: State | None, b: State | None) -> State | None:
    """What is known where two paths meet; None is a path that ended."""
    if a is None or b is None:
        return b if a is None else a
    trust = dict(a.trust)
    for key, value in b.trust.items():
        trust[key] = lowest(trust[key], value) if key in trust else value
    return State(
        trust,
        a.variables | b.variables,
        a.must & b.must,
        a.may | b.may,
        a.marks & b.marks,
        {key: c for key, c in a.constants.items() if b.constants.get(key) == c},
        a.used | b.used,
        a.copied | b.copied,
        max(a.logged, b.logged),
        a.checked & b.checked,
        a.optional | b.optional,
        a.logged_by | b.logged_by,
        a.changed | b.changed,
        a.unsure | b.unsure,
        a.shared & b.shared,
    )
