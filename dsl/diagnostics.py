"""How is a mistake reported to the author? One class for all of them: a stable code, a place, a message and
a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dsl.model import Span

# The trust rules, in the order of the threat model (docs/threat-model.md). Codes are never reused.
RULES = {
    "T01": "measure before use",
    "T02": "copy before read",
    "T03": "bound before index",
    "T04": "accept before touch",
    "T05": "write xor execute",
    "T06": "disjoint and aligned",
    "T07": "separator once",
    "T08": "ends well",
    "T09": "APs parked",
    "T10": "fits",
    "T11": "signed before run",
}

# What else can be wrong with a flow file.
CODES = {
    "S01": "syntax",
    "N01": "unknown name",
    "N02": "name used twice",
    "N03": "unknown field or member",
    "N04": "not for flows",
    "E01": "types differ",
    "E02": "wrong number of arguments",
    "E03": "match not exhaustive",
    "E04": "recursion",
    "E05": "declaration missing or misplaced",
    "E06": "number out of range",
    "E07": "text not allowed",
    "E08": "requirement never met",
} | RULES


MAX_LINE = 160  # columns of a source line, and characters of a word, that a message shows
MAX_WORD = 80
LONG_WORD = re.compile(rf"`([^`]{{{MAX_WORD - 3}}})[^`]{{4,}}`")


@dataclass(frozen=True)
class Diagnostic:
    """One mistake. `source_line` is the text of the line `span` starts on; `rule` is empty unless a trust
    rule broke."""

    code: str
    message: str
    span: Span
    hint: str = ""
    source_line: str = ""

    @property
    def rule(self) -> str:
        return RULES.get(self.code, "")

    def render(self, color: bool = False) -> str:
        """The mistake as text without a final line end: place, message, source line with a caret, hint."""
        bold, red, blue, off = ("\x1b[1m", "\x1b[1;31m", "\x1b[1;34m", "\x1b[0m") if color else ("",) * 4
        s = self.span
        rule = f" ({self.rule})" if self.rule else ""
        place = f"{bold}{s.path}:{s.line}:{s.column}: "
        text = f"{place}{red}error[{self.code}]{off}{bold}: {self.message}{rule}{off}"
        if self.source_line.strip():
            gutter = f"{s.line:>5}"
            last = s.end_column if s.end_line == s.line else len(self.source_line) + 1
            line, column, width = _window(self.source_line, s.column, max(1, last - s.column))
            lead = "".join("\t" if c == "\t" else " " for c in line[: column - 1])
            text += f"\n{blue}{gutter} |{off} {line}"
            text += f"\n{blue}      |{off} {lead}{red}{'^' * width}{off}"
        if self.hint:
            text += f"\n{blue}      ={off} hint: {self.hint}"
        return text


def _window(line: str, column: int, width: int) -> tuple[str, int, int]:
    """A line with the place in it; of a long one, what is around the place."""
    if len(line) <= MAX_LINE:
        return line, column, max(1, min(width, len(line) + 1 - column))
    start = max(0, min(column - 1 - MAX_LINE // 3, len(line) - MAX_LINE))
    part = line[start : start + MAX_LINE]
    before, after = "..." if start else "", "..." if start + MAX_LINE < len(line) else ""
    return (
        before + part + after,
        len(before) + column - start,
        max(1, min(width, start + len(part) + 1 - column)),
    )


class Reporter:
    """Collects the diagnostics of one file, each at most once for a place and code."""

    def __init__(self, source: str) -> None:
        self._lines = source.split("\n")
        self._found: dict[tuple[str, int, int, str], Diagnostic] = {}

    def error(self, code: str, span: Span, message: str, hint: str = "") -> None:
        if code not in CODES:
            raise KeyError(code)
        line = self._lines[span.line - 1] if 0 < span.line <= len(self._lines) else ""
        message, hint = (LONG_WORD.sub(r"`\1...`", words) for words in (message, hint))
        key = (code, span.line, span.column, "" if code in RULES else message)
        self._found.setdefault(key, Diagnostic(code, message, span, hint, line.rstrip("\r")))

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """All of them, in the order of the source."""
        return tuple(sorted(self._found.values(), key=lambda d: (d.span.line, d.span.column, d.code)))

    def __len__(self) -> int:
        return len(self._found)


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` may have been meant as, or nothing."""
    return next(iter(difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or nothing."""
    close = closest(word, known)
    return f"did you mean `{close}`?" if close else ""


def join_words(words: Iterable[str], last: str = "or") -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{w}`" for w in words]
    return (
        quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}" if quoted else ""
    )
