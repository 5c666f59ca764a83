"""May this call be made here? Checks arguments against their declared trust (T01 to T03) and the steps that a
primitive needs, takes and ends against those taken before (T04 to T07, T09, T10)."""

from __future__ import annotations

from abc import abstractmethod

from dsl import model
from dsl.declare import Effects
from dsl.model import Bytes, EnumRef, Never, Parameter, Primitive, Provenance, Scalar, Span, Text, Unit
from dsl.rules.context import TRUSTED
from dsl.rules.state import RTMRS, Place, State, Use, Value
from dsl.rules.values import ValueWalker
from dsl.rules.words import bound_hint, describe
from dsl.scope import Program, Signature

UNTRUSTED, MEASURED, SHARED = Provenance.UNTRUSTED, Provenance.MEASURED, Provenance.SHARED
FIRMWARE_RTMRS = (0, 1)  # TD-shim specification and UEFI CC measurement: 2 and 3 belong to the OS

Given = dict[str, tuple[Value, model.Expression]]  # what a call passes for each parameter

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
# The same for an object that a step needs to be marked by another.
UNMARKED = {
    "accepted": ("T04", "is not the RAM plan that was accepted", "pass the plan that `accept` took"),
    "parked": ("T09", "is not the mailbox that the APs watch", "pass the region of `park aps on REGION`"),
    "loaded": ("T08", "is not loaded on every path to here", "`load_linux(...)?` first"),
    "filled": ("T08", "is not filled on every path to here", "`zero_page(...)?` first"),
}
ENTERED = "entered"  # the step of a handoff: what it opened stays open if it fails


class CallRules(ValueWalker):
    """The rules of a single call."""

    def __init__(self, program: Program, disabled: frozenset[str] = frozenset()) -> None:
        super().__init__(program, disabled)
        self.log_areas: list[tuple[Value, model.Expression]] = []

    @abstractmethod
    def call_flow(self, call: model.Call, values: list[Value], state: State) -> tuple[State | None, Value]:
        """Walks the flow that is called; no state if it does not come back."""

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
        values = [self.now(value, after) for value in values]
        self.frame.argued = len(self.frame.doubts)
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
        self.frame.fails(after if primitive.fallible else None)
        self.effects(primitive, effects, call, given, after)
        result = self.result(primitive, given, after)
        if isinstance(primitive.result, Never):
            after.may |= {ENTERED}
        self.frame.fails(after if primitive.fallible else None)
        return (None if isinstance(primitive.result, Never) else after), result

    def effects(
        self, primitive: Primitive, effects: Effects, call: model.Call, given: Given, state: State
    ) -> None:
        """Asks for and notes what the prelude says that a primitive does."""
        self.needs(effects, call, state)
        self.needs_marks(effects, call, given, state)
        self.limits(effects, given)
        self.measure_and_separate(effects, call, given, state)
        self.log(effects, call, given, state)
        self.write(primitive, effects, call, given, state)
        self.read_shared(primitive, given, state)
        for step in effects.gives:
            self.give(step, call.span, state)
        for name, mark in effects.makes:
            obj = given[name][0].object
            state.marks |= {(obj.identity, mark)} if obj is not None else set()

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
            self.distrust("shared argument", argument, wanted, state, message, hint)
        elif isinstance(parameter.type, Scalar | EnumRef):
            hint = bound_hint(argument)
            message = f"{name} is {have}, `{parameter.name}` of `{call.callee}` takes a {want} number"
            self.distrust("number argument", argument, wanted, state, message, hint)
        else:
            message = f"{name} is {have}, `{parameter.name}` of `{call.callee}` takes {want} bytes"
            simple = isinstance(argument, model.Variable | model.RegionOf)
            hint = f"measure it first: `measure {plain if simple else 'x'} into {self.kind_of(value)}`"
            if want == "trusted":
                hint = "pass a memory region of the firmware, or what a parser made of the bytes"
            self.distrust("measured argument", argument, wanted, state, message, hint)

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
        code = (
            "T02"
            if value.trust == SHARED
            else "T03"
            if isinstance(signature.result, Scalar | EnumRef)
            else "T01"
        )
        have, want = value.trust.name.lower(), signature.result_provenance.name.lower()
        message = f"{describe(e)} is {have}, `{signature.name}` promises a {want} result"
        self.error("result", e.span, message, f"check it, or declare `-> {have} ...`", code)

    # ---- order of steps: T01 (log), T04, T07, T09

    def needs(self, effects: Effects, call: model.Call, state: State) -> None:
        for step in effects.needs:
            if self.has(step, state.must):
                continue
            if step != "separated":
                code, what, hint = MISSING[step]
                if self.first(step):
                    self.error("missing step", call.span, f"`{call.callee}` needs {what}", hint, code)
                continue
            open_ = [n for n in FIRMWARE_RTMRS if RTMRS[n] not in state.must and self.first(("open", n))]
            if open_:
                which = " and ".join(f"RTMR[{n}]" for n in open_)
                hint = f"`separate {', '.join(f'RTMR[{n}]' for n in open_)}` before it"
                message = f"not every path to this handoff separates {which}"
                self.error("separated", call.span, message, hint)

    def needs_marks(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        for name, mark in effects.needs_marks:
            value, argument = given[name]
            if self.assume or mark in self.program.suppressed.effects or value.object is None:
                continue
            if mark in MISSING and mark not in state.must:
                code, what, hint = MISSING[mark]
                if self.first(mark):
                    self.error("missing step", call.span, f"`{call.callee}` needs {what}", hint, code)
            elif (value.object.identity, mark) not in state.marks and self.first(
                (mark, value.object.identity)
            ):
                code, what, hint = UNMARKED[mark]
                self.error("missing mark", argument.span, f"{describe(argument)} {what}", hint, code)

    def give(self, step: str, span: Span, state: State) -> None:
        if step in state.may and not self.assume:
            code, message, hint = REPEATED[step]
            self.error("repeated step", span, message, hint, code)
        state.grant(step)

    def measure_and_separate(self, effects: Effects, call: model.Call, given: Given, state: State) -> None:
        for data, rtmr in effects.measures:
            number = self.rtmr(given[rtmr])
            if number is not None and RTMRS[number] in state.may and self.first(("closed", number)):
                hint = "measure before `separate`"
                self.error(
                    "measure late",
                    call.span,
                    f"RTMR[{number}] may already have its separator, nothing is measured after it",
                    hint,
                )
            value, argument = given[data]
            if value.object is not None and value.trust in (UNTRUSTED, MEASURED):
                state.trust[value.object.id] = MEASURED
            elif value.trust == UNTRUSTED and isinstance(argument, model.Variable):
                state.trust[self.key(argument)] = MEASURED
        for rtmr in effects.separates:
            number = self.rtmr(given[rtmr])
            if number is None:
                continue
            if RTMRS[number] in state.may:
                self.error(
                    "separate once",
                    call.span,
                    f"RTMR[{number}] may already have its separator",
                    "separate it once, outside of loops",
                )
            state.grant(RTMRS[number])

    def rtmr(self, given: tuple[Value, model.Expression]) -> int | None:
        value, e = given
        if self.assume and value.constant is None:
            return None
        if not isinstance(value.constant, int):
            self.error("rtmr", e.span, "which RTMR it is must be a constant", "write `RTMR[0]` or `RTMR[1]`")
        elif value.constant in FIRMWARE_RTMRS:
            return value.constant
        elif value.constant < len(RTMRS):
            self.error(
                "rtmr",
                e.span,
                f"RTMR[{value.constant}] belongs to the OS",
                "firmware measures into RTMR[0] and RTMR[1]",
            )
        else:
            self.error("rtmr", e.span, f"there is no RTMR[{value.constant}]", "a TD has RTMR[0] to RTMR[3]")
        return None

    # ---- memory: T02, T05, T06

    def write(
        self, primitive: Primitive, effects: Effects, call: model.Call, given: Given, state: State
    ) -> None:
        """What a step fills must stay, and so must what it then points to; what it only changes is worth no
        more than what it put there."""
        kept: set[Use] = set()
        for parameter in primitive.parameters:
            if parameter.state:
                continue
            value, argument = given[parameter.name]
            places = value.object.places if value.object is not None else ()
            fills = parameter.name in effects.writes
            if parameter.type != Bytes() or not (fills or parameter.mutable):
                kept |= {Use(place, call.callee, reads=True) for place in places}
                continue
            for place in places:
                self.writable(place, argument, call)
                if primitive.result_provenance == SHARED:
                    self.shareable(place, argument)
                if parameter.name in effects.keeps:
                    self.survives(place, argument)
            self.undisturbed(places, argument, effects, call, state)
            if fills:
                kept |= {Use(place, call.callee) for place in places}
            elif isinstance(primitive.result, Bytes):
                state.lower(places, primitive.result_provenance, self.places)
        if effects.writes:
            state.used |= kept

    def undisturbed(
        self,
        places: tuple[Place, ...],
        argument: model.Expression,
        effects: Effects,
        call: model.Call,
        state: State,
    ) -> None:
        for use in sorted(state.used, key=lambda u: (u.reads, u.by)):
            if any(use.place.overlaps(p) for p in places) and not (effects.gives and use.by == call.callee):
                message = f"{describe(argument)} already holds what `{use.by}` wrote there"
                if use.reads:
                    message = f"{describe(argument)} holds what `{use.by}` was given, which must not change"
                self.error("write over", argument.span, message, "give each step a region of its own")
                return

    def declared(self, place: Place) -> model.ImageSection | model.MemoryRegion | None:
        if not isinstance(place.root, str):
            return None
        return self.program.sections.get(place.root) or self.program.regions.get(place.root)

    def shareable(self, place: Place, argument: model.Expression) -> None:
        declared = self.declared(place)
        if declared is not None and declared.e820 != "reserved":
            message = (
                f"{describe(argument)} is `{declared.e820}` to the OS, which would take it for private memory"
            )
            self.error("share reserved", argument.span, message, "declare it `reserved`: it stays shared")

    def survives(self, place: Place, argument: model.Expression) -> None:
        """Linux maps private what an E820 calls ACPI or NVS; shared with the VMM what it calls reserved."""
        declared = self.declared(place)
        if declared is None or declared.access != "rw" or declared.e820 in ("acpi", "nvs"):
            return
        fate = "will overwrite it" if declared.e820 == "ram" else "maps that shared with the VMM"
        message = f"{describe(argument)} is `{declared.e820}` to the OS, which {fate}"
        self.error("kept", argument.span, message, "declare it `acpi` or `nvs`")

    def writable(self, place: Place, argument: model.Expression, call: model.Call) -> None:
        declared = self.declared(place)
        section = declared if isinstance(declared, model.ImageSection) else None
        if declared is not None and declared.access != "rw":
            message = f"`{call.callee}` writes to {describe(argument)}, which is mapped `{declared.access}`"
            self.error("write rw", argument.span, message, "only `rw` memory can be written")
        elif section is not None and section.kind != "TempMem":
            message = f"`{call.callee}` would write over `{section.name}` ({section.kind})"
            self.error("write loaded", argument.span, message, "use TempMem or a memory region")

    def read_shared(self, primitive: Primitive, given: Given, state: State) -> None:
        for parameter in primitive.parameters:
            if parameter.state or parameter.provenance != SHARED:
                continue
            value, argument = given[parameter.name]
            if value.trust != SHARED or value.object is None:
                continue
            if any(place.overlaps(before) for place in value.object.places for before in state.copied):
                message = (
                    f"{describe(argument)} is read a second time: the VMM may have changed it in between"
                )
                self.error(
                    "read once", argument.span, message, "use the private copy that the first read made"
                )
            state.copied |= set(value.object.places)

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
                message = f"how large {describe(argument)} can get is not known, and it goes to the event log"
                self.error("log size", argument.span, message, "slice it: `x[0 .. LIMIT]`")
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
            place = value.object.place if value.object is not None else None
            if place is None:
                message = f"the size of {describe(argument)} is not known at build time"
                self.error("log room", argument.span, message, "log into a whole region")
            elif place.end is None:
                continue  # BFV: that it is written at all is reported
            elif place.end - place.start < self.worst:
                have = place.end - place.start
                need = -(-self.worst // 4096) * 4
                message = f"the event log can take {self.worst} bytes, {describe(argument)} has {have}"
                self.error(
                    "log room",
                    argument.span,
                    message,
                    f"give it {need} KiB, or log less: `blob` logs no data",
                )

    # ---- results

    def result(self, primitive: Primitive, given: Given, state: State) -> Value:
        if isinstance(primitive.result, Scalar | EnumRef | Unit | Never | Text):
            return Value(primitive.result_provenance)
        objects = [v.object for v, _ in given.values() if v.object is not None]
        sizes = [t.size_limit for t in objects]
        known = [s for s in sizes if s is not None]
        size_limit = max(known) if known and len(known) == len(sizes) else None
        of = self.names.extents.get(primitive.name)
        if of is not None:
            for value, argument in given.values():
                if value.trust.value < MEASURED.value:
                    self.frame.doubts.append(argument)
            value = given[of][0]
            if value.object is not None:
                places = tuple(p.bounds() for p in value.object.places)
                return self.new_value(state, value.trust, places, value.object.size_limit)
        filled = [p.name for p in primitive.parameters if p.mutable and p.type == Bytes() and not p.state]
        source = [v.object for n in filled for v in [given[n][0]] if v.object is not None]
        if len(source) == len(known) == 1:  # all of it, as `share` gives it
            return self.new_value(state, primitive.result_provenance, source[0].places, size_limit)
        places = tuple({p.bounds() for obj in source or objects for p in obj.places})
        return self.new_value(state, primitive.result_provenance, places or self.unknown_place(), size_limit)
