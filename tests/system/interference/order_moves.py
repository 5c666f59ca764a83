"""How does somebody profit from the order in which things happen? Calls with effects among operands and
arguments, in flows that return parts of what they were given, events behind a refusal, files that come twice.
"""

from __future__ import annotations

import re

from dsl.model import Bytes, RecordRef
from interference.expressions import Impossible, show
from interference.maker import SMALL
from interference.scope import Place, inserted, replaced
from interference.way_moves import LESS, REFUSABLE, WayMoves

ROOM = "private"  # a region that nothing else of a shipped flow uses
HALF = 64  # bytes that are copied there at a time
WHOLE = ("4 GiB", "48 MiB", "32 MiB")  # RAM up to which a plan loses some


class OrderMoves(WayMoves):
    """Changes of a flow that the rules on what is written, measured, marked and left have to see through."""

    def copied(self) -> tuple[list[str], str, str]:
        """Lines that measure a copy of the VMM's bytes; the names of the copy and of the shared memory."""
        window, copy = self.maker.name(), self.maker.name()
        lines = [
            f"let {window} = share(bounce, td)?",
            f"let {copy} = copy_in({ROOM}[0 .. {HALF}], {window}[0 .. {HALF}])?",
            f'measure {copy} into RTMR[{self.random.choice((0, 2))}] as blob("e5")',
        ]
        return lines, copy, window

    def refill(self, result: str, value: str) -> str:
        """A flow that copies other bytes of the VMM's over the copy, and returns something; its name."""
        copy = f"let q0 = copy_in({ROOM}[0 .. {HALF}], p0[{HALF} .. {2 * HALF}])?"
        return self.flow_of(
            f"(p0: shared bytes) -> {result} fails", copy, "print hex(q0.size)", f"return {value}"
        )

    def room(self) -> Place:
        """Where memory may be shared, in a flow that has the region."""
        if ROOM not in self.maker.sizes:
            raise Impossible
        return self.place(after=min(self.lines_of("accept"), default=1 << 30))

    # ---- the changes

    def written_between(self) -> str:
        """Measured bytes are used with a number that a call returns which writes over them."""
        place = self.room()
        lines, copy, window = self.copied()
        name = self.maker.name()
        end = f"{self.refill('u64', str(HALF // 2))}({window})?"
        start = f"{self.refill('u64', '0')}({window})?"
        pick = self.flow_of("(p0: measured bytes, p1: u64) -> measured bytes fails", "return p0[0 .. p1]")
        swap = self.flow_of("(p0: u64, p1: measured bytes) -> measured bytes fails", "return p1[0 .. p0]")
        made = self.random.choice(
            (
                f"{copy}[0 .. {end}]",
                f"{copy}[{start} .. {HALF}]",
                f"{pick}({copy}, {end})?",
                f"{swap}({end}, {copy})?",
                f"(if td.attributes != 7 {{ {copy} }} else {{ {copy} }})[0 .. {end}]",
            )
        )
        site = self.shown(after=place.line)
        return inserted(replaced(self.text, site.span, name), place.line, [*lines, f"let {name} = {made}"])

    def compared_between(self) -> str:
        """Measured bytes are compared, or read, beside a call that writes over them."""
        place = self.room()
        lines, copy, window = self.copied()
        constant = self.random.choice(('hex"00"', 'hex"ff"', '"ro"'))
        size = 2 if constant == '"ro"' else 1
        part = f"{copy}[0 .. {size}]"
        content = f"{self.refill('bytes', constant)}({window})?"
        at = f"{self.refill('u64', '0')}({window})?"
        both = self.flow_of(
            "(p0: measured bytes, p1: untrusted bytes, p2: shared bytes) -> bool fails",
            f"let q0 = copy_in(p1, p2[{HALF} .. {2 * HALF}])?",
            "print hex(q0.size)",
            f"return u8_at(p0, 0)? == {self.random.choice((0, 255, 114))}",
        )
        condition = self.random.choice(
            (
                f"{part} == {content}",
                f"{content} != {part}",
                f"u8_at({copy}, {at})? == {self.random.choice((0, 255, 114))}",
                f"{both}({copy}, {copy}, {window})?",
                f"{both}({ROOM}[0 .. {HALF}], {ROOM}[0 .. {HALF}], {window})?",
            )
        )
        return self.decided(place, lines, condition)

    def hands_over_before(self) -> str:
        """A way to an error hands over first, in an argument."""
        line = self.pick(self.lines_of("handoff"))
        call = self.statement(line)[0].removeprefix("handoff ")
        given = re.match(r"linux\((\w+), (\w+)\)", call)
        pages = self.lines_of(r"zero_page\b")
        if given is None or not pages:
            raise Impossible
        placement, page = given.groups()
        lines, own = self.truth(self.place(before=line, after=line - 1))
        enter = self.flow_of(
            "(p0: Placement) -> u64",
            "on error fatal",
            f"if p0.load > 0 {{ handoff linux(p0, {page}) }}",
            "return 5",
        )
        stop = self.flow_of(
            "(p0: u64) -> never",
            "on error fatal",
            "if p0 == 5 { fail requirement_failed }",
            "fail requirement_failed",
        )
        filled = self.statement(pages[-1])[0]
        other = re.sub(
            r"(zero_page\([^,]+, [^,]+, [^,]+, )([^,]+)(,.*)",
            lambda m: f"{m[1]}{self.other_bytes(m[2])}{m[3]}",
            filled,
        )
        end = self.random.choice(
            (
                [f"{stop}({enter}({placement}))"],
                [f"print hex({enter}({placement}))", "fail requirement_failed"],
                [f"let {self.maker.name()} = {enter}({placement})", "fail requirement_failed"],
            )
        )
        ways = [f"if {own} {{", f"    {other}", *("    " + each for each in end), "}", filled]
        text = inserted(self.text, line, [*lines, *ways])
        return "\n".join(each for n, each in enumerate(text.split("\n"), 1) if n != pages[-1])

    def enters_again(self) -> str:
        """A handoff is tried again."""
        line = self.pick(self.lines_of("handoff"))
        given = re.match(r"handoff (linux|executable)\((\w+), (.+)\)", self.statement(line)[0])
        if given is None:
            raise Impossible
        kind, loaded, others = given.groups()
        record = "Placement" if kind == "linux" else "Executable"
        enter = self.flow_of(
            f"(p0: {record}) -> never fails", f"{REFUSABLE}?", f"handoff {kind}(p0, {others})"
        )
        lines = self.text.split("\n")
        lines[line - 1] = f"    retry 2 times {enter}({loaded})?"
        return "\n".join(lines)

    def event_behind(self) -> str:
        """An event stands behind a call that the VMM may refuse, in a flow that is gone on from."""
        line = self.pick(self.lines_of("measure"))
        found = re.match(
            r"measure (\w+) into (RTMR\[\d\]) as (blob|platform_config)(\(.*\).*)", self.statement(line)[0]
        )
        if found is None:
            raise Impossible
        name, register, kind, rest = found.groups()
        event = f"measure p0 into {register} as {kind}{rest}"
        body = [f"{REFUSABLE}?", event]
        if self.maker.chance(0.3):
            body = self.tried(REFUSABLE, [event], [])
        flow = self.flow_of("(p0: untrusted bytes) fails", *body)
        ways = self.tried(f"{flow}({name})", [], [])
        if self.maker.chance(0.7):  # the event is there once more
            return inserted(self.text, line + self.random.choice((0, 1)), ways)
        return inserted(self.without(line), line, ways if self.maker.chance(0.8) else [f"{flow}({name})?"])

    def leaves_late(self) -> str:
        """RAM is left out of a plan that was accepted."""
        line = self.pick(self.lines_of("accept"))
        ram = self.text.split("\n")[line - 1].split()[1]
        place = self.place(after=line)
        step = f"leave_out(p0, 0, {self.random.choice(WHOLE)})"
        if self.maker.chance(0.3):
            return inserted(self.text, place.line, [step.replace("p0", ram)])
        if self.maker.chance(0.5):
            return inserted(self.text, place.line, [f"{self.flow_of('(p0: mut Ram)', step)}({ram})"])
        flow = self.flow_of("(p0: mut Ram, p1: Ram) -> u64", step, "return p1.ranges.count")
        return inserted(self.text, place.line, [f"print hex({flow}({ram}, {ram}))"])

    def returned(self) -> str:
        """A flow with an effect returns what it was given, or a part of it, which is then used."""
        able = self.arguments(
            lambda s: isinstance(s.type, Bytes | RecordRef) and self.written(s).isidentifier()
        )
        able = [s for s in able if not self.is_filled(s) and not s.callee.startswith("measure_")]
        if not able:
            raise Impossible
        site = self.random.choice(able)
        records = self.maker.firmware.records
        wholes = [
            (n, t, f.name)
            for n, t in site.scope
            if isinstance(t, RecordRef)
            for f in records[t.name].fields
            if f.type == site.type
        ]
        given, kind, part = self.written(site), site.type, ""
        if wholes and self.maker.chance(0.4):
            given, kind, part = self.random.choice(wholes)
        trust = self.random.choice(("", "measured ", "untrusted ")) if kind == Bytes() else ""
        parameters, more = [f"p0: {trust}{show(kind)}"], [given]
        rams = [n for n, t in site.scope if t == RecordRef("Ram")]
        effects = [self.tried(REFUSABLE, [], []), self.maker.measure((("p0", kind),), 0)]
        if rams:
            less = f"leave_out(p1, {LESS})"
            effects += [[less], self.tried(REFUSABLE, [less], []), [less, f"{REFUSABLE}?"]] * 2
        if ROOM in self.maker.sizes and site.span.line > min(self.lines_of("accept"), default=1 << 30):
            target = self.random.choice((ROOM, "boot_params"))
            copy = [
                "let q0 = share(bounce, p2)?",
                f"let q1 = copy_in({target}[0 .. {HALF}], q0[0 .. {HALF}])?",
                "print hex(q1.size)",
            ]
            effects += [copy, copy]
        effect = self.random.choice(effects)
        text = " ".join(effect)
        for name, what, own in (("p1", "mut Ram", (rams or [""])[-1]), ("p2", "VpInfo", "td")):
            if re.search(rf"\b{name}\b", text):
                parameters.append(f"{name}: {what}")
                more.append(own)
        result = f"{trust if self.maker.chance(0.7) else ''}{show(site.type)}"
        back = f"p0.{part}" if part else "p0"
        flow = self.flow_of(f"({', '.join(parameters)}) -> {result} fails", *effect, f"return {back}")
        return replaced(self.text, site.span, f"{flow}({', '.join(more)})?")

    def files_again(self) -> str:
        """The files come once more: some of these, or whether they come, decide what is handed over."""
        line = self.pick(self.lines_of(r"let \w+ = fw_cfg_linux\("))
        found = re.match(r"let (\w+) = (fw_cfg_linux\(.*\))\?", self.statement(line)[0])
        if found is None:
            raise Impossible
        name, call = found.groups()
        other, place = self.maker.name(), self.place(after=line)
        more = re.sub(r"\(\w+", "(bounce", call)
        match self.random.randrange(4):
            case 0:
                again = [f"let {other} = {more}?"]
                text = self.text.split("\n")
                rest = "\n".join(text[place.line - 1 :])
                part = self.random.choice(("kernel", "initrd", "command_line"))
                rest = re.sub(rf"\b{name}\.{part}\b", f"{other}.{part}", rest)
                return "\n".join([*text[: place.line - 1], *("    " + each for each in again), rest])
            case 1:
                lines = self.text.split("\n")
                lines[line - 1] = lines[line - 1].replace(call, f"retry 2 times {call}")
                return "\n".join(lines)
            case 2:
                flag = self.maker.name()
                first, second = self.random.sample(SMALL, 2)
                sides = [f"{flag} = {second}"], []
                served, refused = sides if self.maker.chance(0.5) else sides[::-1]
                lines = [f"let {flag} = {first}", *self.tried(f"let {other} = {more}", served, refused)]
                return self.cut_by(place, lines, flag)
        part = self.random.choice(("kernel", "initrd", "command_line"))
        size = self.random.choice(("", f"[0 .. {self.random.choice((1, 8))}]"))
        condition = self.random.choice(
            (f"{name}.{part}.size == {self.random.choice((0, 9, 5001))}", f'{name}.{part}{size} == "ro"')
        )
        return self.decided(self.place(after=line), [], condition)
