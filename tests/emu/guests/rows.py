"""What is a row of the conformance table? What a guest does, what it must see, and where that is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import layout as at

TDCALL = b"\x66\x0f\x01\xcc"


ALL_ONES = (1 << 64) - 1
FILL = 0xA5A5_0000_0000_0000  # general register n holds FILL + n before a step that does not say otherwise


@dataclass(frozen=True)
class Step:
    """Some bytes of code, the general registers before it, and the segment and flags it runs with."""

    code: bytes
    regs: Mapping[str, int] = field(default_factory=dict)
    cs: int = at.CS64
    keep_ve: bool = False  # leave the VE information for a later step

    def pack(self, address: int) -> bytes:
        """As the harness reads it, for code at this address."""
        values = [self.regs.get(name, FILL + n) for n, name in enumerate(at.GPRS)]
        user = self.cs & 3 == 3
        window = at.USER_WINDOW if user else 0
        stack = self.regs.get("rsp", at.STACK - 0x200) + window
        values += [address + window, self.cs, 2, stack, at.USER_DATA if user else at.DATA, int(self.keep_ve)]
        values += [0] * (at.STEP_QUADS - len(values))
        return b"".join(value.to_bytes(8, "little") for value in values)


@dataclass(frozen=True)
class Row:
    """One row: `expect` maps names of layout.address_of to literal numbers; `end` is how the run must end and
    `detail` a part of what the report then says; `console` is all that a guest without `expect` must send.
    `td` are the TD_PARAMS, and `vmm` if it is not the default. `status` is exact, simplified or absent, `why`
    for the latter two.
    """

    key: str
    what: str
    section: str
    source: str
    steps: tuple[Step, ...] = ()
    expect: Mapping[str, int] = field(default_factory=dict)
    end: str = "halt"
    detail: str = ""
    console: str | None = None
    td: Mapping[str, Any] = field(default_factory=dict)
    status: str = "exact"
    why: str = ""


def tdcall(leaf: int, keep_ve: bool = False, cs: int = at.CS64, **regs: int) -> Step:
    """One TDCALL; `leaf` is all of RAX."""
    return Step(TDCALL, {"rax": leaf, **regs}, cs, keep_ve)


def vmcall(function: int, mask: int = 0xFC00, **regs: int) -> Step:
    """One TDG.VP.VMCALL with a GHCI sub-function."""
    return Step(TDCALL, {"rax": 0, "rcx": mask, "r10": 0, "r11": function, **regs})


def code(text: str, *, cs: int = at.CS64, keep_ve: bool = False, **regs: int) -> Step:
    """Bytes in hexadecimal, spaces for the eye."""
    return Step(bytes.fromhex(text), regs, cs, keep_ve)


def store(address: int, content: bytes) -> Step:
    """Copies bytes that follow the code, whole quadwords, to an address."""
    assert len(content) % 8 == 0
    start = b"\xbf" + address.to_bytes(4, "little")  # mov edi, address
    start += b"\xb9" + (len(content) // 8).to_bytes(4, "little")  # mov ecx, quadwords
    move = b"\xf3\x48\xa5"  # rep movsq
    jump = b"\xe9" + len(content).to_bytes(4, "little")
    lea = b"\x48\x8d\x35" + (len(move) + len(jump)).to_bytes(4, "little")  # lea rsi, [content]
    return Step(start + lea + move + jump + content)


def absent(key: str, what: str, section: str, why: str, source: str = "") -> Row:
    """A row that the emulator has no answer to."""
    return Row(key, what, section, source, status="absent", why=why)
