"""What does an instruction say that the TDX module has to answer? Prefixes, and the VM-exit fields of port
I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_PREFIXES = {0x26: 0, 0x2E: 1, 0x36: 2, 0x3E: 3, 0x64: 4, 0x65: 5}  # ES CS SS DS FS GS
DS = 3
PREFIXES = frozenset((0x66, 0x67, 0xF0, 0xF2, 0xF3, *SEGMENT_PREFIXES))


@dataclass(frozen=True)
class Prefixed:
    """Prefixes of an instruction: REX (0 if none), whether 66h is among them, where the opcode begins."""

    rex: int
    operand16: bool
    start: int


def prefixes(code: bytes, mode: int) -> Prefixed:
    """Skips legacy prefixes and REX."""
    rex, operand16, at = 0, False, 0
    while code[at] in PREFIXES or (mode == 64 and code[at] & 0xF0 == 0x40):
        rex = code[at] if code[at] not in PREFIXES else 0
        operand16 |= code[at] == 0x66
        at += 1
    return Prefixed(rex, operand16, at)


def port_qualification(code: bytes, mode: int, dx: int) -> int:
    """Exit qualification of an I/O instruction (Intel SDM volume 3, table 28-5)."""
    p = prefixes(code, mode)
    opcode = code[p.start]
    string = 0x6C <= opcode <= 0x6F
    immediate = 0xE4 <= opcode <= 0xE7
    size = 1 if not opcode & 1 else 2 if p.operand16 != (mode == 16) else 4
    is_in = opcode in (0xE4, 0xE5, 0xEC, 0xED, 0x6C, 0x6D)
    port = code[p.start + 1] if immediate else dx & 0xFFFF
    repeated = 0xF3 in code[: p.start] or 0xF2 in code[: p.start]
    flags = is_in << 3 | string << 4 | repeated << 5 | immediate << 6
    return (size - 1) | flags | port << 16


def string_info(code: bytes, mode: int) -> int:
    """VM-exit instruction information of INS and OUTS: address size in bits 9:7, for OUTS the segment in bits
    17:15 (Intel SDM volume 3, table 28-8). INS leaves the segment undefined, here zero.
    """
    p = prefixes(code, mode)
    before = code[: p.start]
    natural = {16: 0, 32: 1, 64: 2}[mode]
    size = (1 if mode != 32 else 0) if 0x67 in before else natural
    segment = next((SEGMENT_PREFIXES[b] for b in reversed(before) if b in SEGMENT_PREFIXES), DS)
    return size << 7 | (segment << 15 if code[p.start] >= 0x6E else 0)
