"""How should a flow file look? Sets indents, spaces and columns; lines and comments stay the author's.

Works on the words of each line, so that formatting what is already formatted changes nothing, and the syntax
tree stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

INDENT = 4
_TOKEN = re.compile(
    r'(?P<comment>//[^\n]*)|(?P<text>(?:hex)?"(?:[^"\\\n]|\\.)*")|(?P<version>\d+\.\d+\.\d+)'
    r"|(?P<word>0[xX][0-9A-Fa-f_]+|0[bB][01_]+|[0-9][0-9_]*|[A-Za-z_]\w*)"
    r"|(?P<sign>->|\.\.|==|!=|<=|>=|<<|>>|\S)"
)
_CONTINUES = frozenset(
    (
        *("fails", "with", "and", "or", "->", "=", "+", "-", "*", "/", "%", "&", "|", "^", "==", "!="),
        *("<", ">", "<=", ">=", "<<", ">>", ".", "..", "?", "as", "into"),
    )
)
# Words after which a parenthesis is not that of a call.
_BEFORE_GROUP = frozenset(
    (
        *("and", "as", "accept", "else", "for", "if", "in", "into", "match", "measure", "not", "on", "or"),
        *("print", "require", "return", "to"),
    )
)
_UNITS = ("KiB", "MiB", "GiB")


@dataclass(frozen=True)
class Line:
    """One line: its words, the comment behind them, how deep it is indented, and the block it stands in."""

    words: tuple[str, ...]
    comment: str
    indent: int
    block: str

    @property
    def blank(self) -> bool:
        return not self.words and not self.comment


def format_text(text: str) -> str:
    """`text`, which must parse, in the one way it is written."""
    lines = _squeeze(_read(text))
    bodies = [_spaced(line.words) for line in lines]
    _columns(lines, bodies, lambda line: _row(line) if _is_row(line) else [])
    _columns(lines, bodies, lambda line: _declared(line, "error", 2))
    _columns(lines, bodies, lambda line: _declared(line, "const", 2))
    return "\n".join(_with_comments(lines, bodies)).strip("\n") + "\n"


def _read(text: str) -> list[Line]:
    lines: list[Line] = []
    blocks: list[str] = []
    opener = ""
    parens = 0
    for raw in text.replace("\r\n", "\n").split("\n"):
        words: list[str] = []
        comment = ""
        for match in _TOKEN.finditer(raw):
            if match.lastgroup == "comment":
                comment = match[0].rstrip()
            else:
                words.append(match[0])
        closing = 0
        while closing < len(words) and words[closing] == "}":
            closing += 1
        deep = len(blocks) - closing
        block = blocks[-1] if blocks else ""
        first = words[0] if words else ""
        extra = 1 if (parens and first not in ("]", ")")) or (first in _CONTINUES and deep >= 0) else 0
        lines.append(Line(tuple(words), comment, max(0, deep + extra) * INDENT, block))
        for word in words:
            if word in "([":
                parens += 1
            elif word in ")]":
                parens = max(0, parens - 1)
            elif word == "{":
                blocks.append(opener)
            elif word == "}":
                blocks = blocks[:-1]
                opener = ""
            part = word in ("image", "memory") and blocks == ["firmware"]
            if part or word in ("firmware", "flow", "record", "enum"):
                opener = word
            elif word == "{":
                opener = ""
    return lines


def _squeeze(lines: list[Line]) -> list[Line]:
    """At most one blank line in a row, none next to the inside of a brace."""
    kept: list[Line] = []
    for line in lines:
        opened = bool(kept) and kept[-1].words[-1:] == ("{",)
        if line.blank and (not kept or kept[-1].blank or opened):
            continue
        if line.words[:1] == ("}",) and kept and kept[-1].blank:
            kept.pop()
        kept.append(line)
    return kept


def _spaced(words: tuple[str, ...]) -> str:
    out = ""
    types = _type_brackets(words)
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if i and _space(words, i, before, word, types):
            out += " "
        out += word
    return out


def _space(words: tuple[str, ...], i: int, before: str, word: str, types: set[int]) -> bool:
    if i in types or (i - 1 in types and before == "<"):
        return False
    if word in (")", "]", ",", "?", ".", ":") or before in ("(", "[", ".", "~"):
        return False
    if word == "(":
        named = before[:1].isalpha() or before[:1] == "_"
        called = words[i - 2] if i > 1 else ""
        return not named or (before in _BEFORE_GROUP and called not in ("primitive", "flow", "try", "=", "("))
    if word == "[":
        named = before[:1].isalpha() and before not in ("in", *_BEFORE_GROUP)
        return not (named or before in (")", "]", "?"))
    return True


def _type_brackets(words: tuple[str, ...]) -> set[int]:
    """Where `<` and `>` belong to `list<T, N>`."""
    found: set[int] = set()
    for i in range(len(words) - 1):
        if words[i] == "list" and words[i + 1] == "<":
            depth = 0
            for j in range(i + 1, len(words)):
                depth += (words[j] == "<") - (words[j] == ">") - 2 * (words[j] == ">>")
                if depth <= 0:
                    if words[j - 1][:1].isdigit() and words[j - 2] == ",":
                        found |= {i + 1, j}
                    break
    return found


def _row(line: Line) -> list[str]:
    """The cells of a section or region: name, type, size, address, attributes."""
    words = list(line.words)
    if len(words) < 2 or words[0] in ("}", "image", "memory") or "{" in words or "}" in words:
        return []
    cells = [words.pop(0), "", "", "", ""]
    if not words[0][:1].isdigit():
        cells[1] = words.pop(0)
    at = words.index("at") if "at" in words else len(words)
    size = [w for w in words[:at] if w in ("up", "to", *_UNITS) or w[:1].isdigit()]
    if len(size) != at and "at" in words:
        return []
    cells[2] = " ".join(size)
    rest = words[len(size) :]
    if rest[:1] == ["at"]:
        length = 3 if rest[2:3] and rest[2] in _UNITS else 2
        cells[3], rest = " ".join(rest[:length]), rest[length:]
    cells[4] = " ".join(rest)
    in_order = " ".join(cells).split() == list(line.words)
    return cells if in_order and not any(w[:1].isdigit() for w in rest) else []


def _declared(line: Line, word: str, cells: int) -> list[str]:
    """`error NAME` and `const NAME`, then the rest."""
    if line.words[:1] != (word,) or line.block or len(line.words) <= cells:
        return []
    return [" ".join(line.words[:cells]), _spaced(line.words[cells:])]


def _columns(lines: list[Line], bodies: list[str], cells_of: Callable[[Line], list[str]]) -> None:
    """Sets the cells of neighbouring rows below each other; sizes to the right, the rest to the left."""
    start = 0
    while start < len(lines):
        rows: list[list[str]] = []
        for line in lines[start:]:
            cells = cells_of(line)
            if not cells:
                break
            rows.append(cells)
        if not rows:
            start += 1
            continue
        widths = [
            max(len(row[i]) * (not row[i].startswith("up ")) for row in rows) for i in range(len(rows[0]))
        ]
        gap = "  " if len(widths) > 2 else " "
        for offset, row in enumerate(rows):
            parts = []
            for i, cell in enumerate(row):
                if any(other[i] for other in rows):
                    parts.append(cell.rjust(widths[i]) if i == 2 else cell.ljust(widths[i]))
            bodies[start + offset] = gap.join(parts).rstrip()
        start += len(rows)


def _is_row(line: Line) -> bool:
    return line.block in ("image", "memory") and bool(_row(line))


def _with_comments(lines: list[Line], bodies: list[str]) -> list[str]:
    """Comments behind code stand below each other in neighbouring lines."""
    out = [" " * line.indent + body if body else "" for line, body in zip(lines, bodies, strict=True)]
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end].words and (lines[end].comment or _is_row(lines[end])):
            end += 1
        width = max((len(out[i]) for i in range(start, end)), default=0)
        for i in range(start, end):
            out[i] = f"{out[i].ljust(width)}  {lines[i].comment}".rstrip()
        if end == start:
            if lines[start].comment:
                out[start] = " " * lines[start].indent + lines[start].comment
            end += 1
        start = end
    return out
