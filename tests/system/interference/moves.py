"""How does somebody break a rule on purpose? Changes of a flow, each aimed at some rules of dsl.rules.table.

The campaign makes them all: what the compiler then refuses is changed as its hints say, and what it accepts
lies close to the border. With a rule taken out, the changes that are aimed at it come first.
"""

from __future__ import annotations

import re

from dsl.model import Bytes, RecordRef
from interference.expressions import CONSTANTS, Impossible
from interference.order_moves import OrderMoves
from interference.scope import Place, block_of, inserted, replaced

TAKES_OBJECTS = ("zero_page", "acpi_tables", "handoff_linux", "load_linux", "place_linux")
TAKES_OBJECTS += ("payload_hobs", "handoff_executable", "load_executable", "place_executable")


class Moves(OrderMoves):
    """Changes that break a rule on steps, the event log or paths unless a hint is followed."""

    # ---- steps

    def drop(self) -> str:
        """A step is not taken."""
        return self.without(self.pick(self.lines_of("step")))

    def again(self) -> str:
        """A step is taken once more."""
        line = self.pick(self.lines_of("once"))
        new = self.statement(line)
        if new[0].startswith("let"):
            new[0] = re.sub(r"^let \w+", f"let {self.maker.name()}", new[0])
        return inserted(self.text, self.place(after=line).line, new)

    def other_object(self) -> str:
        """A step is given an object of the right type that it was not taken for."""
        types = (*map(RecordRef, ("Ram", "Placement", "Linux", "Executable")), Bytes())
        able = self.arguments(lambda s: s.type in types and s.callee in TAKES_OBJECTS)
        if not able:
            raise Impossible
        site = self.random.choice(able)
        if site.type == Bytes():
            others = [m.name for m in self.maker.firmware.memory]
            return replaced(self.text, site.span, self.random.choice(others))
        name, old = self.maker.name(), self.written(site)
        made = re.search(rf"let {old} = (.+)", self.text)
        if made is None:
            raise Impossible
        text = replaced(self.text, site.span, name)
        line = made[1].split("//")[0].rstrip()
        line = line.replace("initrd", '""') if self.maker.chance(0.5) else line
        at = self.text[: made.start()].count("\n") + 2
        return inserted(text, self.place(site.span.line, at - 1).line, [f"let {name} = {line}"])

    def second_kernel(self) -> str:
        """Another kernel than the one that is handed over is placed, loaded, or described."""
        place = self.place()
        scope = dict(place.scope)
        rams = [n for n, t in scope.items() if t == RecordRef("Ram")]
        if rams and self.lines_of(r"payload_hobs\b"):
            return self.second_executable(place, rams[-1])
        if not rams or not self.lines_of(r"zero_page\b"):
            raise Impossible
        image, kernel, other = (self.maker.name() for _ in range(3))
        lines = [
            f"let {image} = linux_extent({self.random.choice(('scratch', 'private', 'payload'))})?",
            f'measure {image} into RTMR[1] as blob("e2")',
            f"let {kernel} = parse_linux({image})?",
            f"let {other} = place_linux({kernel}, {self.random.choice(CONSTANTS)}, {rams[-1]})?",
        ]
        text = self.text
        users = self.arguments(lambda s: s.type == RecordRef("Placement"))
        for site in sorted(users, key=lambda s: -s.span.line):
            if site.span.line >= place.line and self.maker.chance(0.5):
                text = replaced(text, site.span, other)
        return inserted(text, place.line, lines)

    def second_executable(self, place: Place, ram: str) -> str:
        """The same for an executable; it may be of other bytes."""
        names = [n for n, t in place.scope if t == Bytes()] + ["payload", "scratch"]
        file, other = self.maker.name(), self.maker.name()
        lines = [
            f"let {file} = executable_extent({self.random.choice(names)})?",
            *([f'measure {file} into RTMR[1] as blob("e2")'] if self.maker.chance(0.7) else []),
            f"let {other} = place_executable({file}, {ram})?",
        ]
        text = self.text
        for site in sorted(
            self.arguments(lambda s: s.type == RecordRef("Executable")), key=lambda s: -s.span.line
        ):
            if site.span.line >= place.line and self.maker.chance(0.5):
                text = replaced(text, site.span, other)
        return inserted(text, place.line, lines)

    def not_verified(self) -> str:
        """What runs is not what was verified, or no longer is."""
        line = self.pick(self.lines_of(r"verify_signed\b"))
        signed = re.match(r"verify_signed\((\w+), (\w+),", self.statement(line)[0])
        if signed is None:
            raise Impossible
        image, region = signed.groups()
        roll = self.random.random()
        if roll < 0.3:
            able = self.arguments(
                lambda s: s.type == Bytes() and s.span.line > line and self.written(s) == image
            )
            if not able:
                raise Impossible
            others = (region, f"signed_payload({region})?", f"{region}[48 .. {region}.size]", "scratch")
            return replaced(self.text, self.random.choice(able).span, self.random.choice(others))
        if roll < 0.5:
            window = self.maker.name()
            target = self.random.choice((image, region, f"{image}[0 .. 8]"))
            copy = f"let {self.maker.name()} = copy_in({target}, {window}[0 .. 8])?"
            return inserted(self.text, line + 1, [f"let {window} = share(bounce, td)?", copy])
        if roll < 0.9:
            return self.without(line)
        later = self.place(after=line).line
        return inserted(self.without(line), later - 1, self.statement(line))

    def anchor(self) -> str:
        """A trust anchor is named, and nothing is signed."""
        place = self.place()
        files = [name for name, kind in place.scope if kind == Bytes()]
        if not files or "trust_anchor" in self.text:
            raise Impossible
        text = self.text.replace("uses ", "uses secure_boot, ", 1)
        name = self.maker.name()
        return inserted(text, place.line, [f"let {name} = trust_anchor({self.random.choice(files)})?"])

    def late(self) -> str:
        """Something is measured after the separator."""
        line = self.pick(self.lines_of("measure"))
        after = self.pick(self.lines_of(r"separate\b"))
        if self.maker.chance(0.5):
            return inserted(self.text, self.place(after=after).line, self.maker.measure((), 0))
        lines = self.statement(line)
        return inserted(self.text, self.place(after=after).line, lines)

    def early(self) -> str:
        """Memory is used, or named, before there is RAM to use."""
        line = self.pick(self.lines_of(r"(accept|let \w+ = plan_memory)\b"))
        if self.maker.chance(0.6):
            site = self.random.choice(self.arguments(self.is_filled))
            old, name = self.written(site), self.maker.name()
            text = self.text
            for other in sorted(self.arguments(lambda s: s.type == Bytes()), key=lambda s: -s.span.column):
                if self.written(other) == old and other.span.line > line:
                    text = replaced(text, other.span, name)
            return inserted(text, self.place(before=line).line, [f"let {name} = {old}"])
        region = self.random.choice([m.name for m in self.maker.firmware.memory])
        new = self.random.choice(
            (
                f'measure {region} into RTMR[1] as blob("e3")',
                f"let {self.maker.name()} = u8_at({region}, 0)?",
                f'let {self.maker.name()} = {region}[0 .. 8] == "x"',
            )
        )
        return inserted(self.text, self.place(before=line).line, [new])

    def failed_handoff(self) -> str:
        """A handoff that failed is not the end."""
        line = self.pick(self.lines_of("handoff"))
        call = self.statement(line)[0].removeprefix("handoff ")
        again = [f"try handoff_{call} {{", '    print "."', "} on _ {", '    print "."', "}"]
        return inserted(self.text, line, again)

    def register(self) -> str:
        """A register that is not the firmware's."""
        line = self.pick(self.lines_of(r"(measure|separate)\b"))
        lines = self.text.split("\n")
        lines[line - 1] = re.sub(
            r"RTMR\[\d\]", f"RTMR[{self.random.choice((2, 3))}]", lines[line - 1], count=1
        )
        if lines[line - 1].strip().startswith("separate") or self.maker.chance(0.5):
            return inserted(self.text, line + 1, [lines[line - 1].strip()])
        return "\n".join(lines)

    # ---- the event log

    def name_event(self) -> str:
        """An event has a long name, or one that is not constant."""
        line = self.pick(self.lines_of("measure"))
        lines = self.text.split("\n")
        long = "n" * self.random.choice((17, 40, 255, 300))
        lines[line - 1] = re.sub(r'"\w+"', f'"{long}"', lines[line - 1], count=1)
        return "\n".join(lines)

    def log_much(self) -> str:
        """An event with much data, or of a size that is not known."""
        place = self.place()
        kind = self.random.choice(("platform_config", "platform_config", "blob"))
        known = [n for n, t in place.scope if t == Bytes()] + list(self.maker.sizes)
        parts = [n for n in self.maker.named(Bytes(), place.scope) if "." in n]  # of some no size is known
        what = self.random.choice([*known, *parts * 2])
        lines = [
            f'measure {what} into RTMR[1] as {kind}("e{n}")' for n in range(self.random.choice((1, 2, 6)))
        ]
        return inserted(self.text, place.line, lines)

    # ---- paths

    def falls_off(self) -> str:
        """A path has no end."""
        line = self.pick(self.lines_of("handoff"))
        if self.maker.chance(0.5):
            return self.without(line)
        lines = self.text.split("\n")
        block = block_of(lines, line - 1)
        inner = [each.strip() for each in lines[block.start : block.stop]]
        condition = self.random.choice(
            ("td.attributes & 1 == 0", "command_line.size > 4", "vmm.tables.count > 0")
        )
        left = "\n".join(lines[: block.start] + lines[block.stop :])
        return inserted(left, line, [f"if {condition} {{", *("    " + each for each in inner), "}"])

    def verdict(self) -> str:
        """A flow says yes or no, and nobody listens."""
        place = self.place()
        flow, name = self.maker.name(), self.maker.name()
        self.maker.flows += [f"flow {flow}(p0: VpInfo) -> bool {{", "    return p0.attributes & 1 == 0", "}"]
        return inserted(self.text, place.line, [f"let {name} = {flow}(td)"])

    def dead(self) -> str:
        """A statement that is never reached."""
        line = self.pick(self.lines_of("handoff"))
        return inserted(self.text, line + 1, ["    " + self.maker.print((), 0)[0].strip()])

    def many_calls(self) -> str:
        """Flows that call each other twice at every level."""
        place, last = self.place(), self.maker.name()
        self.maker.flows += [f"flow {last}() {{", '    print debug "."', "}"]
        for _ in range(11):
            flow = self.maker.name()
            self.maker.flows += [f"flow {flow}() {{", f"    {last}()", f"    {last}()", "}"]
            last = flow
        return inserted(self.text, place.line, [f"{last}()"])


Move = str  # the name of a method of Moves

# Which changes break each rule
AIMED: dict[str, tuple[Move, ...]] = {
    "branch": ("steer_branch", "steer_match", "steer_choice"),
    "repeat": ("loop",),
    "error decides": ("steer_error",),
    "refusal": ("choose",),
    "optional": ("optional",),
    "recorded argument": ("place_by",),
    "recorded place": ("place_by", "located"),
    "recorded size": ("steer_direct",),
    "measured argument": ("unmeasured",),
    "shared argument": ("in_place",),
    "bounded argument": ("unbounded",),
    "bounded index": ("unbounded",),
    "result": ("steer_result",),
    "read once": ("twice",),
    "share reserved": ("share_any", "declare"),
    "missing step": ("drop",),
    "repeated step": ("again", "second_kernel"),
    "missing mark": ("other_object", "second_kernel"),
    "late step": ("late",),
    "unsigned": ("anchor", "not_verified"),
    "abandoned step": ("failed_handoff",),
    "carved": ("early",),
    "rtmr": ("register",),
    "write rw": ("fill_image", "copy_over_image"),
    "write loaded": ("fill_loaded", "copy_over_loaded"),
    "write over": ("fill", "copy_over"),
    "write overlap": ("overlap",),
    "span": ("small",),
    "kept": ("fill", "declare"),
    "owned": ("fill_owned", "copy_over_owned"),
    "log text": ("name_event",),
    "log size": ("log_much",),
    "log room": ("log_much", "declare"),
    "ends": ("falls_off",),
    "unread": ("verdict",),
    "unreachable": ("dead",),
    "calls": ("many_calls",),
}
# Which hide a way, or an order, whatever rule sees through it
WAYS: tuple[Move, ...] = (
    *("bools", "requires", "leaves_in_loop", "leaves_again", "carried", "matches", "half_ends", "operands"),
    *("served", "written_between", "compared_between", "hands_over_before", "enters_again", "event_behind"),
    *("leaves_late", "returned", "files_again", "located"),
)
SHARE = 6  # of each of these, for one of the others
MOVES = (*dict.fromkeys(name for names in AIMED.values() for name in names), *WAYS * SHARE)


def moved(moves: Moves, name: Move) -> str:
    """The text that a change makes. Raises Impossible."""
    head, _, how = name.rpartition("_")  # some take a word
    if head in ("steer", "fill", "copy_over"):
        return str(getattr(moves, head)(how))
    return str(getattr(moves, name)())
