"""Were the steps taken that a primitive needs, and none twice? The order of steps as the prelude declares it,
and which RTMRs firmware may touch (T07)."""

from __future__ import annotations

from dsl import model
from dsl.effects import Effects, Mark, Step
from dsl.model import Provenance, Span
from dsl.rules.state import Object, State, Value, lowest, taken
from dsl.rules.trust import RECORDED, learn
from dsl.rules.values import ValueWalker
from dsl.rules.words import describe

UNTRUSTED, MEASURED, AUTHORISED = Provenance.UNTRUSTED, Provenance.MEASURED, Provenance.AUTHORISED
FIRMWARE_RTMRS = (0, 1)  # TD-shim specification and UEFI CC measurement: those with separators
# What an OS is started with may go beside what its own loader measures (Linux's EFI stub does).
MEASURED_RTMRS = (0, 1, 2)
TD_RTMRS = 4

Given = dict[str, tuple[Value, model.Expression]]  # what a call passes for each parameter


class StepRules(ValueWalker):
    """The rules on the steps of a single call. No step is known by name here."""

    def says(self, rule: str, step: Step, word: str, span: Span, **words: object) -> None:
        """Reports what the prelude says of a broken step."""
        message, hint = step.says(word, **words)  # type: ignore[arg-type]
        self.error(rule, span, message, hint, step.rule)

    def needs(self, effects: Effects, call: model.Call, state: State) -> None:
        for name in effects.needs:
            step = self.names.steps[name]
            numbers = FIRMWARE_RTMRS if step.numbered else (None,)
            missing = [n for n in numbers if not self.has(name, state.must, n) and self.first((name, n))]
            if missing:
                rtmrs = [n for n in missing if n is not None]
                self.says("missing step", step, "missing", call.span, call=call.callee, rtmrs=rtmrs)

    def before(self, effects: Effects, call: model.Call, state: State) -> None:
        for name in effects.before:
            if taken(name) in state.may and self.first(("late", name)):
                self.says("late step", self.names.steps[name], "late", call.span, call=call.callee)

    def needs_marks(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        for mark in effects.needs_marks:
            value, argument = given[mark.parameter]
            obj = value.object
            if self.assume or mark.step in self.program.suppressed.effects or obj is None:
                continue
            step = self.names.steps[mark.step]
            if "missing" in step.texts and mark.step not in state.must:
                if self.first((mark.step, None)):
                    self.says("missing step", step, "missing", call.span, call=call.callee)
                continue
            sakes = [sake for owner, made, sake in state.marks if (owner, made) == (obj.identity, mark.step)]
            if mark.relation is None or not sakes:
                if not sakes and self.first((mark.step, obj.identity)):
                    self.says("missing mark", step, "other", argument.span, argument=describe(argument))
                continue
            wanted, culprit = given[mark.relation]
            known = wanted.object is not None and wanted.object.identity in sakes
            if not known and self.first((mark.step, obj.identity)):
                self.says("missing mark", step, "unrelated", culprit.span, argument=describe(argument))

    def gives(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        for name, parameter in effects.gives:
            step = self.names.steps[name]
            number = self.rtmr(given[parameter], FIRMWARE_RTMRS) if parameter is not None else None
            if parameter is not None and number is None:
                continue
            if "repeated" in step.texts and taken(name, number) in state.may and not self.assume:
                rtmrs = [] if number is None else [number]
                self.says("repeated step", step, "repeated", call.span, call=call.callee, rtmrs=rtmrs)
            state.grant(taken(name, number))

    def abandons(self, call: model.Call, failed: State) -> None:
        """The flow goes on after `call` failed."""
        for step in self.names.steps.values():
            begun = step.name in failed.may and step.name not in self.program.suppressed.effects
            if begun and "abandoned" in step.texts:
                self.says("abandoned step", step, "abandoned", call.span, call=call.callee)

    def unmark(self, primitive: model.Primitive, given: Given, state: State) -> None:
        """A changed record is not the one that a step was taken for, by any of its names."""
        if changed := self.changed(primitive, given):
            state.marks = frozenset(
                (owner, step, sake)
                for owner, step, sake in state.marks
                if self.root(owner) not in changed and (sake is None or self.root(sake) not in changed)
            )

    def changed(self, primitive: model.Primitive, given: Given) -> set[object]:
        """The first names of the records that a call changes."""
        return {
            self.root(given[p.name][0].object)
            for p in primitive.parameters
            if p.mutable and not p.state and isinstance(p.type, model.RecordRef)
        }

    def failed(self, primitive: model.Primitive, given: Given, state: State) -> State:
        """What is known if the call fails behind its effects. If the VMM can refuse it, nothing records how
        far it got, and so how much of a record it changed."""
        state = state.copy()
        if any(error in self.names.refusals for error in primitive.errors):
            changed = self.changed(primitive, given)
            for name in [n for n in state.trust if self.root(n) in changed]:
                state.trust[name] = lowest(state.trust[name], UNTRUSTED)
        return state

    def root(self, named: object) -> object:
        """The first name of the object, or of the identity of one; of a part, that of the whole, in which it
        is looked at: a loop and a flow have an element by its address."""
        name = named.id if isinstance(named, Object) else named
        while isinstance(name, int) and (name in self.named_first or name in self.part_of):
            name = self.named_first[name] if name in self.named_first else self.part_of[name]
        return name

    def makes(self, marks: tuple[Mark, ...], given: Given, state: State) -> None:
        for mark in marks:
            obj = given[mark.parameter][0].object
            sake = given[mark.relation][0].object if mark.relation is not None else None
            if obj is not None and (mark.relation is None or sake is not None):
                state.marks |= {(obj.identity, mark.step, sake.identity if sake is not None else None)}

    # ---- what is signed

    def runs(self, effects: Effects, call: model.Call, given: Given) -> None:
        """What runs is authorised, if any flow of the firmware names what authorises."""
        for name in effects.runs if not self.assume else ():
            value, argument = given[name]
            steps = [self.names.steps[step] for step in sorted(self.anywhere)]
            for step in steps if value.trust.value < AUTHORISED.value else ():
                if "unsigned" in step.texts:
                    words = {"call": call.callee, "argument": describe(argument)}
                    self.says("unsigned", step, "unsigned", argument.span, **words)

    def authorise(self, effects: Effects, given: Given, state: State) -> None:
        for name in effects.authorises:
            value, _ = given[name]
            if value.object is not None and value.trust == MEASURED:
                state.trust[value.object.id] = AUTHORISED

    # ---- RTMRs

    def measure(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        for data, rtmr in effects.measures:
            number = self.rtmr(given[rtmr], MEASURED_RTMRS)
            for step in self.names.steps.values():
                late = "late" in step.texts and number is not None and taken(step.name, number) in state.may
                if late and self.first(("late", step.name, number)):
                    self.says("late step", step, "late", call.span, call=call.callee, rtmrs=[number])
            if number in state.optional and self.first(("optional", number)):
                message = f"RTMR[{number}] may lack its last event, and this event could take its place"
                hint = "measure optional bytes last; empty bytes can also be measured"
                self.error("optional", call.span, message, hint)
            if call.unless_empty and number is not None:
                state.optional |= {number}
                if number not in FIRMWARE_RTMRS:
                    message = f"RTMR[{number}] gets no separator: an event of the OS could take its place"
                    hint = "measure empty bytes too: leave `unless empty` out"
                    self.error("optional", call.span, message, hint)
            value, argument = given[data]
            if value.object is not None:
                state.logged_by |= set(value.object.found_by)
            if value.object is not None and value.trust in (UNTRUSTED, MEASURED):
                state.trust[value.object.id] = MEASURED
            elif value.object is None:
                learn(self, argument, RECORDED, state)

    def rtmr(self, given: tuple[Value, model.Expression], allowed: tuple[int, ...]) -> int | None:
        value, e = given
        if self.assume and value.constant is None:
            return None
        if not isinstance(value.constant, int):
            self.error(
                "rtmr", e.span, "the number of the RTMR must be a constant", "write `RTMR[0]` or `RTMR[1]`"
            )
        elif value.constant in allowed:
            return value.constant
        elif value.constant < TD_RTMRS:
            message = f"RTMR[{value.constant}] belongs to the OS"
            hint = "firmware measures into RTMR[0] to RTMR[2] and separates RTMR[0] and RTMR[1]"
            self.error("rtmr", e.span, message, hint)
        else:
            self.error("rtmr", e.span, f"there is no RTMR[{value.constant}]", "a TD has RTMR[0] to RTMR[3]")
        return None
