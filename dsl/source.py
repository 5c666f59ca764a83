"""What is left of a flow file while it is parsed? Its lines, repaired or left out until the rest parses, and
the columns that the author sees."""

from __future__ import annotations

import re

from dsl.habits import Found, found_in, mask
from dsl.model import Span


class Source:
    """Lines and columns are 1-based, as in spans; those of `lines` may differ from the author's."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.lines = text.split("\n")
        self.lost: set[str] = set()  # names that a line which is left out may declare
        self.complete = True  # nothing was left out
        self._edits: dict[int, list[tuple[int, int, int]]] = {}  # line -> start, length before and after

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def code(self, line: int) -> str:
        """The line without texts and comment."""
        return mask(self.lines[line - 1])

    def indent(self, line: int) -> int:
        text = self.lines[line - 1]
        return len(text) - len(text.lstrip())

    # ---- places

    def column(self, line: int, column: int) -> int:
        """The author's column."""
        place = column - 1
        for start, before, after in reversed(self._edits.get(line, ())):
            if place >= start + after:
                place += before - after
            elif place > start:
                place = start + min(place - start, before)
        return place + 1

    def span(self, line: int, column: int, width: int = 1) -> Span:
        start = self.column(line, column)
        return Span(self.path, line, start, line, max(start + 1, self.column(line, column + width)))

    def end(self) -> tuple[int, int]:
        """Behind the last word of the file."""
        last = next((n for n in range(len(self.lines), 0, -1) if self.lines[n - 1].strip()), 1)
        return last, len(self.lines[last - 1].rstrip()) + 1

    def before(self, line: int, column: int) -> tuple[int, int, str]:
        """The last word or sign before a place, and where it ends."""
        for number in range(line, 0, -1):
            text = self.lines[number - 1][: column - 1] if number == line else self.lines[number - 1]
            code = mask(text).rstrip()
            if code:
                word = re.search(r"[A-Za-z_]\w*$|\d\w*$|\S$", code)
                return number, len(code) + 1, word[0] if word else ""
        return line, column, ""

    def unclosed(self, line: int) -> tuple[int, int] | None:
        """The `{` before a line that is still open there; a `}` that stands further left than the line of its
        `{` belongs to another one."""
        stack: list[tuple[int, int]] = []
        for number in range(1, line):
            code = self.code(number)
            for place, sign in enumerate(code):
                if sign == "{":
                    stack.append((number, place + 1))
                elif sign == "}" and stack:
                    leads = not code[:place].strip(" \t}")
                    if leads and self.indent(number) < self.indent(stack[-1][0]):
                        return stack[-1]
                    stack.pop()
        return stack[-1] if stack else None

    # ---- repairs

    def replace(self, line: int, start: int, end: int, text: str) -> None:
        """Writes `text` over the 0-based columns [start, end)."""
        old = self.lines[line - 1]
        self.lines[line - 1] = old[:start] + text + old[end:]
        self._edits.setdefault(line, []).append((start, end - start, len(text)))

    def repair(self, line: int, found: Found) -> bool:
        """Writes the right thing in place of a habit, all over the file if it is never right; or leaves the
        line out. False if parsing cannot go on."""
        if found.repair is None:
            return self.leave_out(line)
        if not found.habit.everywhere:
            self.replace(line, found.start, found.end, found.repair)
            return True
        for number in range(1, len(self.lines) + 1):
            for each in reversed(found_in(self.lines[number - 1], (found.habit,))):
                open_comment = each.text.startswith("/*") and not each.text.endswith("*/")
                self.replace(number, each.start, each.end, each.repair or "")
                if open_comment:
                    self._close_comment(number + 1)
        return True

    def _close_comment(self, line: int) -> None:
        for number in range(line, len(self.lines) + 1):
            end = self.lines[number - 1].find("*/")
            self.replace(number, 0, end + 2 if end >= 0 else len(self.lines[number - 1]), "")
            if end >= 0:
                return

    def leave_out(self, line: int) -> bool:
        """Blanks a line; False if a block begins or ends there."""
        code = self.code(line)
        self.complete = False
        if code.count("{") != code.count("}") or not code.strip():
            return False
        self.lost.update(re.findall(r"\blet\s+([A-Za-z_]\w*)", code))
        if declared := re.match(r"\s*(?:const\s+|error\s+)?([A-Za-z_]\w*)", code):
            self.lost.add(declared.group(1))
        self.lines[line - 1] = ""
        return True
