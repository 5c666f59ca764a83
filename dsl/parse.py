"""How does the text of a flow file become a syntax tree? Parses with lark; a line that does not parse is
reported, left out, and parsing goes on, so that one run finds every syntax error."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from dsl import tree
from dsl.build_tree import TreeBuilder
from dsl.diagnostics import Reporter, did_you_mean
from dsl.model import Span

GRAMMAR = Path(__file__).with_name("grammar.lark")
MAX_SYNTAX_ERRORS = 20
MAX_DEPTH = 100
OPERATORS = ("OR", "AND", "COMPARE", "PIPE", "CARET", "AMPERSAND", "SHIFT", "SUM", "PRODUCT")

_NAMES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text",
    "HEX": 'bytes like hex"00 1f"',
    "VERSION": "a version like 1.0.0",
    "$END": "the end of the file",
}
DECLARATIONS = frozenset({"firmware", "flow", "const", "error", "enum", "record", "primitive"})
_CODE = re.compile(r'"(?:[^"\\\n]|\\.)*"|//.*')
_DOC = re.compile(r"^[ \t]*///[ ]?(.*)$")


@cache
def grammar() -> Lark:
    return Lark(
        GRAMMAR.read_text(encoding="utf-8"), parser="lalr", propagate_positions=True, maybe_placeholders=True
    )


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
            _report_token(error, lines, _end_of(lines, path), reporter)
            break
        except UnexpectedToken as error:
            token = error.token
            at_end = token.type == "$END"
            span = _end_of(lines, path) if at_end else _span_of(token, path)
            if at_end and len(reporter):
                break  # a consequence of what was left out
            _report_token(error, lines, span, reporter)
            if at_end or not _leave_out(lines, error.token, span, lost):
                break
        except UnexpectedCharacters as error:
            char = text_at(lines, error.line, error.column)
            span = Span(path, error.line, error.column, error.line, error.column + 1)
            hint = "a text ends on the line it begins on" if char == '"' else ""
            reporter.error("S01", span, f"{_shown(char)} has no meaning here", hint)
            line = lines[error.line - 1]
            code = _CODE.sub("", line)
            _lose(code, lost)
            balanced = code.count("{") == code.count("}")
            lines[error.line - 1] = "" if balanced else line[: error.column - 1] + " " + line[error.column :]
        else:
            if too_deep := _too_deep(parsed, path):
                message = f"more than {MAX_DEPTH} levels deep"
                reporter.error("S01", too_deep, message, "put parts of it into flows")
                break
            declarations: tuple[tree.Declaration, ...] = TreeBuilder(path, docs).transform(parsed)
            return tree.File(declarations, frozenset(lost))
    return tree.File((), frozenset(lost))


def _too_deep(parsed: Tree[Token], path: str) -> Span | None:
    """Where something begins that is too deeply nested for who walks the tree; an operator is a level."""
    depth: dict[int, int] = {}
    for node in parsed.iter_subtrees():  # what lies below comes first
        below = (depth[id(c)] for c in node.children if isinstance(c, Tree))
        operators = sum(isinstance(c, Token) and c.type in OPERATORS for c in node.children)
        depth[id(node)] = max(below, default=0) + max(1, operators)
        if depth[id(node)] > MAX_DEPTH:
            return Span(path, node.meta.line, node.meta.column, node.meta.line, node.meta.column + 1)
    return None


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


def _report_token(
    error: UnexpectedToken | UnexpectedEOF, lines: list[str], span: Span, reporter: Reporter
) -> None:
    expected = set(getattr(error, "accepts", None) or error.expected)
    words = {t.name: t.pattern.value for t in grammar().terminals if t.pattern.type == "str"}
    allowed = [words[name] for name in expected if name in words]
    token = getattr(error, "token", None)
    at_end = token is None or token.type == "$END"
    found = "the end of the file" if at_end else f"`{token}`"
    line, column, before = _before(lines, span.line, span.column)
    options = [_NAMES[n] for n in ("NAME", "NUMBER", "STRING", "VERSION", "$END") if n in expected]
    options += [f"`{w}`" for w in sorted(allowed)]
    wanted = (
        f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else options[0] if options else ""
    )
    hint = "" if at_end else did_you_mean(str(token), (w for w in allowed if w.isidentifier()))
    if not hint and before.isidentifier() and before not in keywords():
        hint = did_you_mean(before, keywords())
    if at_end and _open_braces(lines):
        hint = "a `}` is missing"
    if not hint and str(token) in keywords() and "NAME" in expected:
        hint = f"`{token}` is a word of the language; choose another name"
    if before in DECLARATIONS and line == span.line and _indent(lines[line - 1]) == 0:
        span = Span(span.path, line, 1, line, 1 + len(before))
        message, hint = f"`{before}` stands inside a flow", "a `}` is missing before it"
    elif not at_end and _broke_off(lines, token, line, span) and len(options) <= 4:
        span = Span(span.path, line, column, line, column + 1)
        message, hint = f"expected {wanted} after `{before}`", ""
    elif len(options) <= 4:
        message = f"expected {wanted}, found {found}"
    else:
        message = f"{found} is not expected here" + (f" after `{before}`" if before and not hint else "")
    reporter.error("S01", span, message, hint)


def _open_braces(lines: list[str]) -> bool:
    code = [_CODE.sub("", line) for line in lines]
    return sum(line.count("{") for line in code) > sum(line.count("}") for line in code)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _before(lines: list[str], line: int, column: int) -> tuple[int, int, str]:
    """The last word or sign before a place, and where it ends."""
    for number in range(line, 0, -1):
        text = lines[number - 1] if number < line else lines[number - 1][: column - 1]
        code = _CODE.sub(lambda m: " " * len(m[0]) if m[0].startswith("//") else m[0], text).rstrip()
        if code:
            word = re.search(r"[A-Za-z_]\w*$|\d\w*$|\S$", code)
            return number, len(code) + 1, word[0] if word else ""
    return line, column, ""


def _broke_off(lines: list[str], token: Token | None, line: int, span: Span) -> bool:
    """Whether the token begins a line, and may well begin a statement: then the line before is incomplete."""
    first = _indent(lines[span.line - 1]) + 1 == span.column
    return first and line < span.line and (str(token).isidentifier() or str(token) == "}")


def _leave_out(lines: list[str], token: Token, span: Span, lost: set[str]) -> bool:
    """Blanks the line of the error, or the line before when that one is where the statement broke off."""
    line, _, before = _before(lines, span.line, span.column)
    if before in DECLARATIONS and _indent(lines[line - 1]) == 0:
        return False
    number = line if _broke_off(lines, token, line, span) else span.line
    code = _CODE.sub("", lines[number - 1])
    if code.count("{") != code.count("}") or not code.strip():
        return False
    _lose(code, lost)
    lines[number - 1] = ""
    return True


def _lose(code: str, lost: set[str]) -> None:
    """Notes the names that a line which is left out may declare."""
    lost.update(re.findall(r"\blet\s+([A-Za-z_]\w*)", code))
    if declared := re.match(r"\s*(?:const\s+|error\s+)?([A-Za-z_]\w*)", code):
        lost.add(declared.group(1))
