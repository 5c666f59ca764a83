"""May this memory be written or read here? What steps write stays as they left it, and shared memory is read
once (T02, T05, T06)."""

from __future__ import annotations

from dsl import model
from dsl.effects import Effects
from dsl.model import Bytes, Primitive, Provenance
from dsl.rules.state import Place, State, Use, lowest, overlap
from dsl.rules.steps import UNTRUSTED, Given, StepRules
from dsl.rules.words import bytes_text, describe
from formats.units import MIB

SHARED = Provenance.SHARED


class MemoryRules(StepRules):
    """The rules on the memory that a single call touches."""

    def write(
        self, primitive: Primitive, effects: Effects, call: model.Call, given: Given, state: State
    ) -> None:
        """What a step fills must stay, and so must what it then points to. Whatever else is called so, a
        measured command line for one, is not what it was."""
        kept: set[Use] = set()
        written: list[Place] = []
        result = primitive.result_provenance
        for parameter in primitive.parameters:
            if parameter.state:
                continue
            value, argument = given[parameter.name]
            places = value.object.places if value.object is not None else ()
            fills = parameter.name in effects.writes
            if parameter.type != Bytes() or not (fills or parameter.mutable):
                kept |= {Use(place, call.callee, reads=True) for place in places}
                if parameter.mutable:
                    state.lower(places, parameter.provenance, self.places)
                continue
            may_write = [self.writable(place, argument, call) for place in places]
            if all(may_write):
                self.spans(parameter.name, effects, call, given)
            for place in places:
                if result == SHARED and not self.shareable(place, argument):
                    result = UNTRUSTED  # what was said is enough
                elif result == SHARED:
                    state.shared |= {place} if place.exact and len(places) == 1 else set()
                if parameter.name in effects.keeps:
                    self.survives(place, argument)
            if self.undisturbed(places, argument, effects, call, state):
                self.no_overlap(parameter.name, given, call)
            if fills:
                kept |= {Use(place, call.callee) for place in places}
            written += places
        if effects.writes:
            state.used |= kept
        state.lower(tuple(written), lowest(UNTRUSTED, result), self.places)

    def undisturbed(
        self,
        places: tuple[Place, ...],
        argument: model.Expression,
        effects: Effects,
        call: model.Call,
        state: State,
    ) -> bool:
        steps = (self.names.steps[step] for step, _ in effects.gives)
        said = {call.callee} if any("repeated" in step.texts for step in steps) else set()
        for use in sorted(state.used, key=lambda u: (u.reads, u.by)):
            if any(use.place.overlaps(p) for p in places) and use.by not in said:
                message = f"{describe(argument)} already holds the output of `{use.by}`"
                if use.reads:
                    message = f"{describe(argument)} holds an argument of `{use.by}`, which must not change"
                self.error("write over", argument.span, message, "give each step a region of its own")
                return False
        return True

    def no_overlap(self, written: str, given: Given, call: model.Call) -> None:
        """What a step reads is not what it writes over while it reads."""
        value, argument = given[written]
        for name, (other, culprit) in given.items():
            if name == written or value.object is None or other.object is None:
                continue
            if overlap(value.object.places, other.object.places):
                message = f"`{call.callee}` writes to {describe(argument)}, which holds its `{name}`"
                self.error("write overlap", culprit.span, message, "give each argument memory of its own")

    def apart_from_log(
        self, log: tuple[Place, ...], effects: Effects, call: model.Call, given: Given
    ) -> None:
        """Bytes of the log that are copied into it would not be those that were hashed."""
        for data in effects.log_sizes:
            value, argument = given[data]
            if value.object is not None and overlap(value.object.places, log):
                message = f"`{call.callee}` copies {describe(argument)} to the log, where it lies itself"
                hint = "measure it as `blob(...)`, which copies nothing"
                self.error("write overlap", argument.span, message, hint)

    def spans(self, written: str, effects: Effects, call: model.Call, given: Given) -> None:
        """Is what a step writes to large enough, and where it can be? What is not known here is checked when
        the call is made, and the call fails."""
        value, argument = given[written]
        for need in (n for n in effects.spans if n.parameter == written):
            obj = value.object
            place = obj.place if obj is not None else None
            if obj is None:
                continue
            wanted = need.minimum
            if need.other is not None:
                other = given[need.other][0].object
                source = other.place if other is not None else None
                wanted = source.end - source.start if source is not None and source.end is not None else 0
            start = place.start if place is not None else 0
            size = place.end - place.start if place is not None and place.end is not None else None
            largest = obj.size_limit if size is None else size
            if largest is not None and largest < wanted:
                message = f"{describe(argument)} has {bytes_text(largest)}, `{call.callee}` needs"
                message = f"{message} {bytes_text(wanted)} there"
                self.error("span", argument.span, message, "give it a region that is large enough")
            elif start % need.align or (size or 0) % need.align:
                message = f"`{call.callee}` needs whole multiples of {bytes_text(need.align)},"
                end = "" if size is None else f" to 0x{start + size:X}"
                message = f"{message} {describe(argument)} reaches from 0x{start:X}{end}"
                self.error("span", argument.span, message, "give it a whole region")
            elif place is not None and place.exact:
                self.in_one_block(need, place, argument, call)

    def in_one_block(
        self, need: model.SpanNeed, place: Place, argument: model.Expression, call: model.Call
    ) -> None:
        """Of a section the address is known; where a memory region goes, `plan_memory` sees to it."""
        declared = self.declared(place)
        if not need.within or not isinstance(declared, model.ImageSection) or declared.address is None:
            return
        first = declared.address + place.start
        if first // need.within != (first + need.minimum - 1) // need.within:
            message = f"`{call.callee}` needs {bytes_text(need.minimum)} in one block of"
            message = f"{message} {need.within // MIB} MiB, {describe(argument)} begins at 0x{first:X}"
            self.error("span", argument.span, message, "place it elsewhere, or take a memory region")

    def declared(self, place: Place) -> model.ImageSection | model.MemoryRegion | None:
        if not isinstance(place.root, str):
            return None
        return self.program.sections.get(place.root) or self.program.regions.get(place.root)

    def shareable(self, place: Place, argument: model.Expression) -> bool:
        """Whether nothing was said against it."""
        declared = self.declared(place)
        if declared is None or declared.e820 == "reserved":
            return True
        message = f"{describe(argument)} is `{declared.e820}` to the OS, which would use it as private memory"
        return not self.error(
            "share reserved", argument.span, message, "declare it `reserved`: it stays shared"
        )

    def survives(self, place: Place, argument: model.Expression) -> None:
        """Linux maps private what an E820 calls ACPI or NVS; shared with the VMM what it calls reserved."""
        declared = self.declared(place)
        if declared is None or declared.access != "rw" or declared.e820 in ("acpi", "nvs"):
            return
        fate = "will overwrite it" if declared.e820 == "ram" else "maps that shared with the VMM"
        message = f"{describe(argument)} is `{declared.e820}` to the OS, which {fate}"
        self.error("kept", argument.span, message, "declare it `acpi` or `nvs`")

    def writable(self, place: Place, argument: model.Expression, call: model.Call) -> bool:
        declared = self.declared(place)
        section = declared if isinstance(declared, model.ImageSection) else None
        if isinstance(place.root, bytes):
            message = f"`{call.callee}` writes to {describe(argument)}, which is a constant of the image"
            self.error("write rw", argument.span, message, "pass a region")
            return False
        if declared is not None and declared.access != "rw":
            message = f"`{call.callee}` writes to {describe(argument)}, which is mapped `{declared.access}`"
            self.error("write rw", argument.span, message, "only `rw` memory can be written")
            return False
        if section is not None and section.kind != "TempMem":
            message = f"`{call.callee}` would write over `{section.name}` ({section.kind})"
            self.error("write loaded", argument.span, message, "use TempMem or a memory region")
            return False
        if declared is None and not self.assume:  # files, ids of CPUs: nobody said what it is to the OS
            message = f"`{call.callee}` writes to {describe(argument)}, which is no region of the firmware"
            self.error("write loaded", argument.span, message, "use TempMem or a memory region")
            return False
        return True

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
