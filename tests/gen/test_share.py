"""Is each page accepted once, and every one of them, however the steps of vCPUs that share acceptance fall?

The machine code of vCPU 0 and of the APs is executed instruction by instruction, and every order of their
accesses to the shared words is visited. An instruction has at most one such access, or is one step by its
LOCK prefix, and x86 shows stores in their order (SDM volume 3, 9.2), so there are no other orders. What a
vCPU does with its own registers, and to pages that only it may accept, needs no order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import iced_x86
import pytest
from cpu import FLOW_ENTRY, REGIONS, Td
from iced_x86 import Mnemonic, OpAccess, OpKind, Register
from machinecode import Link, Linked
from unicorn import UC_HOOK_CODE

from dsl.capabilities import prelude
from formats.tdx.status import PAGE_ALREADY_ACCEPTED, PAGE_SIZE_MISMATCH
from formats.wakeup import PARKED
from gen.boot.share import CHUNKS, DONE, LIST, NEXT, REST
from gen.boot.units import emit, units
from gen.x86 import Unit

PAGE, LARGE = 0x1000, 0x20_0000
ITEMS, MAILBOX = 0x80_0000, 0x90_0000  # where the list lies; what the OS's mailbox is in the end
WORDS = {NEXT: "next", CHUNKS: "chunks", DONE: "done", REST: "rest", LIST: "list"}
ACCEPT = 6
ALL = (1 << 64) - 1
OPERATIONS = {
    Mnemonic.ADD: int.__add__,
    Mnemonic.SUB: int.__sub__,
    Mnemonic.AND: int.__and__,
    Mnemonic.OR: int.__or__,
    Mnemonic.XOR: int.__xor__,
    Mnemonic.SHL: int.__lshift__,
    Mnemonic.SHR: int.__rshift__,
}


class Wrong(Exception):
    """What may not happen."""


@dataclass(frozen=True)
class Cpu:
    """A vCPU before an access to a shared word, and the registers that its code reads then. `rip` 0: none."""

    rip: int
    registers: tuple[tuple[Register, int], ...] = ()


Words = tuple[int, ...]  # in the order of NAMES
NAMES = (*WORDS.values(), "mailbox")


@dataclass(frozen=True)
class State:
    """The shared words, a bit for each page that is accepted, vCPU 0 and the APs. `stage`: where vCPU 0 is
    around its code.
    """

    words: Words
    pages: int
    cpus: tuple[Cpu, ...]
    stage: str = "publish"


@dataclass
class Program:
    """The code of vCPU 0 and of an AP, and what is shared. `answers`: of PAGE.ACCEPT to GPA | level, if not
    0. `first`: what vCPU 0 publishes first; `large`: 0 for small pages alone.
    """

    image: Linked
    shares: tuple[tuple[int, int], ...]
    answers: Mapping[int, int] = field(default_factory=dict)
    first: str = "list"
    large: int = LARGE

    def __post_init__(self) -> None:
        symbols = self.image.symbols
        self.words = {symbols["ap_shared"] + at: name for at, name in WORDS.items()}
        self.words[symbols["ap_mailbox"]] = "mailbox"
        self.at: dict[int, iced_x86.Instruction] = {}
        for name in ("tdcall_accept_shared", "ap_identify"):
            start = symbols[name]
            end = min(value for value in symbols.values() if value > start)
            code = self.image.read(start, end - start)
            self.at |= {each.ip: each for each in iced_x86.Decoder(64, code, ip=start)}
        self.function = symbols["tdcall_accept_shared"]
        waits = [ip for ip, each in self.at.items() if each.mnemonic == Mnemonic.PAUSE]
        self.wait = min(ip for ip in waits if ip > symbols["ap_identify"])
        self.live = liveness(self.at)
        self.list = dict(self._list())
        self.chunks = sum(_areas(*share) for share in self.shares)
        self.wanted = [page for start, end in self.shares for page in range(start, end, PAGE)]
        self.bit = {page: number for number, page in enumerate(self.wanted)}
        self.known: dict[tuple[Cpu, Words, bool], tuple[Cpu, Words, int, int | None]] = {}

    def _list(self) -> Iterator[tuple[int, int]]:
        record = prelude().records["Share"]
        for index, (start, end) in enumerate(self.shares):
            values = {"start": start, "end": end, "chunks": _areas(start, end), "large": self.large}
            for each in record.fields:
                yield ITEMS + index * record.size + each.offset, values[each.name]

    # ---------------------------------------------------------------- steps

    def start(self, aps: int) -> State:
        return State((0,) * len(NAMES), 0, (Cpu(0), *(Cpu(self.wait) for _ in range(aps))))

    def successors(self, state: State) -> Iterator[State]:
        """After a step of each vCPU that has one."""
        for index, cpu in enumerate(state.cpus):
            if cpu.rip:
                yield self._ran(state, index)
            elif index == 0 and state.stage != "over":
                yield self._around(state)

    def _around(self, state: State) -> State:
        """What generated code does around its calls (gen/primitives/cpus.py), one store at a time."""
        published = {"list": ITEMS, "chunks": self.chunks}
        (second,) = published.keys() - {self.first}
        stored = {
            "publish": (self.first, published[self.first], "publish more"),
            "publish more": (second, published[second], "work"),
            "count": ("done", state.words[NAMES.index("done")] + 1, "work"),
            "park": ("mailbox", MAILBOX, "over"),
        }
        name, value, stage = stored[state.stage]
        at = NAMES.index(name)
        words = (*state.words[:at], value, *state.words[at + 1 :])
        boot = Cpu(self.function) if stage == "work" else Cpu(0)
        return State(words, state.pages, (boot, *state.cpus[1:]), stage)

    def _ran(self, state: State, index: int) -> State:
        """After a vCPU's next access to a shared word, and all that it then does alone."""
        key = state.cpus[index], state.words, state.stage == "over"
        if key not in self.known:
            self.known[key] = self._alone(*key)
        cpu, words, pages, value = self.known[key]
        stage = state.stage
        if value is not None:
            stage = "count" if value else "park"
            pages |= self._rest(value)
        if pages & state.pages:
            raise Wrong("a page is accepted twice")
        done = State(words, state.pages | pages, (*state.cpus[:index], cpu, *state.cpus[index + 1 :]), stage)
        if stage == "park" and done.pages != self._bits(self.wanted):
            raise Wrong("vCPU 0 goes on, and pages are missing")
        return done

    def _bits(self, pages: Iterable[int]) -> int:
        return sum(1 << self.bit[page] for page in pages)

    def _rest(self, value: int) -> int:
        """Of a chunk, which is accepted around the code; none is the end."""
        start, count = value & -PAGE, value & (PAGE - 1)
        rest = {start + n * PAGE for n in range(count)}
        if not rest <= set(self.wanted):
            raise Wrong(f"a rest of {count} pages at {start:#x}")
        return self._bits(rest)

    def _alone(self, cpu: Cpu, words: Words, gone: bool) -> tuple[Cpu, Words, int, int | None]:
        """The vCPU at its next access but one, the words, what it accepted, what its function returned."""
        run = Run(self, cpu, dict(zip(NAMES, words, strict=True)), gone)
        seen = False
        while run.rip and run.value is None:
            ins = self.at[run.rip]
            if run.address(ins) in self.words:
                if seen:
                    break
                seen = True
            run.step(ins)
        live = self.live.get(run.rip, frozenset())
        kept = tuple(sorted(each for each in run.registers.items() if each[0] in live))
        after = Cpu(0) if run.value is not None or not run.rip else Cpu(run.rip, kept)
        return after, tuple(run.words.values()), self._bits(run.accepted), run.value


@dataclass
class Run:
    """Some instructions of one vCPU. `value`: what its function returned."""

    program: Program
    cpu: Cpu
    words: dict[str, int]
    gone: bool  # the list
    accepted: list[int] = field(default_factory=list)
    value: int | None = None
    zero: bool = False
    carry: bool = False

    def __post_init__(self) -> None:
        self.rip, self.registers = self.cpu.rip, dict(self.cpu.registers)

    def address(self, ins: iced_x86.Instruction) -> int | None:
        """Of the operand in memory."""
        if OpKind.MEMORY not in (ins.op_kind(n) for n in range(ins.op_count)):
            return None
        if ins.memory_base == Register.RIP:
            return int(ins.memory_displacement)
        base = self.registers.get(ins.memory_base, 0) + self.registers.get(ins.memory_index, 0)
        return (base + ins.memory_displacement) & ALL

    def _register(self, ins: iced_x86.Instruction, operand: int) -> tuple[Register, int]:
        register = ins.op_register(operand)
        mask = (1 << 8 * iced_x86.RegisterExt.size(register)) - 1
        return iced_x86.RegisterExt.full_register(register), mask

    def _read(self, ins: iced_x86.Instruction, operand: int) -> int:
        match ins.op_kind(operand):
            case OpKind.REGISTER:
                register, mask = self._register(ins, operand)
                return self.registers[register] & mask
            case OpKind.MEMORY:
                address = self.address(ins)
                if address in self.program.words:
                    return self.words[self.program.words[address]]
                if self.gone:
                    raise Wrong("the list is read when it is gone")
                if address not in self.program.list:
                    raise Wrong(f"{address:#x} is read, which is no list")
                return self.program.list[address]
        return int(ins.immediate(operand))

    def _write(self, ins: iced_x86.Instruction, operand: int, value: int) -> None:
        if ins.op_kind(operand) == OpKind.MEMORY:
            self.words[self.program.words[self.address(ins)]] = value & ALL
            return
        register, mask = self._register(ins, operand)
        self.registers[register] = value & mask

    def step(self, ins: iced_x86.Instruction) -> None:
        """One instruction. KeyError for one that is not modelled."""
        self.rip = ins.next_ip
        jumps = {
            Mnemonic.JMP: True,
            Mnemonic.JE: self.zero,
            Mnemonic.JNE: not self.zero,
            Mnemonic.JB: self.carry,
            Mnemonic.JAE: not self.carry,
        }
        match ins.mnemonic:
            case Mnemonic.PAUSE | Mnemonic.NOP:
                pass
            case Mnemonic.MOV:
                self._write(ins, 0, self._read(ins, 1))
            case Mnemonic.LEA:
                self._write(ins, 0, self.address(ins) or 0)
            case Mnemonic.CMP:
                one, other = self._read(ins, 0), self._read(ins, 1)
                self.zero, self.carry = one == other, one < other
            case Mnemonic.TEST:
                self.zero, self.carry = self._read(ins, 0) & self._read(ins, 1) == 0, False
            case Mnemonic.CMOVB:
                self._write(ins, 0, self._read(ins, int(self.carry)))
            case Mnemonic.CMOVA:
                self._write(ins, 0, self._read(ins, int(not self.carry and not self.zero)))
            case Mnemonic.XADD if ins.has_lock_prefix:
                before, added = self._read(ins, 0), self._read(ins, 1)
                self._write(ins, 0, before + added)
                self._write(ins, 1, before)
            case Mnemonic.CMPXCHG if ins.has_lock_prefix:
                before = self._read(ins, 0)
                self.zero = before == self.registers[Register.RAX]
                self.registers[Register.RAX] = before
                if self.zero:
                    self._write(ins, 0, self._read(ins, 1))
            case Mnemonic.TDCALL:
                self._tdcall()
            case Mnemonic.RET:
                self.value = self.registers[Register.RAX]
            case mnemonic if mnemonic in OPERATIONS:
                same = ins.mnemonic == Mnemonic.XOR and ins.op0_register == ins.op1_register
                value = 0 if same else OPERATIONS[mnemonic](self._read(ins, 0), self._read(ins, 1))
                self._write(ins, 0, value)
                self.zero = value == 0
            case mnemonic:
                self.rip = ins.near_branch_target if jumps[mnemonic] else self.rip
        if self.program.words.get(self.address(ins) or 0) == "mailbox" and self.words["mailbox"]:
            self.rip = 0  # on to the park loop

    def _tdcall(self) -> None:
        if self.registers[Register.RAX] != ACCEPT:
            raise Wrong("another TDCALL")
        operand = self.registers[Register.RCX]
        self.registers[Register.RAX] = self.program.answers.get(operand, 0)
        if not self.registers[Register.RAX]:
            start, size = operand & -PAGE, LARGE if operand & 1 else PAGE
            pages = range(start, start + size, PAGE)
            if operand & 1 > self.program.large or start % size or not set(pages) <= set(self.program.wanted):
                raise Wrong(f"{operand:#x} is not to be accepted")
            self.accepted += pages


def _areas(start: int, end: int) -> int:
    return (-(-end // LARGE) * LARGE - start // LARGE * LARGE) // LARGE


def liveness(code: Mapping[int, iced_x86.Instruction]) -> dict[int, frozenset[Register]]:
    """Which registers are read before they are written, from each instruction on."""
    info = iced_x86.InstructionInfoFactory()
    reads, writes = {}, {}
    for ip, ins in code.items():
        found = info.info(ins).used_registers()
        used = [(iced_x86.RegisterExt.full_register(each.register), each.access) for each in found]
        if ins.mnemonic == Mnemonic.TDCALL:
            used = [(Register.RAX, OpAccess.READ_WRITE), (Register.RCX, OpAccess.READ)]
        if ins.mnemonic == Mnemonic.RET:
            used = [(Register.RAX, OpAccess.READ)]
        reads[ip] = {register for register, access in used if access != OpAccess.WRITE}
        writes[ip] = {register for register, access in used if access == OpAccess.WRITE}
    live: dict[int, frozenset[Register]] = dict.fromkeys(code, frozenset())
    changed = True
    while changed:
        changed = False
        for ip, ins in reversed(code.items()):
            following = () if ins.mnemonic in (Mnemonic.RET, Mnemonic.JMP) else (ins.next_ip,)
            after = frozenset().union(*(live.get(to, ()) for to in (*following, ins.near_branch_target)))
            now = frozenset(reads[ip] | after - writes[ip])
            changed = changed or now != live[ip]
            live[ip] = now
    return live


def over(state: State) -> bool:
    return state.stage == "over" and not any(cpu.rip for cpu in state.cpus)


def explore(program: Program, aps: int) -> str:
    """Visits every state; what goes wrong, or nothing. From each the end must be in reach."""
    first = program.start(aps)
    before: dict[State, list[State]] = {first: []}
    todo = [first]
    while todo:
        state = todo.pop()
        try:
            for after in program.successors(state):
                if after not in before:
                    before[after] = []
                    todo.append(after)
                before[after].append(state)
        except Wrong as wrong:
            return str(wrong)
    ends = [each for each in before if over(each)]
    reaching, todo = set(ends), list(ends)
    while todo:
        new = [each for each in before[todo.pop()] if each not in reaching]
        reaching.update(new)
        todo.extend(new)
    assert len(before) > 20, "the search saw too little"
    return "a vCPU waits forever" if len(reaching) < len(before) else ""


@pytest.fixture(scope="module")
def shared(link: Link) -> Linked:
    """An image whose flow accepts on all vCPUs."""
    return link(emit(REGIONS, all_vcpus=True), FLOW_ENTRY)


# A range that begins 2 pages below an area, and a page elsewhere: a part, a large page, a part.
SHARES = ((LARGE - 2 * PAGE, 2 * LARGE), (4 * LARGE, 4 * LARGE + PAGE))
PART, WHOLE, LAST = LARGE - 2 * PAGE, LARGE | 1, 4 * LARGE
ANSWERS = {
    "none": {},
    "a page of a part": {PART + PAGE: PAGE_ALREADY_ACCEPTED},
    "a large page": {WHOLE: PAGE_ALREADY_ACCEPTED | 1},
    "all": {PART: PAGE_ALREADY_ACCEPTED, WHOLE: PAGE_ALREADY_ACCEPTED | 1, LAST: PAGE_ALREADY_ACCEPTED},
    "the size": {WHOLE: PAGE_SIZE_MISMATCH | 1},
    "the size, then a page": {WHOLE: PAGE_SIZE_MISMATCH | 1, LARGE + PAGE: PAGE_ALREADY_ACCEPTED},
}


@pytest.mark.parametrize("aps", [0, 1, 2])
@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_every_interleaving_accepts_each_page_once(shared: Linked, answers: dict[int, int], aps: int) -> None:
    assert explore(Program(shared, SHARES, answers), aps) == ""


def test_small_pages_alone(shared: Linked) -> None:
    assert explore(Program(shared, SHARES, large=0), 1) == ""


def test_the_code_is_what_the_listing_says(check_unit: Callable[[Unit], int]) -> None:
    """Of the units that only such an image has."""
    reset, usual = (units(REGIONS, all_vcpus=each)[0] for each in (True, False))
    assert check_unit(reset) > check_unit(usual)


def without(program: Program, function: str, mnemonic: Mnemonic, behind: Mnemonic) -> Program:
    """The program if its last jump behind such an instruction were not there."""
    first = program.image.symbols[function]
    own = [ip for ip in program.at if first <= ip < first + 0x400]
    *_, place = [
        ip
        for before, ip in pairwise(own)
        if program.at[ip].mnemonic == mnemonic and program.at[before].mnemonic == behind
    ]
    nothing = b"\x66" * (program.at[place].len - 1) + b"\x90"
    program.at[place] = next(iter(iced_x86.Decoder(64, nothing, ip=place)))
    return program


def test_the_search_finds_a_vcpu_0_that_does_not_wait_for_others(shared: Linked) -> None:
    hasty = without(Program(shared, SHARES), "tdcall_accept_shared", Mnemonic.JNE, behind=Mnemonic.CMP)
    assert explore(hasty, 1) == "vCPU 0 goes on, and pages are missing"


def test_the_search_finds_a_rest_that_is_lost(shared: Linked) -> None:
    """An AP that writes its own over another's, or believes that it did."""
    program = Program(shared, SHARES, ANSWERS["all"])
    assert explore(without(program, "ap_identify", Mnemonic.JNE, behind=Mnemonic.CMPXCHG), 2) != ""


def test_the_search_finds_a_number_that_is_published_before_its_list(shared: Linked) -> None:
    early = Program(shared, SHARES, first="chunks")
    assert explore(early, 1) == "0x10 is read, which is no list"


def test_the_search_finds_a_page_that_two_accept(shared: Linked) -> None:
    """As if two chunks had it."""
    assert explore(Program(shared, (*SHARES, SHARES[1])), 1) == "a page is accepted twice"


def test_an_ap_takes_part_then_goes_to_its_mailbox(shared: Linked) -> None:
    """It keeps its index and its id, and the OS finds nothing of what it did in its registers."""

    def module(before: dict[str, int]) -> dict[str, int]:
        if before["rax"] == ACCEPT:
            return {"rax": PAGE_SIZE_MISMATCH | 1 if before["rcx"] & 1 else 0}
        return {"rax": 0, "r10": 0}  # TDG.VP.VMCALL

    td = Td(shared, module)
    symbols, record = shared.symbols, prelude().records["Share"]
    slots = int.from_bytes(shared.read(symbols["paging_cpu_ids"], 8), "little")
    td.cpu.mem_write(slots, bytes(PAGE))
    td.cpu.mem_write(MAILBOX, bytes(PAGE))
    for at, value in Program(shared, ((0, LARGE),)).list.items():
        size = next(each for each in record.fields if ITEMS + each.offset == at)
        td.cpu.mem_write(at, value.to_bytes(8 if size.name in ("start", "end") else 4, "little"))
    words = {NEXT: 0, CHUNKS: 1, DONE: 0, REST: 0, LIST: ITEMS}
    td.cpu.mem_write(symbols["ap_shared"], b"".join(value.to_bytes(8, "little") for value in words.values()))
    td.cpu.mem_write(symbols["ap_enumerated"], bytes(4))
    pauses = [0]

    def publish(cpu: Any, at: int, size: int, _: Any) -> None:
        if bytes(cpu.mem_read(at, 2)) == b"\xf3\x90":
            pauses[0] += 1
            if pauses[0] == 3:
                td.cpu.mem_write(symbols["ap_mailbox"], MAILBOX.to_bytes(8, "little"))

    td.cpu.hook_add(UC_HOOK_CODE, publish)
    td.set(rbp=5, rsi=5, rsp=0)
    td.start(symbols["ap_identify"], 0, until=symbols["ap_park"])
    accepts = [call.before["rcx"] for call in td.calls if call.before["rax"] == ACCEPT]
    assert accepts == [1, *range(0, LARGE, PAGE)]
    assert td.u64(symbols["ap_shared"] + DONE) == [1]
    assert bytes(td.cpu.mem_read(MAILBOX + PARKED, 8)) == bytes([0, 0, 0, 0, 0, 1, 0, 0])
    left = {name: value for name, value in td.registers().items() if value}
    assert left.keys() <= {"rax", "rcx", "rdx", "rbp", "rsp"}
