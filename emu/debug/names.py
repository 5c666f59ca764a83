"""What are a TDCALL's numbers called? Arguments and results of each leaf and sub-function, by register."""

from __future__ import annotations

from dataclasses import dataclass, field

from formats.ghci import NAMES as VMCALL_NAMES
from formats.ghci import STATUS_NAMES, Function
from formats.registers import R8, R9, R10, R11, R12, R13, R14, R15, RAX, RCX, RDX, Gpr
from formats.tdx import status
from formats.tdx.leaves import LEAF_NAMES, Leaf

Value = int | str
Registers = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Shape:
    """Names of the registers that a call reads, and of those it answers in."""

    given: Registers = ()
    answer: Registers = ()


# Arguments by leaf (Intel TDX Module ABI, guest-side interface functions)
TDCALLS: dict[int, Shape] = {
    Leaf.VP_INFO: Shape((), (("gpaw", RCX), ("attributes", RDX), ("vcpus", R8), ("index", R9))),
    Leaf.MR_RTMR_EXTEND: Shape((("gpa", RCX), ("rtmr", RDX))),
    Leaf.VP_VEINFO_GET: Shape((), (("reason", RCX), ("qualification", RDX), ("gla", R8), ("gpa", R9))),
    Leaf.MR_REPORT: Shape((("report", RCX), ("data", RDX), ("type", R8))),
    Leaf.VP_CPUIDVE_SET: Shape((("ve", RCX),)),
    Leaf.MEM_PAGE_ACCEPT: Shape((("gpa_level", RCX),)),
    Leaf.VM_RD: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
    Leaf.VM_WR: Shape((("field", RDX), ("value", R8), ("mask", R9)), (("old", R8),)),
    Leaf.VP_RD: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
    Leaf.VP_WR: Shape((("field", RDX), ("value", R8), ("mask", R9)), (("old", R8),)),
    Leaf.SYS_RD: Shape((("field", RDX),), (("next", RDX), ("value", R8))),
}
NOT_DONE = "not done"  # it ended the run, or raised #VE
# Arguments by sub-function (Guest-Host Communication Interface, TDG.VP.VMCALL)
VMCALLS: dict[int, Shape] = {
    Function.CPUID: Shape(
        (("leaf", R12), ("subleaf", R13)), (("eax", R12), ("ebx", R13), ("ecx", R14), ("edx", R15))
    ),
    Function.HLT: Shape((("blocked", R12),)),
    Function.IO: Shape((("size", R12), ("write", R13), ("port", R14), ("value", R15)), (("read", R11),)),
    Function.RDMSR: Shape((("msr", R12),), (("value", R11),)),
    Function.WRMSR: Shape((("msr", R12), ("value", R13))),
    Function.MMIO: Shape((("size", R12), ("write", R13), ("address", R14), ("value", R15)), (("read", R11),)),
    Function.GET_TD_VM_CALL_INFO: Shape((), (("r11", R11), ("r12", R12), ("r13", R13), ("r14", R14))),
    Function.MAP_GPA: Shape((("gpa", R12), ("size", R13)), (("reached", R11),)),
    Function.GET_QUOTE: Shape((("gpa", R12), ("size", R13))),
    Function.REPORT_FATAL_ERROR: Shape((("code", R12), ("gpa", R13))),
    Function.SETUP_EVENT_NOTIFY_INTERRUPT: Shape((("vector", R12),)),
}
IO_LIKE = (Function.IO, Function.MMIO)
ANY = Shape((("rcx", RCX), ("rdx", RDX), ("r8", R8), ("r9", R9)), (("rcx", RCX), ("rdx", RDX), ("r8", R8)))
ANY_VMCALL = Shape((("r12", R12), ("r13", R13), ("r14", R14), ("r15", R15)), (("r11", R11),))

EXCEPTIONS = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS",
    11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE",
    21: "#CP",
}  # fmt: skip

STATUS = {
    value: name
    for name, value in vars(status).items()
    if name.isupper() and isinstance(value, int) and value >> 32
}


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
    went = STATUS_NAMES.get(result[R10], f"{result[R10]:#x}")
    answer = _read(shape.answer, result) if not result[R10] >> 63 else {}
    if function in IO_LIKE and arguments["write"]:
        answer = {}
    return Call("vmcall", name, function, arguments, went, answer)
