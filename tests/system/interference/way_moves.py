"""How does somebody hide which way a flow took? Truth values, handlers, loops, retries, arms and calls that
never come back: what the VMM chose selects a way, and the ways meet again.
"""

from __future__ import annotations

from interference.expressions import CONSTANTS, Impossible
from interference.maker import SMALL
from interference.memory_moves import MemoryMoves
from interference.scope import Place, inserted, replaced

# Conditions that every register tells, of either outcome in an honest boot
RECORDED = ("td.attributes == 7", "td.attributes != 7", "td.vcpu_index == 0", "td.vcpu_index != 0")
FALSE = (RECORDED[0], RECORDED[3], "td.attributes & 1 != 0")  # so in each boot that the campaign makes
REFUSABLE = "io_write(0x80, 1, 1)"
LESS = "40 MiB, 48 MiB"  # RAM that a flow can do without, in the smallest TD of the campaign


class WayMoves(MemoryMoves):
    """Changes of a flow that the rules on values, branches, errors and refusals have to see through."""

    # ---- what they have in common

    def ram_place(self) -> tuple[Place, str]:
        """A place between the RAM plan and its acceptance, and the plan's name."""
        line = self.pick(self.lines_of("accept"))
        plans = self.lines_of(r"let \w+ = plan_memory\(")
        ram = self.text.split("\n")[line - 1].split()[1]
        return self.place(before=line, after=max([n for n in plans if n < line], default=0)), ram

    def flow_of(self, head: str, *body: str) -> str:
        """A flow that is put at the end; its name. `head`: from the parameters on."""
        name = self.maker.name()
        self.maker.flows += [f"flow {name}{head} {{", *("    " + line for line in body), "}"]
        return name

    def refusing(self) -> str:
        """A call without a result that the VMM can refuse: of a primitive, or of a flow that makes one."""
        if self.maker.chance(0.6):
            return REFUSABLE
        return f"{self.flow_of('() fails', f'{REFUSABLE}?')}()"

    def tried(self, call: str, served: list[str], refused: list[str]) -> list[str]:
        """A `try`; a way of nothing prints."""
        sides = [["    " + line for line in side or ['print "."']] for side in (served, refused)]
        return [f"try {call} {{", *sides[0], "} on _ {", *sides[1], "}"]

    def truth(self, place: Place) -> tuple[list[str], str]:
        """Lines that bring a truth value of the VMM's, and what it is."""
        if self.maker.chance(0.4):
            name = self.maker.name()
            sides = [f"{name} = true"], []
            served, refused = sides if self.maker.chance(0.5) else sides[::-1]
            return [f"let {name} = false", *self.tried(self.refusing(), served, refused)], name
        lines, number = self.maker.answer(place.scope)
        test = f"{number} == {self.random.choice(SMALL)}"
        if self.maker.chance(0.3):
            return lines, test
        name = self.maker.name()
        return [*lines, f"let {name} = {test}"], name

    def decided(self, place: Place, lines: list[str], condition: str) -> str:
        """The text with lines at a place, and a part of what is handed over cut as a condition is."""
        name, first, second = self.maker.name(), *self.random.sample(SMALL, 2)
        match self.random.randrange(3):
            case 0:
                way = [f"let {name} = if {condition} {{ {first} }} else {{ {second} }}"]
            case 1:
                arms = self.random.choice((("true", "_"), ("false", "_"), ("true", "false")))
                made = " ".join(f"{arm} -> {{ {n} }}" for arm, n in zip(arms, (first, second), strict=True))
                way = [f"let {name} = match {condition} {{ {made} }}"]
            case _:
                way = [f"let {name} = {first}", f"if {condition} {{", f"    {name} = {second}", "}"]
        return self.cut_by(place, [*lines, *way], name)

    def cut_by(self, place: Place, lines: list[str], number: str) -> str:
        """The text with lines at a place, and a part of what is handed over cut by a number of theirs."""
        site = self.shown(after=place.line)
        text = replaced(self.text, site.span, self.cut(self.written(site), number))
        return inserted(text, place.line, lines)

    # ---- the changes

    def bools(self) -> str:
        """A truth value of the VMM's hides in one that is partly recorded."""
        place = self.place()
        lines, own = self.truth(place)
        both, other = self.maker.name(), self.random.choice(RECORDED)
        sides = (own, other) if self.maker.chance(0.6) else (other, own)
        lines.append(f"let {both} = {sides[0]} {self.random.choice(('and', 'or'))} {sides[1]}")
        check = self.random.choice(
            (
                f"require {both}",
                f"require not {both}",
                f"require {both} or {self.random.choice(RECORDED)}",
                f"require not ({both} and {self.random.choice(RECORDED)})",
                "",
            )
        )
        return self.decided(place, [*lines, *([check] if check else [])], own if check else both)

    def requires(self) -> str:
        """Each way of a refusal requires something else of a value."""
        place = self.place()
        if self.maker.chance(0.5):
            lines, number = self.maker.answer(place.scope)
            first, second = self.random.sample(SMALL, 2)
            ways, condition = [[f"require {number} == {n}"] for n in (first, second)], f"{number} == {first}"
        else:
            lines, own = self.truth(place)
            if not own.isidentifier():
                raise Impossible
            arms = [
                f"match {own} {{",
                '    true -> { print "." }',
                "    false -> { fail requirement_failed }",
                "}",
            ]
            ways, condition = [self.random.choice(([f"require {own}"], arms)), [f"require not {own}"]], own
        self.random.shuffle(ways)
        return self.decided(place, [*lines, *self.tried(self.refusing(), ways[0], ways[1])], condition)

    def leaves_in_loop(self) -> str:
        """RAM is left out round by round, until the VMM ends it."""
        place, ram = self.ram_place()
        lists = [n for n, t in place.scope if getattr(t, "name", "") == "Vmm"]
        if not lists:
            raise Impossible
        inner = self.flow_of("(p0: Vmm) fails", "for q0 in p0.resources {", f"    {REFUSABLE}?", "}")
        step, start = ["leave_out(p0, q0, q0 + 1 MiB)", "q0 = q0 + 2 MiB"], ["let q0 = 40 MiB"]
        if self.maker.chance(0.5):  # nothing but the plan tells the rounds apart
            step, start = ["leave_out(p0, q1.start, q1.start + 1 MiB)"], []
        number, limit = ["let q2 = io_read(0x60, 1)?"], self.random.choice(SMALL)
        end = self.random.choice(
            (
                [f"{REFUSABLE}?"],
                [f"{inner}(p1)?"],
                self.tried(REFUSABLE, ["return"], []),
                self.tried(REFUSABLE, [], ["return"]),
                [*number, f"require q2 != {limit}"],
                [*number, f"if q2 == {limit} {{", "    fail requirement_failed", "}"],
            )
        )
        rounds = [*step, *end] if self.maker.chance(0.5) else [*end, *step]
        items = self.random.choice(("p1.resources", "p0.ranges")) if not start else "p1.resources"
        body = [*start, f"for q1 in {items} {{", *("    " + line for line in rounds), "}"]
        call = f"{self.flow_of('(p0: mut Ram, p1: Vmm) fails', *body)}({ram}, {lists[-1]})"
        ways = (self.tried(call, [], []), [f"retry 3 times {call}?"], [f"{call}?"])
        return inserted(self.text, place.line, self.random.choice(ways))

    def leaves_again(self) -> str:
        """An attempt leaves RAM out, then fails: the next one may not."""
        place, ram = self.ram_place()
        step, limit = f"leave_out(p0, {LESS})", self.random.choice(SMALL)
        stop = self.flow_of("(p0: mut Ram) fails", step, "fail requirement_failed")
        check = self.flow_of("(p0: untrusted u64) fails", f"require p0 == {limit}")
        number, failing = "let q0 = io_read(0x60, 1)?", [step, "fail requirement_failed"]
        body = self.random.choice(
            (
                [number, f"if q0 == {limit} {{", *("    " + line for line in failing), "}"],
                [step, f"{REFUSABLE}?"],
                self.tried(self.refusing(), [], failing),
                [number, *self.tried(f"{check}(q0)", [], failing)],
                [number, "match q0 {", f'    {limit} -> {{ print "." }}', f"    _ -> {{ {stop}(p0)? }}", "}"],
                [number, f"if q0 == {limit} {{", f"    retry 2 times {stop}(p0)?", "}"],
            )
        )
        call = f"{self.flow_of('(p0: mut Ram) fails', *body)}({ram})"
        return inserted(self.text, place.line, [f"retry {self.random.choice((2, 3))} times {call}?"])

    def carried(self) -> str:
        """What a round decides by, an earlier one has changed."""
        place = self.place()
        records = {"Vmm": "resources", "Ram": "ranges"}
        able = [f"{n}.{records[t.name]}" for n, t in place.scope if getattr(t, "name", "") in records]  # type: ignore[union-attr]
        if not able:
            raise Impossible
        lines, number = self.maker.answer(place.scope)
        first, second, third = (self.maker.name() for _ in range(3))
        start, limit = self.random.sample(SMALL, 2)
        rounds = [f"{first} = {second}", f"{second} = {number}"]
        if self.maker.chance(0.4):
            rounds = [f"{first} = {second}", f"{second} = {third}", f"{third} = {number}"]
        if self.maker.chance(0.4):
            rounds = [f"if {second} == {limit} {{", f"    {first} = {limit}", "}", f"{second} = {number}"]
        lines += [f"require {number} <= 8"] + [f"let {n} = {start}" for n in (first, second, third)]
        loop = [
            f"for {self.maker.name()} in {self.random.choice(able)} {{",
            *("    " + r for r in rounds),
            "}",
        ]
        return self.cut_by(place, [*lines, *loop], first)

    def matches(self) -> str:
        """An arm of all other values, or of both truth values, says nothing of what selected it."""
        place = self.place()
        sections = ("TempMem", "CFV", "PayloadParam", "TD_HOB")
        filled = [s.name for s in self.maker.firmware.image if s.kind in sections and s.name != "event_log"]
        filled = [n for n in filled if n not in ("paging", "stack")]
        part, size = self.maker.name(), self.random.choice((8, 16, 64))
        lines = [f"let {part} = {self.random.choice(filled)}[0 .. {size}]"]
        # What is known of the arm of all others, if it is taken for that of no bytes
        likely = ((f"{part}.size != 0", ("false", "_")), (f"not ({part}.size == 0)", ("false", "_")))
        tests = (*likely * 2, (f"{part}.size == 0", ("true", "_")), (f"{part}.size < 1", ("true", "false")))
        test, arms = self.random.choice(tests)
        name = self.maker.name()
        if self.maker.chance(0.5):
            site = self.shown(after=place.line)
            values = [f"{self.written(site)}[0 .. 0]", part]
            made = " ".join(f"{arm} -> {{ {v} }}" for arm, v in zip(arms, values, strict=True))
            text = replaced(self.text, site.span, name)
            return inserted(text, site.span.line, [*lines, f"let {name} = match {test} {{ {made} }}"])
        read = f"u8_at({part}, 0)?"
        values = [str(self.random.choice(SMALL)), read]
        made = " ".join(f"{arm} -> {{ {v} }}" for arm, v in zip(arms, values, strict=True))
        made = f"true, false -> {{ {read} }}" if self.maker.chance(0.2) else made
        return self.decided(
            place,
            [*lines, f"let {name} = match {test} {{ {made} }}"],
            f"{name} == {self.random.choice((0, 255))}",
        )

    def half_ends(self) -> str:
        """A way that seems to end in an error goes on."""
        place = self.place()
        lines, number = self.maker.answer(place.scope)
        name, other, false = self.maker.name(), self.maker.name(), self.random.choice(FALSE)
        first, second, limit = self.random.sample(SMALL, 3)
        fails = f"fail {self.random.choice(self.maker.errors)}"
        die = self.flow_of("() -> bool fails", fails)
        count = self.flow_of("() -> u64 fails", fails)
        quiet = f'if {other} {{ print "." }}'
        end = self.random.choice(
            (
                [f"let {other} = {false} and {die}()?", quiet],
                [f"let {other} = not ({false}) or {die}()?", quiet],
                [f"let {other} = if {false} {{ {count}()? }} else {{ 1 }}", f"print hex({other})"],
                [f"if {false} {{", f"    {fails}", "}"],
                ["match td.vcpu_index {", f"    7 -> {{ {fails} }}", '    _ -> { print "." }', "}"],
            )
        )
        way = [f"{name} = {second}", *end]
        if self.maker.chance(0.5):
            ways = [f"if {number} == {limit} {{", *("    " + line for line in way), "}"]
        else:
            check = self.flow_of("(p0: untrusted u64) fails", f"require p0 == {limit}")
            ways = self.tried(f"{check}({number})", [], way)
        return self.cut_by(place, [*lines, f"let {name} = {first}", *ways], name)

    def operands(self) -> str:
        """A truth value of the VMM's decides whether an operand that leaves RAM out is computed."""
        place, ram = self.ram_place()
        lines, own = self.truth(place)
        name = self.maker.name()
        less = f"{self.flow_of('(p0: mut Ram) -> bool', f'leave_out(p0, {LESS})', 'return true')}({ram})"
        number = f"{self.flow_of('(p0: mut Ram) -> u64', f'leave_out(p0, {LESS})', 'return 1')}({ram})"
        own = own if own.isidentifier() else f"({own})"
        use = self.random.choice(
            (
                [f"let {name} = {own} and {less}", f'if {name} {{ print "." }}'],
                [f"let {name} = {own} or {less}", f'if not {name} {{ print "." }}'],
                [f"require not {own} or {less}"],
                [f"let {name} = if {own} {{ {number} }} else {{ 0 }}", f"print hex({name})"],
                [f"print hex(match {own} {{ false -> {{ 0 }} _ -> {{ {number} }} }})"],
            )
        )
        return inserted(self.text, place.line, [*lines, *use])

    def served(self) -> str:
        """A number that a flow returns is set only if the VMM serves a call."""
        place = self.place()
        first, second = self.random.sample(SMALL, 2)
        name, flow = self.maker.name(), self.flow_of("() -> u64", f"return {second}")
        sides = [f"{name} = {flow}()"], []
        served, refused = sides if self.maker.chance(0.5) else sides[::-1]
        lines = [f"let {name} = {first}", *self.tried(self.refusing(), served, refused)]
        if self.maker.chance(0.5):
            return self.cut_by(place, lines, name)
        return self.decided(place, lines, f"{name} == {second}")

    def other_bytes(self, old: str) -> str:
        """Bytes that may be handed over in the place of some."""
        return self.random.choice((*CONSTANTS, f"{old}[0 .. 2]"))
