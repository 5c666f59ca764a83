"""How do tests of generated code judge it? By an independent decoder, and by linking real listings."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import iced_x86
from elftools.elf.elffile import ELFFile
from peachpy.x86_64.instructions import Instruction
from peachpy.x86_64.pseudo import LABEL

from gen.x86 import instruction_text

# The layout of a boot image as far as generated code depends on it: the last 64 KiB below 4 GiB.
SCRIPT = """
SECTIONS {
    . = 0xFFFF0000;
    .text : { __text_start = .; *(.text .text.*) *(.reset) . = ALIGN(4096); __text_end = .; }
    .rodata : { __rodata_start = .; *(.rodata .rodata.*) . = ALIGN(4096); __rodata_end = .; }
    .data : { __data_start = .; *(.data .data.*) BYTE(0) . = ALIGN(4096); __data_end = .; }
    .resetvec 0xFFFFFFF0 : { *(.resetvec) }
}
"""

_NORMAL = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
_SIGNED = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
for _formatter in (_NORMAL, _SIGNED):
    _formatter.hex_prefix, _formatter.hex_suffix, _formatter.uppercase_hex = "0x", "", False
    _formatter.space_after_operand_separator = True
    _formatter.space_between_memory_add_operators = True
    _formatter.small_hex_numbers_in_decimal = True
    _formatter.memory_size_options = iced_x86.MemorySizeOptions.NEVER
_SIGNED.signed_immediate_operands = True
_SIZES = re.compile(r"\b(byte|[dqo]?word) ")


def decode(content: bytes, bits: int, ip: int = 0) -> Any:
    """One instruction that uses up all of `content`."""
    decoder = iced_x86.Decoder(bits, content, ip=ip)
    instruction = decoder.decode()
    assert not instruction.is_invalid, f"{content.hex()} is invalid in {bits}-bit mode"
    assert instruction.len == len(content), f"{content.hex()}: decoder stops after {instruction.len} bytes"
    return instruction, decoder.get_constant_offsets(instruction)


def _plain(text: str) -> str:
    text = _SIZES.sub("", text)
    for ours, theirs in (
        ("jnz ", "jne "),
        ("jz ", "je "),
        ("jc ", "jb "),
        ("jnc ", "jae "),
        ("pushfq", "pushf"),
        ("popfq", "popf"),
    ):
        text = text.replace(ours, theirs)
    return text


def check_block(block: Any) -> int:
    """Compare every instruction of a block with the decoder's reading of its bytes; returns how many."""
    count = 0
    for item in block.encoded():
        if not isinstance(item.item, Instruction) or isinstance(item.item, LABEL):
            continue
        count += 1
        ours = _plain(instruction_text(item.item, block.bits))
        read, offsets = decode(item.content, block.bits, item.offset + 0x100)
        theirs = _plain(_NORMAL.format(read))
        if item.fixup is not None:
            assert ours.split()[0] == theirs.split()[0], f"{item.source}: {ours} decodes as {theirs}"
            field = (offsets.displacement_offset, offsets.displacement_size)
            if not offsets.has_displacement:
                field = (offsets.immediate_offset, offsets.immediate_size)
            assert field == (item.fixup.offset, item.fixup.size), f"{item.source}: {ours}: field at {field}"
        elif read.near_branch_target:
            assert ours.split()[0] == theirs.split()[0], f"{item.source}: {ours} decodes as {theirs}"
        else:
            signed = _plain(_SIGNED.format(read))
            if read.is_jmp_far_indirect:  # the formatter leaves that out together with sizes
                theirs, signed = (text.replace("jmp ", "jmp far ") for text in (theirs, signed))
            assert ours in (theirs, signed), f"{item.source}: {item.content.hex()} in {block.bits}-bit mode"
    return count


class Linked:
    """A linked image: symbols by name, bytes by address."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            elf = ELFFile(file)
            self.segments = [
                (s["p_vaddr"], s.data() + bytes(s["p_memsz"] - s["p_filesz"]))
                for s in elf.iter_segments("PT_LOAD")
            ]
            table = elf.get_section_by_name(".symtab")
            self.symbols = {s.name: s["st_value"] for s in table.iter_symbols() if s.name}

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the image; the range must lie in one segment."""
        for start, content in self.segments:
            if start <= address and address + size <= start + len(content):
                return content[address - start : address - start + size]
        raise AssertionError(f"{address:#x} is not in the image")


def zig(*arguments: str) -> None:
    """Run the toolchain; its message becomes the test's."""
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


Link = Callable[..., Linked]
