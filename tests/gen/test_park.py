"""Does each parked AP take its own wakeup and no other, however the OS's stores fall between its steps?

The loop's machine code is executed instruction by instruction, and every order of the steps of the OS and
the APs is visited. An instruction has at most one access to memory, an aligned one, and x86 shows stores in
their order (SDM volume 3, 9.2), so there are no other orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import iced_x86
import pytest
from iced_x86 import Mnemonic, OpKind, Register
from machinecode import Linked

COMMAND, APIC_ID, VECTOR = (0, 2), (4, 4), (8, 8)  # offset and size in the mailbox: ACPI 6.5, table 5.44
FIRST_VECTOR = 0x1_2345_6000  # above 4 GiB: all 64 bits count
SIZE = 16

# The loop of the first release: Command is tested before ApicId.
TWO_LOADS = "f390 66833a01 75f8 396a04 75f3 488b4208 66c7020000 ffe0"
# One load, but Command is given back before the vector is read.
EARLY_CLEAR = "f390 488b02 6683f801 75f5 48c1e820 39e8 75ed 66c7020000 488b4208 ffe0"
# td-shim's order of two loads, ApicId first, which is right as well.
APIC_ID_FIRST = "f390 396a04 75f9 66833a01 75f3 488b4208 66c7020000 ffe0"


@dataclass(frozen=True)
class Ap:
    """One AP in the loop; `rip` counts from its start."""

    rip: int = 0
    rax: int = 0
    rbp: int = 0
    equal: bool = False
    woken: bool = False


@dataclass(frozen=True)
class State:
    """The mailbox, how many of its steps the OS has made, and each AP."""

    mailbox: bytes
    os: int
    aps: tuple[Ap, ...]


def put(mailbox: bytes, field: tuple[int, int], value: int) -> bytes:
    offset, size = field
    return mailbox[:offset] + value.to_bytes(size, "little") + mailbox[offset + size :]


def get(mailbox: bytes, field: tuple[int, int]) -> int:
    offset, size = field
    assert offset % size == 0, "an access that is not aligned is no single step"
    return int.from_bytes(mailbox[offset : offset + size], "little")


class Loop:
    """The instructions of a park loop, entered with RDX = mailbox and RBP = the AP's id."""

    def __init__(self, code: bytes) -> None:
        self.at = {instruction.ip: instruction for instruction in iced_x86.Decoder(64, code, ip=0)}

    def step(self, ap: Ap, mailbox: bytes) -> tuple[Ap, bytes]:
        """The AP and the mailbox after one instruction. KeyError for an instruction that is not modelled."""
        ins = self.at[ap.rip]
        after = replace(ap, rip=ins.next_ip)
        match ins.mnemonic:
            case Mnemonic.PAUSE:
                return after, mailbox
            case Mnemonic.MOV if ins.op0_kind == OpKind.MEMORY:
                return after, put(mailbox, self._field(ins), self._read(ap, mailbox, ins, 1))
            case Mnemonic.MOV if ins.op0_register == Register.RAX:
                return replace(after, rax=self._read(ap, mailbox, ins, 1)), mailbox
            case Mnemonic.MOV if {ins.op0_register, ins.op1_register} == {Register.RCX, Register.CR3}:
                return after, mailbox  # forgets translations
            case Mnemonic.CMP:
                equal = self._read(ap, mailbox, ins, 0) == self._read(ap, mailbox, ins, 1)
                return replace(after, equal=equal), mailbox
            case Mnemonic.SHR if ins.op0_register == Register.RAX:
                return replace(after, rax=ap.rax >> ins.immediate8), mailbox
            case Mnemonic.XOR if ins.op0_register == ins.op1_register != Register.EAX:
                return after, mailbox  # clears what is not read again; RBP goes on to say which AP it is
            case Mnemonic.JNE:
                return (after if ap.equal else replace(ap, rip=ins.near_branch_target)), mailbox
            case Mnemonic.JMP if ins.op0_register == Register.RAX:
                return replace(after, woken=True), mailbox
        raise KeyError(str(ins))

    @staticmethod
    def _field(ins: iced_x86.Instruction) -> tuple[int, int]:
        assert (ins.memory_base, ins.memory_index) == (Register.RDX, Register.NONE)
        return ins.memory_displacement, iced_x86.MemorySizeExt.size(ins.memory_size)

    def _read(self, ap: Ap, mailbox: bytes, ins: iced_x86.Instruction, operand: int) -> int:
        match ins.op_kind(operand):
            case OpKind.MEMORY:
                return get(mailbox, self._field(ins))
            case OpKind.REGISTER:
                register = ins.op_register(operand)
                values = {Register.RAX: ap.rax, Register.RBP: ap.rbp}
                mask = (1 << 8 * iced_x86.RegisterExt.size(register)) - 1
                return values[iced_x86.RegisterExt.full_register(register)] & mask
        return ins.immediate(operand)


def vector(apic_id: int) -> int:
    return FIRST_VECTOR + 0x1000 * apic_id


def stores(apic_id: int, vector_first: bool) -> list[tuple[tuple[int, int], int]]:
    """What the OS writes for one AP. Command comes last, the order of the others is not said."""
    target = [(APIC_ID, apic_id), (VECTOR, vector(apic_id))]
    return [*(reversed(target) if vector_first else target), (COMMAND, 1)]


def explore(loop: Loop, wakeups: tuple[int, ...], vector_first: bool) -> str:
    """Visits every state that the OS waking the APs in this order can lead to; what goes wrong, or nothing.

    Each AP may only ever jump to its own vector, and from each state the end must be in reach: all woken, the
    OS done. A state from which it is not is a lost wakeup, for which the OS would wait forever.
    """
    plan = [
        step for each in wakeups for step in (*stores(each, vector_first), None)
    ]  # None: wait for Command 0

    def successors(state: State) -> Iterator[State]:
        for index, ap in enumerate(state.aps):
            if not ap.woken:
                stepped, mailbox = loop.step(ap, state.mailbox)
                yield State(mailbox, state.os, (*state.aps[:index], stepped, *state.aps[index + 1 :]))
        if state.os < len(plan):
            store = plan[state.os]
            if store is not None:
                yield replace(state, mailbox=put(state.mailbox, *store), os=state.os + 1)
            elif get(state.mailbox, COMMAND) == 0:
                yield replace(state, os=state.os + 1)

    first = State(bytes(SIZE), 0, tuple(Ap(rbp=each) for each in sorted(wakeups)))
    before: dict[State, list[State]] = {first: []}
    todo = [first]
    while todo:
        state = todo.pop()
        for ap in state.aps:
            if ap.woken and ap.rax != vector(ap.rbp):
                return f"AP {ap.rbp} jumps to {ap.rax:#x}"
        for after in successors(state):
            if after not in before:
                before[after] = []
                todo.append(after)
            before[after].append(state)
    ends = [each for each in before if each.os == len(plan) and all(ap.woken for ap in each.aps)]
    assert len(before) > 100 * len(wakeups), "the search saw too little"
    reaching, todo = set(ends), ends
    while todo:
        new = [each for each in before[todo.pop()] if each not in reaching]
        reaching.update(new)
        todo.extend(new)
    return "a wakeup is lost" if len(reaching) < len(before) else ""


@pytest.fixture(scope="module")
def park(image: Linked) -> Loop:
    """The loop of an image."""
    at = image.symbols["ap_park"]
    end = min(value for value in image.symbols.values() if value > at)
    code = image.read(at, end - at)
    return Loop(code)


@pytest.mark.parametrize("vector_first", [False, True])
@pytest.mark.parametrize("wakeups", [*permutations((1, 2)), *permutations((1, 2, 3))])
def test_every_interleaving_wakes_each_ap_once_at_its_own_vector(
    park: Loop, wakeups: tuple[int, ...], vector_first: bool
) -> None:
    assert explore(park, wakeups, vector_first) == ""


def test_the_search_finds_the_race_of_two_loads() -> None:
    assert explore(Loop(bytes.fromhex(TWO_LOADS)), (1, 2), False) != ""


def test_the_search_finds_a_vector_that_is_read_too_late() -> None:
    assert explore(Loop(bytes.fromhex(EARLY_CLEAR)), (1, 2), False) == f"AP 1 jumps to {vector(2):#x}"


def test_the_search_allows_two_loads_in_the_right_order() -> None:
    assert explore(Loop(bytes.fromhex(APIC_ID_FIRST)), (1, 2, 3), False) == ""
