"""How does the generator say that a firmware cannot be built? One exception, one line of text."""

from __future__ import annotations

from dsl.model import Span


class BuildError(Exception):
    """Says what failed and, where there is one, the place in the flow file."""

    def __init__(self, message: str, span: Span | None = None) -> None:
        place = f"{span.path}:{span.line}:{span.column}: " if span else ""
        super().__init__(place + message)
