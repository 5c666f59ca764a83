"""How does an expression become instructions? Words into RAX, everything else as an address in RAX.

Plain code, one node after the other: a reviewer follows the listing with the flow beside it. Registers hold
nothing across nodes; what must live longer is in the frame. RAX, RCX, RDX, RSI, RDI, R8 and R9 are scratch.
The model has passed dsl/verify.py: divisors and shift counts are constants, every sum has 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    DIV,
    IMUL,
    JA,
    JAE,
    JB,
    JBE,
    JC,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    LFENCE,
    MOV,
    MOVZX,
    MUL,
    NOT,
    OR,
    SHL,
    SHR,
    SUB,
    TEST,
    UD2,
    XOR,
    Label,
    al,
    byte,
    cl,
    dword,
    eax,
    ecx,
    edx,
    qword,
    r8,
    r9,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
    word,
)

from dsl import model
from dsl.model import Bytes, Digest, Expression, Firmware, Never, Text, Type, Unit
from dsl.sizes import DIGEST_SIZE, SPAN_SIZE, alignment, is_word, items_offset, size, word_size
from gen.flow.context import Context
from gen.flow.frame import Frame
from gen.flow.names import LAYOUT, flow_symbol, primitive_symbol
from gen.flow.place import Kind, Place, at
from gen.flow.pool import Pool
from gen.flow.spans import unchecked
from gen.x86 import REP_MOVSB, Symbol, rsp

ARGUMENTS = (rdi, rsi, rdx, rcx, r8, r9)
_JUMPS: dict[str, tuple[Any, Any]] = {  # operator: jump if true, jump if false; all comparisons are unsigned
    "==": (JE, JNE),
    "!=": (JNE, JE),
    "<": (JB, JAE),
    "<=": (JBE, JA),
    ">": (JA, JBE),
    ">=": (JAE, JB),
}


class ExpressionEmitter:
    """Emits expressions of one flow into the active code block."""

    def __init__(self, firmware: Firmware, context: Context, pool: Pool, frame: Frame) -> None:
        self.firmware, self.context, self.pool, self.frame = firmware, context, pool, frame
        self.places: dict[int, Place] = {}
        self.errors: dict[int, Label] = {}
        self.fail = Label("fail")
        self._labels = 0

    # ------------------------------------------------------------ helpers

    def label(self, stem: str) -> Label:
        """A label that no other in this function is called like."""
        self._labels += 1
        return Label(f"{stem}{self._labels}")

    def error(self, number: int) -> Label:
        """Where to jump to fail with this status."""
        return self.errors.setdefault(number, Label(f"error{number}"))

    def size(self, type_: Type) -> int:
        return size(type_, self.firmware.records)

    def new_slot(self, type_: Type) -> int:
        return self.frame.slot(self.size(type_), alignment(type_, self.firmware.records))

    def load(self, type_: Type, address: Any) -> None:
        """RAX := the word in memory, zero-extended."""
        match word_size(type_):
            case 1:
                MOVZX(eax, byte[address])
            case 2:
                MOVZX(eax, word[address])
            case 4:
                MOV(eax, dword[address])
            case _:
                MOV(rax, [address])

    def copy_to_slot(self, type_: Type, slot: int) -> None:
        """Copies the aggregate at RAX into the frame."""
        if self.size(type_) == 16:
            for part in (0, 8):
                MOV(rcx, [rax + part])
                MOV([rsp + slot + part], rcx)
            return
        MOV(rsi, rax)
        LEA(rdi, [rsp + slot])
        MOV(ecx, self.size(type_))
        REP_MOVSB()

    def store(self, value: Expression, slot: int) -> None:
        """Evaluates into a slot of the frame; the result of a call is made there."""
        if isinstance(value, model.Call):
            self.call(value, slot)
        elif isinstance(value, model.Slice):
            self._slice(value, slot)
        elif isinstance(value, model.Choice):
            self._choice(value, slot)
        elif is_word(value.type):
            self.word(value)
            MOV([rsp + slot], rax)
        else:
            self.address(value)
            self.copy_to_slot(value.type, slot)

    # ------------------------------------------------------------ words

    def word(self, value: Expression) -> None:
        """RAX := the value of a scalar or enumeration."""
        with at(value.span):
            match value:
                case model.Literal(value=int() as number):
                    _constant(rax, int(number))
                case model.Variable():
                    MOV(rax, [rsp + self.places[value.id].slot])
                case model.FieldOf():
                    place = self._in_frame(value)
                    if place is None:
                        self.address(value.base)
                    self.load(value.type, rax + value.offset if place is None else rsp + place)
                case model.Length():
                    self.address(value.base)
                    MOV(rax, [rax + SPAN_SIZE] if isinstance(value.base.type, Bytes | Text) else [rax])
                case model.Index():
                    self._item(value)
                    self.load(value.type, rax)
                case model.Unary(op="~"):
                    self.word(value.operand)
                    NOT(rax)
                case model.Unary(op="not"):
                    self._boolean(value)
                case model.Binary(op=op) if op in _JUMPS or op in ("and", "or", "in"):
                    self._boolean(value)
                case model.Binary():
                    self._arithmetic(value)
                case model.Call():
                    slot = self.call(value, None)
                    self.load(value.type, rsp + slot)
                case model.Choice():
                    slot = self.frame.slot(8)
                    self._choice(value, slot)
                    MOV(rax, [rsp + slot])

    def _truncate(self, type_: Type) -> None:
        match word_size(type_):
            case 1:
                MOVZX(eax, al)
            case 2:
                AND(rax, 0xFFFF)
            case 4:
                MOV(eax, eax)

    def _boolean(self, value: Expression) -> None:
        false, end = self.label("false"), self.label("known")
        self.branch(value, false, when=False)
        MOV(eax, 1)
        JMP(end)
        LABEL(false)
        XOR(eax, eax)
        LABEL(end)

    def branch(self, value: Expression, target: Label, when: bool) -> None:
        """Jumps to `target` if the condition is `when`, else falls through."""
        with at(value.span):
            match value:
                case model.Unary(op="not", operand=operand):
                    self.branch(operand, target, not when)
                case model.Binary(op="and" | "or" as op, left=left, right=right):
                    if (op == "or") == when:  # either side decides
                        self.branch(left, target, when)
                        self.branch(right, target, when)
                    else:
                        skip = self.label("skip")
                        self.branch(left, skip, not when)
                        self.branch(right, target, when)
                        LABEL(skip)
                case model.Binary(op="in"):
                    self._jump(value, target, when, self._membership)
                case model.Binary(op="==" | "!=" as op) if not is_word(value.left.type):
                    self._jump(value, target, when == (op == "=="), self._sameness)
                case model.Binary(op=op) if op in _JUMPS:
                    self._operands(value)
                    CMP(rax, rcx)
                    _JUMPS[op][0 if when else 1](target)
                case _:
                    self.word(value)
                    TEST(eax, eax)
                    (JNZ if when else JZ)(target)

    def _jump(
        self, value: model.Binary, target: Label, when: bool, test: Callable[[model.Binary, Label], None]
    ) -> None:
        """`test` jumps to the label it is given if it holds, else it falls through."""
        if when:
            test(value, target)
            return
        held = self.label("held")
        test(value, held)
        JMP(target)
        LABEL(held)

    def _membership(self, value: model.Binary, found: Label) -> None:
        assert isinstance(value.right, model.Literal)
        assert isinstance(value.right.value, tuple)
        if is_word(value.left.type):
            self.word(value.left)
            for number in value.right.value:
                _constant(rcx, int(number))
                CMP(rax, rcx)
                JE(found)
            return
        slot = self.frame.slot(8)
        self.address(value.left)
        MOV([rsp + slot], rax)
        for item in value.right.value:
            load = self._loader(model.Literal(item, value.left.type, value.span))
            assert load is not None
            load(rsi)
            self._jump_if_same(value.left.type, slot, found)

    def _sameness(self, value: model.Binary, same: Label) -> None:
        left = self.frame.slot(8)
        self.address(value.left)
        MOV([rsp + left], rax)
        self.address(value.right)
        MOV(rsi, rax)
        self._jump_if_same(value.left.type, left, same)

    def _jump_if_same(self, type_: Type, left: int, same: Label) -> None:
        """Compares the digest or the bytes whose address is in a slot with those at RSI."""
        differs = self.label("differs")
        MOV(rdi, [rsp + left])
        if isinstance(type_, Digest):
            MOV(edx, DIGEST_SIZE)
        else:
            MOV(rdx, [rdi + SPAN_SIZE])
            CMP(rdx, [rsi + SPAN_SIZE])
            JNE(differs)
            MOV(rdi, [rdi])
            MOV(rsi, [rsi])
        CALL(Symbol("memcmp"))
        TEST(eax, eax)
        JE(same)
        LABEL(differs)

    def _operands(self, value: model.Binary) -> None:
        """RAX := left, RCX := right."""
        load = self._loader(value.right)
        if load is not None:
            self.word(value.left)
            load(rcx)
            return
        slot = self.frame.slot(8)
        self.word(value.left)
        MOV([rsp + slot], rax)
        self.word(value.right)
        MOV(rcx, rax)
        MOV(rax, [rsp + slot])

    def _arithmetic(self, value: model.Binary) -> None:
        self._operands(value)
        match value.op:
            case "+":
                ADD(rax, rcx)
                JC(self.error(value.error))
            case "-":
                SUB(rax, rcx)
                JC(self.error(value.error))
            case "*":
                MUL(rcx)
                JC(self.error(value.error))
            case "/" | "%":
                XOR(edx, edx)
                DIV(rcx)
                if value.op == "%":
                    MOV(rax, rdx)
            case "&":
                AND(rax, rcx)
            case "|":
                OR(rax, rcx)
            case "^":
                XOR(rax, rcx)
            case "<<" | ">>":
                (SHL if value.op == "<<" else SHR)(rax, cl)

    # ------------------------------------------------------------ addresses

    def _in_frame(self, value: Expression) -> int | None:
        """Displacement from RSP of a value that lies in the frame at a known place."""
        match value:
            case model.Variable(id=id_) if self.places[id_].kind is not Kind.POINTER:
                return self.places[id_].slot
            case model.FieldOf():
                base = self._in_frame(value.base)
                return None if base is None else base + value.offset
        return None

    def _loader(self, value: Expression) -> Callable[[Any], None] | None:
        """How to bring what needs no computing into any register: a word, or the address of the rest."""
        place = self._in_frame(value)
        match value:
            case model.Literal(value=str() as text):
                return _address_of(self.pool.span(text.encode()))
            case model.Literal(value=bytes() as content):
                digest = isinstance(value.type, Digest)
                return _address_of(self.pool.digest(content) if digest else self.pool.span(content))
            case model.Literal():
                number = value.number
                return lambda register: _constant(register, number)
            case model.RegionOf(name=name, carved=carved):
                region = self.context.region(name) if carved else self.pool.region(name)
                return lambda register: LEA(register, [region])
            case model.Variable(id=id_) if is_word(value.type) or self.places[id_].kind is Kind.POINTER:
                slot = self.places[id_].slot
                return lambda register: MOV(register, [rsp + slot])
        if place is not None and not is_word(value.type):
            return lambda register: LEA(register, [rsp + place])
        return None

    def address(self, value: Expression) -> None:
        """RAX := where the record, span or list is."""
        with at(value.span):
            load = self._loader(value)
            if load is not None:
                load(rax)
                return
            match value:
                case model.FieldOf():
                    self.address(value.base)
                    if value.offset:
                        ADD(rax, value.offset)
                case model.Index():
                    self._item(value)
                case model.Slice():
                    slot = self.frame.slot(16)
                    self._slice(value, slot)
                    LEA(rax, [rsp + slot])
                case model.Call():
                    slot = self.call(value, None)
                    LEA(rax, [rsp + slot])
                case model.Choice():
                    slot = self.new_slot(value.type)
                    self._choice(value, slot)
                    LEA(rax, [rsp + slot])

    def _choice(self, value: model.Choice, slot: int) -> None:
        """Evaluates the arm that the subject selects into a slot of the frame."""
        end = self.label("chosen")
        arms = [(arm, self.label("choose")) for arm in value.arms]
        self.word(value.subject)
        for arm, label in arms[:-1]:
            for number in arm.values:
                _constant(rcx, number)
                CMP(rax, rcx)
                JE(label)
        JMP(arms[-1][1])
        for arm, label in arms:
            LABEL(label)
            with self.frame.scope():
                self.store(arm.value, slot)
            JMP(end)
        LABEL(end)

    def _item(self, value: model.Index) -> None:
        """RAX := address of the item, after checking the index."""
        list_ = value.base.type
        assert isinstance(list_, model.ListOf)
        slot = self.frame.slot(8)
        base = self._argument(value.base)  # its calls come first
        self.word(value.index)
        MOV([rsp + slot], rax)
        base(rax)
        MOV(rcx, [rsp + slot])
        CMP(rcx, [rax])
        JAE(self.error(value.error))
        LFENCE()  # as TDF_BARRIER of runtime-c
        self.step_to_item(list_)

    def step_to_item(self, list_: model.ListOf) -> None:
        """RAX := address of item RCX of the list at RAX."""
        IMUL(rcx, rcx, self.size(list_.element))
        LEA(rax, [rax + rcx * 1 + items_offset(list_, self.firmware.records)])

    def _slice(self, value: model.Slice, slot: int) -> None:
        """Writes the span data[start .. end] to the frame, after checking start <= end <= size."""
        with at(value.span):
            start, end = self.frame.slot(8), self.frame.slot(8)
            base = self._argument(value.base)  # its calls come first
            self.word(value.start)
            MOV([rsp + start], rax)
            self.word(value.end)
            MOV([rsp + end], rax)
            base(rax)
            MOV(rcx, [rsp + start])
            MOV(rdx, [rsp + end])
            CMP(rdx, [rax + SPAN_SIZE])
            JA(self.error(value.error))
            SUB(rdx, rcx)
            JC(self.error(value.error))
            LFENCE()
            ADD(rcx, [rax])
            MOV([rsp + slot], rcx)
            MOV([rsp + slot + SPAN_SIZE], rdx)

    # ------------------------------------------------------------ calls

    def call(self, value: model.Call, slot: int | None) -> int:
        """Calls; returns the slot of the result. Without `propagate` the status stays in EAX."""
        with at(value.span):
            symbol, parameters, fallible = self._callee(value)
            has_result = not isinstance(value.type, Unit | Never)
            loaders = self._arguments(value, parameters)
            if has_result:
                slot = self.new_slot(value.type) if slot is None else slot
                out = slot
                loaders.append(lambda register: LEA(register, [rsp + out]))
                if is_word(value.type) and word_size(value.type) < 8:
                    MOV(rax, 0)  # the callee writes only the low bytes of the slot
                    MOV([rsp + slot], rax)
            if value.unless_empty:
                left_out = self.label("empty")
                loaders[0](rax)
                CMP(qword[rax + SPAN_SIZE], 0)
                JE(left_out)
            unfit = self._check_spans(value, loaders)
            if value.attempts > 1:
                again, left = self.label("again"), self.frame.slot(8)
                MOV(dword[rsp + left], value.attempts)
                LABEL(again)
            for register, load in zip(ARGUMENTS, loaders, strict=False):
                load(register)
            CALL(Symbol(symbol))
            if unfit is not None:  # the status is in EAX, as if the callee had said so
                label, error = unfit
                called = self.label("called")
                JMP(called)
                LABEL(label)
                MOV(eax, error)
                LABEL(called)
            if value.attempts > 1:
                done = self.label("done")
                TEST(eax, eax)
                JZ(done)
                SUB(dword[rsp + left], 1)
                JNZ(again)
                JMP(self.fail)
                LABEL(done)
            elif fallible and value.propagate:
                TEST(eax, eax)
                JNZ(self.fail)
            if value.unless_empty:
                LABEL(left_out)
            if isinstance(value.type, Never) and (value.propagate or not fallible):
                UD2()
            return slot if slot is not None else 0

    def _callee(self, value: model.Call) -> tuple[str, list[str | None], bool]:
        """Symbol, one entry for each parameter (the name of a state, or None), whether EAX is a status."""
        if value.is_flow:
            flow = self.firmware.flows[value.callee]
            return flow_symbol(flow.name), [None] * len(flow.parameters), returns_status(flow)
        primitive = self.firmware.primitives[value.callee]
        states = [parameter.name if parameter.state else None for parameter in primitive.parameters]
        return primitive_symbol(primitive), states, primitive.fallible

    def _check_spans(
        self, value: model.Call, loaders: list[Callable[[Any], None]]
    ) -> tuple[Label, int] | None:
        """Checks what is not known of the spans that a primitive needs. Without `propagate`, returns a label
        that is still to be placed, and the error that it stands for."""
        if value.is_flow:
            return None
        unfit: tuple[Label, int] | None = None
        primitive = self.firmware.primitives[value.callee]
        index = {parameter.name: i for i, parameter in enumerate(primitive.parameters)}
        for need in unchecked(value, primitive, self.firmware):
            if not value.propagate and unfit is None:
                unfit = (self.label("unfit"), need.error)
            target = self.error(need.error) if unfit is None else unfit[0]
            loaders[index[need.parameter]](rax)
            if need.other is None:
                MOV(ecx, need.minimum)
            else:
                loaders[index[need.other]](rcx)
                MOV(rcx, [rcx + SPAN_SIZE])
            CMP([rax + SPAN_SIZE], rcx)
            JB(target)
            if need.align > 1:
                MOV(rcx, [rax])
                OR(rcx, [rax + SPAN_SIZE])
                TEST(ecx, need.align - 1)
                JNZ(target)
            if need.within:
                MOV(rcx, [rax])
                LEA(rax, [rcx + need.minimum - 1])
                XOR(rax, rcx)
                SHR(rax, need.within.bit_length() - 1)
                JNZ(target)
            LFENCE()
        return unfit

    def _arguments(self, value: model.Call, parameters: list[str | None]) -> list[Callable[[Any], None]]:
        """Computes what needs computing into slots; returns how to load each argument."""
        given = iter(value.arguments)
        return [self._state(state) if state else self._argument(next(given)) for state in parameters]

    def _state(self, name: str) -> Callable[[Any], None]:
        symbol = Symbol(LAYOUT) if name == "layout" else self.context.state(name)
        return lambda register: LEA(register, [symbol])

    def _argument(self, value: Expression) -> Callable[[Any], None]:
        load = self._loader(value)
        if load is not None:
            return load
        slot = self.frame.slot(8)
        if is_word(value.type):
            self.word(value)
        else:
            self.address(value)
        MOV([rsp + slot], rax)
        return lambda register: MOV(register, [rsp + slot])


def returns_status(flow: model.Flow) -> bool:
    """Whether a flow hands its errors to its caller, as a status in EAX."""
    return flow.fallible and not flow.on_error_fatal


def _address_of(symbol: Symbol) -> Callable[[Any], None]:
    return lambda register: LEA(register, [symbol])


def _constant(register: Any, value: int) -> None:
    if 0 <= value < 1 << 32:
        MOV(register.as_dword, value)
    else:
        MOV(register, value)
