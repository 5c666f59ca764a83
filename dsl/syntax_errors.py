"""How is a syntax error reported, and how does parsing continue behind it? One report for one mistake."""

from __future__ import annotations

from collections.abc import Mapping

from lark import Token, UnexpectedCharacters, UnexpectedInput

from dsl.diagnostics import Reporter, did_you_mean, join_words
from dsl.habits import UNITS, found_in, touching
from dsl.layout import KINDS
from dsl.source import Source

DECLARATIONS = frozenset({"uses", "firmware", "flow", "const", "error", "enum", "record", "primitive"})
_NAMES = {
    "NAME": "a name",
    "KIND": "a section type",
    "NUMBER": "a number",
    "STRING": "a text",
    "HEX": 'bytes like hex"00 1f"',
    "VERSION": "a version like 1.0.0",
    "$END": "the end of the file",
}
_SHORT = 4  # a shorter word is like too many others


def recover(error: UnexpectedInput, source: Source, words: Mapping[str, str], reporter: Reporter) -> bool:
    """Reports the error and repairs `source`; False if parsing cannot go on. `words`: text of each terminal
    that is a word or sign."""
    token: Token | None = getattr(error, "token", None)
    at_end = not isinstance(error, UnexpectedCharacters) and (token is None or token.type == "$END")
    if at_end and len(reporter):
        return False  # a consequence of what was left out
    line, column = source.end() if at_end else (error.line, error.column)
    width = len(token) if token and not at_end else 1
    before_line, before_end, before = source.before(line, column)
    before_start = before_end - len(before)

    inside = line + 1 if at_end else 0  # the line of a declaration that stands in a block
    if token in DECLARATIONS and column == 1:
        inside = line
    elif before in DECLARATIONS and before_start == 1:
        inside = before_line
    if inside and (opening := source.unclosed(inside)):
        where = "at the end of the file" if at_end else f"before `{source.lines[inside - 1].strip()}`"
        reporter.error("S01", source.span(*opening), "this `{` is never closed", f"a `}}` is missing {where}")
        return False

    places = ((line, column - 1, column - 1 + width), (before_line, before_start - 1, before_end - 1))
    for number, start, end in places:
        if found := touching(source.lines[number - 1], start, end):
            span = source.span(number, found.start + 1, max(1, len(found.text)))
            reporter.error("S01", span, found.message, found.hint)
            return source.repair(number, found)

    if isinstance(error, UnexpectedCharacters):
        return _report_character(line, column, source, reporter)
    known = _Unexpected(error, token, at_end, line, column, source, words)
    known.report(reporter)
    if known.lacks_brace():
        source.replace(known.before_line, known.before_end - 1, known.before_end - 1, " {")
        return True
    return not at_end and source.leave_out(known.culprit)


def repair_units(source: Source, reporter: Reporter) -> None:
    """Reports and repairs sizes in units of other languages."""
    for number, line in enumerate(source.lines, start=1):
        for found in reversed(found_in(line, (UNITS,))):
            start = found.end - len(found.text)
            reporter.error("S01", source.span(number, start + 1, len(found.text)), found.message, found.hint)
            source.replace(number, start, found.end, found.repair or "")


def _report_character(line: int, column: int, source: Source, reporter: Reporter) -> bool:
    char = source.lines[line - 1][column - 1 : column]
    shown = f"`{char}`" if char.isprintable() else f"character U+{ord(char):04X}" if char else "this"
    hint = "a text must end on the line on which it begins" if char == '"' else ""
    reporter.error("S01", source.span(line, column), f"{shown} has no meaning here", hint)
    if char == '"' or not source.leave_out(line):
        source.complete = False
        code = source.code(line)
        end = _end_of_text(source.lines[line - 1], code, column) if char == '"' else column
        source.replace(line, column - 1, end, '"?"' if char == '"' else " ")
        return code.count("{") == code.count("}") or char != '"'
    return True


def _end_of_text(line: str, code: str, column: int) -> int:
    """Where a text that is never closed was meant to end: before the `)` of the call that it stands in."""
    before = code[: column - 1]
    inside = before.count("(") > before.count(")")
    return place if inside and (place := line.find(")", column)) >= 0 else len(line)


class _Unexpected:
    """A word or sign that may not stand where it does."""

    def __init__(
        self,
        error: UnexpectedInput,
        token: Token | None,
        at_end: bool,
        line: int,
        column: int,
        source: Source,
        words: Mapping[str, str],
    ) -> None:
        expected = set[str](getattr(error, "accepts", None) or getattr(error, "expected", None) or ())
        self.allowed = [words[name] for name in expected if name in words]
        self.options = [text for name, text in _NAMES.items() if name in expected]
        self.options += [f"`{word}`" for word in sorted(self.allowed)]
        self.words = [word for word in words.values() if word.isidentifier()]
        self.token, self.at_end, self.source = str(token), at_end, source
        self.line, self.column, self.names = line, column, "NAME" in expected
        self.kind = "KIND" in expected
        self.before_line, self.before_end, self.before = source.before(line, column)
        first = source.indent(line) + 1 == column
        begins = self.token.isidentifier() or self.token == "}"
        # The word begins a line, and may well begin a statement: then the line before is incomplete.
        self.broke_off = not at_end and first and self.before_line < line and begins
        self.culprit = self.before_line if self.broke_off else line

    def report(self, reporter: Reporter) -> None:
        source, options, before = self.source, self.options, self.before
        wanted = ", ".join(options[:-1]) + " or " + options[-1] if len(options) > 1 else "".join(options)
        found = "the end of the file" if self.at_end else f"`{self.token}`"
        hint = self.hint()
        span = source.span(self.line, self.column, 1 if self.at_end else len(self.token))
        if self.broke_off and len(options) <= 4:
            span = source.span(self.before_line, self.before_end)
            meant = did_you_mean(before, self.words) if self.kind else ""
            message, hint = f"expected {wanted} after `{before}`", meant
        elif self.token == "}" and not source.unclosed(self.line):
            message, hint = "this `}` has no matching `{`", ""
        elif len(options) <= 4:
            message = f"expected {wanted}, found {found}"
        else:
            message = f"{found} is not expected here" + (f" after `{before}`" if before and not hint else "")
        if not hint and "{" in self.allowed and set(self.allowed) <= {"{", "if"}:
            hint = "a block is written between `{` and `}`"
        if not hint and set(self.allowed) == {"(", "="} and before.isidentifier() and not self.broke_off:
            hint = f"`{before}` begins a call, `{before}(...)`, or an assignment, `{before} = ...`"
        reporter.error("S01", span, message, hint)

    def lacks_brace(self) -> bool:
        """Whether the line before was meant to end in a `{`, whose `}` is there."""
        code = [self.source.code(number) for number in range(1, len(self.source.lines) + 1)]
        more = sum(text.count("}") - text.count("{") for text in code)
        return self.broke_off and "{" in self.allowed and more > 0

    def hint(self) -> str:
        if self.at_end:
            return ""
        if self.kind:
            return did_you_mean(self.token, KINDS) or f"the section types are {join_words(KINDS, 'and')}"
        meant = did_you_mean(self.token, (w for w in self.allowed if w.isidentifier()))
        if not meant and self.before.isidentifier() and self.before not in self.words:
            meant = did_you_mean(self.before, self.words) if len(self.before) >= _SHORT else ""
        if not meant and self.token in self.words and self.names:
            return f"`{self.token}` is a keyword; choose another name"
        return meant
