"""Where may execution go that no instruction names? Nowhere but from the few places listed here: every other
call and jump has its target in the instruction, so that no pointer that somebody could bend leads anywhere.

This is stronger than tracking of indirect branches (CET), which lets each go to any marked target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import iced_x86
from peachpy.x86_64.pseudo import Label

from gen.errors import BuildError
from gen.link.stack import EXECUTED, compiled
from gen.x86 import Symbol, Unit

LISTED: Mapping[str, str] = {
    "prim_handoff_linux": "the entry of the measured kernel",
    "prim_handoff_executable": "the entry of the measured payload",
    "ap_park": "the wakeup vector that the OS wrote into its own mailbox",
    "ap_reset_vector": "32-bit code of this image, by a far pointer that it wrote",
    "ap_reset_32": "64-bit code of this image, in the same way",
    "ap_reset_64": "the wait for the OS, on the page that it was copied to",
}
"""Functions of generated code with one such jump each, and where it leads."""

_FAR = ("JMP FAR", "IRETQ", "RETFQ")
_INDIRECT = (iced_x86.FlowControl.INDIRECT_BRANCH, iced_x86.FlowControl.INDIRECT_CALL)


def check(units: Iterable[Unit], objects: Iterable[Path]) -> None:
    """BuildError for an indirect call or jump that is not listed, in generated code or an object."""
    for unit in units:
        for block in unit.blocks:
            found = [(item, source) for item, source in block.items() if _is_indirect(item)]
            for item, source in found[block.name in LISTED :]:
                raise BuildError(f"{source}: `{item}` of {block.name} is an indirect jump that nobody listed")
    for path in objects:
        if place := _of_file(path.read_bytes()):
            raise BuildError(f"{path.name}: {place}, an indirect jump in compiled code")


def _is_indirect(item: Any) -> bool:
    """Whether an instruction takes its target from a register or from memory; a near return is none."""
    name: str = getattr(item, "name", "")
    operands: tuple[Any, ...] = getattr(item, "operands", ())
    return name in _FAR or (
        name in ("JMP", "CALL") and len(operands) == 1 and not isinstance(operands[0], (Symbol, Label))
    )


@cache  # a campaign of many flows links the same C objects again and again
def _of_file(content: bytes) -> str:
    """The first one of a compiled object: section, offset, bytes."""
    elf = compiled(content)
    for section in elf.iter_sections() if elf is not None else ():
        if section["sh_flags"] & EXECUTED:
            for read in iced_x86.Decoder(64, section.data()):
                if read.flow_control in _INDIRECT or read.is_invalid:
                    at = section.data()[read.ip : read.ip + read.len].hex(" ")
                    return f"{section.name}+{read.ip:#x}: {at}"
    return ""
