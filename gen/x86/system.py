"""Which instructions does firmware need that PeachPy lacks, and how are they encoded?

Each class follows PeachPy's own: it appends to `encodings`, declares explicit and implicit registers, and
hands itself to the active stream. Encodings: Intel SDM volume 2 (opcode tables); TDCALL: Intel TDX ABI
specification.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, ClassVar

import peachpy.stream
import peachpy.x86_64.options
from peachpy.x86_64.encoding import modrm_sib_disp, optional_rex, rex
from peachpy.x86_64.instructions import Instruction
from peachpy.x86_64.operand import MemoryOperand, check_operand, is_imm, is_imm8
from peachpy.x86_64.registers import (
    GeneralPurposeRegister16,
    GeneralPurposeRegister32,
    GeneralPurposeRegister64,
    al,
    ax,
    dx,
    eax,
    ebx,
    ecx,
    edx,
    r8,
    r9,
    r10,
    r11,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
    rsp,
)

from gen.x86.operand import ControlRegister, SegmentRegister, Symbol

ALL_MODES = frozenset({16, 32, 64})


def _masks(registers: Iterable[Any]) -> dict[int, int]:
    """PeachPy's form of a set of implicit registers: physical id -> mask of the bytes touched."""
    masks: dict[int, int] = {}
    for register in registers:
        masks[register._internal_id] = masks.get(register._internal_id, 0) | register.mask
    return masks


class SystemInstruction(Instruction):  # type: ignore[misc]
    """Base of the classes below. `modes` are the CPU modes (16, 32, 64) whose decoder knows the encoding."""

    modes: frozenset[int] = ALL_MODES
    #: an embedded Symbol is an absolute address (else: relative to the next instruction)
    absolute_symbol: bool = False

    def __init__(self, name: str, *operands: Any, **kwargs: Any) -> None:
        origin, prototype = kwargs.get("origin"), kwargs.get("prototype")
        if origin is None and prototype is None and peachpy.x86_64.options.get_debug_level() > 0:
            origin = inspect.stack()
        super().__init__(name, origin=origin, prototype=prototype)
        own = (ControlRegister, SegmentRegister)
        self.operands: tuple[Any, ...] = tuple(
            op if isinstance(op, own) else check_operand(op) for op in operands
        )
        self.in_regs = self.out_regs = self.out_operands = (False,) * len(operands)

    def _implicit(self, reads: Iterable[Any], writes: Iterable[Any]) -> None:
        self._implicit_in_regs = _masks(reads)
        self._implicit_out_regs = _masks(writes)

    def _issue(self) -> None:
        if peachpy.stream.active_stream is not None:
            peachpy.stream.active_stream.add_instruction(self)

    def _reject(self) -> None:
        raise SyntaxError(f"Invalid operands: {self.name} {', '.join(map(str, self.operands))}")


class _Bare(SystemInstruction):
    """An instruction without explicit operands: its bytes and implicit registers are class data."""

    mnemonic: ClassVar[str]
    opcode: ClassVar[bytes]
    reads: ClassVar[tuple[Any, ...]] = ()
    writes: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(self.mnemonic, **kwargs)
        self.encodings.append((0x00, lambda op: bytearray(self.opcode)))
        self._implicit(self.reads, self.writes)
        self._issue()


class RDMSR(_Bare):
    """Read the MSR numbered ECX into EDX:EAX."""

    mnemonic, opcode, reads, writes = "RDMSR", b"\x0f\x32", (ecx,), (eax, edx)


class WRMSR(_Bare):
    """Write EDX:EAX to the MSR numbered ECX."""

    mnemonic, opcode, reads = "WRMSR", b"\x0f\x30", (ecx, eax, edx)


class XSETBV(_Bare):
    """Write EDX:EAX to the extended control register numbered ECX."""

    mnemonic, opcode, reads = "XSETBV", b"\x0f\x01\xd1", (ecx, eax, edx)


class HLT(_Bare):
    """Stop until an interrupt; in a TD this raises #VE."""

    mnemonic, opcode = "HLT", b"\xf4"


class CPUID(_Bare):
    """Facts of the processor: leaf EAX, subleaf ECX."""

    mnemonic, opcode, reads, writes = "CPUID", b"\x0f\xa2", (eax, ecx), (eax, ebx, ecx, edx)


class REP_INSB(_Bare):
    """Read ECX bytes from port DX to [RDI]."""

    mnemonic, opcode, modes = "REP INSB", b"\xf3\x6c", frozenset({32, 64})
    reads, writes = (dx, rcx, rdi), (rcx, rdi)


class CLI(_Bare):
    """Clear the interrupt flag."""

    mnemonic, opcode = "CLI", b"\xfa"


class STI(_Bare):
    """Set the interrupt flag (after the next instruction)."""

    mnemonic, opcode = "STI", b"\xfb"


class PUSHFQ(_Bare):
    """Push RFLAGS."""

    mnemonic, opcode, modes = "PUSHFQ", b"\x9c", frozenset({64})
    reads, writes = (rsp,), (rsp,)


class POPFQ(_Bare):
    """Pop RFLAGS."""

    mnemonic, opcode, modes = "POPFQ", b"\x9d", frozenset({64})
    reads, writes = (rsp,), (rsp,)


class IRETQ(_Bare):
    """Return from an interrupt or exception handler."""

    mnemonic, opcode, modes = "IRETQ", b"\x48\xcf", frozenset({64})
    reads, writes = (rsp,), (rsp,)


class RETFQ(_Bare):
    """Far return: pops RIP (8 bytes) and CS."""

    mnemonic, opcode, modes = "RETFQ", b"\x48\xcb", frozenset({64})
    reads, writes = (rsp,), (rsp,)


class ENDBR64(_Bare):
    """Mark a valid target of an indirect branch (CET)."""

    mnemonic, opcode, modes = "ENDBR64", b"\xf3\x0f\x1e\xfa", frozenset({64})


class LODSB_CS(_Bare):
    """AL = byte [CS:(E/R)SI], then advance SI: reads a string that lies beside the code in real mode."""

    mnemonic, opcode, modes = "CS LODSB", b"\x2e\xac", frozenset({16, 32})
    reads, writes = (rsi,), (al, rsi)


class REP_MOVSB(_Bare):
    """Copy RCX bytes from [RSI] to [RDI]."""

    mnemonic, opcode = "REP MOVSB", b"\xf3\xa4"
    reads, writes = (rcx, rsi, rdi), (rcx, rsi, rdi)


class REP_MOVSQ(_Bare):
    """Copy RCX quadwords from [RSI] to [RDI]."""

    mnemonic, opcode, modes = "REP MOVSQ", b"\xf3\x48\xa5", frozenset({64})
    reads, writes = (rcx, rsi, rdi), (rcx, rsi, rdi)


class REP_STOSB(_Bare):
    """Fill RCX bytes at [RDI] with AL."""

    mnemonic, opcode = "REP STOSB", b"\xf3\xaa"
    reads, writes = (rcx, rdi, al), (rcx, rdi)


class REP_STOSD(_Bare):
    """Fill RCX doublewords at [RDI] with EAX."""

    mnemonic, opcode, modes = "REP STOSD", b"\xf3\xab", frozenset({32, 64})
    reads, writes = (rcx, rdi, eax), (rcx, rdi)


class REP_STOSQ(_Bare):
    """Fill RCX quadwords at [RDI] with RAX."""

    mnemonic, opcode, modes = "REP STOSQ", b"\xf3\x48\xab", frozenset({64})
    reads, writes = (rcx, rdi, rax), (rcx, rdi)


class TDCALL(SystemInstruction):
    """Call the TDX module: leaf in RAX (TDX ABI specification, "TDCALL instruction").

    Which registers a leaf reads and writes differs, so the caller may name them; the default is the union
    over all leaves except TDG.VP.VMCALL, whose set is its RCX mask.
    """

    modes = frozenset({64})

    def __init__(
        self,
        reads: Iterable[Any] = (rax, rcx, rdx, r8, r9),
        writes: Iterable[Any] = (rax, rcx, rdx, r8, r9, r10, r11),
        **kwargs: Any,
    ) -> None:
        super().__init__("TDCALL", **kwargs)
        self.encodings.append((0x00, lambda op: bytearray([0x66, 0x0F, 0x01, 0xCC])))
        self._implicit(reads, writes)
        self._issue()


class MOVCR(SystemInstruction):
    """MOV between a control register and a general register: MOVCR(cr3, rax), MOVCR(eax, cr0)."""

    def __init__(self, destination: Any, source: Any, **kwargs: Any) -> None:
        super().__init__("MOV", destination, source, **kwargs)
        to_control = isinstance(self.operands[0], ControlRegister)
        control: Any
        general: Any
        control, general = self.operands if to_control else self.operands[::-1]
        if not isinstance(control, ControlRegister):
            self._reject()
        if isinstance(general, GeneralPurposeRegister64):
            self.modes = frozenset({64})
        elif isinstance(general, GeneralPurposeRegister32):
            self.modes = frozenset({16, 32})
        else:
            self._reject()
        opcode = 0x22 if to_control else 0x20
        modrm = 0xC0 | control.number << 3 | general.lcode
        self.encodings.append(
            (0x00, lambda op: optional_rex(0, general) + bytearray([0x0F, opcode, modrm])),
        )
        self.in_regs, self.out_regs = (
            ((False, True), (False, False)) if to_control else ((False,) * 2, (True, False))
        )
        self.out_operands = (True, False)
        self._issue()


class MOVSEG(SystemInstruction):
    """Load a data segment register from a 32-bit register: MOVSEG(ds, eax)."""

    modes = frozenset({32, 64})

    def __init__(self, segment: SegmentRegister, source: Any, **kwargs: Any) -> None:
        super().__init__("MOV", segment, source, **kwargs)
        if not isinstance(segment, SegmentRegister) or not isinstance(source, GeneralPurposeRegister32):
            self._reject()
        modrm = 0xC0 | segment.number << 3 | source.lcode
        self.encodings.append((0x00, lambda op: optional_rex(0, op[1]) + bytearray([0x8E, modrm])))
        self.in_regs, self.out_operands = (False, True), (True, False)
        self._issue()


class LTR(SystemInstruction):
    """Load the task register: LTR(ax)."""

    modes = frozenset({32, 64})

    def __init__(self, source: Any, **kwargs: Any) -> None:
        super().__init__("LTR", source, **kwargs)
        if not isinstance(source, GeneralPurposeRegister16):
            self._reject()
        modrm = 0xC0 | 3 << 3 | source.lcode
        self.encodings.append((0x00, lambda op: optional_rex(0, op[0]) + bytearray([0x0F, 0x00, modrm])))
        self.in_regs = (True,)
        self._issue()


class _MemoryGroup(SystemInstruction):
    """An 0F 01 /n instruction with one memory operand."""

    mnemonic: ClassVar[str]
    extension: ClassVar[int]
    modes = frozenset({32, 64})

    def __init__(self, memory: Any, **kwargs: Any) -> None:
        super().__init__(self.mnemonic, memory, **kwargs)
        if not isinstance(self.operands[0], MemoryOperand):
            self._reject()
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    optional_rex(0, op[0].address)
                    + bytearray([0x0F, 0x01])
                    + modrm_sib_disp(self.extension, op[0].address)
                ),
            )
        )
        self.in_regs = (True,)
        self._issue()


class LGDT(_MemoryGroup):
    """Load GDTR: limit u16, then base (u32 in 32-bit mode, u64 in 64-bit mode)."""

    mnemonic, extension = "LGDT", 2


class LIDT(_MemoryGroup):
    """Load IDTR: limit u16, then base (u32 in 32-bit mode, u64 in 64-bit mode)."""

    mnemonic, extension = "LIDT", 3


class INVLPG(_MemoryGroup):
    """Drop the translation of the page of a linear address."""

    mnemonic, extension = "INVLPG", 7


_WIDTH_PREFIX = {al: (b"", 0), ax: (b"\x66", 1), eax: (b"", 1)}


class OUT(SystemInstruction):
    """Write AL, AX or EAX to a port: OUT(dx, al) or OUT(0x80, al)."""

    modes = frozenset({32, 64})

    def __init__(self, port: Any, value: Any, **kwargs: Any) -> None:
        super().__init__("OUT", port, value, **kwargs)
        _encode_port(self, port, value, 0xE6)
        self._implicit((dx, value) if port == dx else (value,), ())
        self._issue()


class IN(SystemInstruction):
    """Read a port into AL, AX or EAX: IN(al, dx) or IN(al, 0x80)."""

    modes = frozenset({32, 64})

    def __init__(self, value: Any, port: Any, **kwargs: Any) -> None:
        super().__init__("IN", value, port, **kwargs)
        _encode_port(self, port, value, 0xE4)
        self._implicit((dx,) if port == dx else (), (value,))
        self._issue()


def _encode_port(instruction: SystemInstruction, port: Any, value: Any, opcode: int) -> None:
    """IN and OUT share one opcode pattern: E4/E6 imm8, +8 for the port in DX, +1 for 16 or 32 bits."""
    if value not in _WIDTH_PREFIX or not (port == dx or (is_imm(port) and is_imm8(port))):
        instruction._reject()
    prefix, wide = _WIDTH_PREFIX[value]
    tail = [opcode + 8 + wide] if port == dx else [opcode + wide, port & 0xFF]
    if value == al:
        instruction.modes = ALL_MODES
    instruction.encodings.append((0x00, lambda op: bytearray(prefix) + bytearray(tail)))


class LJMP(SystemInstruction):
    """Direct far jump of 32-bit code: LJMP(0x10, Symbol("entry64")) loads CS and EIP."""

    modes = frozenset({32})
    absolute_symbol = True

    def __init__(self, selector: int, target: Symbol, **kwargs: Any) -> None:
        super().__init__("JMP", selector, target, **kwargs)
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    bytearray([0xEA])
                    + bytearray((op[1].offset & 0xFFFFFFFF).to_bytes(4, "little"))
                    + bytearray(selector.to_bytes(2, "little"))
                ),
            )
        )
        self._issue()


class JMP_FAR(SystemInstruction):
    """Far jump of 32-bit and 64-bit code to the offset u32 and the selector u16 that lie in memory."""

    modes = frozenset({32, 64})

    def __init__(self, memory: Any, **kwargs: Any) -> None:
        super().__init__("JMP FAR", memory, **kwargs)
        if not isinstance(self.operands[0], MemoryOperand):
            self._reject()
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    optional_rex(0, op[0].address) + bytearray([0xFF]) + modrm_sib_disp(5, op[0].address)
                ),
            )
        )
        self.in_regs = (True,)
        self._issue()


class _Locked(SystemInstruction):
    """One step with 8 bytes in memory and a register that no other vCPU sees half of. `opcode`: behind 0F."""

    modes = frozenset({64})

    def __init__(self, name: str, opcode: int, memory: Any, source: Any, **kwargs: Any) -> None:
        super().__init__(f"LOCK {name}", memory, source, **kwargs)
        to, register = self.operands
        if not isinstance(to, MemoryOperand) or not isinstance(register, GeneralPurposeRegister64):
            self._reject()
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    bytearray([0xF0])
                    + rex(1, op[1].hcode, op[0].address)
                    + bytearray([0x0F, opcode])
                    + modrm_sib_disp(op[1].lcode, op[0].address)
                ),
            )
        )
        self.in_regs = (True, True)


class LOCK_CMPXCHG(_Locked):
    """In one step: if the 8 bytes in memory are RAX, the register goes there; else RAX takes them."""

    def __init__(self, memory: Any, source: Any, **kwargs: Any) -> None:
        super().__init__("CMPXCHG", 0xB1, memory, source, **kwargs)
        self._implicit((rax,), (rax,))
        self._issue()


class LOCK_XADD(_Locked):
    """In one step: the 8 bytes in memory grow by the register, and the register takes what they were."""

    def __init__(self, memory: Any, source: Any, **kwargs: Any) -> None:
        super().__init__("XADD", 0xC1, memory, source, **kwargs)
        self._implicit((), (source,))
        self._issue()


class LJMP32(SystemInstruction):
    """Direct far jump of 16-bit code into a 32-bit segment: LJMP32(0x08, Symbol("entry32"))."""

    modes = frozenset({16})
    absolute_symbol = True

    def __init__(self, selector: int, target: Symbol, **kwargs: Any) -> None:
        super().__init__("JMP", selector, target, **kwargs)
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    bytearray([0x66, 0xEA])
                    + bytearray((op[1].offset & 0xFFFFFFFF).to_bytes(4, "little"))
                    + bytearray(selector.to_bytes(2, "little"))
                ),
            )
        )
        self._issue()


class LGDT_CS(SystemInstruction):
    """Load GDTR in 16-bit code from beside the code; the symbol expression is the 16-bit offset in CS."""

    modes = frozenset({16})
    absolute_symbol = True

    def __init__(self, offset: Symbol, **kwargs: Any) -> None:
        super().__init__("O32 LGDT", offset, **kwargs)
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    bytearray([0x2E, 0x66, 0x0F, 0x01, 0x16])
                    + bytearray((op[0].offset & 0xFFFF).to_bytes(2, "little"))
                ),
            )
        )
        self._issue()


class JMP16(SystemInstruction):
    """Near jump of 16-bit code; the symbol expression is the 16-bit displacement itself.

    Real-mode IP wraps at 64 KiB, so the displacement is `target - next IP` modulo 65536 and the caller writes
    it as an expression the linker can range-check (see gen/boot/reset.py).
    """

    modes = frozenset({16})
    absolute_symbol = True

    def __init__(self, displacement: Symbol, **kwargs: Any) -> None:
        super().__init__("JMP", displacement, **kwargs)
        self.encodings.append(
            (0x00, lambda op: bytearray([0xE9]) + bytearray((op[0].offset & 0xFFFF).to_bytes(2, "little")))
        )
        self._issue()


class MOVOFFSET(SystemInstruction):
    """Load the address of a symbol as an immediate: 16-bit registers in 16-bit code, 32-bit in 32-bit code.

    64-bit code uses LEA on the symbol instead.
    """

    absolute_symbol = True

    def __init__(self, destination: Any, symbol: Symbol, **kwargs: Any) -> None:
        super().__init__("MOV", destination, symbol, **kwargs)
        if isinstance(destination, GeneralPurposeRegister16):
            self.modes, size = frozenset({16}), 2
        elif isinstance(destination, GeneralPurposeRegister32):
            self.modes, size = frozenset({32}), 4
        else:
            self._reject()
        self.encodings.append(
            (
                0x00,
                lambda op: (
                    bytearray([0xB8 | op[0].lcode])
                    + bytearray((op[1].offset & (1 << 8 * size) - 1).to_bytes(size, "little"))
                ),
            )
        )
        self.out_regs = self.out_operands = (True, False)
        self._issue()
