"""Where do a function's variables and intermediate values live? Slots above RSP, given out as a stack.

A frame is aligned to 64 bytes, because TDG.MR.RTMR.EXTEND wants its operand so; RSP does not move between
prologue and epilogue, so every slot has a constant displacement and every call finds an aligned stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peachpy.x86_64 import AND, MOV, POP, PUSH, RET, SUB, rbp

from formats.units import align_up
from gen.x86 import rsp

ALIGNMENT = 64
# No immediate that fits in a byte, so that the instruction keeps room for every size.
_SIZE_UNKNOWN = 0x7FFF_FFC0


class Frame:
    """The stack frame of the function that is being emitted: `open`, slots, `leave`, `close`."""

    def __init__(self) -> None:
        self._used = 0
        self._peak = 0
        self._reserve: Any = None

    def open(self) -> None:
        """Emit the prologue. The size is filled in by `close`, when it is known."""
        PUSH(rbp)
        MOV(rbp, rsp)
        AND(rsp, -ALIGNMENT)
        self._reserve = SUB(rsp, _SIZE_UNKNOWN)

    def leave(self) -> None:
        """Emit the epilogue; EAX or RAX passes through."""
        MOV(rsp, rbp)
        POP(rbp)
        RET()

    def close(self) -> None:
        """Fill in the frame's size, when all slots were given out."""
        self._reserve.operands = (rsp, align_up(self._peak, ALIGNMENT))

    def slot(self, size: int, align: int = 8) -> int:
        """Displacement from RSP of `size` fresh bytes, free again at the end of the enclosing `scope`."""
        start = align_up(self._used, max(align, 8))
        self._used = start + align_up(size, 8)
        self._peak = max(self._peak, self._used)
        return start

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Slots taken inside are given back at the end."""
        used = self._used
        try:
            yield
        finally:
            self._used = used
