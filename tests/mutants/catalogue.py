"""Which small faults should the tests notice? The mutants of the `.toml` files here, one file a room.

A file has tables `[[file]]` with `path` and `tests` (arguments of pytest that see the faults of it), and
below each its `[[file.mutant]]`: `name`, `find` (text that stands in the file exactly once), `put` (what
stands there instead), and, if needed, `why`, `tests` of its own, `covers` (what of the source it stands for:
see test_mutants.py) and `equivalent` (why no test can tell it from the original).
"""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEYS = {"name", "find", "put", "why", "tests", "covers", "equivalent"}


class CatalogueError(Exception):
    """The list does not fit the sources; the text names the mutant."""


@dataclass(frozen=True)
class Mutant:
    """One change of one source file, and the arguments of the pytest run that has to fail."""

    room: str
    name: str
    path: str
    find: str
    put: str
    tests: tuple[str, ...]
    why: str = ""
    covers: str = ""
    equivalent: str = ""

    def source(self, root: Path) -> str:
        """The file as it is."""
        try:
            return (root / self.path).read_text()
        except OSError as error:
            raise CatalogueError(f"{self.name}: cannot read {self.path}: {error.strerror}") from error

    def applied(self, root: Path) -> str:
        """The file with the fault. CatalogueError unless the pattern stands there exactly once."""
        before = self.source(root)
        if (found := before.count(self.find)) != 1:
            raise CatalogueError(
                f"{self.name}: {self.path}: found {self.find!r} {found} times, expected once"
            )
        if self.find == self.put:
            raise CatalogueError(f"{self.name}: {self.path}: changes nothing")
        return before.replace(self.find, self.put)


def _mutant(room: str, file: dict[str, Any], item: dict[str, Any]) -> Mutant:
    if unknown := item.keys() - KEYS:
        raise CatalogueError(f"{room}: {item.get('name')}: unknown key {', '.join(sorted(unknown))}")
    tests = tuple(shlex.split(item.get("tests", file["tests"])))
    return Mutant(room, path=file["path"], tests=tests, **{k: v for k, v in item.items() if k != "tests"})


def read_catalogue(folder: Path = HERE) -> tuple[Mutant, ...]:
    """Every mutant, in the order of the files. CatalogueError: a name twice, or a key that is none."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        data = tomllib.loads(path.read_text())
        for file in data["file"]:
            found += [_mutant(data["room"], file, item) for item in file["mutant"]]
    names = [mutant.name for mutant in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogueError(f"more than one mutant is called {', '.join(twice)}")
    return tuple(found)
