"""How do constants and space get into a stream of instructions? Directives beside PeachPy's own."""

from __future__ import annotations

import peachpy.stream

from gen.x86.operand import Symbol


class Directive:
    """Base of everything in a stream that is no instruction and no label."""

    size: int = 0

    def _issue(self) -> None:
        if peachpy.stream.active_stream is None:
            raise RuntimeError(
                f"{type(self).__name__} used outside of `with unit.code(...)` or `unit.data(...)`"
            )
        peachpy.stream.active_stream.add_instruction(self)


class DB(Directive):
    """Literal bytes; `comment` says in the listing what they are."""

    def __init__(self, content: bytes, comment: str = "") -> None:
        self.content = bytes(content)
        self.comment = comment
        self.size = len(self.content)
        self._issue()


class _Word(Directive):
    """One little-endian integer or the absolute address of a symbol."""

    def __init__(self, value: int | Symbol, comment: str = "") -> None:
        if isinstance(value, int) and not -(1 << 8 * self.size - 1) <= value < 1 << 8 * self.size:
            raise ValueError(f"{type(self).__name__}: {value:#x} does not fit in {self.size} bytes")
        self.value = value
        self.comment = comment
        self._issue()


class DW(_Word):
    """A 16-bit word."""

    size = 2


class DD(_Word):
    """A 32-bit doubleword."""

    size = 4


class DQ(_Word):
    """A 64-bit quadword."""

    size = 8


class RESERVE(Directive):
    """`size` zero bytes."""

    def __init__(self, size: int, comment: str = "") -> None:
        self.size = size
        self.comment = comment
        self._issue()


class BALIGN(Directive):
    """Pad to a multiple of `alignment` bytes (at most the alignment of the enclosing block)."""

    def __init__(self, alignment: int) -> None:
        if alignment <= 0 or alignment & (alignment - 1):
            raise ValueError(f"BALIGN: {alignment} is not a power of two")
        self.alignment = alignment
        self._issue()
