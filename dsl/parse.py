"""How does the text of a flow file become a syntax tree? Parses with lark; a line that does not parse is
reported, left out, and parsing goes on, so that one run finds every syntax error."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree, UnexpectedInput

from dsl import tree
from dsl.build_tree import TreeBuilder
from dsl.diagnostics import Reporter
from dsl.model import Span
from dsl.source import Source
from dsl.syntax_errors import recover, repair_units

GRAMMAR = Path(__file__).with_name("grammar.lark")
MAX_SYNTAX_ERRORS = 20
MAX_REPAIRS = 200
MAX_DEPTH = 100
OPERATORS = ("OR", "AND", "COMPARE", "PIPE", "CARET", "AMPERSAND", "SHIFT", "SUM", "PRODUCT")

_DOC = re.compile(r"^[ \t]*///[ ]?(.*)$")


@cache
def grammar() -> Lark:
    """The parser of dsl/grammar.lark."""
    return Lark(
        GRAMMAR.read_text(encoding="utf-8"), parser="lalr", propagate_positions=True, maybe_placeholders=True
    )


@cache
def words() -> dict[str, str]:
    """The text of each terminal that is a word or a sign."""
    return {t.name: t.pattern.value for t in grammar().terminals if t.pattern.type == "str"}


def keywords() -> frozenset[str]:
    """Every word of the language."""
    return frozenset(s for s in words().values() if s.isidentifier() and s != "_")


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
    source = Source(text, path)
    repair_units(source, reporter)
    for _ in range(MAX_REPAIRS):
        try:
            parsed = grammar().parse(source.text)
        except UnexpectedInput as error:
            goes_on = recover(error, source, words(), reporter)
            if goes_on and len(reporter) < MAX_SYNTAX_ERRORS:
                continue
            break
        if too_deep := _too_deep(parsed, path):
            message = f"more than {MAX_DEPTH} levels deep"
            reporter.error("S01", too_deep, message, "put parts of it into flows")
            break
        builder = TreeBuilder(path, docs_of(text), source.column)
        declarations: tuple[tree.Declaration, ...] = builder.transform(parsed)
        return tree.File(declarations, frozenset(source.lost), source.complete)
    return tree.File((), frozenset(source.lost), False)


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
