"""Does each parked AP take its own wakeup and no other, however the OS's stores fall between its steps? Also
if it was sent back, if the OS tests whether it has come, and if the OS does not wait for the answer?

The loop's machine code is executed instruction by instruction, and every order of the steps of the OS and
the APs is visited. An instruction has at most one access to memory, an aligned one, and x86 shows stores in
their order (SDM volume 3, 9.2), so there are no other orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import NamedTuple

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
# A loop of mailbox version 0: no test is answered.
NO_ANSWER = "f390 488b02 6683f801 75f5 48c1e820 39e8 75ed 488b4208 66c7020000 ffe0"
# A test is answered by a store, whatever lies in the mailbox by then.
LATE_ANSWER = "f390 488b02 4889c1 48c1e920 39e9 75f0 6683f801 740d 6683f802 75e4 66c7020000 ebdd"
LATE_ANSWER += "488b4208 66c7020000 ffe0"
# td-shim's order of two loads, ApicId first: right as long as none comes back and reads an old ApicId.
APIC_ID_FIRST = "f390 396a04 75f9 66833a01 75f3 488b4208 66c7020000 ffe0"


class Ap(NamedTuple):
    """One AP in the loop; `rip` counts from its start."""

    rip: int = 0
    rax: int = 0
    rcx: int = 0
    rbp: int = 0
    equal: bool = False
    woken: bool = False
    leaving: bool = False  # on its way back, by the reset vector


class State(NamedTuple):
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


REGISTERS = {Register.RAX: "rax", Register.RCX: "rcx"}


def set_register(ap: Ap, name: str, value: int) -> Ap:
    return ap._replace(rax=value) if name == "rax" else ap._replace(rcx=value)


class Loop:
    """The instructions of a park loop, entered with RDX = mailbox and RBP = the AP's id."""

    def __init__(self, code: bytes) -> None:
        self.at = {instruction.ip: instruction for instruction in iced_x86.Decoder(64, code, ip=0)}
        self.step = cache(self._step)  # few APs and mailboxes make many states

    def _step(self, ap: Ap, mailbox: bytes) -> tuple[Ap, bytes]:
        """The AP and the mailbox after one instruction. KeyError for an instruction that is not modelled."""
        ins = self.at[ap.rip]
        after = ap._replace(rip=ins.next_ip)
        register = REGISTERS.get(ins.op0_register)
        match ins.mnemonic:
            case Mnemonic.CMPXCHG if ins.has_lock_prefix:
                now = get(mailbox, self._field(ins))
                if now != ap.rax:
                    return after._replace(rax=now, equal=False), mailbox
                new = self._read(ap, mailbox, ins, 1)
                return after._replace(equal=True), put(mailbox, self._field(ins), new)
            case Mnemonic.PAUSE:
                return after, mailbox
            case Mnemonic.MOV if ins.op0_kind == OpKind.MEMORY:
                return after, put(mailbox, self._field(ins), self._read(ap, mailbox, ins, 1))
            case Mnemonic.MOV if {ins.op0_register, ins.op1_register} == {Register.RCX, Register.CR3}:
                return after, mailbox  # forgets translations
            case Mnemonic.MOV if register:
                return set_register(after, register, self._read(ap, mailbox, ins, 1)), mailbox
            case Mnemonic.XOR if ins.op0_register == ins.op1_register == Register.CX:
                return after._replace(rcx=ap.rcx & ~0xFFFF), mailbox
            case Mnemonic.CMP:
                equal = self._read(ap, mailbox, ins, 0) == self._read(ap, mailbox, ins, 1)
                return after._replace(equal=equal), mailbox
            case Mnemonic.SHR if register:
                return set_register(after, register, getattr(ap, register) >> ins.immediate8), mailbox
            case Mnemonic.XOR if ins.op0_register == ins.op1_register != Register.EAX:
                return after, mailbox  # clears what is not read again; RBP goes on to say which AP it is
            case Mnemonic.JNE | Mnemonic.JE:
                taken = ap.equal == (ins.mnemonic == Mnemonic.JE)
                return (ap._replace(rip=ins.near_branch_target) if taken else after), mailbox
            case Mnemonic.JMP if ins.op0_register == Register.NONE:
                return ap._replace(rip=ins.near_branch_target), mailbox
            case Mnemonic.JMP if ins.op0_register == Register.RAX:
                return after._replace(woken=True), mailbox
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
                values = {Register.RAX: ap.rax, Register.RCX: ap.rcx, Register.RBP: ap.rbp}
                mask = (1 << 8 * iced_x86.RegisterExt.size(register)) - 1
                return values[iced_x86.RegisterExt.full_register(register)] & mask
        return ins.immediate(operand)


def vector(apic_id: int) -> int:
    return FIRST_VECTOR + 0x1000 * apic_id


@dataclass(frozen=True)
class Store:
    """The OS writes a field of the mailbox."""

    field: tuple[int, int]
    value: int


@dataclass(frozen=True)
class Answered:
    """The OS waits until Command is 0."""


@dataclass(frozen=True)
class Leave:
    """The OS has this AP, which is its own, jump to the reset vector. It does not wait for it."""

    apic_id: int


Step = Store | Answered | Leave


def wake(*apic_ids: int, vector_first: bool = False) -> list[Step]:
    """One after the other. Command comes last, the order of the other fields is not said."""
    steps: list[Step] = []
    for apic_id in apic_ids:
        target = [Store(APIC_ID, apic_id), Store(VECTOR, vector(apic_id))]
        steps += [*(reversed(target) if vector_first else target), Store(COMMAND, 1), Answered()]
    return steps


def leave(*apic_ids: int) -> list[Step]:
    return [Leave(apic_id) for apic_id in apic_ids]


def ask(*apic_ids: int, patient: bool = True) -> list[Step]:
    """Have they come back? Linux waits for a second, then goes on."""
    steps: list[Step] = []
    for apic_id in apic_ids:
        steps += [Store(APIC_ID, apic_id), Store(COMMAND, 2), *([Answered()] if patient else [])]
    return steps


def of_os(state: State, step: Step) -> Iterator[State]:
    """The state after a step of the OS, if it can make it."""
    match step:
        case Store(field, value):
            yield state._replace(mailbox=put(state.mailbox, field, value), os=state.os + 1)
        case Answered():
            if get(state.mailbox, COMMAND) == 0:
                yield state._replace(os=state.os + 1)
        case Leave(apic_id):
            aps = tuple(ap._replace(leaving=ap.leaving or ap.rbp == apic_id) for ap in state.aps)
            if all(ap.woken for ap in state.aps if ap.rbp == apic_id):
                yield state._replace(aps=aps, os=state.os + 1)


def explore(loop: Loop, plan: list[Step]) -> str:
    """Visits every state that the OS with this plan can lead to; what goes wrong, or nothing.

    Each AP may only ever jump to its own vector, and from each state the end must be in reach: all woken, the
    OS done. A state from which it is not is a lost wakeup, for which the OS would wait forever.
    """

    def successors(state: State) -> Iterator[State]:
        for index, ap in enumerate(state.aps):
            stepped, mailbox = Ap(rbp=ap.rbp), state.mailbox
            if ap.woken and not ap.leaving:
                continue
            if not ap.woken:
                stepped, mailbox = loop.step(ap, mailbox)
            yield State(mailbox, state.os, (*state.aps[:index], stepped, *state.aps[index + 1 :]))
        if state.os < len(plan):
            yield from of_os(state, plan[state.os])

    apic_ids = sorted({step.value for step in plan if isinstance(step, Store) and step.field == APIC_ID})
    first = State(bytes(SIZE), 0, tuple(Ap(rbp=each) for each in apic_ids))
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
    assert len(before) > 100 * len(apic_ids), "the search saw too little"
    ends = [each for each in before if each.os == len(plan)]
    ends = [each for each in ends if all(ap.woken and not ap.leaving for ap in each.aps)]
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
    assert explore(park, wake(*wakeups, vector_first=vector_first)) == ""


# Offline and online again; kexec, which asks nobody; an OS that asks and goes on.
BACK = {
    "one": [*wake(1, 2), *leave(1), *ask(1), *wake(1)],
    "both": [*wake(1, 2), *leave(1), *ask(1), *leave(2), *ask(2), *wake(2, 1)],
    "kexec": [*wake(1, 2), *leave(1, 2), *wake(1, 2)],
    "kexec, in another order": [*wake(1, 2), *leave(1, 2), *wake(2, 1)],
    "kexec of three": [*wake(1, 2, 3), *leave(3, 1, 2), *wake(1, 2, 3)],
    "impatient": [*wake(1, 2), *leave(1, 2), *ask(1, 2, patient=False), *wake(2, 1)],
    "impatient, then the other": [*wake(1, 2), *leave(1, 2), *ask(1, patient=False), *wake(2, 1)],
}


@pytest.mark.parametrize("plan", BACK.values(), ids=BACK)
def test_every_interleaving_of_aps_that_come_back(park: Loop, plan: list[Step]) -> None:
    assert explore(park, plan) == ""


def test_the_search_finds_an_answer_that_comes_too_late() -> None:
    loop = Loop(bytes.fromhex(LATE_ANSWER))
    assert explore(loop, BACK["both"]) == ""
    assert explore(loop, BACK["impatient, then the other"]) == f"AP 2 jumps to {vector(1):#x}"


def test_the_search_finds_a_loop_that_answers_no_test() -> None:
    loop = Loop(bytes.fromhex(NO_ANSWER))
    assert explore(loop, BACK["kexec"]) == ""
    assert explore(loop, BACK["one"]) == "a wakeup is lost"


def test_the_search_finds_an_old_apic_id_that_meets_a_new_command() -> None:
    loop = Loop(bytes.fromhex(APIC_ID_FIRST))
    assert explore(loop, BACK["kexec"]) == f"AP 2 jumps to {vector(1):#x}"


def test_the_search_finds_the_race_of_two_loads() -> None:
    assert explore(Loop(bytes.fromhex(TWO_LOADS)), wake(1, 2)) != ""


def test_the_search_finds_a_vector_that_is_read_too_late() -> None:
    assert explore(Loop(bytes.fromhex(EARLY_CLEAR)), wake(1, 2)) == f"AP 1 jumps to {vector(2):#x}"


def test_the_search_allows_two_loads_in_the_right_order() -> None:
    assert explore(Loop(bytes.fromhex(APIC_ID_FIRST)), wake(1, 2, 3)) == ""
