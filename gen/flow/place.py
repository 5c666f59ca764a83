"""Where is a variable, and which place in the flow file does an instruction belong to?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from dsl.model import Span
from gen.x86 import source

PROJECT = Path(__file__).resolve().parents[2]


class Kind(Enum):
    """What a variable's slot holds."""

    WORD = "the value, zero-extended to 64 bits"
    INLINE = "the record, span or list itself"
    POINTER = "the address of a record, span or list"


@dataclass(frozen=True)
class Place:
    """What a variable's slot holds, and where in the frame it is, in bytes."""

    kind: Kind
    slot: int


def at(span: Span) -> Any:
    """Attributes instructions to a place in the flow file, with the same name wherever the project lies."""
    path = Path(span.path)
    if path.is_absolute():
        real = path.parent.resolve() / path.name
        path = real.relative_to(PROJECT) if real.is_relative_to(PROJECT) else Path(path.name)
    return source(path.as_posix(), span.line, span.column)
