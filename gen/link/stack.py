"""How deep can the stack get? Frames and calls of generated code and C objects, as one graph without cycles.

Generated code: PUSH, SUB RSP and calls, read from the instructions. C and Zig: clang's `.stack_sizes`
section and the relocations of each function. What cannot be bounded (recursion, a function whose address is
taken) is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from gen.errors import BuildError
from gen.x86 import Symbol, Unit, rsp

EXECUTED = 4  # SHF_EXECINSTR (gABI 4.1, Sections)
_RETURN_ADDRESS = 8
_PLT32 = 4  # R_X86_64_PLT32: what clang gives every call (System V ABI, AMD64 supplement, table 4.9)


@dataclass(frozen=True)
class Function:
    """`frame`: the most stack it takes itself, its return address included, in bytes."""

    name: str
    frame: int
    calls: frozenset[str]


def depth(functions: Mapping[str, Function], root: str) -> int:
    """The most stack that a call of `root` takes, in bytes; BuildError on recursion."""
    known: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise BuildError(f"stack depth has no bound: {cycle}")
        if name not in functions:
            caller = path[-1] if path else "nobody"
            raise BuildError(f"stack depth of {name} is not known, called by {caller}")
        if name not in known:
            function = functions[name]
            below = (visit(each, (*path, name)) for each in sorted(function.calls))
            known[name] = function.frame + max(below, default=0)
        return known[name]

    return visit(root, ())


def of_units(units: Iterable[Unit]) -> dict[str, Function]:
    """The functions of generated code."""
    found = {}
    for unit in units:
        for block in unit.blocks:
            if block.kind == "function":
                items = [item for item, _ in block.items() if hasattr(item, "operands")]
                frame = _RETURN_ADDRESS + sum(map(_taken, items))
                calls = {item.operands[0].name for item in items if _calls(item)}
                found[block.name] = Function(block.name, frame, frozenset(calls))
    return found


def _calls(item: Any) -> bool:
    """CALL, JMP and conditional jumps to another function."""
    return len(item.operands) == 1 and isinstance(item.operands[0], Symbol) and item.name[0] in "CJ"


def _taken(item: Any) -> int:
    """Bytes an instruction moves RSP down by at most; a loop around it is not looked for."""
    operands = item.operands
    match item.name:
        case "PUSH" | "PUSHFQ":
            return 8
        case "SUB" if operands[0] is rsp or operands[0] == rsp:
            return int(operands[1])
        case "AND" if operands[0] == rsp:
            return -int(operands[1]) - 8
        case _:
            return 0


def of_objects(objects: Iterable[Path]) -> dict[str, Function]:
    """The functions of C objects; those without `.stack_sizes` (assembled listings) are left out."""
    found: dict[str, Function] = {}
    for path in objects:
        found |= _of_file(path.name, path.read_bytes())
    return found


def compiled(content: bytes) -> Any:
    """The ELF file of a compiled object; None of an assembled listing, whose instructions are known."""
    elf = ELFFile(BytesIO(content))
    return elf if elf.get_section_by_name(".stack_sizes") is not None else None


@cache  # a campaign of many flows links the same C objects again and again
def _of_file(name: str, content: bytes) -> dict[str, Function]:
    elf = compiled(content)
    return _of_object(elf, name) if elf is not None else {}


def _of_object(elf: Any, name: str) -> dict[str, Function]:
    symbols = elf.get_section_by_name(".symtab")
    functions: dict[int, list[tuple[int, str]]] = {}  # by section: offset and name
    for symbol in symbols.iter_symbols():
        if symbol["st_info"]["type"] == "STT_FUNC":
            functions.setdefault(symbol["st_shndx"], []).append((symbol["st_value"], symbol.name))
    for number, section in enumerate(elf.iter_sections()):
        if section["sh_flags"] & EXECUTED and section["sh_size"]:  # Zig's own functions have no symbols
            functions.setdefault(number, [(0, section.name)])

    def function_at(section: int, offset: int) -> str:
        return max((entry for entry in functions[section] if entry[0] <= offset), default=(0, ""))[1]

    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for relocations in elf.iter_sections():
        if not isinstance(relocations, RelocationSection):
            continue
        target = elf.get_section(relocations["sh_info"])
        is_code = bool(target["sh_flags"] & EXECUTED)
        for relocation in relocations.iter_relocations():
            symbol = symbols.get_symbol(relocation["r_info_sym"])
            kind, section = symbol["st_info"]["type"], symbol["st_shndx"]
            # A local function may be named by its section and an addend.
            callee = symbol.name
            if kind == "STT_SECTION" and section in functions:
                callee = function_at(section, relocation["r_addend"] + (4 if is_code else 0))
            names_code = kind == "STT_FUNC" or (kind == "STT_SECTION" and section in functions)
            if target.name == ".stack_sizes":
                frames[callee] = _uleb128(target.data(), relocation["r_offset"] + 8) + _RETURN_ADDRESS
            elif is_code and relocation["r_info_type"] == _PLT32:
                caller = function_at(relocations["sh_info"], relocation["r_offset"])
                calls.setdefault(caller, set()).add(callee)
            elif target["sh_flags"] & 2 and names_code and target.name != ".eh_frame":  # SHF_ALLOC
                raise BuildError(f"{name}: {target.name} takes the address of {callee}: depth has no bound")
    return {each: Function(each, frames[each], frozenset(calls.get(each, ()))) for each in frames}


def _uleb128(content: bytes, offset: int) -> int:
    value = shift = 0
    while True:
        byte = content[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value
