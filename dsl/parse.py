"""How does the text of a flow file become a syntax tree? Parses with lark; a line that does not parse is reported,
left out, and parsing goes on, so that one run finds every syntax error."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lark import Lark, Token, UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from dsl import tree
from dsl.build_tree import TreeBuilder
from dsl.diagnostics import Reporter, did_you_mean, join_words
from dsl.model import Span

GRAMMAR = Path(__file__).with_name("grammar.lark")
MAX_SYNTAX_ERRORS = 20

_NAMES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text",
    "VERSION": "a version like 1.0.0",
    "$END": "the end of the file",
}
_DOC = re.compile(r"^[ \t]*///[ ]?(.*)$")


@cache
def grammar() -> Lark:
    return Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", propagate_positions=True, maybe_placeholders=True)


@cache
def keywords() -> frozenset[str]:
    """Every word of the language."""
    strings = (t.pattern.value for t in grammar().terminals if t.pattern.type == "str")
    return frozenset(s for s in strings if s.isidentifier() and s != "_")


def docs_of(text: str) -> dict[int, str]:
    """Each run of `///` lines, by the number of the line after it."""
    found: dict[int, str] = {}
    run: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if doc := _DOC.match(line):
            run.append(doc.group(1).strip())
        elif run:
            found[number] = " ".join(run)
            run = []
    return found


def parse(text: str, path: str, reporter: Reporter) -> tree.File:
    """The declarations of `text`. Syntax errors go to `reporter` as S01."""
    docs, lines, lost = docs_of(text), text.split("\n"), set[str]()
    for _ in range(MAX_SYNTAX_ERRORS):
        try:
            parsed = grammar().parse("\n".join(lines))
        except UnexpectedEOF as error:
            _report_token(error, _end_of(lines, path), reporter)
            break
        except UnexpectedToken as error:
            token = error.token
            at_end = token.type == "$END"
            span = _end_of(lines, path) if at_end else _span_of(token, path)
            if at_end and len(reporter):
                break  # a consequence of what was left out
            _report_token(error, span, reporter)
            if at_end or not _leave_out(lines, error, span.line, lost):
                break
        except UnexpectedCharacters as error:
            char = text_at(lines, error.line, error.column)
            span = Span(path, error.line, error.column, error.line, error.column + 1)
            hint = "a text ends on the line it begins on" if char == '"' else ""
            reporter.error("S01", span, f"{_shown(char)} has no meaning here", hint)
            lines[error.line - 1] = ""
        else:
            declarations: tuple[tree.Declaration, ...] = TreeBuilder(path, docs).transform(parsed)
            return tree.File(declarations, frozenset(lost))
    return tree.File((), frozenset(lost))


def text_at(lines: list[str], line: int, column: int) -> str:
    return lines[line - 1][column - 1 : column]


def _shown(char: str) -> str:
    return f"`{char}`" if char.isprintable() else f"character U+{ord(char):04X}" if char else "this"


def _span_of(token: Token, path: str) -> Span:
    line, column = token.line or 1, token.column or 1
    return Span(path, line, column, token.end_line or line, token.end_column or column + 1)


def _end_of(lines: list[str], path: str) -> Span:
    last = next((n for n in range(len(lines), 0, -1) if lines[n - 1].strip()), 1)
    column = len(lines[last - 1].rstrip()) + 1
    return Span(path, last, column, last, column + 1)


def _report_token(error: UnexpectedToken | UnexpectedEOF, span: Span, reporter: Reporter) -> None:
    expected = set(getattr(error, "accepts", None) or error.expected)
    words = {t.name: t.pattern.value for t in grammar().terminals if t.pattern.type == "str"}
    allowed = [words[name] for name in expected if name in words]
    token = getattr(error, "token", None)
    found = "the end of the file" if token is None or token.type == "$END" else f"`{token}`"
    history = [t for t in getattr(error, "token_history", None) or () if t is not None]
    before = str(history[-1]) if history else ""
    hint = did_you_mean(str(token), (w for w in allowed if w.isidentifier())) if token is not None else ""
    if not hint and before.isidentifier() and before not in keywords():
        hint = did_you_mean(before, keywords())
    if not hint and token is not None and str(token) in keywords() and "NAME" in expected:
        hint = f"`{token}` is a word of the language; choose another name"
    options = [_NAMES[n] for n in ("NAME", "NUMBER", "STRING", "VERSION", "$END") if n in expected]
    options += [f"`{w}`" for w in sorted(allowed)]
    message = f"{found} is not expected here"
    if len(options) == 1:
        message = f"expected {options[0]}, found {found}"
    elif len(options) <= 4:
        message = f"expected {', '.join(options[:-1])} or {options[-1]}, found {found}"
    elif not hint and before:
        message += f" after `{before}`"
    reporter.error("S01", span, message, hint)


def _leave_out(lines: list[str], error: UnexpectedToken, number: int, lost: set[str]) -> bool:
    """Blanks the line of the error, or the line before when that one is where the statement broke off."""
    line = lines[number - 1]
    history = [t for t in error.token_history or () if t is not None]
    first = len(line) - len(line.lstrip()) + 1
    if history and (error.token.column or 1) == first and (history[-1].line or number) < number:
        number = history[-1].line or number
        line = lines[number - 1]
    code = re.sub(r'"(?:[^"\\\n]|\\.)*"|//.*', "", line)
    if code.count("{") != code.count("}") or not code.strip():
        return False
    lost.update(re.findall(r"\blet\s+([A-Za-z_]\w*)", code))
    if declared := re.match(r"\s*(?:const\s+|error\s+)?([A-Za-z_]\w*)", code):
        lost.add(declared.group(1))
    lines[number - 1] = ""
    return True


__all__ = ["docs_of", "join_words", "keywords", "parse"]
