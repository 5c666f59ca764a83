"""How does a test say: either this succeeds, or it is refused with one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from formats.errors import FormatError


@contextmanager
def one_line() -> Iterator[None]:
    """Lets a FormatError pass whose text is one line of the form "place: found ..., expected ..."."""
    try:
        yield
    except FormatError as error:
        text = str(error)
        if "\n" in text or not (error.place and error.found and error.expected):
            raise AssertionError(f"not one clear line: {text!r}") from error
