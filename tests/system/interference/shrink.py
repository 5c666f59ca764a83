"""Which lines of a flow does a counterexample need? Without any of them it is refused, or is none."""

from __future__ import annotations

import re

from interference.scope import block_of
from interference.trial import Accept, Build, Counterexample, still

VITAL = re.compile(r"^(firmware|flow boot|uses) ?")


def shrunk(text: str, example: Counterexample, build: Build, accept: Accept) -> str:
    """The flow without the lines and blocks that the counterexample does not need."""

    def holds(candidate: str) -> bool:
        firmware = accept(candidate)
        built = build(firmware) if firmware is not None else None
        return built is not None and still(built, example)

    lines = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("//")]
    if not holds("\n".join(lines)):
        return text
    changed = True
    while changed:
        changed = False
        index = len(lines) - 1
        while index >= 0:
            for shorter in _shorter(lines, index):
                if holds("\n".join(shorter)):
                    lines, changed = shorter, True
                    break
            index = min(index, len(lines)) - 1
    return "\n".join(lines) + "\n"


def _shorter(lines: list[str], index: int) -> list[list[str]]:
    """Without the statement, flow or declaration that begins on a line; a block may leave its content."""
    line = lines[index]
    if VITAL.match(line) or line.strip().startswith("}"):
        return []
    block = block_of(lines, index)
    found = [lines[: block.start] + lines[block.stop :]]
    if (
        len(block) > 2
        and line.startswith("    ")
        and not any(lines[i].strip().startswith("} ") for i in block)
    ):
        inner = [each.removeprefix("    ") for each in lines[block.start + 1 : block.stop - 1]]
        found.append(lines[: block.start] + inner + lines[block.stop :])
    return found
