"""Which number has a general register? Encoding order, as masks and exit qualifications count them.

Source: Intel SDM volume 2A, table 2-2. RCX of TDG.VP.VMCALL selects registers by these numbers.
"""

from __future__ import annotations

Gpr = list[int]
"""The 16 general registers: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15"""

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)


def mask(*registers: int) -> int:
    """Bit n for register n."""
    return sum(1 << number for number in registers)
