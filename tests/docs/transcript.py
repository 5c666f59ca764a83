"""How is a tutorial run? Its fenced blocks in their order, in a folder that looks like a fresh checkout.

`console`: lines after `$ ` (and `> `, behind a backslash) are commands, what follows is their output, where a
line `...` stands for any lines. `diff`: applied to my.tdf. `python`: a file, named in its first line.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOW = "my.tdf"
ACTIVATE = ".nox/env/bin/activate"
# The sessions the tutorial names, as noxfile.py runs them in an environment that is already there.
RUN = """#!/bin/sh
set -eu
case $1 in
    build) python -m tdforge build dsl/flows/linux.tdf -o build ;;
    boot) shift; python -m tdforge.boot "$@" ;;
    *) exit 2 ;;
esac
"""
DIGEST = re.compile(r"\b[0-9a-f]{64,}\b")
# What every change of the firmware or of the machine changes.
VARIES = (
    (DIGEST, "<digest>"),
    (re.compile(r"(instructions +)[0-9,]+"), r"\1<count>"),
    (re.compile(r"(ACCEPT |VMCALL )[0-9,]+|[0-9,]+ of 4 KiB"), r"\1<count>"),
    (re.compile(r"[0-9.]+s( \([0-9:]+\))?$"), "<time>"),
    (re.compile(r"0xffff[0-9a-f]{4}"), "<code>"),  # the size of the code, and where sections of low RAM end
    (re.compile(r"^(BFV .*)0x[0-9a-f]+ +[0-9]+ +0x[0-9a-f]+ +0x1 "), r"\1<code> "),
    (re.compile(r"0x8[0-9a-f]{5}\b"), "<gpa>"),
    (re.compile(r"^(wrong\.tdf:)[0-9]+:| +[0-9]+ \|"), r"\1<line>"),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the line of the document it starts at."""

    kind: str
    lines: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Step:
    """A command and what the document says it prints."""

    command: str
    expected: list[str] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block."""
    kind, kept, start = None, [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if kind is not None:
                yield Block(kind, tuple(kept), start)
            kind, kept, start = (line[3:], [], number + 1) if kind is None else (None, [], 0)
        elif kind is not None:
            kept.append(line)


def parts(text: str) -> list[tuple[str, list[Block]]]:
    """Title and blocks of each section, in their order. Sections that show the same digest stay together."""
    found: list[tuple[str, list[Block]]] = []
    shown: dict[str, int] = {}  # a digest: the part that shows it first
    titles = {number: line[3:] for number, line in enumerate(text.splitlines(), 1) if line.startswith("## ")}
    for block in blocks(text):
        at = max(number for number in titles if number < block.line)
        if not found or found[-1][0] != titles[at]:
            found.append((titles[at], []))
        found[-1][1].append(block)
        for digest in (each for line in block.lines for each in DIGEST.findall(line)):
            together = shown.setdefault(digest, len(found) - 1)
            if together < len(found) - 1:
                merged = [each for _, part in found[together:] for each in part]
                found[together:] = [(titles[at], merged)]
    return found


def steps(block: Block) -> list[Step]:
    """The commands of a console block."""
    found: list[Step] = []
    open_line = False
    for line in block.lines:
        if line.startswith("$ "):
            found.append(Step(line[2:]))
        elif open_line:
            found[-1] = Step(f"{found[-1].command}\n{line.removeprefix('> ')}")
        else:
            found[-1].expected.append(line)
        open_line = line.endswith("\\") and (open_line or line.startswith("$ "))
    return found


def patched(text: str, change: Block) -> str:
    """The text after a diff block; each run of its lines must stand in the text exactly once."""
    for hunk in re.split(r"^@@.*\n", "\n".join(change.lines) + "\n", flags=re.MULTILINE):
        lines = [line for line in hunk.splitlines() if not line.startswith(("---", "+++"))]
        old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
        if lines:
            assert text.count(old) == 1, (
                f"line {change.line}: these lines stand {text.count(old)} times:\n{old}"
            )
            text = text.replace(old, new)
    return text


def plain(line: str) -> str:
    """A line without what varies."""
    for pattern, name in VARIES:
        line = pattern.sub(name, line)
    return line.rstrip()


class Reader:
    """Compares outputs with the document. Digests may differ from it, but the same stands for the same."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}  # of the document: those of this run

    def missing(self, expected: list[str], actual: list[str]) -> str | None:
        """The first expected line that the output lacks, None if it is as told."""
        found = [plain(line) for line in actual]
        at, free = 0, False
        for line in expected:
            if line == "...":
                free = True
                continue
            place = next((n for n in range(at, len(found)) if found[n] == plain(line)), None)
            if place is None or (not free and place != at) or not self.same_digests(line, actual[place]):
                return line
            at, free = place + 1, False
        return None if free or at == len(found) else f"(no more lines, but: {found[at]})"

    def same_digests(self, told: str, seen: str) -> bool:
        """Does each digest stand for what it stood for before, and nothing else for that?"""
        for old, new in zip(DIGEST.findall(told), DIGEST.findall(seen), strict=True):
            if self.digests.setdefault(old, new) != new or list(self.digests.values()).count(new) > 1:
                return False
        return True


class Checkout:
    """A folder in which the tutorial's commands find what they name."""

    def __init__(self, place: Path, tools: dict[str, tuple[str, ...]]) -> None:
        self.place = place
        for name in ("dsl", "docs", "pyproject.toml"):
            (place / name).symlink_to(ROOT / name)
        folder = place / "tools"
        folder.mkdir()
        here = {
            "tdforge": (sys.executable, "-m", "tdforge"),
            "python": (sys.executable,),
            "pytest": (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore"),
        }
        for name, words in (here | tools).items():
            self.script(folder / name, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self.script(place / "run", RUN)
        activate = place / ACTIVATE
        activate.parent.mkdir(parents=True)
        activate.write_text(f"export PATH={shlex.quote(str(folder))}:$PATH\n")
        self.env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "dumb"}
        for name in [name for name in self.env if name.startswith("PYTEST_")]:
            del self.env[name]

    @staticmethod
    def script(path: Path, text: str) -> None:
        """An executable file."""
        path.write_text(text)
        path.chmod(0o755)

    def shell(self, command: str) -> list[str]:
        """The lines that a command prints."""
        words = ["bash", "-c", f". {ACTIVATE}\n{command}"]
        done = subprocess.run(
            words, cwd=self.place, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout.decode().replace("\r", "").splitlines()

    def put(self, block: Block) -> None:
        """The file that a python block is; a diff block, applied to the flow."""
        if block.kind == "python":
            text = "\n".join(block.lines) + "\n"
            (self.place / block.lines[0].removeprefix("# ")).write_text(text)
        elif block.kind == "diff":
            flow = self.place / FLOW
            flow.write_text(patched(flow.read_text(), block))
        else:
            raise AssertionError(f"line {block.line}: a block of kind {block.kind!r} is not run")
