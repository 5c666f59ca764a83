"""Where do two runs part? Compares traces event by event, and reports value by value."""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.signals import EmuError

TEXT_LINE = re.compile(r"\s*([\d,]+) v(\d+) (\S+)\s+(.*?)(?:  at (\S+))?\s*")
WHEN = ("count", "rip", "symbol")  # differ as soon as two images differ, whatever they do
CONTEXT = 3


@dataclass(frozen=True)
class Difference:
    """The first place where two runs part; `number` counts events from 1, an absent side is None."""

    number: int
    keys: tuple[str, ...]
    first: dict[str, Any] | None
    second: dict[str, Any] | None
    before: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What two traces have in common: `done` is the first event that is another one, `when` the first that
    only came at another time or place.
    """

    events: int
    done: Difference | None
    when: Difference | None

    @property
    def same(self) -> bool:
        """No difference at all."""
        return self.done is None and self.when is None


def parse(lines: Iterable[str], place: str) -> Iterator[dict[str, Any]]:
    """Events of a trace in either form. EmuError names a line that is none."""
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise EmuError(f"{place}:{number}: not a line of a trace") from None
            continue
        found = TEXT_LINE.fullmatch(line.rstrip("\n"))
        if not found:
            raise EmuError(f"{place}:{number}: not a line of a trace")
        count, vcpu, kind, rest, symbol = found.groups()
        what = {"count": int(count.replace(",", "")), "vcpu": int(vcpu), "kind": kind, "name": rest}
        yield what | ({"symbol": symbol} if symbol else {})


def read_trace(path: Path) -> Iterator[dict[str, Any]]:
    """Events of a trace file. EmuError."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from parse(file, str(path))
    except OSError as error:
        raise EmuError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise EmuError(f"{path}: not an image, a trace or a report") from None


def _differing(a: dict[str, Any] | None, b: dict[str, Any] | None) -> tuple[str, ...]:
    if a is None or b is None:
        return ("presence",)
    names = [*a, *(key for key in b if key not in a)]
    return tuple(key for key in names if a.get(key) != b.get(key))


def traces(first: Iterable[dict[str, Any]], second: Iterable[dict[str, Any]]) -> Outcome:
    """Compares up to the first event that is another one."""
    when = None
    number = 0
    before: deque[dict[str, Any]] = deque(maxlen=CONTEXT)
    for number, (a, b) in enumerate(itertools.zip_longest(first, second), 1):
        keys = _differing(a, b)
        if keys:
            found = Difference(number, keys, a, b, tuple(before))
            if any(key not in WHEN for key in keys):
                return Outcome(number, found, when)
            when = when or found
        before.append(a)
    return Outcome(number, None, when)


def values(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value that differs between two reports, by its path; texts are compared line by line."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from values(a.get(key), b.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(a, list) and isinstance(b, list):
        for at, (x, y) in enumerate(itertools.zip_longest(a, b)):
            yield from values(x, y, f"{place}[{at}]")
    elif isinstance(a, str) and isinstance(b, str) and a != b and ("\n" in a or "\n" in b):
        for at, (x, y) in enumerate(itertools.zip_longest(a.splitlines(), b.splitlines()), 1):
            if x != y:
                yield f"{place} line {at}", x, y
    elif a != b or type(a) is not type(b):
        yield place, a, b
