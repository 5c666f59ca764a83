"""Which registers does gdb see, in which order? The x86-64 target description and its values."""

from __future__ import annotations

from dataclasses import dataclass

from emu.view import Vcpu

# gdb's order of the general registers, as indices into the encoding order
GENERAL = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)
NAMES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
SEGMENTS = (("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5))
FLOAT_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
SYSTEM = ("cr0", "cr2", "cr3", "cr4", "efer")


@dataclass(frozen=True)
class Register:
    """One register of the description; floating point and vectors are named but not available."""

    name: str
    bits: int
    type: str
    feature: str
    available: bool = True


def _all() -> tuple[Register, ...]:
    core, sse = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse"
    pointers = {"rbp": "data_ptr", "rsp": "data_ptr"}
    found = [Register(name, 64, pointers.get(name, "int64"), core) for name in NAMES]
    found += [Register("rip", 64, "code_ptr", core), Register("eflags", 32, "int32", core)]
    found += [Register(name, 32, "int32", core) for name, _ in SEGMENTS]
    found += [Register(f"st{n}", 80, "i387_ext", core, False) for n in range(8)]
    found += [Register(name, 32, "int32", core, False) for name in FLOAT_CONTROL]
    found += [Register(f"xmm{n}", 128, "vec128", sse, False) for n in range(16)]
    found += [Register("mxcsr", 32, "int32", sse, False)]
    found += [Register(name, 64, "int64", "org.gnu.gdb.i386.segments") for name in ("fs_base", "gs_base")]
    found += [Register(name, 64, "int64", "org.tdforge.system") for name in SYSTEM]
    return tuple(found)


REGISTERS = _all()
WRITABLE = (*NAMES, "rip", "eflags")


def description() -> str:
    """target.xml (gdb manual, "Target Description Format", "i386 Features")."""
    lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', '<target version="1.0">']
    lines.append("<architecture>i386:x86-64</architecture>")
    feature = ""
    for number, register in enumerate(REGISTERS):
        if register.feature != feature:
            if feature:
                lines.append("</feature>")
            feature = register.feature
            lines.append(f'<feature name="{feature}">')
            if feature.endswith("sse"):
                lines.append('<vector id="vec128" type="uint8" count="16"/>')
        lines.append(
            f'<reg name="{register.name}" bitsize="{register.bits}" '
            f'type="{register.type}" regnum="{number}"/>'
        )
    return "\n".join([*lines, "</feature>", "</target>"])


def values(vcpu: Vcpu) -> dict[str, int]:
    """Values by name of all available registers."""
    regs, segments = vcpu.regs, vcpu.probe.segments()
    found = {name: int(regs.gpr[at]) for name, at in zip(NAMES, GENERAL, strict=True)}
    found |= {"rip": int(regs.rip), "eflags": int(regs.rflags)}
    found |= {name: segments[at].selector for name, at in SEGMENTS}
    found |= {"fs_base": segments[4].base, "gs_base": segments[5].base}
    return found | {name: int(getattr(regs, name)) for name in SYSTEM}


def encode(register: Register, found: dict[str, int]) -> str:
    """Bytes of a register in hexadecimal, x where it is not available."""
    if not register.available:
        return "x" * (register.bits // 4)
    return (found[register.name] & (1 << register.bits) - 1).to_bytes(register.bits // 8, "little").hex()


def assign(vcpu: Vcpu, name: str, value: int) -> bool:
    """Sets a register; False for those that a debugger must not set."""
    if name not in WRITABLE:
        return False
    regs = vcpu.regs
    if name == "rip":
        regs.rip = value
    elif name == "eflags":
        regs.rflags = value | 2
    else:
        regs.gpr[GENERAL[NAMES.index(name)]] = value
    return True
