"""How does a flow become a function? Statements over its expressions, one error target for each flow."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CALL,
    CMP,
    JAE,
    JE,
    JMP,
    JNZ,
    LABEL,
    LFENCE,
    MOV,
    TEST,
    UD2,
    XOR,
    Label,
    al,
    ax,
    byte,
    eax,
    ecx,
    edi,
    qword,
    rax,
    rcx,
    rdi,
    rsi,
)

from dsl import model
from dsl.model import Firmware, Flow, Never, Statement, Type
from dsl.sizes import is_word, word_size
from gen.flow.context import Context
from gen.flow.expression import ARGUMENTS, ExpressionEmitter, returns_status
from gen.flow.frame import Frame
from gen.flow.names import FATAL_STATUS, flow_symbol
from gen.flow.place import Kind, Place, at
from gen.flow.pool import Pool
from gen.x86 import REP_MOVSB, Symbol, Unit, rsp


def emit_flow(unit: Unit, firmware: Firmware, flow: Flow, context: Context, pool: Pool) -> None:
    """Adds the function of a flow to the unit."""
    symbol = flow_symbol(flow.name)
    frame = Frame()
    with unit.code(symbol, section=f".text.{symbol}"):
        _FlowEmitter(firmware, context, pool, frame, flow).function()
    frame.close()


class _FlowEmitter(ExpressionEmitter):
    def __init__(self, firmware: Firmware, context: Context, pool: Pool, frame: Frame, flow: Flow) -> None:
        super().__init__(firmware, context, pool, frame)
        self.flow = flow
        self.out: int | None = None
        self.done = Label("done")

    def function(self) -> None:
        with at(self.flow.span):
            self._prologue()
        self.block(self.flow.body)
        with at(self.flow.span):
            self._ends()

    def _prologue(self) -> None:
        self.frame.open()
        parameters = self.flow.parameters
        has_out = not isinstance(self.flow.result, model.Unit | Never)
        for register, parameter in zip(ARGUMENTS, parameters, strict=False):
            kind = Kind.WORD if is_word(parameter.type) else Kind.POINTER
            slot = self.frame.slot(8)
            self.places[parameter.id] = Place(kind, slot)
            if kind is Kind.WORD and word_size(parameter.type) < 8:
                # The ABI leaves the upper half of a narrow argument undefined.
                MOV(rax, register)
                self._truncate(parameter.type)
                MOV([rsp + slot], rax)
            else:
                MOV([rsp + slot], register)
        if has_out:
            self.out = self.frame.slot(8)
            MOV([rsp + self.out], ARGUMENTS[len(parameters)])

    def _ends(self) -> None:
        """Falling off the end, the common return, and the error target."""
        if isinstance(self.flow.result, Never):
            UD2()
        else:
            LABEL(self.done)
            if returns_status(self.flow):
                XOR(eax, eax)
            self.frame.leave()
        for number, label in sorted(self.errors.items()):
            LABEL(label)
            MOV(eax, number)
            JMP(self.fail)
        LABEL(self.fail)
        if returns_status(self.flow):
            self.frame.leave()
        else:
            MOV(edi, eax)
            CALL(Symbol(FATAL_STATUS))
            UD2()

    # ------------------------------------------------------------ statements

    def block(self, statements: tuple[Statement, ...]) -> None:
        with self.frame.scope():
            for statement in statements:
                self._statement(statement)

    def _statement(self, statement: Statement) -> None:
        if isinstance(statement, model.Let):
            place = self._declare(statement.variable)  # before the scope: lives as long as the block
            with self.frame.scope(), at(statement.span):
                self.store(statement.value, place.slot)
            return
        with self.frame.scope(), at(statement.span):
            match statement:
                case model.Assign():
                    self.word(statement.value)
                    MOV([rsp + self.places[statement.variable.id].slot], rax)
                case model.Do():
                    self._do(statement.value)
                case model.If():
                    self._if(statement)
                case model.Match():
                    self._match(statement)
                case model.Try():
                    self._try(statement)
                case model.For():
                    self._for(statement)
                case model.Return():
                    self._return(statement)
                case model.Fail():
                    JMP(self.error(statement.error))

    def _declare(self, variable: model.Variable) -> Place:
        if is_word(variable.type):
            place = Place(Kind.WORD, self.frame.slot(8))
        else:
            place = Place(Kind.INLINE, self.new_slot(variable.type))
        self.places[variable.id] = place
        return place

    def _do(self, value: model.Expression) -> None:
        if isinstance(value, model.Call):
            self.call(value, None)
        elif is_word(value.type):
            self.word(value)
        else:
            self.address(value)

    def _if(self, statement: model.If) -> None:
        otherwise, end = self.label("else"), self.label("endif")
        self.branch(statement.condition, otherwise, when=False)
        self.block(statement.then)
        if statement.otherwise:
            JMP(end)
        LABEL(otherwise)
        if statement.otherwise:
            self.block(statement.otherwise)
            LABEL(end)

    def _match(self, statement: model.Match) -> None:
        end = self.label("endmatch")
        self.word(statement.subject)
        arms = [(arm, self.label("arm")) for arm in statement.arms]
        default: Label | None = None
        for arm, label in arms:
            if not arm.values:
                default = label
            for value in arm.values:
                MOV(rcx, value)
                CMP(rax, rcx)
                JE(label)
        if default is not None:
            JMP(default)
        else:
            UD2()  # no such member: every value has an arm, so this is memory corruption
        for arm, label in arms:
            LABEL(label)
            self.block(arm.body)
            JMP(end)
        LABEL(end)

    def _try(self, statement: model.Try) -> None:
        handlers, end = self.label("handlers"), self.label("endtry")
        slot = self._declare(statement.variable).slot if statement.variable else None
        self.call(statement.call, slot)
        TEST(eax, eax)
        JNZ(handlers)
        self.block(statement.body)
        JMP(end)
        LABEL(handlers)
        labels = [(handler, self.label("on")) for handler in statement.handlers]
        for handler, label in labels:
            for number in handler.errors:
                CMP(eax, number)
                JE(label)
            if not handler.errors:
                JMP(label)
        JMP(self.fail)
        for handler, label in labels:
            LABEL(label)
            self.block(handler.body)
            JMP(end)
        LABEL(end)

    def _for(self, statement: model.For) -> None:
        list_ = statement.items.type
        assert isinstance(list_, model.ListOf)
        items, count, index = self.frame.slot(8), self.frame.slot(8), self.frame.slot(8)
        top, end = self.label("for"), self.label("endfor")
        self.address(statement.items)
        MOV([rsp + items], rax)
        MOV(rcx, [rax])
        MOV([rsp + count], rcx)
        MOV(qword[rsp + index], 0)
        LABEL(top)
        MOV(rcx, [rsp + index])
        CMP(rcx, [rsp + count])
        JAE(end)
        LFENCE()
        ADD(qword[rsp + index], 1)
        MOV(rax, [rsp + items])
        self.step_to_item(list_)
        self._bind(statement.variable)
        self.block(statement.body)
        JMP(top)
        LABEL(end)

    def _bind(self, variable: model.Variable) -> None:
        """The loop variable, from the item at RAX: a record by its address, everything else by value."""
        if is_word(variable.type):
            place = Place(Kind.WORD, self.frame.slot(8))
            self.load(variable.type, rax)
            MOV([rsp + place.slot], rax)
        elif isinstance(variable.type, model.RecordRef):
            place = Place(Kind.POINTER, self.frame.slot(8))
            MOV([rsp + place.slot], rax)
        else:
            place = Place(Kind.INLINE, self.new_slot(variable.type))
            self.copy_to_slot(variable.type, place.slot)
        self.places[variable.id] = place

    def _return(self, statement: model.Return) -> None:
        value = statement.value
        if value is not None and self.out is not None:
            if is_word(value.type):
                self.word(value)
                MOV(rcx, [rsp + self.out])
                _store_word(self.flow.result)
            else:
                self.address(value)
                MOV(rsi, rax)
                MOV(rdi, [rsp + self.out])
                MOV(ecx, self.size(value.type))
                REP_MOVSB()
        elif value is not None:
            self._do(value)
        if not isinstance(self.flow.result, Never):
            JMP(self.done)


def _store_word(type_: Type) -> None:
    """The word in RAX to [RCX], as wide as its type."""
    match word_size(type_):
        case 1:
            MOV(byte[rcx], al)
        case 2:
            MOV([rcx], ax)
        case 4:
            MOV([rcx], eax)
        case _:
            MOV([rcx], rax)
