"""How does somebody break a rule on trust on purpose? What the VMM chose decides what is handed over."""

from __future__ import annotations

import re

from interference.expressions import CONSTANTS, U64, Impossible
from interference.maker import WAYS
from interference.scene import Scene
from interference.scope import inserted, replaced

LISTS = {"Vmm": "resources", "Ram": "ranges", "Placement": "copies"}  # a record's list that a flow may see


class TrustMoves(Scene):
    """Changes of a flow that break a rule of T01, T02 or T03 unless a hint is followed."""

    def steer(self, *ways: str) -> str:
        """A number of the VMM's decides how much is handed over, from where, or which bytes."""
        place = self.place()
        lines, name = self.maker.answer(place.scope)
        more, name = self.maker.following(name, self.random.choice(ways or WAYS))
        site = self.shown(after=place.line)
        text = replaced(self.text, site.span, self.cut(self.written(site), name))
        return inserted(text, place.line, [*lines, *more])

    def cut(self, old: str, name: str) -> str:
        """A part of some bytes, by a number; or others."""
        if " " in old and "[" not in old:
            raise Impossible
        roll = self.random.random()
        if roll < 0.7:
            return f"{old}[0 .. {name}]"
        if roll < 0.85:
            return f"{old}[{name} .. {old}.size]"
        value, other = self.random.choice((0, 1, 2, 8)), self.random.choice(CONSTANTS)
        return f"match {name} {{ {value} -> {{ {other} }} _ -> {{ {old} }} }}"

    def place_by(self) -> str:
        """A number of the VMM's says how much RAM there is, or where something begins."""
        place = self.place()
        lines, name = self.maker.answer(place.scope)
        more, name = self.maker.following(name, self.random.choice(WAYS[:2]))
        accepts = [n for n in self.lines_of("accept") if n >= place.line]
        new = [*lines, *more]
        if accepts and self.maker.chance(0.6):
            line = self.text.split("\n")[accepts[0] - 1]
            ram = line.split()[1]
            text = inserted(self.text, accepts[0], [f"leave_out({ram}, {name} << 20, 48 MiB)"])
            return inserted(text, place.line, new)
        site = self.shown(U64, place.line) if self.maker.chance(0.4) else self.shown(after=place.line)
        old = self.written(site)
        cut = name if site.type == U64 else f"{old}[{name} .. {old}.size]"
        return inserted(replaced(self.text, site.span, cut), place.line, new)

    def choose(self) -> str:
        """Whether the VMM refuses a call decides what is done, or which bytes are handed over."""
        call = self.random.choice(("io_write(0x80, 1, 1)", "io_read(0x60, 1)"))
        head = f"try let {self.maker.name()} = {call}" if "read" in call else f"try {call}"
        if self.maker.chance(0.5):
            return self.chosen(head)
        line = self.pick(self.lines_of("accept"))
        ram = self.text.split("\n")[line - 1].split()[1]
        yes, no = [f"    leave_out({ram}, 40 MiB, 48 MiB)"], self.maker.print((), 0)
        if self.maker.chance(0.5):
            sides = (yes, no) if self.maker.chance(0.5) else (no, yes)
            return inserted(self.text, line, [f"{head} {{", *sides[0], "} on _ {", *sides[1], "}"])
        flow = self.maker.name()
        refused = f"    let q0 = {call}?" if "read" in call else f"    {call}?"
        step = "    leave_out(p0, 40 MiB, 48 MiB)"
        self.maker.flows += [f"flow {flow}(p0: mut Ram) fails {{", step, refused, "}"]
        return inserted(self.text, line, [f"try {flow}({ram}) {{", *no, "} on _ {", *no, "}"])

    def chosen(self, head: str) -> str:
        """Bytes that are handed over are chosen by a refusal."""
        flow, name, site = self.maker.name(), self.maker.name(), self.shown()
        ways = [f"    {head} {{", "        return p0", "    } on _ {", "        return p1", "    }"]
        self.maker.flows += [
            f"flow {flow}(p0: measured bytes, p1: measured bytes) -> measured bytes {{",
            *ways,
            "}",
        ]
        old = self.written(site)
        other = self.random.choice(CONSTANTS) if self.maker.chance(0.5) else f"{old}[0 .. 2]"
        line = f"let {name} = {flow}({old}, {other})"
        return inserted(replaced(self.text, site.span, name), site.span.line, [line])

    def in_place(self) -> str:
        """Shared memory where private bytes are asked for."""
        site = self.shown()
        region = self.random.choice([m.name for m in self.maker.firmware.memory if m.e820 == "reserved"])
        place = self.place(before=site.span.line)
        name = self.maker.name()
        new = f"{name}[0 .. {self.random.choice((8, 16, 64, 256))}]"
        text = replaced(self.text, site.span, new)
        return inserted(text, place.line, [f"let {name} = share({region}, td)?"])

    def twice(self) -> str:
        """Shared memory is copied, measured, and copied again."""
        site = self.shown()
        place = self.place(before=site.span.line)
        window, one, two = self.maker.name(), self.maker.name(), self.maker.name()
        private = self.random.choice(("private", "more_tables", "scratch"))
        size = self.random.choice((8, 64))
        lines = [
            f"let {window} = share(bounce, td)?",
            f"let {one} = copy_in({private}[0 .. {size}], {window}[0 .. {size}])?",
            f'measure {one} into RTMR[1] as blob("e1")',
            f"let {two} = copy_in({private}[0 .. {size}], {window}[0 .. {size}])?",
        ]
        given = self.random.choice((one, two))
        return inserted(replaced(self.text, site.span, given), place.line, lines)

    def unmeasured(self) -> str:
        """What nobody measured is handed over."""
        if self.maker.chance(0.5):
            return self.without(self.pick(self.lines_of("measure")))
        site = self.shown()
        filled = [
            s.name
            for s in self.maker.firmware.image
            if s.kind in ("TempMem", "CFV", "PayloadParam", "TD_HOB")
        ]
        new = f"{self.random.choice(filled)}[0 .. {self.random.choice((8, 16, 64))}]"
        return replaced(self.text, site.span, new)

    def unbounded(self) -> str:
        """A measured number that nobody checked is a limit, an index or an end."""
        place = self.place()
        lines, name = self.maker.answer(place.scope)
        lines = [*lines, f'measure {name} into RTMR[1] as number("e2")'] if self.maker.chance(0.7) else lines
        site = self.shown(U64, place.line) if self.maker.chance(0.4) else self.shown(after=place.line)
        new = name if site.type == U64 else f"{self.written(site)}[0 .. {name}]"
        if self.maker.chance(0.3):
            accept = self.pick([n for n in self.lines_of("accept") if n >= place.line])
            ram = self.text.split("\n")[accept - 1].split()[1]
            call = self.random.choice((f"{name}, 48 MiB", f"40 MiB, {name}"))
            return inserted(inserted(self.text, accept, [f"leave_out({ram}, {call})"]), place.line, lines)
        return inserted(replaced(self.text, site.span, new), place.line, lines)

    def loop(self) -> str:
        """A loop over a list counts."""
        place = self.place()
        records = [(n, t) for n, t in place.scope if getattr(t, "name", "") in LISTS]
        if not records:
            raise Impossible
        name, kind = self.random.choice(records)
        items = LISTS[kind.name]  # type: ignore[union-attr]
        flow, made = self.maker.name(), self.maker.name()
        trust = self.random.choice(("untrusted ", "measured ", ""))
        self.maker.flows += [
            f"flow {flow}(p0: {trust}{kind.name}) -> u64 fails {{", "    let q0 = 0",  # type: ignore[union-attr]
            f"    for q1 in p0.{items} {{", "        q0 = q0 + 1", "    }", "    return q0", "}",
        ]  # fmt: skip
        site = self.shown(after=place.line)
        text = replaced(self.text, site.span, self.cut(self.written(site), made))
        return inserted(text, place.line, [f"let {made} = {flow}({name})?"])

    def located(self) -> str:
        """An initrd is looked for behind bytes that are empty, or that nobody measured."""
        line = self.pick(self.lines_of(r"let \w+ = initrd_extent\("))
        found = re.match(r"let (\w+) = initrd_extent\((\w+), (\w+)\)\?", self.statement(line)[0])
        if found is None:
            raise Impossible
        initrd, payload, image = found.groups()
        none = self.maker.name()
        between = f"{image}[0 .. 0]" if self.maker.chance(0.3) else f"initrd_extent({payload}, {image})?"
        lines = [f"let {none} = {between}"]
        if self.maker.chance(0.7):
            lines.append(f"require {none}.size == 0")
        text = inserted(
            self.without(line), line, [*lines, f"let {initrd} = initrd_extent({payload}, {none})?"]
        )
        measured = re.search(rf"\n *measure {image} into [^\n]*", text)
        return text.replace(measured[0], "", 1) if measured and self.maker.chance(0.5) else text

    def optional(self) -> str:
        """Bytes are measured only if there are any, and something after them."""
        lines = self.text.split("\n")
        able = [
            n
            for n in self.lines_of("measure")
            if "unless empty" not in lines[n - 1] and "cpus(" not in lines[n - 1]
        ]
        changed = lines.copy()
        for n in self.random.sample(able, min(len(able), self.random.choice((1, 1, 2)))):
            changed[n - 1] = lines[n - 1].rstrip() + " unless empty"
        if not able:
            raise Impossible
        return "\n".join(changed)
