"""What does an author do who believes the compiler? Changes a refused flow as the first hint says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

from dsl.diagnostics import Diagnostic
from dsl.model import Bytes, Primitive, RecordRef, Type
from interference.expressions import Impossible
from interference.maker import Maker
from interference.scope import Scope, block_of, inserted, replaced

CODE = re.compile(r"`([^`]+)`")
STEP = re.compile(r"(\w+)\(\.\.\.\)\??")
WORDS = ("measure", "require", "separate", "park", "accept", "let")  # begin a statement


class Hints:
    """Follows hints in one flow file. `types`: what is known of the variables, by name."""

    def __init__(self, random: Random, maker: Maker, types: Mapping[str, Type]) -> None:
        self.random, self.maker, self.types = random, maker, types

    def scope(self, text: str, line: int) -> Scope:
        """The variables that a line may know of."""
        above = "\n".join(text.split("\n")[: line - 1])
        names = re.findall(r"\b(?:let|for) (\w+)\b|\b(td)\b", above)
        seen = dict.fromkeys(a or b for a, b in names)
        return tuple((n, self.types[n]) for n in seen if n in self.types)

    def follow(self, text: str, d: Diagnostic, give_up: bool = False) -> str | None:
        """The changed text; None: nothing to do. Without advice the statement goes, unless `give_up`."""
        try:
            advised = self._advised(text, d)
        except Impossible:
            advised = None
        return advised if advised or give_up else self._without(text, d)

    def _advised(self, text: str, d: Diagnostic) -> str | None:
        span, hint = d.span, d.hint
        lines = text.split("\n")
        line = lines[span.line - 1] if span.line <= len(lines) else ""
        one_line = span.line == span.end_line
        culprit = line[span.column - 1 : span.end_column - 1] if one_line else ""
        if found := re.search(r"add `(uses \w+)`", hint):
            return f"{found[1]}\n{text}"
        if found := re.search(r"`& (0x[0-9A-F]+)`", hint):
            return replaced(text, span, f"({culprit}) & {found[1]}") if culprit else None
        if "write `" in hint and "?`" in hint and culprit:
            return replaced(text, span, f"{culprit}?")
        if "declare the flow `fails`" in hint:
            return self._declared(text, span.line)
        if "every handler" in hint:
            return self._failing(text, span.line)
        if "slice it" in hint and culprit:
            return replaced(text, span, f"{culprit}[0 .. {self.random.choice((16, 64, 256))}]")
        if found := re.search(r"bind it: `let x", hint):
            at = len(line) - len(line.lstrip())
            lines[span.line - 1] = f"{line[:at]}let {self.maker.name()} = {line[at:]}"
            return "\n".join(lines)
        if "memory region" in hint or "a region of its own" in hint:
            own = [m.name for m in self.maker.firmware.memory]
            return replaced(text, span, self.random.choice(own)) if culprit and own else None
        for code in CODE.findall(hint):
            if step := STEP.fullmatch(code):
                return self._step(text, span.line, step[1], culprit)
            if code.split(" ")[0] in WORDS and (" " in code or code == "accept"):
                return self._statement(text, d, code, culprit)
            if re.fullmatch(r"\w+\(\w+\)\?", code):
                return inserted(text, span.line, [code])
        return None

    def _step(self, text: str, line: int, name: str, culprit: str) -> str | None:
        """A primitive that has to be called first, for what the complaint is about, and what it takes."""
        primitive = self.maker.firmware.primitives.get(name)
        if primitive is None or primitive.internal:
            return None
        lines: list[str] = []
        call = self._call(primitive, self.scope(text, line), lines, culprit, 3)
        return inserted(text, line, [*lines, call])

    def _call(self, primitive: Primitive, scope: Scope, lines: list[str], culprit: str, depth: int) -> str:
        """A call; what nothing in scope is good for is made in the lines before it."""
        names = dict(scope) | dict.fromkeys(self.maker.regions, Bytes())
        given: list[str] = []
        for p in primitive.parameters:
            if p.state:
                continue
            if names.get(culprit) == p.type and culprit not in given:
                given.append(culprit)
                continue
            try:
                given.append(self.maker.of(p.type, scope, 0))
            except Impossible:
                able = [q for q in self.maker.primitives if q.result == p.type]
                if not able or depth <= 0:
                    raise
                maker, name = self.random.choice(able), self.maker.name()
                call = self._call(maker, scope, lines, "", depth - 1)
                lines.append(f"let {name} = {call}")
                given.append(name)
        return f"{primitive.name}({', '.join(given)}){'?' if primitive.fallible else ''}"

    def _statement(self, text: str, d: Diagnostic, code: str, culprit: str) -> str | None:
        """A statement that has to stand before it, with words in capitals filled in."""
        line, scope = d.span.line, self.scope(text, d.span.line)
        code = code.replace('"..."', f'"h{self.random.randrange(9)}"').replace("REGION", self.random.choice(
            [m.name for m in self.maker.firmware.memory] or self.maker.regions
        ))  # fmt: skip
        code = code.replace("LIMIT", str(self.random.choice((1, 4, 8, 33, 256, 4096))))
        if code == "accept":
            return inserted(text, line, [f"accept {self.maker.of(RecordRef('Ram'), scope)}"])
        if copy := re.match(r"let x = copy_in\(buffer, (.+)\)\?$", code):
            name, room = self.maker.name(), self.maker.part(self.maker.of(Bytes(), (), 0), ())
            new = [f"let {name} = copy_in({room}, {copy[1]})?"]
            return inserted(replaced(text, d.span, name) if culprit else text, line, new)
        if code.startswith("let") or re.match(r"measure x\b", code) or "bind it" in d.hint:
            if not culprit:
                return None
            name = self.maker.name()
            check = re.sub(
                r"\b[nx]\b", name, next((c for c in CODE.findall(d.hint) if not c.startswith("let")), "")
            )
            check = check.replace("LIMIT", str(self.random.choice((4, 8, 256)))).replace('"..."', '"h"')
            new = [f"let {name} = {culprit}", *([check] if check.split(" ")[0] in WORDS else [])]
            return inserted(replaced(text, d.span, name), line, new)
        return inserted(text, line, [code])

    def _declared(self, text: str, line: int) -> str | None:
        """The flow around a line, declared `fails`."""
        lines = text.split("\n")
        for index in range(line - 1, -1, -1):
            if (
                lines[index].startswith("flow ")
                and lines[index].endswith("{")
                and " fails" not in lines[index]
            ):
                lines[index] = lines[index][:-1] + "fails {"
                return "\n".join(lines)
        return None

    def _failing(self, text: str, line: int) -> str | None:
        """The handlers of the `try` on a line, each ending in `fail`."""
        lines = text.split("\n")
        block = block_of(lines, line - 1)
        if len(block) < 3:
            return None
        end = block[-1]
        pad = lines[end][: len(lines[end]) - len(lines[end].lstrip())]
        lines.insert(end, f"{pad}    fail {self.random.choice(self.maker.errors)}")
        return "\n".join(lines)

    def _without(self, text: str, d: Diagnostic) -> str | None:
        """The text without the statement that is refused, if it begins on that line; not the flow's head."""
        lines = text.split("\n")
        index = d.span.line - 1
        if index >= len(lines) or not lines[index].startswith("    ") or lines[index].strip().startswith("}"):
            return None
        block = block_of(lines, index)
        return "\n".join(lines[: block.start] + lines[block.stop :])
