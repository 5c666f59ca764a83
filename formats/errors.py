"""In which ways can a binary structure be wrong, and how does one line say so?"""

from __future__ import annotations


class FormatError(ValueError):
    """Bytes lack the form they must have: `place` says where, `found` what is there, `expected` the rule."""

    def __init__(self, place: str, found: str, expected: str) -> None:
        super().__init__(f"{place}: found {found}, expected {expected}")
        self.place = place
        self.found = found
        self.expected = expected


class TruncatedError(FormatError):
    """The bytes end before the structure does."""


class FieldError(FormatError):
    """A field holds a value its specification does not allow."""
