"""Does the flow keep the trust rules? Runs every rule over the lowered flows."""

from __future__ import annotations

from dsl import model
from dsl.scope import Program


def check(program: Program, flows: dict[str, model.Flow], entry: str, incomplete: bool) -> int:
    """Reports what breaks a rule; returns the bytes the event log can need."""
    return 0
