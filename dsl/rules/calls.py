"""May this call be made here? Checks arguments against their declared trust (T01 to T03) and the steps that a
primitive needs, takes and ends against those taken before (T04 to T07, T09, T10)."""

from __future__ import annotations

from dataclasses import replace

from dsl import model
from dsl.declare import Effects
from dsl.model import Bytes, EnumRef, Never, Parameter, Primitive, Provenance, Scalar, Span, Text, Unit
from dsl.rules.state import RTMRS, Place, State, Value
from dsl.rules.values import TRUSTED, ValueWalker, bound_hint, describe
from dsl.scope import Program, Signature

UNTRUSTED, MEASURED, SHARED = Provenance.UNTRUSTED, Provenance.MEASURED, Provenance.SHARED
FIRMWARE_RTMRS = (
    0,
    1,
)  # TD-shim specification and UEFI CC measurement: 2 and 3 belong to the OS and its applications

# Which rule a missing or repeated step breaks, what is said of it, and what to do.
MISSING = {
    "log": (
        "T01",
        "the event log, which is not started on every path to here",
        "call `start_log(event_log)?` first",
    ),
    "accepted": ("T04", "RAM, which is not accepted on every path to here", "`accept` the RAM plan first"),
    "parked": (
        "T09",
        "the APs parked, which they are not on every path to here",
        "`park aps on REGION` first",
    ),
}
REPEATED = {
    "log": ("T01", "the event log may already be started, its events would be lost", "start it once"),
    "plan": ("T06", "there may already be a RAM plan, and two plans overlap", "make one plan and pass it on"),
    "accepted": ("T04", "RAM may already be accepted, and no page is accepted twice", "accept it once"),
    "parked": ("T09", "the APs may already be parked", "park them once"),
}


class CallRules(ValueWalker):
    """The rules of a single call."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.log_areas: list[tuple[Value, model.Expression]] = []

    def note_granted(self, step: str) -> None:
        raise NotImplementedError

    def call_flow(self, call: model.Call, values: list[Value], state: State) -> tuple[State | None, Value]:
        raise NotImplementedError

    def call(self, call: model.Call, state: State) -> tuple[State | None, Value]:
        after: State | None = state
        values = []
        for argument in call.arguments:
            if after is None:
                break
            after, value = self.value(argument, after)
            values.append(value)
        if after is None:
            return None, Value(TRUSTED)
        if call.is_flow:
            return self.call_flow(call, values, after)
        primitive = self.names.primitives[call.callee]
        effects = self.names.effects[primitive.name]
        parameters = tuple(p for p in primitive.parameters if not p.state)
        for value, parameter, argument in zip(values, parameters, call.arguments, strict=True):
            filled = parameter.type == Bytes() and (parameter.mutable or parameter.name in effects.writes)
            if not filled or value.trust == SHARED:
                self.check_trust(value, parameter, argument, call, after)
        given = {p.name: (v, a) for p, v, a in zip(parameters, values, call.arguments, strict=True)}
        self.needs(effects, call, given, after)
        self.limits(effects, given)
        self.measure_and_separate(effects, call, given, after)
        self.log(effects, call, given, after)
        self.write(primitive, effects, call, given, after)
        self.read_shared(parameters, given, after)
        for step in effects.gives:
            self.give(step, call.span, after)
        for name in effects.accepts:
            thing = given[name][0].thing
            after.plans |= {thing.id} if thing is not None else set()
        if isinstance(primitive.result, Never):
            return None, Value(TRUSTED)
        return after, self.result(primitive, given, after)

    # ---- trust of arguments: T01, T02, T03

    def check_trust(
        self, value: Value, parameter: Parameter, argument: model.Expression, call: model.Call, state: State
    ) -> None:
        if value.trust.value >= parameter.provenance.value:
            return
        wanted = parameter.provenance
        have, want = value.trust.name.lower(), wanted.name.lower()
        name, plain = describe(argument), describe(argument).strip("`")
        if value.trust == SHARED:
            hint = f"copy it into private memory once: `let x = copy_in(buffer, {plain})?`"
            message = f"{name} is shared with the VMM, `{call.callee}` would read it in place"
            self.distrust("T02", argument, wanted, state, message, hint)
        elif isinstance(parameter.type, Scalar | EnumRef):
            hint = bound_hint(argument)
            message = f"{name} is {have}, `{parameter.name}` of `{call.callee}` takes a {want} number"
            self.distrust("T03", argument, wanted, state, message, hint)
        else:
            message = f"{name} is {have}, `{parameter.name}` of `{call.callee}` takes {want} bytes"
            simple = isinstance(argument, model.Variable | model.RegionOf)
            hint = f"measure it first: `measure {plain if simple else 'x'} into {self.kind_of(value)}`"
            if want == "trusted":
                hint = "pass a memory region of the firmware, or what a parser made of the bytes"
            self.distrust("T01", argument, wanted, state, message, hint)

    def kind_of(self, value: Value) -> str:
        """How bytes of that origin are usually measured."""
        root = value.thing.place.root if value.thing is not None else ""
        section = self.program.sections.get(root) if isinstance(root, str) else None
        if section is not None and section.kind == "Payload":
            return 'RTMR[1] as blob("...")'
        return (
            f'RTMR[{int(section is not None and section.kind == "PayloadParam")}] as platform_config("...")'
        )

    def check_result(self, value: Value, signature: Signature, e: model.Expression) -> None:
        if value.trust.value >= signature.result_provenance.value:
            return
        code = (
            "T02"
            if value.trust == SHARED
            else "T03"
            if isinstance(signature.result, Scalar | EnumRef)
            else "T01"
        )
        have, want = value.trust.name.lower(), signature.result_provenance.name.lower()
        message = f"{describe(e)} is {have}, `{signature.name}` promises a {want} result"
        self.error(code, e.span, message, f"check it, or declare `-> {have} ...`")

    # ---- order of steps: T01 (log), T04, T07, T09

    def needs(
        self,
        effects: Effects,
        call: model.Call,
        given: dict[str, tuple[Value, model.Expression]],
        state: State,
    ) -> None:
        for step in effects.needs:
            if step == "separated":
                if self.has("separated", state.must):
                    continue
                open_ = [n for n in FIRMWARE_RTMRS if RTMRS[n] not in state.must and self.first(("open", n))]
                if open_:
                    which = " and ".join(f"RTMR[{n}]" for n in open_)
                    hint = f"`separate {', '.join(f'RTMR[{n}]' for n in open_)}` before it"
                    self.error(
                        "T07", call.span, f"{which} has no separator on every path to this handoff", hint
                    )
            elif not self.has(step, state.must):
                code, what, hint = MISSING[step]
                if self.first(step):
                    self.error(code, call.span, f"`{call.callee}` needs {what}", hint)
            elif step == "accepted" and not effects.accepts and not self.assume:
                self.same_plan(call, given, state)

    def same_plan(
        self, call: model.Call, given: dict[str, tuple[Value, model.Expression]], state: State
    ) -> None:
        plans = {
            p.type
            for e, x in self.names.effects.items()
            for p in self.names.primitives[e].parameters
            if p.name in x.accepts
        }
        for value, argument in given.values():
            if argument.type in plans and value.thing is not None and value.thing.id not in state.plans:
                if "accepted" in self.program.waived.effects:
                    continue
                message = f"{describe(argument)} is not the RAM plan that was accepted"
                if self.first(("plan", value.thing.id)):
                    self.error("T04", argument.span, message, "pass the plan that `accept` took")

    def give(self, step: str, span: Span, state: State) -> None:
        if step in state.may and not self.assume:
            code, message, hint = REPEATED[step]
            self.error(code, span, message, hint)
        state.grant(step)
        self.note_granted(step)

    def measure_and_separate(
        self,
        effects: Effects,
        call: model.Call,
        given: dict[str, tuple[Value, model.Expression]],
        state: State,
    ) -> None:
        for data, rtmr in effects.measures:
            number = self.rtmr(given[rtmr])
            if number is not None and RTMRS[number] in state.may and self.first(("closed", number)):
                hint = "measure before `separate`"
                self.error(
                    "T07",
                    call.span,
                    f"RTMR[{number}] may already have its separator, nothing is measured after it",
                    hint,
                )
            value = given[data][0]
            if value.thing is not None and value.trust in (UNTRUSTED, MEASURED):
                state.trust[value.thing.id] = MEASURED
        for rtmr in effects.separates:
            number = self.rtmr(given[rtmr])
            if number is None:
                continue
            if RTMRS[number] in state.may:
                self.error(
                    "T07",
                    call.span,
                    f"RTMR[{number}] may already have its separator",
                    "separate it once, outside of loops",
                )
            state.grant(RTMRS[number])
            self.note_granted(RTMRS[number])

    def rtmr(self, given: tuple[Value, model.Expression]) -> int | None:
        value, e = given
        if not isinstance(value.constant, int):
            self.error("T07", e.span, "which RTMR it is must be a constant", "write `RTMR[0]` or `RTMR[1]`")
        elif value.constant in FIRMWARE_RTMRS:
            return value.constant
        elif value.constant < len(RTMRS):
            self.error(
                "T07",
                e.span,
                f"RTMR[{value.constant}] belongs to the OS",
                "firmware measures into RTMR[0] and RTMR[1]",
            )
        else:
            self.error("T07", e.span, f"there is no RTMR[{value.constant}]", "a TD has RTMR[0] to RTMR[3]")
        return None

    # ---- memory: T02, T05, T06

    def write(
        self,
        primitive: Primitive,
        effects: Effects,
        call: model.Call,
        given: dict[str, tuple[Value, model.Expression]],
        state: State,
    ) -> None:
        for parameter in primitive.parameters:
            fills = parameter.name in effects.writes
            if parameter.state or parameter.type != Bytes() or not (fills or parameter.mutable):
                continue
            value, argument = given[parameter.name]
            place = value.thing.place if value.thing is not None else self.unknown_place()
            self.writable(place, argument, call)
            for other, writer in state.written:
                if other.overlaps(place) and not (effects.gives and writer == call.callee):
                    message = f"{describe(argument)} already holds what `{writer}` wrote there"
                    self.error("T06", argument.span, message, "give each step a region of its own")
                    break
            if fills:
                state.written |= {(place, call.callee)}
            elif isinstance(primitive.result, Bytes):
                state.lower(place, primitive.result_provenance, self.places)

    def writable(self, place: Place, argument: model.Expression, call: model.Call) -> None:
        section = self.program.sections.get(place.root) if isinstance(place.root, str) else None
        region = self.program.regions.get(place.root) if isinstance(place.root, str) else None
        declared = section or region
        if declared is not None and declared.access != "rw":
            message = f"`{call.callee}` writes to {describe(argument)}, which is mapped `{declared.access}`"
            self.error("T05", argument.span, message, "only `rw` memory can be written")
        elif section is not None and section.kind != "TempMem":
            message = f"`{call.callee}` would write over `{section.name}` ({section.kind})"
            self.error("T06", argument.span, message, "use TempMem or a memory region")

    def read_shared(
        self,
        parameters: tuple[Parameter, ...],
        given: dict[str, tuple[Value, model.Expression]],
        state: State,
    ) -> None:
        for parameter in parameters:
            value, argument = given[parameter.name]
            if parameter.provenance != SHARED or value.trust != SHARED or value.thing is None:
                continue
            place = value.thing.place
            if any(place.overlaps(before) for before in state.copied):
                message = (
                    f"{describe(argument)} is read a second time: the VMM may have changed it in between"
                )
                self.error("T02", argument.span, message, "use the private copy that the first read made")
            state.copied |= {place}

    # ---- sizes: T10

    def limits(self, effects: Effects, given: dict[str, tuple[Value, model.Expression]]) -> None:
        for name, most in effects.limits:
            value, argument = given[name]
            if not isinstance(value.constant, str):
                self.error(
                    "T10", argument.span, f"`{name}` goes to the event log and must be a constant text"
                )
            elif len(value.constant) > most:
                message = f"`{name}` has {len(value.constant)} bytes, its event has room for {most}"
                self.error("T10", argument.span, message, "shorten it")

    def log(
        self,
        effects: Effects,
        call: model.Call,
        given: dict[str, tuple[Value, model.Expression]],
        state: State,
    ) -> None:
        cost = effects.log_bytes
        for name in effects.log_sizes:
            value, argument = given[name]
            if isinstance(value.constant, str):
                cost += len(value.constant)
            elif value.thing is not None and value.thing.most is not None:
                cost += value.thing.most
            elif not self.assume:
                message = f"how large {describe(argument)} can get is not known, and it goes to the event log"
                self.error("T10", argument.span, message, "slice it: `x[0 .. LIMIT]`")
        state.logged += cost
        self.worst = max(self.worst, state.logged)
        if "log" in effects.gives:
            for name in effects.writes:
                value, argument = given[name]
                self.log_areas.append((value, argument))

    def finish(self, flow: model.Flow) -> None:
        """After the entry flow: does the log hold what can come?"""
        if self.assume:
            return
        for value, argument in self.log_areas:
            place = value.thing.place if value.thing is not None else Place(0)
            if place.end is None and place.exact:
                continue  # BFV: that it is written at all is reported
            if place.end is None or not place.exact:
                message = f"the size of {describe(argument)} is not known at build time"
                self.error("T10", argument.span, message, "log into a whole region")
            elif place.end - place.start < self.worst:
                have = place.end - place.start
                need = -(-self.worst // 4096) * 4
                message = f"the event log can take {self.worst} bytes, {describe(argument)} has {have}"
                self.error(
                    "T10", argument.span, message, f"give it {need} KiB, or log less: `blob` logs no data"
                )

    # ---- results

    def result(
        self, primitive: Primitive, given: dict[str, tuple[Value, model.Expression]], state: State
    ) -> Value:
        if isinstance(primitive.result, Scalar | EnumRef | Unit | Never | Text):
            return Value(primitive.result_provenance)
        things = [v.thing for v, _ in given.values() if v.thing is not None]
        sizes = [t.most for t in things]
        known = [s for s in sizes if s is not None]
        most = max(known) if known and len(known) == len(sizes) else None
        of = self.names.extents.get(primitive.name)
        if of is not None:
            value = given[of][0]
            if value.thing is not None:
                place = replace(value.thing.place, exact=False)
                return self.new_value(state, value.trust, place, value.thing.most)
        filled = [p.name for p in primitive.parameters if p.mutable and p.type == Bytes() and not p.state]
        place = self.unknown_place()
        source = [given[n][0].thing for n in filled] or (things if len(things) == 1 else [])
        if source and source[0] is not None:
            bounds = source[0].place
            place = replace(bounds, exact=bounds.exact and primitive.result == Bytes() and not known[1:])
        return self.new_value(state, primitive.result_provenance, place, most)
