"""How do tests run generated code without a TD? In a CPU emulator; the test plays the TDX module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import unicorn as uc
import unicorn.x86_const as x86
from machinecode import Linked

from gen.boot.paging import Mapped

# The regions of the shipped Linux flow, at addresses of the same kind.
REGIONS = (
    Mapped("hob", 0x80_0000, 0x1_0000, "rw"),
    Mapped("paging", 0x81_0000, 0xC000, "rw"),
    Mapped("stack", 0x81_C000, 0xA000, "rw", guarded=True),
    Mapped("event_log", 0x82_6000, 0x2_0000, "rw"),
    Mapped("parameters", 0x84_6000, 0x1000, "rw"),
    Mapped("payload", 0xA0_0000, 0x100_0000, "rw"),
)
STACK_TOP = 0x82_6000
FLOW_ENTRY = {"flow.s": ".text\n.globl tdf_entry\ntdf_entry: hlt\n"}

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in NAMES}
TDCALL = bytes.fromhex("660f01cc")
RETURN = 0x5000_0000
"""Where a called function returns to; nothing is there."""


def machine(image: Linked, mode: int) -> uc.Uc:
    """A CPU with the image at its place and 32 MiB of RAM from 8 MiB on, filled with garbage."""
    cpu = uc.Uc(uc.UC_ARCH_X86, mode)
    cpu.mem_map(0xFFFF_0000, 0x1_0000)
    for start, content in image.segments:
        cpu.mem_write(start, content)
    cpu.mem_map(0x80_0000, 0x200_0000)
    cpu.mem_write(0x80_0000, b"\xa5" * 0x200_0000)
    return cpu


def run(cpu: uc.Uc, start: int, stop: Callable[[int, bytes], bool], limit: int = 500_000) -> int:
    """Execute until `stop(address, bytes)` is true before an instruction; returns that address."""
    stopped: list[int] = []
    executed = [0]

    def at(cpu: uc.Uc, address: int, size: int, _: object) -> None:
        executed[0] += 1
        if executed[0] > limit:
            cpu.emu_stop()
        elif stop(address, bytes(cpu.mem_read(address, min(size, 15)))):
            stopped.append(address)
            cpu.emu_stop()

    hook = cpu.hook_add(uc.UC_HOOK_CODE, at)
    cpu.emu_start(start, 0)
    cpu.hook_del(hook)
    assert stopped, f"no stop within {limit} instructions"
    return stopped[0]


@dataclass
class Call:
    """One TDCALL: all registers before it."""

    before: dict[str, int]


@dataclass
class Td:
    """Calls generated 64-bit functions; `module` answers each TDCALL with the registers it changes."""

    image: Linked
    module: Callable[[dict[str, int]], dict[str, int]]
    calls: list[Call] = field(default_factory=list)
    instructions: int = 0
    halted: bool = False

    def __post_init__(self) -> None:
        self.cpu = machine(self.image, uc.UC_MODE_64)
        self.cpu.mem_map(RETURN, 0x1000)
        self.cpu.hook_add(uc.UC_HOOK_INSN_INVALID, self._invalid)
        self.cpu.hook_add(uc.UC_HOOK_CODE, self._count)

    def _count(self, *_: object) -> None:
        self.instructions += 1

    def _invalid(self, cpu: uc.Uc, _: object) -> bool:
        rip = cpu.reg_read(x86.UC_X86_REG_RIP)
        if bytes(cpu.mem_read(rip, 4)) != TDCALL:
            return False
        before = self.registers()
        self.calls.append(Call(before))
        answer = self.module(before)
        if answer.pop("stop", 0):
            self.halted = True
            cpu.emu_stop()
            return True
        for name, value in answer.items():
            cpu.reg_write(_IDS[name], value)
        cpu.reg_write(x86.UC_X86_REG_RIP, rip + 4)
        return True

    def registers(self) -> dict[str, int]:
        """All general registers."""
        return {name: self.cpu.reg_read(number) for name, number in _IDS.items()}

    def set(self, **values: int) -> None:
        """Set general registers."""
        for name, value in values.items():
            self.cpu.reg_write(_IDS[name], value)

    def start(self, address: int, stack: int, until: int = RETURN) -> None:
        """Run from `address`; RSP is `stack`."""
        self.set(rsp=stack)
        try:
            self.cpu.emu_start(address, until)
        except uc.UcError as error:
            if not self.halted:
                rip = self.cpu.reg_read(x86.UC_X86_REG_RIP)
                raise AssertionError(f"{error} at {rip:#x}") from error

    def call(self, name: str, *arguments: int) -> int:
        """Call a function by the SysV convention, check what it must preserve, return RAX."""
        entry = {name: 0x1111_1111_1111_1111 * (index % 15 + 1) for index, name in enumerate(NAMES)}
        entry |= dict(zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), arguments, strict=False))
        stack = STACK_TOP - 0x108
        self.cpu.mem_write(stack, RETURN.to_bytes(8, "little"))
        self.set(**entry)
        self.start(self.image.symbols[name], stack)
        after = self.registers()
        if not self.halted:
            for kept in ("rbx", "rbp", "r12", "r13", "r14", "r15"):
                assert after[kept] == entry[kept], f"{name} does not preserve {kept}"
            assert after["rsp"] == stack + 8, f"{name} does not balance the stack"
        return after["rax"]

    def u64(self, address: int, count: int = 1) -> list[int]:
        """Quadwords in memory."""
        data = self.cpu.mem_read(address, 8 * count)
        return [int.from_bytes(data[8 * n : 8 * n + 8], "little") for n in range(count)]
