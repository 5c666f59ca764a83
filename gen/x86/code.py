"""How does a Python function that calls PeachPy instructions become bytes, symbols and relocations?

A `Code` is one symbol (a function or an object) in one section: an active PeachPy instruction stream that
also takes directives, remembers which line emitted each item, and resolves its own labels. A `Unit` is one
object file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import peachpy
import peachpy.stream
from peachpy.stream import InstructionStream
from peachpy.x86_64.encoding import Flags
from peachpy.x86_64.instructions import BranchInstruction, Instruction
from peachpy.x86_64.operand import MemoryOperand
from peachpy.x86_64.pseudo import LABEL, Label
from peachpy.x86_64.registers import (
    GeneralPurposeRegister16,
    GeneralPurposeRegister32,
    GeneralPurposeRegister64,
)

from gen.x86.data import BALIGN, DB, RESERVE, Directive
from gen.x86.operand import Symbol
from gen.x86.system import SystemInstruction

_PROJECT = Path(__file__).resolve().parents[2]
_OWN_PACKAGES = (__package__, peachpy.__name__)


@dataclass(frozen=True)
class Source:
    """The line a reviewer should look at: a Python emitter line or a line of a flow file."""

    path: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Fixup:
    """A field the linker fills: `size` bytes at `offset`, holding `symbol`.

    `relative_end` is the distance from the field to the address the displacement counts from, None if the
    field holds the absolute address.
    """

    offset: int
    size: int
    symbol: Symbol
    relative_end: int | None


@dataclass(frozen=True)
class Encoded:
    """One placed item: an instruction, a directive, or a label (no bytes)."""

    offset: int
    content: bytes
    item: Any
    source: Source
    fixup: Fixup | None = None


class AssemblyError(Exception):
    """An instruction cannot be encoded where it stands; the message starts with the emitting line."""


class Code(InstructionStream):  # type: ignore[misc]
    """One function or data object. Use it as a context manager; see `gen.x86` for an example."""

    def __init__(self, name: str, section: str, bits: int, align: int, exported: bool, kind: str) -> None:
        super().__init__()
        if bits not in (16, 32, 64):
            raise ValueError(f"{name}: {bits}-bit code does not exist")
        self.name, self.section, self.bits, self.align = name, section, bits, align
        self.exported, self.kind = exported, kind
        self._sources: list[Source] = []
        self.override: Source | None = None
        self._encoded: list[Encoded] | None = None

    def add_instruction(self, instruction: Any) -> None:
        """Called by every PeachPy instruction when it is constructed."""
        if instruction is not None:
            self._encoded = None
            self.instructions.append(instruction)
            self._sources.append(self.override or _calling_line())

    def encoded(self) -> list[Encoded]:
        """All items with their offsets and final bytes; raises AssemblyError if one cannot be encoded."""
        if self._encoded is None:
            self._encoded = _place(self)
        return self._encoded

    @property
    def size(self) -> int:
        """Bytes this symbol takes."""
        items = self.encoded()
        return items[-1].offset + len(items[-1].content) if items else 0

    def content(self) -> bytes:
        """The bytes, with zeros where the linker will fill in symbols."""
        return b"".join(item.content for item in self.encoded())

    def items(self) -> list[tuple[Any, Source]]:
        """Instructions and directives with their source lines, in order."""
        return list(zip(self.instructions, self._sources, strict=True))


@dataclass
class Unit:
    """One object file: an ordered list of code and data, each a `with` block of its own."""

    name: str
    blocks: list[Code] = field(default_factory=list)

    def code(
        self, name: str, section: str = ".text", bits: int = 64, align: int = 16, exported: bool = True
    ) -> Code:
        """Start a function."""
        return self._add(Code(name, section, bits, align, exported, "function"))

    def data(self, name: str, section: str = ".rodata", align: int = 8, exported: bool = True) -> Code:
        """Start a data object."""
        return self._add(Code(name, section, 64, align, exported, "object"))

    def _add(self, block: Code) -> Code:
        if any(block.name == other.name for other in self.blocks):
            raise ValueError(f"{self.name}: symbol {block.name} is defined twice")
        self.blocks.append(block)
        return block


@contextmanager
def source(path: str, line: int, column: int = 0) -> Iterator[None]:
    """Attribute what is emitted inside to a line of a flow file instead of to the Python emitter."""
    stream = peachpy.stream.active_stream
    if not isinstance(stream, Code):
        raise RuntimeError("source() used outside of `with unit.code(...)`")
    outer = stream.override
    stream.override = Source(path, line, column)
    try:
        yield
    finally:
        stream.override = outer


def _calling_line() -> Source:
    """The innermost Python line outside of PeachPy and this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals["__name__"]):
        frame = frame.f_back
    return Source(_named_alike(frame.f_code.co_filename), frame.f_lineno)


@cache
def _named_alike(filename: str) -> str:
    """The name of a file of the project, wherever that lies and through whatever links it is reached."""
    path = Path(filename).resolve()
    return path.relative_to(_PROJECT).as_posix() if path.is_relative_to(_PROJECT) else path.name


def _is_own(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in _OWN_PACKAGES)


def _place(code: Code) -> list[Encoded]:
    """Start with every branch short and lengthen those that do not reach, until nothing changes."""
    items = code.items()
    long_branches: set[int] = set()
    while True:
        offsets, targets = _offsets(code, items, long_branches)
        too_far = {
            index
            for index, (item, where) in enumerate(items)
            if index not in long_branches
            and _is_local_branch(item)
            and not -128 <= _target(targets, item, where) - offsets[index + 1] <= 127
        }
        if not too_far:
            break
        long_branches |= too_far
    placed = []
    for index, (item, where) in enumerate(items):
        content, fixup = _encode(
            code, item, where, offsets[index], offsets[index + 1], targets, index in long_branches
        )
        placed.append(Encoded(offsets[index], content, item, where, fixup))
    return placed


def _offsets(
    code: Code, items: list[tuple[Any, Source]], long_branches: set[int]
) -> tuple[list[int], dict[int, int]]:
    offset, offsets, targets = 0, [0], {}
    for index, (item, where) in enumerate(items):
        if isinstance(item, LABEL):
            if id(item.identifier) in targets:
                raise AssemblyError(f"{where}: label {item.operands[0]} is placed twice")
            targets[id(item.identifier)] = offset
        elif isinstance(item, BALIGN):
            if item.alignment > code.align:
                raise AssemblyError(
                    f"{where}: align {item.alignment} inside {code.name}, aligned to {code.align}"
                )
            offset += -offset % item.alignment
        elif isinstance(item, Directive):
            offset += item.size
        elif _is_local_branch(item):
            offset += len(_branch_form(code, item, where, index in long_branches)(0))
        else:
            offset += len(_encode_instruction(code, item, where)[0])
        offsets.append(offset)
    return offsets, targets


def _encode(
    code: Code, item: Any, where: Source, start: int, end: int, targets: dict[int, int], is_long: bool
) -> tuple[bytes, Fixup | None]:
    if isinstance(item, LABEL):
        return b"", None
    if isinstance(item, BALIGN):
        # int3 between code, zeros between data: a stray jump traps.
        return (b"\xcc" if code.kind == "function" else b"\0") * (end - start), None
    if isinstance(item, DB):
        return item.content, None
    if isinstance(item, RESERVE):
        return bytes(item.size), None
    if isinstance(item, Directive):
        value: int | Symbol = item.value  # type: ignore[attr-defined]
        if isinstance(value, Symbol):
            return bytes(item.size), Fixup(0, item.size, value, None)
        return (value % (1 << 8 * item.size)).to_bytes(item.size, "little"), None
    if _is_local_branch(item):
        displacement = _target(targets, item, where) - end
        return bytes(_branch_form(code, item, where, is_long)(displacement)), None
    return _encode_instruction(code, item, where)


def _is_local_branch(item: Any) -> bool:
    return isinstance(item, Instruction) and len(item.operands) == 1 and isinstance(item.operands[0], Label)


def _target(targets: dict[int, int], item: Any, where: Source) -> int:
    label = item.operands[0]
    if id(label.name) not in targets:
        raise AssemblyError(f"{where}: label {label} is used but never placed in this function")
    return targets[id(label.name)]


def _branch_form(code: Code, item: Any, where: Source, is_long: bool) -> Any:
    """The encoder of the wanted length. CALL has only the long form; 16-bit code only the short one here."""
    wanted = Flags.Rel32Label if is_long or not isinstance(item, BranchInstruction) else Flags.Rel8Label
    if wanted == Flags.Rel32Label and code.bits == 16:
        raise AssemblyError(f"{where}: {item.name} does not reach its label in 16-bit code")
    for flags, encoder in item.encodings:
        if flags & wanted:
            return encoder
    raise AssemblyError(f"{where}: {item.name} has no form that reaches its label")


def _encode_instruction(code: Code, item: Any, where: Source) -> tuple[bytes, Fixup | None]:
    modes = item.modes if isinstance(item, SystemInstruction) else None
    if modes is not None and code.bits not in modes:
        raise AssemblyError(f"{where}: {item} does not exist in {code.bits}-bit code")
    if code.bits != 64 and any(register.physical_id > 7 for register in item.register_objects):
        raise AssemblyError(f"{where}: {item} needs 64-bit registers, {code.bits}-bit code has none")
    references = [ref for ref in map(_symbol_of, item.operands) if ref is not None]
    if not references:
        content = bytes(item.encode())
        fixup = None
    else:
        reference = references[0]
        # The field is where the bytes follow the displacement: encode it as all zeros and as all ones.
        saved, variants = reference.offset, []
        for value in (-1, 0):
            reference.offset = value
            variants.append(bytes(item.encode()))
        reference.offset = saved
        ones, content = variants
        field_bytes = [at for at, pair in enumerate(zip(ones, content, strict=True)) if pair[0] != pair[1]]
        first, size = field_bytes[0], len(field_bytes)
        absolute = getattr(item, "absolute_symbol", False) or (
            code.bits == 32 and not isinstance(item.operands[0], Symbol)
        )
        fixup = Fixup(first, size, reference, None if absolute else len(content) - first)
    if modes is None:
        content = _for_mode(code, item, where, content, fixup)
    return content, fixup


def _symbol_of(operand: Any) -> Symbol | None:
    if isinstance(operand, MemoryOperand):
        operand = operand.address
    return operand if isinstance(operand, Symbol) else None


def _for_mode(code: Code, item: Any, where: Source, content: bytes, fixup: Fixup | None) -> bytes:
    """PeachPy encodes for 64-bit mode: keep what means the same in 32-bit code, re-prefix for 16-bit code."""
    if code.bits == 64:
        return content
    if any(isinstance(op, GeneralPurposeRegister64) for op in item.operands):
        raise AssemblyError(f"{where}: {item} needs 64-bit registers, {code.bits}-bit code has none")
    if code.bits == 32:
        return content
    if fixup is not None or any(isinstance(op, MemoryOperand) for op in item.operands):
        raise AssemblyError(f"{where}: {item}: memory and symbol operands are not available in 16-bit code")
    widths = {type(op) for op in item.operands}
    if GeneralPurposeRegister16 in widths:
        if content[0] != 0x66:
            raise AssemblyError(f"{where}: {item}: unexpected 16-bit encoding")
        return content[1:]
    return b"\x66" + content if GeneralPurposeRegister32 in widths else content
