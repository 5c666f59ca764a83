"""May this call be made here? Checks arguments against their declared trust (T01 to T03), asks the rules on
steps and memory, and bounds the event log (T10)."""

from __future__ import annotations

from abc import abstractmethod

from dsl import model
from dsl.effects import Effects
from dsl.model import Bytes, Never, Parameter, Primitive, Provenance, RecordRef, Text, Unit
from dsl.rules.context import TRUSTED, Attempt
from dsl.rules.memory import MemoryRules
from dsl.rules.state import Frame, State, Value, highest, join
from dsl.rules.steps import UNTRUSTED, Given
from dsl.rules.trust import RECORDED, unrecorded
from dsl.rules.values import promised, size
from dsl.rules.words import a_word, bound_hint, describe, record_hint
from dsl.scope import Program, Signature
from dsl.sizes import is_word
from formats.units import KIB, PAGE, align_up

MEASURED, SHARED = Provenance.MEASURED, Provenance.SHARED


class CallRules(MemoryRules):
    """The rules of a single call."""

    def __init__(self, program: Program, disabled: frozenset[str] = frozenset()) -> None:
        super().__init__(program, disabled)
        self.log_areas: list[tuple[Value, model.Expression]] = []
        self.unsure_by: model.Call | None = None  # the refusal on which a state depends

    @abstractmethod
    def call_flow(self, call: model.Call, values: list[Value], state: State) -> tuple[State | None, Value]:
        """Walks the flow that is called; no state if it does not come back."""

    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        """Of a retry: the first attempt may fail anywhere, and one walk from there stands for all others."""
        if call.attempts == 1:
            return self.once(call, state)
        self.attempted.append(Attempt(len(self.doomed)))
        outer = self.frame
        self.frames[-1] = attempt = Frame(outer.signature, outer.number)
        self.once(call, state.copy())
        self.frames[-1] = outer
        again = join(state.copy(), attempt.failed)
        assert again is not None
        self.abandons(call, again)
        again.copied = state.copied  # what a failed attempt read is gone
        again.logged = state.logged + (again.logged - state.logged) * (call.attempts - 1)
        self.attempted[-1].steps.clear()
        result = self.once(call, again)
        self.attempted.pop()
        return result

    def once(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        after: State | None = state
        values = []
        for argument in call.arguments:
            if after is None:
                break
            after, value = self.value(argument, after)
            values.append(value)
        if after is None:
            return None, Value(TRUSTED)
        values = [self.now(value, after) for value in values]
        self.frame.argued = len(self.frame.doubts)
        if id(call) not in self.survivable:
            return self.made(call, values, after)
        self.survived.append([])
        result = self.made(call, values, after)
        self.survived.pop()
        return result

    def made(self, call: model.Call, values: list[Value], after: State) -> tuple[State | None, Value]:
        """The call itself, once its arguments have their values."""
        if call.is_flow:
            return self.call_flow(call, values, after)
        primitive = self.names.primitives[call.callee]
        effects = self.names.effects[primitive.name]
        parameters = tuple(p for p in primitive.parameters if not p.state)
        for value, parameter, argument in zip(values, parameters, call.arguments, strict=True):
            filled = parameter.type == Bytes() and (parameter.mutable or parameter.name in effects.writes)
            if filled:
                self.check_filled(value, parameter, argument, call, after)
            if not filled or value.trust == SHARED:
                self.check_trust(value, parameter, argument, call, after)
            self.check_size(value, parameter, argument, primitive, after)
        given = {p.name: (v, a) for p, v, a in zip(parameters, values, call.arguments, strict=True)}
        self.frame.fails(after if primitive.fallible else None)
        if isinstance(primitive.result, Never) and self.lost(after.logged_by, after):
            message = "the event log would contain an address that depends on bytes that no RTMR records"
            hint = "first measure the kernel whose header located the initrd"
            self.error("recorded place", call.span, message, hint)
        self.doubts(primitive, call, given, after)
        self.check_refusal(primitive, call, after)
        self.effects(primitive, effects, call, given, after)
        result = self.result(primitive, given, after)
        self.frame.fails(self.failed(primitive, given, after) if primitive.fallible else None)
        return (None if isinstance(primitive.result, Never) else after), result

    def effects(
        self, primitive: Primitive, effects: Effects, call: model.Call, given: Given, state: State
    ) -> None:
        """Asks for and notes what the prelude says that a primitive does."""
        self.needs(effects, call, state)
        self.before(effects, call, state)
        self.needs_marks(effects, call, given, state)
        self.limits(effects, given)
        self.measure(effects, call, given, state)
        self.runs(effects, call, given)
        self.authorise(effects, given, state)
        self.log(effects, call, given, state)
        self.write(primitive, effects, call, given, state)
        self.read_shared(primitive, given, state)
        self.gives(effects, call, given, state)
        self.unmark(primitive, given, state)
        self.makes(effects.makes, given, state)

    # ---- trust of arguments: T01, T02, T03

    def check_trust(
        self, value: Value, parameter: Parameter, argument: model.Expression, call: model.Call, state: State
    ) -> None:
        if value.trust.value >= parameter.provenance.value:
            return
        wanted = Value(parameter.provenance)
        have, want = value.trust.name.lower(), wanted.trust.name.lower()
        name = describe(argument)
        plain = name.strip("`") if isinstance(argument, model.Variable | model.RegionOf) else "x"
        takes = f"`{parameter.name}` of `{call.callee}` takes a {want} number"
        if value.trust == SHARED:
            hint = f"copy it into private memory once: `let copy = copy_in(buffer, {plain})?`"
            message = f"{name} is shared with the VMM, `{call.callee}` would read it in place"
            if parameter.mutable:
                hint = "share it once, outside of every `retry`" if self.attempted else "pass other memory"
                message = f"{name} is shared with the VMM, `{call.callee}` works in private memory"
            self.distrust("shared argument", argument, wanted, state, message, hint)
        elif is_word(parameter.type) and not value.recorded:
            culprit = describe(unrecorded(self, argument) or argument)
            message = f"{culprit} was chosen by the VMM and no RTMR records it, {takes}"
            hint = record_hint(argument, value.bounded or wanted.trust != TRUSTED)
            self.distrust("recorded argument", argument, wanted, state, message, hint)
        elif is_word(parameter.type):
            message = f"{name} is {have}, {takes}"
            self.distrust("bounded argument", argument, wanted, state, message, bound_hint(argument))
        elif value.object is not None and state.trust[value.object.id].value >= wanted.trust.value:
            self.unplaced("measured argument", argument, wanted, state)
        else:
            takes = f"{a_word(want)} record" if isinstance(parameter.type, RecordRef) else f"{want} bytes"
            message = f"{name} is {have}, `{parameter.name}` of `{call.callee}` takes {takes}"
            hint = f"measure it first: `measure {plain} into {self.kind_of(value)}`"
            if isinstance(parameter.type, RecordRef):
                hint = "pass what a parser made of measured bytes; no write and no refused call may change it"
            elif want == "authorised":
                hint = self.authorise_hint()
            elif want == "trusted":
                hint = "pass a memory region of the firmware, or the result of a parser of the bytes"
            self.distrust("measured argument", argument, wanted, state, message, hint)

    def unplaced(self, rule: str, e: model.Expression, wanted: Value, state: State) -> None:
        message = f"the address of {describe(e)} depends on bytes that no RTMR records"
        self.distrust(rule, e, wanted, state, message, f"also measure the bytes that locate {describe(e)}")

    def check_filled(
        self, value: Value, parameter: Parameter, argument: model.Expression, call: model.Call, state: State
    ) -> None:
        """The address of bytes that a step fills matters, their content does not."""
        if value.object is not None and self.lost(value.object.found_by, state):
            self.unplaced("recorded place", argument, RECORDED, state)
        self.check_shared(value, parameter, argument, call, state)

    def check_shared(
        self, value: Value, parameter: Parameter, argument: model.Expression, call: model.Call, state: State
    ) -> None:
        """What counts as shared is, all of it and on every path: a callee asks the VMM to write there."""
        if parameter.provenance != SHARED or value.object is None:
            return
        known = self.assume or all(place.within(state.shared) for place in value.object.places)
        is_shared = value.trust == SHARED and known
        if not is_shared and self.first((SHARED, self.root(value.object))):
            message = f"{describe(argument)} is private, `{call.callee}` asks the VMM to write there"
            hint = "share it first: `let window = share(region, td)?`"
            self.error("shared argument", argument.span, message, hint)

    def check_size(
        self,
        value: Value,
        parameter: Parameter,
        argument: model.Expression,
        primitive: Primitive,
        state: State,
    ) -> None:
        """What is not to be measured or parsed for its end has a size that is recorded."""
        measured = [data for data, _ in self.names.effects[primitive.name].measures]
        part = {
            **self.names.extents,
            **self.names.same_trust,
        }  # the result has the trust of what it is made of
        free = parameter.name in measured or primitive.name in part or self.assume
        if free or parameter.type != Bytes() or value.trust == SHARED or size(value).recorded:
            return
        message = f"no RTMR records the size of {describe(argument)}, on which `{primitive.name}` depends"
        self.distrust("recorded size", argument, RECORDED, state, message, record_hint(argument))

    def check_refusal(self, primitive: Primitive, call: model.Call, state: State) -> None:
        """T01: no step is taken or not as the VMM likes."""
        effects = self.names.effects[primitive.name]
        changes = any(p.mutable and not p.state and p.type != Bytes() for p in primitive.parameters)
        steps = effects.steps or effects.measures or effects.writes or changes
        survived = [refusal for refusals in self.survived for refusal in refusals]
        for cause in [*self.refusals, *survived][-1:]:
            state.unsure |= {p.name for p in primitive.parameters if p.state and p.mutable}
            self.unsure_by = cause
        if not effects.measures:  # a step that was refused was not taken; a register may lack its event
            survived = [refusal for refusal in survived if refusal is not call]
        causes = [*self.refusals, *survived]
        if causes[-1:] == [call] and steps:
            message = f"the flow goes on if the VMM makes `{call.callee}` fail, and another event could"
            hint = "let every handler of that error end with `fail`"
            self.error("refusal", call.span, f"{message} take the place of the missing one", hint)
        elif causes and (steps or isinstance(primitive.result, Never)):
            self.refused(call.span, f"whether `{call.callee}` is called", causes[-1])
        if steps:
            self.taken_in_attempt(call)

    def doubts(self, primitive: Primitive, call: model.Call, given: Given, state: State) -> None:
        """What that is unrecorded may make the primitive fail."""
        measured = [data for data, _ in self.names.effects[primitive.name].measures]
        refusals = [error for error in primitive.errors if error in self.names.refusals]
        for name, (value, argument) in given.items():
            reads = primitive.name in self.names.extents or value.object is None
            seen = value.recorded or value.trust == SHARED or not reads
            known = seen and (value.object is None or size(value).recorded)
            if not known and name not in measured and len(refusals) < len(primitive.errors):
                self.doubted(argument)
        unsure = state.unsure & {p.name for p in primitive.parameters if p.state}
        if unsure and self.unsure_by is not None and len(refusals) < len(primitive.errors):
            self.doubted(self.unsure_by)
        if refusals:
            self.refusable(call)

    def kind_of(self, value: Value) -> str:
        """How bytes of that origin are usually measured."""
        roots = {p.root for p in value.object.places} if value.object is not None else set()
        kinds = {s.kind for s in self.program.sections.values() if s.name in roots}
        if "Payload" in kinds:
            return 'RTMR[1] as blob("...")'
        return f'RTMR[{int("PayloadParam" in kinds)}] as platform_config("...")'

    def check_result(self, value: Value, signature: Signature, e: model.Expression) -> None:
        if value.trust.value >= signature.result_provenance.value:
            return
        code = "T02" if value.trust == SHARED else "T03" if value.recorded else "T01"
        have, want = value.trust.name.lower(), signature.result_provenance.name.lower()
        hint = "check it"
        if want == "authorised" and value.trust != SHARED:
            code, hint = "T11" if value.recorded else "T01", self.authorise_hint()
        message = f"{describe(e)} is {have}, `{signature.name}` promises {a_word(want)} result"
        self.error("result", e.span, message, f"{hint}, or declare `-> {have} ...`", code)

    def authorise_hint(self) -> str:
        """How bytes become authorised."""
        makers = [each for each, effects in self.names.effects.items() if effects.authorises]
        return f"measure it, then authorise it: `{makers[0]}(...)?`" if makers else "nothing here is"

    # ---- sizes: T10

    def limits(self, effects: Effects, given: Given) -> None:
        for name, limit in effects.limits:
            value, argument = given[name]
            if not isinstance(value.constant, str):
                if not self.assume:
                    self.error(
                        "log text",
                        argument.span,
                        f"`{name}` goes to the event log and must be a constant text",
                    )
            elif len(value.constant) > limit:
                message = f"`{name}` has {len(value.constant)} bytes, its event has room for {limit}"
                self.error("log text", argument.span, message, "shorten it")

    def log(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        cost = effects.log_bytes
        for name in effects.log_sizes:
            value, argument = given[name]
            if isinstance(value.constant, str):
                cost += len(value.constant)
            elif value.object is not None and value.object.size_limit is not None:
                cost += value.object.size_limit
            elif not self.assume:
                message = f"the largest size of {describe(argument)} is unknown, and it goes to the event log"
                self.error("log size", argument.span, message, "slice it: `x[0 .. LIMIT]`")
        state.logged += cost
        self.worst = max(self.worst, state.logged)
        self.log_areas += [given[name] for name in effects.log_areas]
        if cost:  # the event lies in the log, which is not what it was
            areas = tuple(p for v, _ in self.log_areas if v.object is not None for p in v.object.places)
            self.apart_from_log(areas, effects, call, given)
            state.lower(areas, UNTRUSTED, self.places)

    def finish(self, flow: model.Flow) -> None:
        """After the entry flow: does the log hold what can come?"""
        if self.assume:
            return
        for value, argument in self.log_areas:
            place = value.object.place if value.object is not None else None
            if place is None:
                message = f"the size of {describe(argument)} is not known at build time"
                self.error("log room", argument.span, message, "log into a whole region")
            elif place.end is None:
                continue  # BFV: that it is written at all is reported
            elif place.end - place.start < self.worst:
                have = place.end - place.start
                need = align_up(self.worst, PAGE) // KIB
                message = f"the event log can take {self.worst} bytes, {describe(argument)} has {have}"
                self.error(
                    "log room",
                    argument.span,
                    message,
                    f"give it {need} KiB, or log less: `blob` logs no data",
                )

    # ---- results

    def result(self, primitive: Primitive, given: Given, state: State) -> Value:
        giver = self.names.same_trust.get(primitive.name)
        if giver is not None:
            asked = next(p.provenance for p in primitive.parameters if p.name == giver)
            return Value(highest(self.now(given[giver][0], state).trust, asked))  # less was reported
        if is_word(primitive.result) or isinstance(primitive.result, Unit | Never | Text):
            return promised(primitive.result, primitive.result_provenance)
        objects = [v.object for v, _ in given.values() if v.object is not None]
        sizes = [t.size_limit for t in objects]
        known = [s for s in sizes if s is not None]
        size_limit = max(known) if known and len(known) == len(sizes) else None
        of = self.names.extents.get(primitive.name)
        if of is not None:
            value = given[of][0]
            if value.object is not None:
                places = tuple(p.bounds() for p in value.object.places)
                others = [v.object for name, (v, _) in given.items() if name != of and v.object is not None]
                located = (name for other in others for name in (other.id, *other.found_by))
                found_by = (*value.object.found_by, *located)  # what located one, located this
                bounds = (value.object.size_limit, self.names.limits.get(primitive.name))
                limit = min((n for n in bounds if n is not None), default=None)
                # With others it begins further on, where a header was found, or was not.
                return self.new_value(state, value.trust, places, limit, False, found_by, bool(others))
        if primitive.result_provenance == UNTRUSTED and primitive.result != Bytes():  # the VMM's, of any size
            return self.new_value(state, UNTRUSTED, self.unknown_place(), None)
        said = primitive.result == Bytes() and primitive.result_provenance == UNTRUSTED  # by who filled them
        sized = not said and all(size(v).recorded for v, _ in given.values() if v.object is not None)
        filled = [p.name for p in primitive.parameters if p.mutable and p.type == Bytes() and not p.state]
        source = [v.object for n in filled for v in [given[n][0]] if v.object is not None]
        limits = [obj.size_limit for obj in source if obj.size_limit is not None]
        if limits and primitive.result == Bytes():  # it is in what was filled
            size_limit = max(limits) if len(limits) == len(source) else None
        if len(source) == len(known) == 1:  # all of it, as `share` gives it
            return self.new_value(state, primitive.result_provenance, source[0].places, size_limit, sized)
        places = tuple({p.bounds() for obj in source or objects for p in obj.places})
        return self.new_value(
            state, primitive.result_provenance, places or self.unknown_place(), size_limit, sized
        )
