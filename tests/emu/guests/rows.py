"""What is a row of the conformance table? What a guest does, what it must see, and where that is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import layout as at

TDCALL = b"\x66\x0f\x01\xcc"


@dataclass(frozen=True)
class Step:
    """Some bytes of code, the general registers before it, and the segment and flags it runs with."""

    code: bytes
    regs: Mapping[str, int] = field(default_factory=dict)
    cs: int = at.CS64
    keep_ve: bool = False  # leave the VE information for a later step

    def pack(self, address: int) -> bytes:
        """As the harness reads it, for code at this address."""
        values = [self.regs.get(name, 0xA5A5_0000_0000_0000 + n) for n, name in enumerate(at.GPRS)]
        user = self.cs & 3
        stack = self.regs.get("rsp", at.STACK - 0x200)
        values += [address, self.cs, 2, stack, at.USER_DATA if user else at.DATA, at.NO_VEINFO if self.keep_ve else 0]
        values += [0] * (at.STEP_QUADS - len(values))
        return b"".join(value.to_bytes(8, "little") for value in values)


@dataclass(frozen=True)
class Row:
    """One row: `expect` maps names of layout.address_of to literal numbers; `end` is how the run must end and
    `detail` a part of what the report then says. `status` is exact, simplified or absent, `why` for the latter two.
    """

    key: str
    what: str
    section: str
    source: str
    steps: tuple[Step, ...] = ()
    expect: Mapping[str, int] = field(default_factory=dict)
    end: str = "halt"
    detail: str = ""
    console: bytes | None = None
    td: Mapping[str, Any] = field(default_factory=dict)
    status: str = "exact"
    why: str = ""


def tdcall(leaf: int, keep_ve: bool = False, cs: int = at.CS64, **regs: int) -> Step:
    """One TDCALL; `leaf` is all of RAX."""
    return Step(TDCALL, {"rax": leaf, **regs}, cs, keep_ve)


def code(text: str, **regs: int) -> Step:
    """Bytes in hexadecimal, spaces for the eye."""
    return Step(bytes.fromhex(text), regs)


def absent(key: str, what: str, section: str, why: str, source: str = "") -> Row:
    """A row that the emulator has no answer to."""
    return Row(key, what, section, source, status="absent", why=why)
