"""What are a TDCALL's numbers called? Arguments and results of each leaf and sub-function, by register."""

from __future__ import annotations

from dataclasses import dataclass, field

from emu.tdx import status
from emu.tdx.module import LEAF_NAMES, R8, R9, R10, R11, R12, R13, R14, R15, RAX, RCX, RDX, Gpr
from emu.vmm.vmcall import NAMES as VMCALL_NAMES

Value = int | str
Registers = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Shape:
    """Names of the registers that a call reads, and of those it answers in."""

    given: Registers = ()
    answer: Registers = ()


# Arguments by leaf (Intel TDX Module ABI, guest-side interface functions)
TDCALLS: dict[int, Shape] = {
    1: Shape((), (("gpaw", RCX), ("attributes", RDX), ("vcpus", R8), ("index", R9))),
    2: Shape((("gpa", RCX), ("rtmr", RDX))),
    3: Shape((), (("reason", RCX), ("qualification", RDX), ("gla", R8), ("gpa", R9))),
    4: Shape((("report", RCX), ("data", RDX), ("type", R8))),
    5: Shape((("ve", RCX),)),
    6: Shape((("gpa_level", RCX),)),
    7: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
    8: Shape((("field", RDX), ("value", R8), ("mask", R9)), (("old", R8),)),
    9: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
    10: Shape((("field", RDX), ("value", R8), ("mask", R9)), (("old", R8),)),
    11: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
}
ACCEPT = 6
NOT_DONE = "not done"  # it ended the run, or raised #VE
# Arguments by sub-function (Guest-Host Communication Interface, TDG.VP.VMCALL)
VMCALLS: dict[int, Shape] = {
    0x0A: Shape((("leaf", R12), ("subleaf", R13)), (("eax", R12), ("ebx", R13), ("ecx", R14), ("edx", R15))),
    0x0C: Shape((("blocked", R12),)),
    0x1E: Shape((("size", R12), ("write", R13), ("port", R14), ("value", R15)), (("read", R11),)),
    0x1F: Shape((("msr", R12),), (("value", R11),)),
    0x20: Shape((("msr", R12), ("value", R13))),
    0x30: Shape((("size", R12), ("write", R13), ("address", R14), ("value", R15)), (("read", R11),)),
    0x10000: Shape((), (("r11", R11), ("r12", R12), ("r13", R13), ("r14", R14))),
    0x10001: Shape((("gpa", R12), ("size", R13)), (("reached", R11),)),
    0x10002: Shape((("gpa", R12), ("size", R13))),
    0x10003: Shape((("code", R12), ("gpa", R13))),
    0x10004: Shape((("vector", R12),)),
}
IO, MAP_GPA = 0x1E, 0x10001
IO_LIKE = (IO, 0x30)
ANY = Shape((("rcx", RCX), ("rdx", RDX), ("r8", R8), ("r9", R9)), (("rcx", RCX), ("rdx", RDX), ("r8", R8)))
ANY_VMCALL = Shape((("r12", R12), ("r13", R13), ("r14", R14), ("r15", R15)), (("r11", R11),))

EXCEPTIONS = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS",
    11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE",
    21: "#CP",
}  # fmt: skip

_WORDS = {name: value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}
STATUS = {value: name for name, value in _WORDS.items() if value >> 32 and not name.startswith("VMCALL_")}
VMCALL_STATUS = {value: name[7:] for name, value in _WORDS.items() if name.startswith("VMCALL_")}


def status_name(value: int) -> str:
    """The module's completion status in RAX, with the operand it names."""
    if not value:
        return "SUCCESS"
    known = STATUS.get(value & ~0xFFFFFFFF)
    return f"{known}({value & 0xFFFFFFFF:#x})" if known else f"{value:#x}"


@dataclass(frozen=True)
class Call:
    """A TDCALL in words; `answer` is empty when it failed."""

    kind: str  # tdcall or vmcall
    name: str
    number: int  # leaf or sub-function
    given: dict[str, int] = field(default_factory=dict)
    result: str = ""
    answer: dict[str, int] = field(default_factory=dict)


def _read(registers: Registers, r: Gpr) -> dict[str, int]:
    return {name: r[at] for name, at in registers}


def describe(given: Gpr, result: Gpr) -> Call:
    """The call that turned the first registers into the second ones."""
    leaf = given[RAX] & 0xFFFF
    if leaf or given[RAX]:
        shape = TDCALLS.get(leaf, ANY)
        name = LEAF_NAMES.get(leaf, f"leaf {given[RAX]:#x}")
        went = status_name(result[RAX]) if result is not given else NOT_DONE
        answer = {} if result[RAX] >> 63 or result is given else _read(shape.answer, result)
        return Call("tdcall", name, leaf, _read(shape.given, given), went, answer)
    function = given[R11]
    if given[R10]:
        return Call("vmcall", f"vendor {given[R10]:#x}", -1, _read(ANY_VMCALL.given, given), "", {})
    shape = VMCALLS.get(function, ANY_VMCALL)
    name = VMCALL_NAMES.get(function, f"sub-function {function:#x}")
    arguments = _read(shape.given, given)
    if function in IO_LIKE and not arguments["write"]:
        del arguments["value"]
    if result is given:
        return Call("vmcall", name, function, arguments, NOT_DONE, {})
    if result[RAX]:
        return Call("vmcall", name, function, arguments, status_name(result[RAX]), {})
    went = VMCALL_STATUS.get(result[R10], f"{result[R10]:#x}")
    answer = _read(shape.answer, result) if not result[R10] >> 63 else {}
    if function in IO_LIKE and arguments["write"]:
        answer = {}
    return Call("vmcall", name, function, arguments, went, answer)
