"""What is known at one point of a flow? Trust of every value, steps taken, bytes logged; and how paths
join."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl.model import Provenance

RTMRS = tuple(f"rtmr{n}" for n in range(4))


@dataclass(frozen=True)
class Place:
    """Bytes [start, end) of `root` (a region's name, or a number for memory of unknown origin); end None:
    unknown."""

    root: str | int
    start: int = 0
    end: int | None = None
    exact: bool = False  # start and end are not only bounds

    def overlaps(self, other: Place) -> bool:
        if self.root != other.root:
            return False
        before = self.end is not None and self.end <= other.start
        after = other.end is not None and other.end <= self.start
        return not before and not after


@dataclass(frozen=True)
class Thing:
    """A value that is more than a number: bytes, a record, a list. `most`: it spans at most so many bytes."""

    id: int
    place: Place
    most: int | None


@dataclass(frozen=True)
class Value:
    """What an expression gives: its trust, and the thing or the constant if it is one."""

    trust: Provenance
    thing: Thing | None = None
    constant: int | str | None = None


@dataclass
class State:
    """`must`: steps taken on every path that leads here; `may`: on some. Steps are `log`, `plan`, `accepted`,
    `parked` and `rtmr0` to `rtmr3` (separated)."""

    trust: dict[int | tuple[int, int], Provenance] = field(default_factory=dict)
    variables: dict[tuple[int, int], Thing] = field(default_factory=dict)
    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    plans: frozenset[int] = frozenset()  # things that `accept` made good on every path
    written: frozenset[tuple[Place, str]] = frozenset()
    copied: frozenset[Place] = frozenset()
    logged: int = 0

    def copy(self) -> State:
        return State(
            dict(self.trust),
            dict(self.variables),
            self.must,
            self.may,
            self.plans,
            self.written,
            self.copied,
            self.logged,
        )

    def grant(self, step: str) -> None:
        self.must |= {step}
        self.may |= {step}

    def lower(self, place: Place, trust: Provenance, things: dict[int, Place]) -> None:
        """Whatever lies in `place` is worth no more than `trust` from here on."""
        for key, own in things.items():
            if own.overlaps(place) and key in self.trust and self.trust[key].value > trust.value:
                self.trust[key] = trust


def least(*values: Provenance) -> Provenance:
    return Provenance(min(v.value for v in values))


def join(a: State | None, b: State | None) -> State | None:
    """What is known where two paths meet; None is a path that ended."""
    if a is None or b is None:
        return b if a is None else a
    trust = dict(a.trust)
    for key, value in b.trust.items():
        trust[key] = least(trust[key], value) if key in trust else value
    return State(
        trust,
        a.variables | b.variables,
        a.must & b.must,
        a.may | b.may,
        a.plans & b.plans,
        a.written | b.written,
        a.copied | b.copied,
        max(a.logged, b.logged),
    )
