"""Which operands does system code need beyond PeachPy's? Linker symbols, control and segment registers."""

from __future__ import annotations

from dataclasses import dataclass

from peachpy.x86_64.operand import RIPRelativeOffset

# Any value that is no signed byte, so that PeachPy never picks a rel8 form for a symbol.
_FIELD_MARK = 0x40000000


class Symbol(RIPRelativeOffset):  # type: ignore[misc]
    """A symbol the linker resolves, plus a constant: `CALL(Symbol("f"))`, `LEA(rdi, [Symbol("table") + 8])`.

    In 64-bit code a memory operand on a symbol is RIP-relative, in 32-bit code the same ModRM byte means the
    absolute address; branches are relative in both. `DD` and `DQ` store the symbol's absolute address.
    """

    def __init__(self, name: str, addend: int = 0) -> None:
        super().__init__(_FIELD_MARK)
        self.name = name
        self.addend = addend

    def __add__(self, addend: int) -> Symbol:
        return Symbol(self.name, self.addend + addend)

    def __sub__(self, subtrahend: int) -> Symbol:
        return Symbol(self.name, self.addend - subtrahend)

    def __str__(self) -> str:
        if self.addend == 0:
            return self.name
        return f"{self.name} {'+' if self.addend > 0 else '-'} {abs(self.addend):#x}"

    def format(self, assembly_format: str) -> str:
        """PeachPy's formatting hook; the dialect makes no difference to a name."""
        return str(self)


@dataclass(frozen=True)
class ControlRegister:
    """CR0, CR2, CR3 or CR4, for MOVCR."""

    number: int

    def __str__(self) -> str:
        return f"cr{self.number}"


@dataclass(frozen=True)
class SegmentRegister:
    """A data segment register, for MOVSEG. `number` is the encoding of Sreg in ModRM.reg."""

    name: str
    number: int

    def __str__(self) -> str:
        return self.name


cr0, cr2, cr3, cr4 = (ControlRegister(n) for n in (0, 2, 3, 4))
es, ss, ds, fs, gs = (
    SegmentRegister(name, number) for name, number in (("es", 0), ("ss", 2), ("ds", 3), ("fs", 4), ("gs", 5))
)
