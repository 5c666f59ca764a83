"""Which statements, blocks and flows can stand here? Written from the prelude's signatures."""

from __future__ import annotations

from random import Random

from dsl.model import Bytes, Firmware, ListOf, Never, RecordRef, Scalar, Type, Unit
from interference.expressions import BOOL, NUMBERS, U64, Impossible, from_vmm, show
from interference.scope import Scope
from interference.statements import Statements

SMALL = NUMBERS[:7]
WAYS = ("direct", "result", "branch", "match", "error", "choice")  # how one number follows from another


class Maker(Statements):
    """Writes flows' text; the same random numbers write the same. Raises Impossible."""

    def __init__(self, random: Random, firmware: Firmware, text: str) -> None:
        super().__init__(random, firmware, text)
        self.flows: list[str] = []  # whole flows that statements call, to be put at the end

    def statement(self, scope: Scope, depth: int = 2, fails: bool = True) -> list[str]:
        """The lines of one statement. Raises Impossible."""
        kinds = (
            (self.do_call, 8),
            (self.let_value, 4),
            (self.measure, 2),
            (self.require, 3),
            (self.assign, 2),
        )
        blocks = (
            (self.if_, 2),
            (self.try_, 3),
            (self.match, 1),
            (self.for_, 1),
            (self.decide, 4),
            (self.flow, 3),
        )
        others = ((self.print, 1), (self.step, 1))
        able = (*kinds, *others, *(blocks if depth > 0 else ()))
        make = self.random.choices([k for k, _ in able], [w for _, w in able])[0]
        return make(scope, depth)

    def body(self, scope: Scope, depth: int) -> list[str]:
        """The lines of a block that is not empty."""
        found = self.statement(scope, depth - 1) if self.chance(0.7) else self.print(scope, 0)
        return ["    " + line for line in found]

    def if_(self, scope: Scope, depth: int) -> list[str]:
        """A branch."""
        head = [f"if {self.condition(scope)} {{", *self.body(scope, depth)]
        return [*head, "} else {", *self.body(scope, depth), "}"] if self.chance(0.4) else [*head, "}"]

    def match(self, scope: Scope, depth: int) -> list[str]:
        """A choice by a number."""
        literal = self.random.choice(NUMBERS)
        head = [f"match {self.number(U64, scope, 1)} {{", f"    {literal} -> {{"]
        inner = ["    " + line for line in self.body(scope, depth)]
        other = ["    " + line for line in self.body(scope, depth)]
        return [*head, *inner, "    }", "    _ -> {", *other, "    }", "}"]

    def for_(self, scope: Scope, depth: int) -> list[str]:
        """A loop over a list of a record."""
        lists = []
        for name, kind in scope:
            if isinstance(kind, RecordRef):
                fields = self.firmware.records[kind.name].fields
                lists += [(f"{name}.{f.name}", f.type) for f in fields if isinstance(f.type, ListOf)]
        if not lists:
            raise Impossible
        items, kind = self.random.choice(lists)
        assert isinstance(kind, ListOf)
        name = self.name()
        return [f"for {name} in {items} {{", *self.body((*scope, (name, kind.element)), depth), "}"]

    def some_call(self, scope: Scope) -> tuple[str, Type]:
        """A call that can fail, and its type; of a flow that is made for it in half of the cases."""
        if self.chance(0.5):
            _, kind, call = self.new_flow(scope, fails=True)
            return call, kind
        primitive = self.random.choice([p for p in self.primitives if p.fallible])
        return self.call(primitive, scope), primitive.result

    def try_(self, scope: Scope, depth: int) -> list[str]:
        """A call whose error is handled."""
        call, kind = self.some_call(scope)
        name = "" if isinstance(kind, Unit | Never) else self.name()
        inner = (*scope, (name, kind)) if name else scope
        head = f"try {f'let {name} = ' if name else ''}{call} {{"
        handler = self.body(scope, depth)
        if self.chance(0.5):
            handler = [*handler, f"    fail {self.random.choice(self.errors)}"]
        return [head, *self.body(inner, depth), "} on _ {", *handler, "}"]

    def decide(self, scope: Scope, depth: int) -> list[str]:
        """A number that another value, or an error, decides."""
        name, first, second = self.name(), *self.random.sample(SMALL, 2)
        inner = (*scope, (name, U64))
        match self.random.randrange(4):
            case 0:
                head = f"if {self.condition(scope)} {{"
                return [f"let {name} = {first}", head, f"    {name} = {second}", "}"]
            case 1:
                call, kind = self.some_call(inner)
                if not isinstance(kind, Unit | Never):
                    call = f"let {self.name()} = {call}"
                sides = [f"    {name} = {second}"], self.print(scope, 0)
                yes, no = sides if self.chance(0.5) else sides[::-1]
                return [f"let {name} = {first}", f"try {call} {{", *yes, "} on _ {", *no, "}"]
            case 2:
                return [f"let {name} = if {self.condition(scope)} {{ {first} }} else {{ {second} }}"]
        arms = [f"    {self.random.choice(NUMBERS)} -> {{ {name} = {second} }}", '    _ -> { print "." }']
        return [f"let {name} = {first}", f"match {self.number(U64, scope, 0)} {{", *arms, "}"]

    def flow(self, scope: Scope, depth: int) -> list[str]:
        """Calls a flow that is made for it."""
        fails = self.chance(0.7)
        _, kind, call = self.new_flow(scope, fails)
        bound = "" if isinstance(kind, Unit) else f"let {self.name()} = "
        again = f"retry {self.random.choice((2, 3))} times " if fails and self.chance(0.15) else ""
        return [f"{bound}{again}{call}{'?' if fails else ''}"]

    def new_flow(self, scope: Scope, fails: bool) -> tuple[str, Type, str]:
        """Makes a flow; its name, its result's type and a call of it."""
        name, given, parameters, inner = self.name(), [], [], []
        records = {t for _, t in scope if isinstance(t, RecordRef)}
        kinds: tuple[Type, ...] = (U64, U64, Bytes(), BOOL, *records)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            kind = self.random.choice(sorted(kinds, key=show))
            given.append(self.of(kind, scope))
            trust = self.random.choice(("", "untrusted ", "untrusted ", "measured "))
            mutable = "mut " if isinstance(kind, RecordRef) and self.chance(0.3) else ""
            parameters.append(f"p{len(parameters)}: {mutable}{trust if not mutable else ''}{show(kind)}")
            inner.append((f"p{len(inner)}", kind))
        result = self.random.choice((Unit(), Unit(), U64, U64, BOOL, Bytes()))
        arrow = f" -> {self.random.choice(('', '', 'untrusted '))}{show(result)}"
        arrow = "" if isinstance(result, Unit) else arrow
        body = []
        for _ in range(self.random.choice((1, 1, 2))):
            body += self.statement(tuple(inner), 1) if self.chance(0.8) else self.print((), 0)
        if not isinstance(result, Unit):
            body.append(f"return {self.of(result, tuple(inner))}")
        lines = [f"flow {name}({', '.join(parameters)}){arrow}{' fails' if fails else ''} {{"]
        self.flows += [*lines, *("    " + line for line in body), "}"]
        return name, result, f"{name}({', '.join(given)})"

    # ---- what the VMM chose, and what follows from it

    def answer(self, scope: Scope) -> tuple[list[str], str]:
        """Lines that bring a number of the VMM's, and its name."""
        sources = [p for p in self.primitives if from_vmm(p) and isinstance(p.result, Scalar)]
        reads = [p for p in sources if "port" in (q.name for q in p.parameters)]
        primitive = self.random.choice(reads or sources)
        name = self.name()
        return [f"let {name} = {self.made(primitive, scope)}"], name

    def following(self, name: str, way: str) -> tuple[list[str], str]:
        """Lines that make a number follow from another in one of WAYS, and its name."""
        first, second = self.random.sample(SMALL, 2)
        self.favoured = name
        condition = self.condition((), 0)
        self.favoured = ""
        made = self.name()
        start = f"let {made} = {first}"
        match way:
            case "direct":
                return [f"require {name} <= {self.random.choice((7, 8, 64))}"], name
            case "result":
                return [f"let {made} = {self.returning(self.random.choice(('p0', 'p0 & 7')))}({name})?"], made
            case "branch":
                other = self.chance(0.3)
                tail = ["} else {", *["    " + line for line in self.print((), 0)], "}"] if other else ["}"]
                return [start, f"if {condition} {{", f"    {made} = {second}", *tail], made
            case "match":
                arm = f"    {self.random.choice(SMALL)} -> {{ {made} = {second} }}"
                arms = [arm, '    _ -> { print "." }']
                return [start, f"match {name} {{", *arms, "}"], made
            case "error":
                sides = [f"    {made} = {second}"], self.print((), 0)
                yes, no = sides if self.chance(0.5) else sides[::-1]
                return [start, f"try {self.checking()}({name}) {{", *yes, "} on _ {", *no, "}"], made
        if self.chance(0.5):
            return [f"let {made} = if {condition} {{ {first} }} else {{ {second} }}"], made
        arm = self.random.choice(SMALL)
        return [f"let {made} = match {name} {{ {arm} -> {{ {first} }} _ -> {{ {second} }} }}"], made

    def returning(self, what: str) -> str:
        """A flow that returns something of the number that it is given; its name."""
        flow, trust = self.name(), self.random.choice(("", "", "untrusted "))
        check = [f"    require p0 <= {self.random.choice((8, 64))}"] if self.chance(0.8) else []
        head = f"flow {flow}(p0: untrusted u64) -> {trust}u64 fails {{"
        self.flows += [head, *check, f"    return {what}", "}"]
        return flow

    def checking(self) -> str:
        """A flow that fails or not as the number is that it is given; its name."""
        flow, limit = self.name(), self.random.choice(SMALL)
        body = self.random.choice(
            (
                [f"require p0 <= {limit}"],
                [f"require p0 == {limit}"],
                [f"if p0 != {limit} {{", f"    fail {self.random.choice(self.errors)}", "}"],
                [f"let q0 = {limit} - p0", "require q0 <= 8"],
                [f"let q0 = p0 - {limit}", "require q0 <= 4096"],
            )
        )
        lines = [f"flow {flow}(p0: untrusted u64) fails {{", *("    " + line for line in body), "}"]
        self.flows += lines
        return flow
