"""In which order do general registers stand? Encoding order, as VMCALL masks and exit qualifications count
them.
"""

from __future__ import annotations

Gpr = list[int]
"""The 16 general registers: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15"""

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
