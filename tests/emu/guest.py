"""How does a test write a small guest? Assembly text on top of a fixed prologue becomes a bootable TDVF
image.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emu.api import RunConfig, prepare
from emu.ending import Ending
from emu.machine import Machine
from formats import tdvf

SIZE = 0x10000
BASE = (1 << 32) - SIZE
HOB, RESULTS, STACK = 0x809000, 0x810000, 0x818000  # GPAs: TD HOB, TempMem for results, stack below this
MEMORY = 64 << 20

# Long mode with identity-mapped 1 GiB pages, an IDT whose vectors store what they got and halt, and macros.
PROLOGUE = """
.set RESULTS, 0x810000
.macro vmcall function
    movl $0, %r10d
    movl $\\function, %r11d
    movl $0, %eax
    movl $0xFF00, %ecx
    .byte 0x66, 0x0f, 0x01, 0xcc
.endm
.macro halt
    movl $1, %r12d
    vmcall 0x0C
.endm
.macro keep index, register
    movq \\register, RESULTS + 8 * \\index
.endm
.section .text, "ax"
.code32
start:
    .ifdef FIRST
    FIRST
    .endif
    movl $gdtr, %eax
    lgdt (%eax)
    movl $0x23, %eax
    movl %eax, %cr0
    ljmp $8, $1f
1:  movl $0x660, %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x80010023, %eax
    movl %eax, %cr0
    ljmp $16, $long
.code64
long:
    movl $24, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x818000, %esp
    lidt idtr(%rip)
    jmp main
exception:              /* stack: vector, error code or RIP */
    popq %rax
    movq %rax, RESULTS + 0xF00
    popq %rax
    movq %rax, RESULTS + 0xF08
    popq %rax
    movq %rax, RESULTS + 0xF10
    movq %cr2, %rax
    movq %rax, RESULTS + 0xF18
    halt
.set vector, 0
.rept 32
    .balign 16
    pushq $vector
    jmp exception
    .set vector, vector + 1
.endr
.section .rodata, "a"
.balign 16
gdt: .quad 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
    .quad 0x00affb000000ffff, 0x00cff3000000ffff
tss_descriptor: .quad 0, 0
gdtr: .word 63
    .long gdt, 0
.set vectors, 0xFFFF0100
idt:
.set vector, 0
.rept 32
    .word (vectors + 16 * vector) & 0xFFFF
    .word 16
    .byte 0, 0x8E
    .word 0xFFFF
    .long 0, 0
    .set vector, vector + 1
.endr
idtr: .word 32 * 16 - 1
    .quad idt
.balign 4096
pml4: .quad pdpt + 0x67
    .fill 511, 8, 0
pdpt:
.set gigabyte, 0
.rept 512
    .quad (gigabyte << 30) + 0xE7
    .set gigabyte, gigabyte + 1
.endr
.section .reset, "ax"
.code32
    jmp start
.section .text
.code64
"""
SCRIPT = """
SECTIONS {
    . = 0xFFFF0000;
    .text : { *(.text) } .rodata : { *(.rodata) } .data : { *(.data) }
    . = 0xFFFFFFF0;
    .reset : { *(.reset) . = ALIGN(16); }
    /DISCARD/ : { *(.note*) *(.comment) }
}
"""


@dataclass(frozen=True)
class Guest:
    """An image and the ELF beside it."""

    image: bytes
    elf: bytes


def sections() -> list[tdvf.Section]:
    """The metadata of every guest: BFV, TD_HOB, TempMem, PayloadParam, a small Payload."""
    types = tdvf.SectionType
    return [
        tdvf.Section(0, SIZE, BASE, SIZE, types.BFV, 1),
        tdvf.Section(0, 0, HOB, 0x2000, types.TD_HOB, 0),
        tdvf.Section(0, 0, RESULTS, 0x8000, types.TEMP_MEM, 0),
        tdvf.Section(0, 0, 0x81A000, 0x1000, types.PAYLOAD_PARAM, 0),
        tdvf.Section(0, 0, 0xA00000, 0x10000, types.PAYLOAD, 0),
    ]


def for_qemu(image: bytes) -> bytes:
    """A guest's image without the sections that QEMU does not know."""
    return dress(image, sections()[:3])


def dress(code: bytes, wanted: Sequence[tdvf.Section] | None = None) -> bytes:
    """Puts TDVF metadata and both pointers into a 64 KiB image."""
    image = bytearray(code.ljust(SIZE, b"\0"))
    image[-0x400:-0x200] = bytes(0x200)
    descriptor = tdvf.descriptor(sections() if wanted is None else wanted)
    at = SIZE - 0x400
    image[at : at + len(descriptor)] = descriptor
    table = tdvf.guid_table(SIZE - at - 16)
    end = SIZE - tdvf.FOOTER_DISTANCE + 16
    image[end - len(table) : end] = table
    image[-tdvf.POINTER_DISTANCE : -tdvf.POINTER_DISTANCE + 4] = (at + 16).to_bytes(4, "little")
    return bytes(image)


def _zig(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@functools.cache
def build(body: str, first: str = "") -> Guest:
    """Assembles `main:` and what follows; `first` is 32-bit code that runs before anything else."""
    prologue = PROLOGUE.replace(".ifdef FIRST\n    FIRST\n    .endif", first)
    prologue = prologue.replace(
        ".set vector, 0\n.rept 32\n    .balign 16", ".org 0x100\n.set vector, 0\n.rept 32\n    .balign 16", 1
    )
    with tempfile.TemporaryDirectory() as folder:
        source, script, object_, elf, raw = (
            Path(folder) / name for name in ("g.S", "g.ld", "g.o", "g.elf", "g.raw")
        )
        source.write_text(prologue + body)
        script.write_text(SCRIPT)
        _zig("cc", "-g", "-target", "x86_64-freestanding-none", "-c", str(source), "-o", str(object_))
        _zig("ld.lld", "-T", str(script), "--entry=0xFFFFFFF0", str(object_), "-o", str(elf))
        _zig(
            "ld.lld",
            "-T",
            str(script),
            "--oformat=binary",
            "--entry=0xFFFFFFF0",
            str(object_),
            "-o",
            str(raw),
        )
        code = raw.read_bytes()
        return Guest(dress(code), elf.read_bytes())


@contextmanager
def machine(image: bytes, **settings: object) -> Iterator[Machine]:
    """A launched TD with 64 MiB for one test; settings are those of RunConfig."""
    config = RunConfig(
        image=image, image_name="guest.bin", **({"memory": MEMORY, "until": "halt"} | settings)
    )  # type: ignore[arg-type]
    made = prepare(config)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Outcome:
    """What a guest left behind."""

    ending: Ending
    words: tuple[int, ...]
    count: int

    @property
    def exception(self) -> tuple[int, int, int, int] | None:
        """Vector, error code (or RIP), RIP (or CS) and CR2 of the exception that ended the guest."""
        found = self.words[0xF00 // 8 : 0xF20 // 8]
        return (found[0], found[1], found[2], found[3]) if any(found) else None


def run(body: str, first: str = "", limit: int = 1_000_000, **settings: object) -> Outcome:
    """Assembles and runs a guest until it halts; `words` are the 512 quadwords at RESULTS."""
    with machine(build(body, first).image, **settings) as made:
        ending = made.run(limit, None)
        raw = made.memory.read(RESULTS, 4096)
        words = tuple(int.from_bytes(raw[at : at + 8], "little") for at in range(0, 4096, 8))
        return Outcome(ending, words, made.vcpus[0].count)
